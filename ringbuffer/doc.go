// SPDX-License-Identifier: Apache-2.0

// Package ringbuffer offers queues between goroutines that move items and bytes without a lock:
// where a channel's lock is too slow, a batch should move at once, an end must be told apart from
// an empty moment, or bytes should be filled in and read out in place.
//
//	type            producers  consumers  bounded by
//	[SPSC] of T     1          1          items, a power of two
//	[MPMC] of T     any        any        items, a power of two
//	[MPSC] of T     any        1          items, any number, or nothing; grows from 16 slots
//	[Bytes]         1          1          bytes, a power of two; io.Reader, io.Writer, in place
//	[Linked]        1          1          bytes; grows by pooled chunks, never copies to grow
//
// Use a channel instead where a select over several queues is needed, where a few hundred
// thousand items a second pass, or where items must be handed over one by one (an unbuffered
// channel). Use a bytes.Buffer where one goroutine does everything.
//
//	q := ringbuffer.NewSPSC[int](1024)
//	go func() {
//		defer q.Close()
//		_ = q.Push(ctx, 42)
//	}()
//	for v := range q.Receive(ctx) {
//		fmt.Println(v)
//	}
//
// Each type has a constructor; a zero value has no room. Forms that begin with Try, and PushN
// and PopN, never wait; Push, Pop, Read, Write and those with a context wait: they spin for
// about two microseconds (those of the byte buffers do not), yield, then park, and lose no
// wakeup (see wait.go for the argument). The only lock is
// that of the list of parked goroutines: a goroutine takes it to park, or to wake one.
// Close may be called at any moment
// by anybody; what was accepted before it can be drained after it, and nothing is accepted
// later. A wait that ends with its context returns [context.Cause] of it, "the cause of ctx"
// below. Which methods may run together is said at each type: "the producer" is one goroutine
// at a time.
//
// No goroutine belongs to a ring, and nothing needs to be stopped; a ring that is dropped is
// garbage. Slots are cleared when an item is taken. After the first wait, no method of SPSC,
// MPMC and Bytes allocates, as long as no more than eight goroutines wait on one side; MPSC
// allocates a segment per 16 to 1024 items; Linked what its allocator does.
//
// Two rings follow published designs: the cached remote index of SPSC and Bytes is that of Lee,
// Bu and Chandranmenon (MCRingBuffer, IPDPS 2010); MPSC's claim by fetch-and-add in linked
// arrays is that of Correia and Ramalhete's FAAArrayQueue (2016).
package ringbuffer
