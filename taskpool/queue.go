// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
)

// queue is a growing ring with an optional limit and a line of producers that wait for room. Whoever pops moves the
// waiting producers' items into the ring itself: no item is overtaken, no wakeup can be lost, and a producer that gives
// up learns under the lock whether it was too late. It is refilled only once it is half empty, so that one wakeup of a
// blocked producer pays for many items.
type queue[E any] struct {
	// Set before use.
	limit   int  // <= 0: none
	watched bool // some is kept

	some atomic.Bool // n > 0, for looking without the lock

	mu       sync.Mutex
	buf      []E // length is a power of two
	head, n  int
	closed   bool
	accepted uint64
	first    *waiter[E]
	last     *waiter[E]
	told     *waiter[E] // out of the line, to be woken by unlock
}

// waiter is a producer in line. Its fields are guarded by the queue's mu; next, once it is out of the line, belongs to
// whoever wakes it.
type waiter[E any] struct {
	item       E
	prev, next *waiter[E]
	answer     answer
	ready      chan struct{} // capacity 1: waking never blocks
}

type answer uint8

const (
	waiting answer = iota
	granted        // the item is in the ring
	refused        // the queue was closed
)

// lockTries is how often a producer or a worker tries before it lets sync.Mutex put it to sleep. The mutex would spin
// itself, but not while its processor has other goroutines to run, as with a thousand producers; and whoever sleeps makes
// the next unlock a wakeup. The lock is held for some ten nanoseconds.
const lockTries = 30

func (q *queue[E]) lock() {
	for range lockTries {
		if q.mu.TryLock() {
			return
		}
	}
	q.mu.Lock()
}

// unlock gives up the lock, and then wakes the producers whose wait has ended: there may be hundreds, and each wakeup
// takes longer than what the lock is for.
func (q *queue[E]) unlock() {
	if q.told == nil {
		q.mu.Unlock()
		return
	}
	w := q.told
	q.told = nil
	q.mu.Unlock()
	for w != nil {
		next := w.next // w is its producer's again once it is told
		w.next = nil
		w.ready <- struct{}{}
		w = next
	}
}

// roomLocked returns how many items may be added before somebody has to wait.
func (q *queue[E]) roomLocked() int {
	switch {
	case q.limit <= 0:
		return math.MaxInt
	case q.first != nil:
		return 0
	}
	return max(0, q.limit-q.n)
}

func (q *queue[E]) fullLocked() bool { return q.roomLocked() == 0 }

func (q *queue[E]) putLocked(e E) {
	if q.n == len(q.buf) {
		q.growLocked()
	}
	q.buf[(q.head+q.n)&(len(q.buf)-1)] = e
	q.n++
	q.accepted++
	if q.n == 1 && q.watched {
		q.some.Store(true) // only when it changes: the store is a locked instruction
	}
}

// putAllLocked adds all of es.
func (q *queue[E]) putAllLocked(es []E) {
	for len(q.buf)-q.n < len(es) {
		q.growLocked()
	}
	tail := (q.head + q.n) & (len(q.buf) - 1)
	k := copy(q.buf[tail:], es)
	copy(q.buf, es[k:])
	q.n += len(es)
	q.accepted += uint64(len(es))
	if q.watched {
		q.some.Store(q.n > 0)
	}
}

func (q *queue[E]) growLocked() {
	buf := make([]E, max(4, 2*len(q.buf)))
	k := copy(buf, q.buf[q.head:])
	copy(buf[k:], q.buf[:q.head])
	clear(q.buf) // it may be a mailbox's own first one, which stays
	q.buf, q.head = buf, 0
}

// popLocked moves up to len(dst) of the oldest items to dst.
func (q *queue[E]) popLocked(dst []E) int {
	k := min(len(dst), q.n)
	if k == 0 {
		return 0
	}
	var zero E
	mask := len(q.buf) - 1
	for i := range k {
		p := &q.buf[(q.head+i)&mask]
		dst[i] = *p
		*p = zero // the ring must not keep a finished task alive
	}
	q.head = (q.head + k) & mask
	q.n -= k
	q.poppedLocked()
	return k
}

// popOneLocked removes and returns the oldest item.
func (q *queue[E]) popOneLocked() (e E, ok bool) {
	if q.n == 0 {
		return e, false
	}
	e = q.removeLocked()
	q.poppedLocked()
	return e, true
}

// removeLocked takes the oldest item out; there is one.
func (q *queue[E]) removeLocked() (e E) {
	var zero E
	p := &q.buf[q.head]
	e, *p = *p, zero
	q.head = (q.head + 1) & (len(q.buf) - 1)
	q.n--
	return e
}

// replaceLocked adds e and takes the oldest item out for it; q has one. Producers in line go on waiting: there is no more
// room than before.
func (q *queue[E]) replaceLocked(e E) (oldest E) {
	oldest = q.removeLocked()
	q.putLocked(e)
	return oldest
}

func (q *queue[E]) poppedLocked() {
	if q.first != nil && q.n <= q.limit/2 {
		q.answerLocked(granted)
	}
	if q.n == 0 && q.watched {
		q.some.Store(false)
	}
}

// grantLen is how many waiting producers are let in under one lock: more than a worker takes out under one, and few
// enough that the lock is held for less time than others spin for it.
const grantLen = 2 * batchLen

// answerLocked ends the wait of producers from the front of the line: granted moves the items of some into the ring as
// long as there is room, refused sends all of them home. unlock tells them.
func (q *queue[E]) answerLocked(a answer) {
	head := q.first
	var w *waiter[E]
	for k := 0; q.first != nil && (a == refused || q.n < q.limit && k < grantLen); k++ {
		w = q.first
		w.answer = a
		if a == granted {
			q.putLocked(w.item)
		}
		q.first, w.prev = w.next, nil
	}
	if w == nil {
		return
	}
	if q.first == nil {
		q.last = nil
	} else {
		q.first.prev = nil
	}
	w.next, q.told = q.told, head
}

// lineUpLocked puts a producer with an item at the end of the line. lines recycles waiters.
func (q *queue[E]) lineUpLocked(lines *sync.Pool, e E) *waiter[E] {
	w, _ := lines.Get().(*waiter[E])
	if w == nil {
		w = &waiter[E]{ready: make(chan struct{}, 1)}
	}
	w.item, w.answer, w.prev = e, waiting, q.last
	if q.last != nil {
		q.last.next = w
	} else {
		q.first = w
	}
	q.last = w
	return w
}

// leaveLocked takes w out of the line; false if it has been answered.
func (q *queue[E]) leaveLocked(w *waiter[E]) bool {
	if w.answer != waiting {
		return false
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.last = w.prev
	}
	w.prev, w.next = nil, nil
	return true
}

// await waits for the answer to w, and recycles it. stop, which may be nil, refuses the item as close does.
func (q *queue[E]) await(ctx context.Context, stop <-chan struct{}, lines *sync.Pool, w *waiter[E]) (err error) {
	if quit := ctx.Done(); quit == nil && stop == nil {
		<-w.ready // a third of the cost of a select
	} else {
		select {
		case <-w.ready:
		case <-quit:
			err = context.Cause(ctx)
		case <-stop:
			err = ErrClosed
		}
		if err != nil {
			q.mu.Lock()
			left := q.leaveLocked(w)
			q.mu.Unlock()
			if !left {
				<-w.ready // it was too late to give up
				err = nil
			}
		}
	}
	if w.answer == refused {
		err = ErrClosed
	}
	w.release(lines)
	return err
}

// release gives back a waiter that nobody else knows any more.
func (w *waiter[E]) release(lines *sync.Pool) {
	var zero E
	w.item = zero
	lines.Put(w)
}

// close refuses further items and producers in line; what is in the ring stays.
func (q *queue[E]) close() {
	q.mu.Lock()
	q.closed = true
	q.answerLocked(refused)
	q.unlock()
}

// drain removes and returns all items.
func (q *queue[E]) drain() []E {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.drainLocked()
}

func (q *queue[E]) drainLocked() []E {
	if q.n == 0 {
		return nil
	}
	all := make([]E, 0, q.n)
	for i := range q.n {
		all = append(all, q.buf[(q.head+i)&(len(q.buf)-1)])
	}
	clear(q.buf)
	q.buf, q.head, q.n = nil, 0, 0
	if q.watched {
		q.some.Store(false)
	}
	return all
}

// trim gives back the ring's memory if it is empty and large.
func (q *queue[E]) trim() {
	q.mu.Lock()
	if q.n == 0 && len(q.buf) > 256 {
		q.buf, q.head = nil, 0
	}
	q.mu.Unlock()
}
