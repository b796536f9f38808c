// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"iter"
	"math/bits"
	"sync/atomic"

	"golang.org/x/sys/cpu"
)

// # Layout of MPMC
//
// Positions are as in SPSC. Claiming a position and filling (or emptying) its slot are two
// steps, so each slot has a bit that says whether it holds an item; 32 bits share a word, and
// each word has a cache line of its own.
//
//	word      written by           meaning
//	tail      producers, Close     next position to claim for filling; bit 63: closed
//	headSeen  producers            a past value of head
//	head      consumers            next position to claim for taking
//	tailSeen  consumers            a past value of tail
//	full[i]   the slot's claimer  bit set: slot holds an item
//
// Push of position t, in this order: read tail = t; see head > t-Cap; see the bit clear; swap
// tail to t+1; write the slot; set the bit. Pop of position h: read head = h; see tail > h; see
// the bit set; swap head to h+1; take and clear the slot; clear the bit.
//
// Why that is enough. head > t-Cap means that the previous tenant of the slot, position t-Cap,
// was claimed by a consumer that had seen the bit set. A bit seen clear after that was cleared
// by that consumer, when it was done with the slot; and it was not set again, since only the
// claimer of t does that, and the successful swap proves that t was unclaimed until now. In the
// same way tail > h means that position h was claimed by a producer that saw the bit clear, so a
// bit seen set afterwards was set for h. Without the look at the other side's position the bit
// alone could be the one of the previous round: this is what a sequence number per slot encodes
// in other designs, at the price of a store per slot, where a batch here is published with one
// add per 32 slots. Each bit has one owner at a time, so adding and subtracting it never
// carries into its neighbours.
//
// Reading or writing a slot lies between the owner's claim and its change of the bit, and the
// next owner looks at the bit first: every slot access is ordered by atomics.

// slotGroup is the word of 32 slots. The padding behind it keeps two words from
// sharing a cache line, so that producers and consumers in different groups never meet.
type slotGroup struct {
	full atomic.Uint32
	_    cpu.CacheLinePad
}

const groupSize = 32

// MPMC is a bounded queue for any number of producers and consumers. There is no lock: a
// goroutine that is preempted between claiming a slot and publishing it delays the consumers of
// that slot and of those behind it, but no producer until the ring has gone around, and nobody
// waits for a critical section but to park or to wake a sleeper. Items of one producer come out in
// the order in which it pushed them.
//
// The zero value has no room: every push finds it full. [NewMPMC] makes one that is useful. All
// methods may be called by any goroutine. An MPMC must not be copied.
type MPMC[T any] struct {
	_        cpu.CacheLinePad
	tail     atomic.Uint64
	headSeen atomic.Uint64
	_        cpu.CacheLinePad
	head     atomic.Uint64
	tailSeen atomic.Uint64
	_        cpu.CacheLinePad
	slots    []T
	groups   []slotGroup
	notEmpty gate // consumers sleep here
	notFull  gate // producers sleep here
	_        cpu.CacheLinePad
}

// NewMPMC returns a queue with room for capacity items, rounded up to a power of two. It panics
// if capacity is not positive or is larger than a quarter of the int range.
func NewMPMC[T any](capacity int) *MPMC[T] {
	n := roundUp(capacity)
	return &MPMC[T]{
		slots:    make([]T, n),
		groups:   make([]slotGroup, (n+groupSize-1)/groupSize),
		notEmpty: newGate(),
		notFull:  newGate(),
	}
}

// Cap returns the number of items that fit.
func (q *MPMC[T]) Cap() int { return len(q.slots) }

// Len returns the number of items as [SPSC.Len] does, counting those that are being pushed and
// not those that are being popped.
func (q *MPMC[T]) Len() int { return length(&q.head, &q.tail) }

// TryPush adds v if there is room. It does not wait: a swap lost to another producer is
// repeated, so [ErrFull] means full (a slot whose consumer has not yet let go of it counts as
// full), never contended. After Close it returns [ErrClosed].
func (q *MPMC[T]) TryPush(v T) error {
	for round := 0; ; round++ {
		// The order of the three looks is the argument on top of this file.
		t := q.tail.Load()
		if t&closedBit != 0 {
			return ErrClosed
		}
		if !q.hasRoom(t) {
			return ErrFull
		}
		i := t & uint64(len(q.slots)-1)
		word, bit := &q.groups[i/groupSize].full, uint32(1)<<(i%groupSize)
		if word.Load()&bit != 0 {
			// Full only if the bit is the one of the previous tenant, whose consumer is not done.
			if q.tail.Load() == t {
				return ErrFull
			}
			continue // the bit is that of a faster producer
		}
		if q.tail.CompareAndSwap(t, t+1) {
			q.slots[i] = v
			word.Add(bit) // publishes the slot; an add, as other bits of the word change too
			q.notEmpty.wake()
			return nil
		}
		lost(round)
	}
}

// hasRoom reports whether position t may be filled as far as the consumers' claims go. A stale t
// can lie behind headSeen; the signed comparison lets it pass, and the swap then fails.
func (q *MPMC[T]) hasRoom(t uint64) bool {
	return int64(t-q.headSeen.Load()) < int64(len(q.slots)) || q.roomAfterLook(t) > 0
}

// roomAfterLook fetches the consumers' position.
func (q *MPMC[T]) roomAfterLook(t uint64) int64 {
	h := q.head.Load()
	q.headSeen.Store(h) // an older value from a slower producer is still a true one
	return int64(len(q.slots)) - int64(t-h)
}

// hasItem reports whether position h may be taken as far as the producers' claims go.
func (q *MPMC[T]) hasItem(h uint64) bool {
	return int64(q.tailSeen.Load()-h) > 0 || q.itemsAfterLook(h) > 0
}

// itemsAfterLook fetches the producers' position.
func (q *MPMC[T]) itemsAfterLook(h uint64) int64 {
	// As with headSeen: an older value from a slower consumer errs on the safe side.
	t := q.tail.Load() &^ closedBit
	q.tailSeen.Store(t)
	return int64(t - h)
}

// lost passes a moment after a lost swap, so that the winner can finish with the line. It grows
// with the number of losses in a row.
func lost(round int) { idle(8 << min(round, 6)) }

// PushN adds items of vs, in order and next to each other, as long as there is room; one swap
// claims them and one add per 32 slots publishes them. It does not wait. It returns how
// many it added; when that is less than len(vs), the error is [ErrFull] or [ErrClosed].
func (q *MPMC[T]) PushN(vs []T) (int, error) {
	if len(vs) == 0 {
		return 0, nil
	}
	for round := 0; ; round++ {
		t := q.tail.Load()
		if t&closedBit != 0 {
			return 0, ErrClosed
		}
		room := int64(len(q.slots)) - int64(t-q.headSeen.Load())
		if room < int64(len(vs)) {
			room = q.roomAfterLook(t)
		}
		n := 0
		if room > 0 { // at most Cap, unless t is stale: then the swap fails
			n = q.run(t, min(int(min(room, int64(len(q.slots)))), len(vs)), 0)
		}
		if n == 0 {
			if q.tail.Load() == t {
				return 0, ErrFull
			}
			continue // t was stale
		}
		if q.tail.CompareAndSwap(t, t+uint64(n)) {
			put(q.slots, t, vs[:n])
			q.flip(t, n, false)
			// One token for n items: the consumer that takes the first wakes the next sleeper.
			q.notEmpty.wake()
			if n < len(vs) {
				return n, ErrFull
			}
			return n, nil
		}
		lost(round)
	}
}

// run returns how many of the n slots from position p on, counted from the first, have their
// bit equal to that of want, which is all zeros or all ones.
func (q *MPMC[T]) run(p uint64, n int, want uint32) int {
	got := 0
	for got < n {
		i := int((p + uint64(got)) & uint64(len(q.slots)-1))
		other := (q.groups[i/groupSize].full.Load() ^ want) >> (i % groupSize)
		// Not beyond the word, the end of the ring, or what was asked for.
		span := min(groupSize-i%groupSize, len(q.slots)-i, n-got)
		k := min(bits.TrailingZeros32(other), span)
		got += k
		if k < span {
			break
		}
	}
	return got
}

// flip changes the bits of n slots from position p on, which the caller has claimed. It clears
// them if they are full and sets them if they are not.
func (q *MPMC[T]) flip(p uint64, n int, full bool) {
	for n > 0 {
		i := int(p & uint64(len(q.slots)-1))
		span := min(groupSize-i%groupSize, len(q.slots)-i, n)
		delta := (^uint32(0) >> (groupSize - span)) << (i % groupSize)
		if full {
			delta = -delta // the bits are set, so subtracting borrows from none of their neighbours
		}
		q.groups[i/groupSize].full.Add(delta)
		p, n = p+uint64(span), n-span
	}
}

// Push adds v, waiting for room as long as needed. It returns [ErrClosed] if the queue is or
// gets closed, or the cause of ctx if that ends first; v was not added then. A push that needs
// no waiting does not look at ctx.
func (q *MPMC[T]) Push(ctx context.Context, v T) error {
	err := q.TryPush(v)
	if err == ErrFull {
		werr := q.notFull.wait(ctx, func() bool {
			err = q.TryPush(v)
			return err != ErrFull
		})
		if werr != nil {
			return werr
		}
		q.passRoom()
	}
	return err
}

// passRoom is the duty of a producer that came through the slow path: if the next slot is free
// too, the next sleeper is woken. When a fast-path push moves the tail under its eyes it looks
// again, since that push looks at nothing.
func (q *MPMC[T]) passRoom() {
	// Nobody to wake is the common case, and costs one load.
	for q.notFull.sleepers.Load() != 0 {
		t := q.tail.Load()
		if t&closedBit != 0 {
			return // Close wakes everybody, and nobody sleeps again
		}
		if q.roomAfterLook(t) > 0 && q.run(t, 1, 0) == 1 {
			q.notFull.wake()
			return
		}
		if q.tail.Load() == t {
			return
		}
	}
}

// TryPop takes the oldest item. It does not wait: a swap lost to another consumer is repeated.
// It returns [ErrEmpty] if there is none, or if the oldest one is still being pushed;
// [ErrClosed] when the queue is closed and all its items have been taken.
func (q *MPMC[T]) TryPop() (v T, err error) {
	for round := 0; ; round++ {
		h := q.head.Load()
		// The look at tail tells the item of this round from that of the previous one.
		if !q.hasItem(h) {
			return v, q.emptyOrClosed(h)
		}
		i := h & uint64(len(q.slots)-1)
		word, bit := &q.groups[i/groupSize].full, uint32(1)<<(i%groupSize)
		if word.Load()&bit == 0 {
			if q.head.Load() == h {
				return v, ErrEmpty
			}
			continue // a faster consumer has emptied the slot
		}
		if q.head.CompareAndSwap(h, h+1) {
			v = q.slots[i]
			clearSlot(&q.slots[i])
			word.Add(-bit) // gives the slot to the producers
			q.notFull.wake()
			return v, nil
		}
		lost(round)
	}
}

// emptyOrClosed tells the two apart. No position at or after h had been claimed by a producer
// when the caller looked; with the closed bit set, none ever will be beyond what tail says now.
func (q *MPMC[T]) emptyOrClosed(h uint64) error {
	if t := q.tail.Load(); t&closedBit != 0 && int64(t&^closedBit-h) <= 0 {
		return ErrClosed
	}
	return ErrEmpty
}

// PopN moves up to len(dst) of the oldest items into dst, which are neighbours in the queue, and
// returns how many; one swap claims them. It does not wait. The error is nil if at least one was
// taken or dst is empty, else [ErrEmpty] or [ErrClosed].
func (q *MPMC[T]) PopN(dst []T) (int, error) {
	if len(dst) == 0 {
		return 0, nil
	}
	for round := 0; ; round++ {
		h := q.head.Load()
		items := int64(q.tailSeen.Load() - h) // negative if h is ahead of an old tailSeen
		if items < int64(len(dst)) {
			items = q.itemsAfterLook(h)
		}
		if items <= 0 {
			return 0, q.emptyOrClosed(h)
		}
		n := q.run(h, min(int(min(items, int64(len(q.slots)))), len(dst)), ^uint32(0))
		if n == 0 {
			if q.head.Load() == h {
				return 0, ErrEmpty // the oldest item is still being pushed
			}
			continue // h was stale
		}
		if q.head.CompareAndSwap(h, h+uint64(n)) {
			// The claim is ours, so there is time: nobody else touches these slots until the flip.
			take(q.slots, h, dst[:n])
			q.flip(h, n, true)
			q.notFull.wake()
			return n, nil
		}
		lost(round)
	}
}

// Pop takes the oldest item, waiting for one as long as needed. It returns [ErrClosed] when the
// queue is closed and drained, or the cause of ctx if that ends first. A pop that needs no
// waiting does not look at ctx.
func (q *MPMC[T]) Pop(ctx context.Context) (T, error) {
	v, err := q.TryPop()
	if err == ErrEmpty {
		werr := q.notEmpty.wait(ctx, func() bool {
			v, err = q.TryPop()
			return err != ErrEmpty
		})
		if werr != nil {
			return v, werr
		}
		q.passItem()
	}
	return v, err
}

// passItem is the duty of a consumer that came through the slow path: if the next item is ready
// too, or if there will be none, the next sleeper is woken. When a fast-path pop moves the head
// under its eyes it looks again, since that pop looks at nothing.
func (q *MPMC[T]) passItem() {
	for q.notEmpty.sleepers.Load() != 0 {
		h := q.head.Load()
		// The look at tail before the bit, as in TryPop: the bit may be one of the last round.
		ready := q.itemsAfterLook(h) > 0 && q.run(h, 1, ^uint32(0)) == 1
		if ready || q.emptyOrClosed(h) == ErrClosed {
			q.notEmpty.wake()
			return
		}
		if q.head.Load() == h {
			return
		}
	}
}

// Close ends the queue: pushes fail from now on, pops drain what was accepted. It wakes all
// waiting goroutines. It may be called from any goroutine, also more than once, and always
// returns nil.
func (q *MPMC[T]) Close() error {
	q.tail.Or(closedBit)
	q.notEmpty.wakeAll()
	q.notFull.wakeAll()
	return nil
}

// Drain iterates over the items that are there and those that come while it runs, taking each out.
// It ends when it finds none ready; it does not wait. An item that was yielded is gone, also
// when the loop is left early. Several goroutines may iterate at once and share the items.
func (q *MPMC[T]) Drain() iter.Seq[T] { return drain(q.TryPop) }

// Receive is like Drain, but waits for items: it ends when the queue is closed and drained, or
// when ctx ends, and so takes the place of ranging over a channel. Items that are there when ctx
// ends stay there.
func (q *MPMC[T]) Receive(ctx context.Context) iter.Seq[T] {
	return drain(untilDone(ctx, q.Pop))
}
