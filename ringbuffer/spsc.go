// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"iter"
	"math/bits"
	"sync/atomic"

	"golang.org/x/sys/cpu"
)

// # Layout of SPSC
//
// Positions count items since the ring was made, are 64 bits wide and never wrap; a slot is a
// position modulo the capacity. head <= tail <= head+Cap always.
//
//	word      written by       read by
//	tail      producer, Close  both       next position to fill; bit 63: closed
//	headSeen  producer         producer   a past value of head
//	head      consumer         both       next position to take
//	tailSeen  consumer         consumer   a past value of tail
//	slots     the producer in [tail, head+Cap), the consumer in [head, tail)
//
// The producer writes a slot, then tail; the consumer reads tail, then the slot: the store of
// tail publishes the slot. The consumer clears the slot, then writes head; the producer reads
// head, then reuses the slot. head and tail only grow, so the remembered values err on the safe
// side, and a side fetches the other's cache line only when its own knowledge is used up.

// SPSC is a bounded queue for one producer goroutine and one consumer goroutine. Both sides are
// wait-free in their Try and bulk forms, apart from waking a sleeper.
//
// The zero value has no room: every push finds it full. [NewSPSC] makes one that is useful.
// TryPush, PushN and Push belong to the producer; TryPop, PopN, Pop, Drain and Receive to the
// consumer. A side may move to another goroutine only with synchronisation between the two. Two
// goroutines on one side at the same time lose items; the race detector sees it, and a build
// with the tag ringbufferdebug panics. Close, Len and Cap are for everybody. An SPSC must not
// be copied.
type SPSC[T any] struct {
	_        cpu.CacheLinePad
	tail     atomic.Uint64
	headSeen uint64
	producer guard
	_        cpu.CacheLinePad
	head     atomic.Uint64
	tailSeen uint64
	consumer guard
	_        cpu.CacheLinePad
	slots    []T
	notEmpty gate // the consumer sleeps here
	notFull  gate // the producer sleeps here
	_        cpu.CacheLinePad
}

// NewSPSC returns a queue with room for capacity items, rounded up to a power of two. It panics
// if capacity is not positive or is larger than a quarter of the int range.
func NewSPSC[T any](capacity int) *SPSC[T] {
	return &SPSC[T]{slots: make([]T, roundUp(capacity)), notEmpty: newGate(), notFull: newGate()}
}

// roundUp returns the smallest power of two that is not below capacity, and checks it.
func roundUp(capacity int) int {
	if capacity <= 0 || capacity > maxCapacity {
		panic("ringbuffer: the capacity must be positive and at most a quarter of the int range")
	}
	return 1 << bits.Len(uint(capacity-1))
}

// Cap returns the number of items that fit.
func (q *SPSC[T]) Cap() int { return len(q.slots) }

// Len returns the number of items at some moment during the call; while others are busy it may
// miss what passed during a reading of two words. It never waits for them. Only what the calling
// side itself can change stays true: for the consumer it is a lower bound, for the producer an
// upper one.
func (q *SPSC[T]) Len() int { return length(&q.head, &q.tail) }

func length(head, tail *atomic.Uint64) int {
	return distance(head.Load, func() uint64 { return tail.Load() & countMask })
}

// distance returns tail minus head, two positions that only grow.
//
// It reads tail while head stands still: without the second look at head, everything that passed
// between the two readings would count, and after a pause that may be more than ever was in the
// queue. It does not insist, since other goroutines may move head for as long as they like: the
// last answer counts what tail was then and head is now, which is less by no more than passed
// between two readings.
func distance(head, tail func() uint64) int {
	h := head()
	for tries := 0; ; tries++ {
		t := tail()
		now := head()
		if now == h {
			return int(t - h)
		}
		if tries == maxLenTries {
			return int(max(int64(t-now), 0))
		}
		h = now
	}
}

const maxLenTries = 4

// TryPush adds v if there is room. It never blocks. It returns [ErrFull], or [ErrClosed] after
// Close.
func (q *SPSC[T]) TryPush(v T) error {
	if debugging {
		q.producer.enter("producer")
		defer q.producer.leave()
	}
	// headSeen may be old, which only makes the ring look fuller than it is. The consumer's line
	// is fetched when that matters. With bit 63 set in t, the difference is large as well.
	t := q.tail.Load()
	if t-q.headSeen >= uint64(len(q.slots)) {
		if err := q.lookForRoom(t); err != nil {
			return err
		}
	}
	slot := &q.slots[t&uint64(len(q.slots)-1)]
	*slot = v
	// Close is the only other writer of tail: a lost swap means closed.
	if !q.tail.CompareAndSwap(t, t+1) {
		clearSlot(slot) // the ring must not keep what it did not accept
		return ErrClosed
	}
	q.notEmpty.wake()
	return nil
}

// lookForRoom fetches the consumer's position.
func (q *SPSC[T]) lookForRoom(t uint64) error {
	if t&closedBit != 0 {
		return ErrClosed
	}
	q.headSeen = q.head.Load()
	if t-q.headSeen >= uint64(len(q.slots)) {
		return ErrFull
	}
	return nil
}

func clearSlot[T any](slot *T) {
	var zero T
	*slot = zero
}

// PushN adds items of vs, in order, as long as there is room, and publishes them with one atomic
// write. It never blocks. It returns how many it added; when that is less than len(vs), the
// error is [ErrFull] or [ErrClosed].
func (q *SPSC[T]) PushN(vs []T) (int, error) {
	if debugging {
		q.producer.enter("producer")
		defer q.producer.leave()
	}
	if len(vs) == 0 {
		return 0, nil
	}
	t := q.tail.Load()
	room := uint64(len(q.slots)) - (t - q.headSeen) // meaningless if closed
	if t&closedBit != 0 || room < uint64(len(vs)) {
		if err := q.lookForRoom(t); err != nil {
			return 0, err
		}
		room = uint64(len(q.slots)) - (t - q.headSeen)
	}
	// All items before one publication: the consumer fetches the position once for all of them.
	n := int(min(room, uint64(len(vs))))
	put(q.slots, t, vs[:n])
	// All or nothing: after a Close in between the consumer may have been told the end already.
	if !q.tail.CompareAndSwap(t, t+uint64(n)) {
		wipe(q.slots, t, n)
		return 0, ErrClosed
	}
	q.notEmpty.wake()
	if n < len(vs) {
		return n, ErrFull
	}
	return n, nil
}

// put copies vs into the slots from position p on, around the end.
func put[T any](slots []T, p uint64, vs []T) {
	n := copy(slots[p&uint64(len(slots)-1):], vs)
	copy(slots, vs[n:])
}

// take copies the slots from position p on into dst and clears them, so that the ring keeps
// nothing reachable.
func take[T any](slots []T, p uint64, dst []T) {
	// Copied and cleared piece by piece, while the lines are in the cache.
	from := slots[p&uint64(len(slots)-1):]
	n := copy(dst, from)
	clear(from[:n])
	from = slots[:copy(dst[n:], slots)]
	clear(from)
}

// wipe clears n slots from position p on.
func wipe[T any](slots []T, p uint64, n int) {
	from := slots[p&uint64(len(slots)-1):]
	if n <= len(from) {
		clear(from[:n])
		return
	}
	clear(from)
	clear(slots[:n-len(from)])
}

// Push adds v, waiting for room as long as needed. It returns [ErrClosed] if the queue is or
// gets closed, or the cause of ctx if that ends first; v was not added then. A push that needs
// no waiting does not look at ctx.
func (q *SPSC[T]) Push(ctx context.Context, v T) error {
	// Tried before ctx is looked at: a queue with room costs no look at the context.
	err := q.TryPush(v)
	if err == ErrFull {
		if werr := q.notFull.wait(ctx, func() bool {
			err = q.TryPush(v)
			return err != ErrFull
		}); werr != nil {
			return werr
		}
	}
	return err
}

// TryPop takes the oldest item. It never blocks. It returns [ErrEmpty], or [ErrClosed] when the
// queue is closed and all its items have been taken.
func (q *SPSC[T]) TryPop() (v T, err error) {
	if debugging {
		q.consumer.enter("consumer")
		defer q.consumer.leave()
	}
	h := q.head.Load()
	if h == q.tailSeen { // all that was seen is taken: only now fetch the producer's line
		if err = q.lookForItems(h); err != nil {
			return v, err
		}
	}
	slot := &q.slots[h&uint64(len(q.slots)-1)]
	v = *slot
	clearSlot(slot) // before head moves: from then on the slot is the producer's
	q.head.Store(h + 1)
	q.notFull.wake()
	return v, nil
}

// lookForItems fetches the producer's position.
func (q *SPSC[T]) lookForItems(h uint64) error {
	// One reading says both how far the producer got and that it will get no further.
	t := q.tail.Load()
	q.tailSeen = t &^ closedBit
	if h != q.tailSeen {
		return nil
	}
	if t&closedBit != 0 {
		return ErrClosed
	}
	return ErrEmpty
}

// PopN moves up to len(dst) of the oldest items into dst, with one atomic write for all of them,
// and returns how many. It never blocks. The error is nil if at least one was taken or dst is
// empty, else [ErrEmpty] or [ErrClosed].
func (q *SPSC[T]) PopN(dst []T) (int, error) {
	if debugging {
		q.consumer.enter("consumer")
		defer q.consumer.leave()
	}
	if len(dst) == 0 {
		return 0, nil
	}
	h := q.head.Load()
	// Look again already when less is known than dst holds, for as large a batch as there is.
	if q.tailSeen-h < uint64(len(dst)) {
		if err := q.lookForItems(h); err != nil {
			return 0, err
		}
	}
	n := int(min(q.tailSeen-h, uint64(len(dst))))
	take(q.slots, h, dst[:n])
	q.head.Store(h + uint64(n))
	q.notFull.wake()
	return n, nil
}

// Pop takes the oldest item, waiting for one as long as needed. It returns [ErrClosed] when the
// queue is closed and drained, or the cause of ctx if that ends first. A pop that needs no
// waiting does not look at ctx.
func (q *SPSC[T]) Pop(ctx context.Context) (T, error) {
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
func (q *SPSC[T]) Close() error {
	// The bit before the wake-ups: a goroutine that announces itself too late to be woken finds
	// it in its second try.
	q.tail.Or(closedBit)
	q.notEmpty.wakeAll()
	q.notFull.wakeAll()
	return nil
}

// Drain iterates over the items that are there and those that come while it runs, taking each out.
// It ends when it finds the queue empty; it does not wait. An item that was yielded is gone,
// also when the loop is left early.
func (q *SPSC[T]) Drain() iter.Seq[T] { return drain(q.TryPop) }

// Receive is like Drain, but waits for items: it ends when the queue is closed and drained, or
// when ctx ends, and so takes the place of ranging over a channel. Items that are there when ctx
// ends stay there.
func (q *SPSC[T]) Receive(ctx context.Context) iter.Seq[T] {
	return drain(untilDone(ctx, q.Pop))
}

func drain[T any](pop func() (T, error)) iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			v, err := pop()
			if err != nil || !yield(v) {
				return
			}
		}
	}
}

// untilDone is a pop that looks at ctx each time: Pop does so only when it waits, and a loop over
// a queue that is never empty would not end with ctx.
func untilDone[T any](ctx context.Context, pop func(context.Context) (T, error)) func() (T, error) {
	done := ctx.Done()
	return func() (v T, err error) {
		select {
		case <-done:
			return v, context.Cause(ctx)
		default:
			return pop(ctx)
		}
	}
}
