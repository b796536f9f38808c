// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"sync"
	"sync/atomic"
)

// batchLen is how many items a worker takes from a queue under one lock.
const batchLen = 16

// batch holds the items a worker took along. Its worker claims them one at a time with one
// uncontended CAS, as the last thing before it runs them; others claim the rest when they have
// nothing to do, when it waits for too long, or when the pool stops.
//
// word is fills<<32 | next<<16 | end: slots [next, end) are unclaimed, and fills tells one filling
// from the next. A goroutine that moves next or end by a CAS owns the slots that it passed. Only
// the owner adds items, and only to an empty batch. mu is held for adding and for stealing, so that
// slots being copied by another worker are not overwritten; the owner's claim needs no lock,
// because only the owner overwrites.
type batch[E any] struct {
	word   atomic.Uint64
	slot   []E // length is how many the worker may take along
	mu     sync.Mutex
	closed bool      // guarded by mu: nothing may be added
	from   *queue[E] // guarded by mu: where the items come from
	seen   uint64    // word at the last look; of the timer's goroutine alone
	_      [64]byte  // the next batch's word must not share a line
}

func newBatch[E any](n int) *batch[E] { return &batch[E]{slot: make([]E, n)} }

const (
	batchNext = 1 << 16
	batchFill = 1 << 32
)

func batchRange(word uint64) (next, end uint32) {
	return uint32(word>>16) & (batchNext - 1), uint32(word) & (batchNext - 1)
}

func (b *batch[E]) len() int {
	next, end := batchRange(b.word.Load())
	return int(end - next)
}

// take claims the oldest item. Only the owner calls it.
func (b *batch[E]) take() (e E, ok bool) {
	for {
		word := b.word.Load()
		i, end := batchRange(word)
		if i >= end {
			return e, false
		}
		// A compare-and-swap and not an addition: the thief and the end of the pool move end
		// meanwhile, and an addition could pass it. Nothing weaker than one atomic
		// read-modify-write will do, since two goroutines may want the same slot.
		if b.word.CompareAndSwap(word, word+batchNext) {
			// The slot is ours alone now. It is cleared so that a task that has ended is not kept
			// alive by the batch.
			var zero E
			e, b.slot[i] = b.slot[i], zero
			return e, true
		}
	}
}

// filledLocked makes slots [0, k), which the owner has written, the batch's items.
func (b *batch[E]) filledLocked(k int, from *queue[E]) {
	b.from = from
	// A store suffices, without comparing: the batch is empty, so no other goroutine has a reason
	// to change the word, and a claim that was prepared for the filling before fails because fills
	// differs.
	b.word.Store((b.word.Load()/batchFill+1)*batchFill | uint64(k))
}

// fill moves up to k of q's oldest items to the empty batch. q is locked, so that the end of the
// pool finds each item in one place or the other. Only the owner calls it.
func (b *batch[E]) fill(q *queue[E], k int) int {
	// The order is queue, then batch, as in putBack. The lock is needed although the batch is
	// empty: a thief may still be copying slots that it claimed.
	b.mu.Lock()
	defer b.mu.Unlock()
	// The end of the pool has emptied this batch and will not come back to it. The items stay in
	// the queue, which it empties as well.
	if b.closed {
		return 0
	}
	if k = q.popLocked(b.slot[:min(k, len(b.slot))]); k > 0 {
		b.filledLocked(k, q)
	}
	return k
}

// claimLocked claims up to k of the newest items into dst, in order.
func (b *batch[E]) claimLocked(dst []E, half bool) int {
	for {
		word := b.word.Load()
		i, end := batchRange(word)
		if i >= end {
			return 0
		}
		k := end - i
		if half {
			k = (k + 1) / 2
		}
		k = min(k, uint32(len(dst)))
		// The newest are taken, from the end: the owner claims at the other side, so the two meet
		// only at the last item.
		if b.word.CompareAndSwap(word, word-uint64(k)) {
			// Copied after the claim. The owner cannot overwrite the slots meanwhile, because it
			// would need mu to fill the batch again.
			var zero E
			for j := range k {
				p := &b.slot[end-k+j]
				dst[j], *p = *p, zero
			}
			return int(k)
		}
	}
}

// stealFrom moves half of from's items to the empty batch b, claims the first for w, the owner of
// b, and returns it and how many there were.
func (b *batch[E]) stealFrom(from *batch[E], w *worker) (e E, k int) {
	// Both locks: the end of the pool must find each item in one of the batches. If two workers
	// steal from each other, at most one of them gets both; the other finds nothing worth waiting
	// for, since the batch it looks at belongs to a worker that is awake.
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || !from.mu.TryLock() {
		return e, 0
	}
	defer from.mu.Unlock()
	if k = from.claimLocked(b.slot, true); k > 0 {
		// The first item is claimed before either lock is given up. Otherwise another thief could
		// empty b in between, and this worker would leave although it had found work.
		b.filledLocked(k, from.from)
		e, _ = b.take()
		w.claim()
	}
	return e, k
}

// close claims all items and lets none be added.
func (b *batch[E]) close() []E {
	b.mu.Lock()
	defer b.mu.Unlock()
	// First, so that a thief that waits for mu puts nothing into a batch that has been emptied.
	b.closed = true
	rest := make([]E, len(b.slot))
	return rest[:b.claimLocked(rest, false)]
}

// overdue reports whether the batch has items and its worker has claimed none since the previous
// call; some reports whether it has items that are not overdue.
func (b *batch[E]) overdue() (yes, some bool) {
	word := b.word.Load()
	if next, end := batchRange(word); next >= end {
		return false, false
	}
	// The number of fillings is part of the word. Without it a batch that was emptied and filled
	// again to the same places would look as if its worker had not moved.
	yes = word == b.seen
	b.seen = word
	return yes, !yes
}

// putBack returns the items to the front of the queue that they came from, where any worker takes
// them next. It reports whether it has put back any.
func (b *batch[E]) putBack() bool {
	// from is read under mu and checked again below, because the queue must be locked first: fill
	// locks in that order, and the opposite one could deadlock with it.
	b.mu.Lock()
	q := b.from
	b.mu.Unlock()
	// The queue's lock comes first, as in fill; the batch may have been filled again meanwhile.
	q.lock()
	defer q.unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.from != q || q.drained {
		return false // the end of the pool has been here, and will look into the batch
	}
	// All of them, not only the oldest: they would wait behind the same task.
	var got [batchLen]E
	k := b.claimLocked(got[:], false)
	q.putBackLocked(got[:k])
	return k > 0
}
