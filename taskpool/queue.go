// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"math"
	"sync"
	"sync/atomic"
)

// queue is a growing ring with an optional limit and a line of producers that wait for room. The
// goroutine that makes room moves the items of waiting producers into the ring itself, under the
// same lock: no item is overtaken, and no wakeup can be lost.
//
// An item may be withdrawn from the middle. Its cell stays empty until the ring is next rebuilt,
// but counts neither for the limit nor as an item. The oldest and the newest cell are never empty.
type queue[E any] struct {
	// Set before use.
	limit   int      // <= 0: none
	watched bool     // some is kept
	line    *line[E] // may be shared with other queues

	some atomic.Bool // there is an item, for looking without the lock

	mu       sync.Mutex
	ring     []cell[E] // length is a power of two, or zero
	head     uint64    // number of the oldest item; number modulo length is its place
	tail     uint64    // number of the next item to be added
	empty    int       // cells of withdrawn items
	closed   bool      // accepts nothing
	drained  bool      // and takes nothing back
	accepted uint64
	admitted *waiter[E] // producers out of the line, to be woken by unlock
}

// cell is one place of a ring.
type cell[E any] struct {
	item   E
	ticket *ticket // of an item that may be withdrawn; &withdrawn if it was
}

// ticket finds an item again that may have to be withdrawn. The zero ticket is of an item that is
// in no queue. A queue writes it under its lock when it takes the item.
type ticket struct {
	at withdrawer
	n  uint64
}

type withdrawer interface{ withdraw(*ticket) }

// withdrawn marks the cell of an item that was withdrawn.
var withdrawn ticket

// lockTries is how often a producer or a worker tries before it lets sync.Mutex put it to sleep.
// The mutex would spin itself, but not while its processor has other goroutines to run, as with a
// thousand producers; and a goroutine that sleeps makes the next unlock a wakeup. The lock is held
// for some ten nanoseconds.
const lockTries = 30

func (q *queue[E]) lock() {
	for range lockTries {
		// Without a pause in between: the lock is free again after about as long as a failed
		// attempt takes.
		if q.mu.TryLock() {
			return
		}
	}
	q.mu.Lock()
}

// unlock gives up the lock, and then wakes the producers whose wait has ended: each wakeup takes
// longer than the work that the lock is held for.
func (q *queue[E]) unlock() {
	if q.admitted == nil {
		q.mu.Unlock()
		return
	}
	w := q.admitted
	// Taken under the lock, since the next goroutine to hold it may let in others.
	q.admitted = nil
	q.mu.Unlock()
	wakeAll(w)
}

func (q *queue[E]) lenLocked() int { return int(q.tail-q.head) - q.empty }

func (q *queue[E]) cellLocked(n uint64) *cell[E] { return &q.ring[n&uint64(len(q.ring)-1)] }

// roomLocked returns how many items may be added before somebody has to wait.
func (q *queue[E]) roomLocked() int {
	switch {
	case q.limit <= 0:
		return math.MaxInt
	case q.line.n.Load() > 0:
		// Room that appears belongs to the producers in line. A newcomer may not pass them.
		return 0
	}
	return max(0, q.limit-q.lenLocked())
}

func (q *queue[E]) fullLocked() bool { return q.roomLocked() == 0 }

// putLocked adds e. t is nil if e will not be withdrawn.
func (q *queue[E]) putLocked(e E, t *ticket) {
	if int(q.tail-q.head) == len(q.ring) {
		q.growLocked(1)
	}
	// Numbers only grow, and the place is the number modulo the length: so a ticket finds its item
	// again after others have left.
	c := q.cellLocked(q.tail)
	c.item = e
	// Only Do has a ticket. The others do not touch the second word of the cell, which removeLocked
	// has left nil.
	if t != nil {
		t.at, t.n = q, q.tail
		c.ticket = t
	}
	q.tail++
	q.accepted++
	if q.watched && q.tail-q.head == 1 {
		q.some.Store(true) // only when it changes: the store is a locked instruction
	}
}

// putAllLocked adds all of es.
func (q *queue[E]) putAllLocked(es []E) {
	if len(q.ring)-int(q.tail-q.head) < len(es) {
		q.growLocked(len(es))
	}
	for _, e := range es {
		q.cellLocked(q.tail).item = e
		q.tail++
	}
	q.accepted += uint64(len(es))
	// Once for all: a worker needs the lock to look closer.
	if q.watched {
		q.some.Store(q.tail != q.head)
	}
}

// putBackLocked adds items that were taken out before in front of all others.
func (q *queue[E]) putBackLocked(es []E) {
	if len(q.ring)-int(q.tail-q.head) < len(es) {
		q.growLocked(len(es))
	}
	// Beyond the limit, if it must be: the items had been accepted.
	for i := len(es) - 1; i >= 0; i-- {
		// Numbers may go below zero and wrap around. Only differences and remainders by a power of
		// two are used, and both survive that.
		q.head--
		q.cellLocked(q.head).item = es[i]
	}
	if q.watched {
		q.some.Store(q.tail != q.head)
	}
}

// growLocked makes room for k more cells, and lets go of those of withdrawn items.
func (q *queue[E]) growLocked(k int) {
	n := q.lenLocked()
	size := max(4, len(q.ring))
	// Twice as many as are needed, so that growing costs each item a constant share.
	for size < n+max(k, n) {
		size *= 2
	}
	old, head, tail := q.ring, q.head, q.tail
	ring := make([]cell[E], size)
	q.tail = head
	for ; head != tail; head++ {
		c := old[head&uint64(len(old)-1)]
		if c.ticket == &withdrawn {
			continue
		}
		// Items move down to fill the gaps, so their tickets must learn the new numbers.
		if c.ticket != nil {
			c.ticket.n = q.tail
		}
		ring[q.tail&uint64(size-1)] = c
		q.tail++
	}
	// The first ring of a mailbox is part of the mailbox, and would keep finished tasks alive.
	clear(old)
	q.ring, q.empty = ring, 0
}

// popLocked moves up to len(dst) of the oldest items to dst.
func (q *queue[E]) popLocked(dst []E) int {
	k := min(len(dst), q.lenLocked())
	for i := range k {
		dst[i] = q.removeLocked()
	}
	if k > 0 {
		q.poppedLocked()
	}
	return k
}

// popOneLocked removes and returns the oldest item.
func (q *queue[E]) popOneLocked() (e E, ok bool) {
	if q.tail == q.head {
		return e, false
	}
	e = q.removeLocked()
	q.poppedLocked()
	return e, true
}

// removeLocked takes the oldest item out; there is one.
func (q *queue[E]) removeLocked() (e E) {
	c := q.cellLocked(q.head)
	e = c.item
	*c = cell[E]{} // the ring must not keep a finished task alive
	q.head++
	if q.empty > 0 {
		q.skipLocked()
	}
	return e
}

// skipLocked lets go of empty cells at both ends.
func (q *queue[E]) skipLocked() {
	for q.head != q.tail && q.cellLocked(q.head).ticket == &withdrawn {
		q.cellLocked(q.head).ticket = nil
		q.head++
		q.empty--
	}
	// The newest as well: then an empty ring is one with head equal to tail, which is asked in many
	// places.
	for q.head != q.tail && q.cellLocked(q.tail-1).ticket == &withdrawn {
		q.tail--
		q.cellLocked(q.tail).ticket = nil
		q.empty--
	}
}

// replaceLocked adds e and takes the oldest item out for it, if there is one. Producers in line go
// on waiting: there is no more room than before.
func (q *queue[E]) replaceLocked(e E) (oldest E, ok bool) {
	// Without poppedLocked, which would let a waiting producer into the place that e takes.
	if ok = q.tail != q.head; ok {
		oldest = q.removeLocked()
	}
	q.putLocked(e, nil)
	return oldest, ok
}

// poppedLocked is called after items have left.
func (q *queue[E]) poppedLocked() {
	// Before some is cleared: an item that is let in here keeps it set.
	q.admitLocked()
	if q.watched && q.tail == q.head {
		q.some.Store(false)
	}
}

// admitLocked lets in as many waiting producers as there is room for. unlock wakes them.
func (q *queue[E]) admitLocked() {
	// The count alone decides nearly every call, without the lock of the line.
	if q.line.n.Load() == 0 || q.closed {
		return
	}
	if room := q.limit - q.lenLocked(); room > 0 {
		q.admitted = q.line.grantLocked(q, room, q.admitted)
	}
}

// withdraw takes the item of t out, if it is still in the queue, and gives its room to the next
// producer at once.
func (q *queue[E]) withdraw(t *ticket) {
	q.lock()
	defer q.unlock()
	// The cell tells whether the item is still there: its number may be another item's by now.
	if t.n-q.head >= q.tail-q.head || q.cellLocked(t.n).ticket != t {
		return
	}
	*q.cellLocked(t.n) = cell[E]{ticket: &withdrawn}
	// The cell stays, since closing the gap would move every younger item. lenLocked leaves it out,
	// so its room is free at once.
	q.empty++
	q.skipLocked()
	q.poppedLocked()
}

// close refuses further items; those in the ring stay. The line is closed by its owner.
func (q *queue[E]) close() {
	q.mu.Lock()
	// Under the lock: a producer that holds it adds before, and every later one sees the flag.
	q.closed = true
	q.mu.Unlock()
}

// drain removes and returns all items.
func (q *queue[E]) drain() []E {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.drained = true
	var all []E
	if n := q.lenLocked(); n > 0 {
		all = make([]E, 0, n)
	}
	for q.head != q.tail {
		all = append(all, q.removeLocked())
	}
	// The memory goes too: a closed pool may be referred to for long.
	q.ring, q.head, q.tail = nil, 0, 0
	if q.watched {
		q.some.Store(false)
	}
	return all
}

// trim gives back the ring's memory if it is empty and large.
func (q *queue[E]) trim() {
	q.mu.Lock()
	// Small rings stay, as the next task would only allocate one again.
	if q.tail == q.head && len(q.ring) > 256 {
		q.ring = nil
	}
	q.mu.Unlock()
}
