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
		if q.mu.TryLock() {
			return
		}
	}
	q.mu.Lock()
}

// unlock gives up the lock, and then wakes the producers whose wait has ended: each wakeup takes
// longer than what the lock is for.
func (q *queue[E]) unlock() {
	if q.admitted == nil {
		q.mu.Unlock()
		return
	}
	w := q.admitted
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
		// What becomes free belongs to those who wait. A newcomer may not pass them.
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
	c := q.cellLocked(q.tail)
	c.item = e
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
	if q.watched {
		q.some.Store(q.tail != q.head)
	}
}

// putBackLocked adds items that were taken out before in front of all others.
func (q *queue[E]) putBackLocked(es []E) {
	if len(q.ring)-int(q.tail-q.head) < len(es) {
		q.growLocked(len(es))
	}
	for i := len(es) - 1; i >= 0; i-- {
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
	// Twice what is needed, so that the next rebuild is as many items away.
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
		if c.ticket != nil {
			c.ticket.n = q.tail
		}
		ring[q.tail&uint64(size-1)] = c
		q.tail++
	}
	clear(old) // it may be a mailbox's own first one, which stays
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
	for q.head != q.tail && q.cellLocked(q.tail-1).ticket == &withdrawn {
		q.tail--
		q.cellLocked(q.tail).ticket = nil
		q.empty--
	}
}

// replaceLocked adds e and takes the oldest item out for it, if there is one. Producers in line go
// on waiting: there is no more room than before.
func (q *queue[E]) replaceLocked(e E) (oldest E, ok bool) {
	if ok = q.tail != q.head; ok {
		oldest = q.removeLocked()
	}
	q.putLocked(e, nil)
	return oldest, ok
}

// poppedLocked is called after items have left.
func (q *queue[E]) poppedLocked() {
	q.admitLocked()
	if q.watched && q.tail == q.head {
		q.some.Store(false)
	}
}

// admitLocked lets in as many waiting producers as there is room for. unlock wakes them.
func (q *queue[E]) admitLocked() {
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
	q.empty++
	q.skipLocked()
	q.poppedLocked()
}

// close refuses further items; what is in the ring stays. The line is closed by its owner.
func (q *queue[E]) close() {
	q.mu.Lock()
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
	q.ring, q.head, q.tail = nil, 0, 0
	if q.watched {
		q.some.Store(false)
	}
	return all
}

// trim gives back the ring's memory if it is empty and large.
func (q *queue[E]) trim() {
	q.mu.Lock()
	if q.tail == q.head && len(q.ring) > 256 {
		q.ring = nil
	}
	q.mu.Unlock()
}
