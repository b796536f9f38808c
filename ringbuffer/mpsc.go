// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"iter"
	"math"
	"math/bits"
	"sync/atomic"

	"golang.org/x/sys/cpu"
)

// Unbounded is the bound of an [MPSC] that accepts items until memory ends.
const Unbounded = math.MaxInt

// # Layout of MPSC
//
//	word   written by                    meaning
//	tail   producers, Close              the segment that is being filled, or one before it
//	head   the first producer; consumer  the segment that is being emptied
//	block  the consumer                  the block of head that is being emptied
//	room   see quota                     noLimit if there is no bound
//
// The words that change with every item are in the segment; those in the queue itself change
// once a segment, so they need no padding from each other and an idle queue is 48 bytes.

// MPSC is a queue for any number of producers and one consumer. An unused MPSC holds no slots.
// The first push allocates a segment of 16; each further segment doubles, up to 1024 slots or
// 64 KiB, so 100,000 queues that are hardly used cost little, and nothing is copied to grow.
// Segments get smaller again when the consumer keeps up. The garbage collector takes those that
// are used up; an empty queue keeps the last one. Producers are lock-free, and wait-free apart
// from the bound and from growing. Items of one producer come out in the order in which it pushed
// them.
//
// The zero value has no room: every push reports [ErrFull]. [NewMPSC] makes one that is useful.
// TryPop, PopN, Pop, Drain and Receive belong to the consumer, as with [SPSC]; all other methods
// may be called by any goroutine. No goroutine belongs to the queue. Slots hold items by value,
// and the first segment has 16 whatever their size: use pointers to items of many kilobytes. An
// MPSC must not be copied.
type MPSC[T any] struct {
	tail     atomic.Pointer[segment[T]]
	head     atomic.Pointer[segment[T]]
	block    int
	consumer guard
	room     *quota
	notEmpty gate // the consumer sleeps here
}

// quota keeps a bound: admitted-taken items are in the queue or on their way into it.
type quota struct {
	bound    uint64
	notFull  gate // producers sleep here
	_        cpu.CacheLinePad
	admitted atomic.Uint64 // written by producers
	_        cpu.CacheLinePad
	taken    atomic.Uint64 // written by the consumer
	_        cpu.CacheLinePad
}

// noLimit stands for the quota of an unbounded queue. It is not nil, so that a zero MPSC does not
// swallow memory.
var noLimit = new(quota)

// NewMPSC returns a queue that holds at most bound items, exactly; [Unbounded] takes the limit
// away. It panics if bound is not positive.
func NewMPSC[T any](bound int) *MPSC[T] {
	if bound <= 0 {
		panic("ringbuffer: the bound must be positive")
	}
	q := &MPSC[T]{notEmpty: newGate(), room: noLimit}
	if bound != Unbounded {
		q.room = &quota{bound: uint64(bound), notFull: newGate()}
	}
	return q
}

// Cap returns the bound.
func (q *MPSC[T]) Cap() int {
	switch q.room {
	case nil:
		return 0
	case noLimit:
		return Unbounded
	}
	return int(q.room.bound)
}

// Len returns the number of items as [SPSC.Len] does, counting those that are being pushed. It
// takes constant time.
func (q *MPSC[T]) Len() int {
	if q.tail.Load() == nil {
		return 0
	}
	return distance(
		func() uint64 {
			s := q.head.Load()
			return s.base + s.taken()
		},
		func() uint64 {
			s := q.tail.Load()
			for next := s.next.Load(); next != nil; next = s.next.Load() {
				s = next // tail may lag behind, by the segment that is being linked
			}
			return s.base + s.claimed()
		})
}

// admit takes up to n places from the quota and returns how many it got.
func (r *quota) admit(n uint64) uint64 {
	if r == nil {
		return 0
	}
	for round := 0; ; round++ {
		a := r.admitted.Load()
		// Never more than bound are in use. A stale a can lie behind taken: the sum then is above
		// bound and does not overflow, unlike a signed one, and the swap fails.
		n := min(n, r.bound+r.taken.Load()-a)
		if n == 0 || r.admitted.CompareAndSwap(a, a+n) {
			return n
		}
		lost(round)
	}
}

// TryPush adds v if the bound allows it. It does not wait. It returns [ErrFull], or [ErrClosed]
// after Close.
func (q *MPSC[T]) TryPush(v T) error {
	if q.room != noLimit && q.room.admit(1) == 0 {
		return q.fullOrClosed()
	}
	s := q.last()
	for {
		// The add gives each producer a slot of its own, in one instruction that cannot fail.
		c := s.claims.Add(1) - 1
		if c&closedBit != 0 {
			q.turnedAway(s, 1, 1)
			return ErrClosed
		}
		if i := c & claimMask; i < s.size() {
			s.set(i, v)
			q.notEmpty.wake()
			return nil
		}
		s = q.grow(s)
	}
}

// PushN adds items of vs, in order, as far as the bound allows, with one claim for each segment
// that they touch and one publication for each block. It does not wait. It returns how many it
// added; when that is less than len(vs), the error is [ErrFull] or [ErrClosed]. Items of other
// producers may come between them.
func (q *MPSC[T]) PushN(vs []T) (int, error) {
	if len(vs) == 0 {
		return 0, nil
	}
	all := len(vs)
	if q.room != noLimit {
		// Places in the bound come first: a claimed slot cannot be given back, since the
		// consumer waits for it and others may have claimed behind it.
		n := q.room.admit(uint64(len(vs)))
		if n == 0 {
			return 0, q.fullOrClosed()
		}
		vs = vs[:n]
	}
	done := 0
	for s := q.last(); done < len(vs); {
		// A segment that is full goes on counting claims. Asking for no more than it ever held
		// keeps that count from running into the bits above it, however long vs is.
		n := min(uint64(len(vs)-done), max(s.size(), 1))
		c := s.claims.Add(n) - n
		if c&closedBit != 0 {
			q.turnedAway(s, n, uint64(len(vs)-done))
			return done, ErrClosed
		}
		i := c & claimMask
		if i >= s.size() {
			s = q.grow(s) // the claims beyond the end harm nobody; claim again in the next one
			continue
		}
		// The claim may reach beyond the end. What fits is ours; the rest goes on in the next
		// segment, where other producers may be first.
		n = min(n, s.size()-i)
		s.setN(i, vs[done:done+int(n)])
		// Woken here and not once at the end: the consumer may take these while the next
		// segment is being made.
		q.notEmpty.wake()
		done += int(n)
	}
	if done < all {
		return done, ErrFull
	}
	return done, nil
}

// turnedAway takes back claims made on a closed segment, so that they do not run into the bits
// above, and the places that were admitted for items that did not get in.
func (q *MPSC[T]) turnedAway(s *segment[T], claims, places uint64) {
	s.claims.Add(-claims)
	if q.room != noLimit {
		q.room.admitted.Add(-places)
	}
}

// last returns the segment to fill, making the first one if need be.
func (q *MPSC[T]) last() *segment[T] {
	if s := q.tail.Load(); s != nil {
		return s
	}
	return q.begin()
}

// begin makes the first segment. head decides which goroutine's it is. As long as tail is nil
// nobody can have appended to that segment, so head cannot have left it.
func (q *MPSC[T]) begin() *segment[T] {
	if q.head.Load() == nil { // else a segment would be made for nothing
		q.head.CompareAndSwap(nil, newSegment[T](1, 0))
	}
	q.tail.CompareAndSwap(nil, q.head.Load())
	return q.tail.Load()
}

// grow returns the segment behind the full segment s.
func (q *MPSC[T]) grow(s *segment[T]) *segment[T] {
	n := s.next.Load()
	if n == nil {
		n = s.append(newSegment[T](q.blocksAfter(s), s.end()))
	}
	// A lost swap means that another producer has moved tail, there or further.
	q.tail.CompareAndSwap(s, n)
	return n
}

// blocksAfter chooses the size of the next segment: half of this one if the consumer has nearly
// emptied it already, the same if it has begun to, twice as many if it has not.
func (q *MPSC[T]) blocksAfter(s *segment[T]) int {
	// Reading two counts of the consumer costs a line transfer, once a segment.
	n := len(s.blocks)
	switch {
	case q.head.Load() != s || s.blocks[0].taken.Load() == 0:
		return min(2*n, maxBlocksOf[T]())
	case s.blocks[n*3/4].taken.Load() > 0:
		return max(n/2, 1)
	}
	return n
}

// Push adds v, waiting for the bound as long as needed. It returns [ErrClosed] if the queue is
// or gets closed, or the cause of ctx if that ends first; v was not added then. A push that needs
// no waiting does not look at ctx.
func (q *MPSC[T]) Push(ctx context.Context, v T) error {
	err := q.TryPush(v)
	// A zero queue has no gate to wait at: it stays full.
	if err == ErrFull && q.room != nil {
		r := q.room
		if werr := r.notFull.wait(ctx, func() bool {
			err = q.TryPush(v)
			return err != ErrFull
		}); werr != nil {
			return werr
		}
		// The duty of a goroutine that came through the slow path; see wait.go.
		if int64(r.admitted.Load()-r.taken.Load()) < int64(r.bound) {
			r.notFull.wake()
		}
	}
	return err
}

func (q *MPSC[T]) fullOrClosed() error {
	// The closed bit is in the last segment, which tail may not have reached yet.
	s := q.tail.Load()
	for s != nil {
		if s.claims.Load()&closedBit != 0 {
			return ErrClosed
		}
		s = s.next.Load()
	}
	return ErrFull
}

// TryPop takes the oldest item. It never blocks. It returns [ErrEmpty] if there is none, or if
// the oldest one is still being pushed; [ErrClosed] when the queue is closed and all its items
// have been taken.
func (q *MPSC[T]) TryPop() (v T, err error) {
	if debugging {
		q.consumer.enter("consumer")
		defer q.consumer.leave()
	}
	b, i := q.oldest()
	if b == nil || b.ready.Load()>>i&1 == 0 {
		// Later slots may be ready. They wait, since items come out in the order of their slots.
		return v, q.emptyOrClosed(i)
	}
	v = b.slots[i]
	clearSlot(&b.slots[i])
	b.taken.Store(i + 1)
	q.giveBack(1)
	return v, nil
}

// oldest returns the block and the index in it of the oldest slot that was not taken, going on
// to the next block or segment if need be. The block is nil if there is no such slot yet.
func (q *MPSC[T]) oldest() (*block[T], uint32) {
	s := q.head.Load()
	for s != nil {
		for q.block < len(s.blocks) {
			b := &s.blocks[q.block]
			if i := b.taken.Load(); i < blockSize {
				return b, i
			}
			q.block++
		}
		// Moving head lets go of the old segment: the collector takes it when the last producer
		// that still looks at it has gone on.
		if s = s.next.Load(); s != nil {
			q.block = 0
			q.head.Store(s)
		}
	}
	return nil, 0
}

// emptyOrClosed tells the two apart when slot i of the block, the oldest one, is not ready. It
// is the end if that slot was not even claimed when the closed bit was set. The caller may have
// found no segment, and the first one may have been made, filled and closed since: then the
// count is not 0.
func (q *MPSC[T]) emptyOrClosed(i uint32) error {
	s := q.head.Load()
	if s == nil {
		return ErrEmpty
	}
	c := s.claims.Load()
	if c&closedBit == 0 {
		return ErrEmpty
	}
	// Slots that were claimed before Close will be filled: it is not the end before they are taken.
	if c>>sealShift&sealMask == uint64(q.block)*blockSize+uint64(i) {
		return ErrClosed
	}
	return ErrEmpty
}

// giveBack returns n places to the quota.
func (q *MPSC[T]) giveBack(n int) {
	// After the slot was cleared. Only the consumer writes taken, so load and store are no race.
	if r := q.room; r != noLimit {
		r.taken.Store(r.taken.Load() + uint64(n))
		r.notFull.wake()
	}
}

// PopN moves up to len(dst) of the oldest items into dst, with one atomic write per 16 of them,
// and returns how many. It never blocks. The error is nil if at least one was taken or dst is
// empty, else [ErrEmpty] or [ErrClosed].
func (q *MPSC[T]) PopN(dst []T) (int, error) {
	if debugging {
		q.consumer.enter("consumer")
		defer q.consumer.leave()
	}
	if len(dst) == 0 {
		return 0, nil
	}
	done := 0
	for done < len(dst) {
		b, i := q.oldest()
		n := 0
		if b != nil {
			// As many as are ready in a row.
			n = min(bits.TrailingZeros32(^(b.ready.Load() >> i)), len(dst)-done)
		}
		if n == 0 {
			if done == 0 {
				return 0, q.emptyOrClosed(i)
			}
			break
		}
		// One store of taken for the whole run.
		from := b.slots[i : int(i)+n]
		copy(dst[done:], from)
		clear(from)
		b.taken.Store(i + uint32(n))
		done += n
	}
	q.giveBack(done)
	return done, nil
}

// Pop takes the oldest item, waiting for one as long as needed. It returns [ErrClosed] when the
// queue is closed and drained, or the cause of ctx if that ends first. A pop that needs no
// waiting does not look at ctx.
func (q *MPSC[T]) Pop(ctx context.Context) (T, error) {
	v, err := q.TryPop()
	if err == ErrEmpty {
		if werr := q.notEmpty.wait(ctx, func() bool {
			v, err = q.TryPop()
			return err != ErrEmpty
		}); werr != nil {
			return v, werr
		}
	}
	return v, err
}

// Close ends the queue: pushes fail from now on, pops drain what was accepted. It wakes all
// waiting goroutines. It may be called from any goroutine, also more than once, and always
// returns nil.
func (q *MPSC[T]) Close() error {
	s := q.last()
	for {
		c := s.claims.Load()
		if c&closedBit != 0 {
			break
		}
		if n := c & claimMask; n < s.size() {
			// The count of good claims is kept beside the bit: claims go on being counted in
			// the lower half until each producer has taken its own back.
			if s.claims.CompareAndSwap(c, closedBit|n<<sealShift|n) {
				break
			}
			continue
		}
		// Producers may already be on their way past a full segment. A sealed one behind it
		// stops them, unless one of them was faster and linked a segment to fill.
		n := s.next.Load()
		if n == nil {
			n = s.append(sealed[T](s.end()))
		}
		q.tail.CompareAndSwap(s, n)
		s = n
	}
	q.notEmpty.wakeAll()
	if q.room != nil {
		q.room.notFull.wakeAll() // noLimit has no sleepers
	}
	return nil
}

// Drain iterates over the items that are there and those that come while it runs, taking each out.
// It ends when it finds none ready; it does not wait. An item that was yielded is gone, also
// when the loop is left early.
func (q *MPSC[T]) Drain() iter.Seq[T] { return drain(q.TryPop) }

// Receive is like Drain, but waits for items: it ends when the queue is closed and drained, or
// when ctx ends, and so takes the place of ranging over a channel. Items that are there when ctx
// ends stay there.
func (q *MPSC[T]) Receive(ctx context.Context) iter.Seq[T] {
	return drain(untilDone(ctx, q.Pop))
}
