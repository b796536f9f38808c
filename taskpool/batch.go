// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"sync"
	"sync/atomic"
)

// batchLen is how many items a worker takes from a queue under one lock.
const batchLen = 16

// batch holds the items a worker took along. Its worker claims them one at a time with one uncontended CAS; others
// claim the rest when they have nothing to do, or when the pool stops.
//
// word is next<<32 | end: slots [next, end) are unclaimed. Whoever moves next or end by a CAS owns the slots it passed.
// Only the owner adds items, and only to an empty batch. mu is held for adding and for stealing, so that slots being
// copied by a thief are not overwritten; the owner's claim needs no lock, because the owner is the one who would
// overwrite.
type batch[E any] struct {
	word   atomic.Uint64
	mu     sync.Mutex
	closed bool // guarded by mu: nothing may be added
	slot   [batchLen]E
	_      [64]byte // the next batch's word must not share a line
}

func (b *batch[E]) len() int {
	word := b.word.Load()
	return int(uint32(word)) - int(word>>32)
}

// take claims the oldest item. Only the owner calls it.
func (b *batch[E]) take() (e E, ok bool) {
	for {
		word := b.word.Load()
		i := uint32(word >> 32)
		if i >= uint32(word) {
			return e, false
		}
		if b.word.CompareAndSwap(word, word+1<<32) {
			var zero E
			e, b.slot[i] = b.slot[i], zero
			return e, true
		}
	}
}

// addLocked fills the empty batch with up to len(b.slot) items; false if the batch is closed.
func (b *batch[E]) addLocked(items []E) bool {
	if b.closed {
		return false
	}
	n := copy(b.slot[:], items)
	b.word.Store(uint64(n))
	return true
}

// fill moves up to k of q's oldest items to the empty batch. q is locked, so that the end of the pool finds each item in
// one place or the other. Only the owner calls it.
func (b *batch[E]) fill(q *queue[E], k int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0
	}
	k = q.popLocked(b.slot[:min(k, len(b.slot))])
	b.word.Store(uint64(k))
	return k
}

// claimLocked claims up to k of the newest items into dst, in order.
func (b *batch[E]) claimLocked(dst []E, half bool) int {
	for {
		word := b.word.Load()
		i, end := uint32(word>>32), uint32(word)
		if i >= end {
			return 0
		}
		k := end - i
		if half {
			k = (k + 1) / 2
		}
		if b.word.CompareAndSwap(word, uint64(i)<<32|uint64(end-k)) {
			var zero E
			for j := range k {
				p := &b.slot[end-k+j]
				dst[j], *p = *p, zero
			}
			return int(k)
		}
	}
}

// close claims all items and lets none be added.
func (b *batch[E]) close() []E {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	rest := make([]E, batchLen)
	return rest[:b.claimLocked(rest, false)]
}
