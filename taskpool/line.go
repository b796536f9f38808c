// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"sync"
	"sync/atomic"
)

// line is the producers that wait for room, first come, first served. All queues of a pool share
// one, so that room in any of them goes to the producer that has waited longest; a mailbox has its
// own. The lock of a queue comes before that of its line.
type line[E any] struct {
	n atomic.Int32 // how many wait, for looking without the lock

	mu     sync.Mutex
	first  *waiter[E]
	last   *waiter[E]
	closed bool // refuses everybody
}

// waiter is one producer in a line. Its fields are guarded by the line's mu; once it is out of the
// line, next belongs to the goroutine that wakes it.
type waiter[E any] struct {
	item       E
	ticket     *ticket
	prev, next *waiter[E]
	answer     answer
	ready      chan struct{} // capacity 1: waking never blocks
}

type answer uint8

const (
	waiting answer = iota
	granted        // the item is in a queue
	refused        // the pool is closed
)

// add puts a producer at the end. The caller holds the lock of a queue that has no room, so that
// the next pop from that queue sees the line. spare recycles waiters.
func (l *line[E]) add(spare *sync.Pool, e E, t *ticket) *waiter[E] {
	w, _ := spare.Get().(*waiter[E])
	if w == nil {
		w = &waiter[E]{ready: make(chan struct{}, 1)}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Under the line's lock, since a worker may let this producer in before add has returned.
	w.item, w.ticket, w.answer, w.prev = e, t, waiting, l.last
	if l.closed {
		w.prev, w.answer = nil, refused
		// Answered like all others, so that the caller has one way on and not two.
		w.ready <- struct{}{}
		return w
	}
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
	// The caller holds the lock of the full queue. The worker that makes room takes that lock
	// later, and so reads the new count.
	l.n.Add(1)
	return w
}

// grantLocked moves the items of up to k producers, the first ones, into q, whose lock is held. It
// returns those producers, linked, with rest behind them; the caller wakes them.
func (l *line[E]) grantLocked(q *queue[E], k int, rest *waiter[E]) *waiter[E] {
	l.mu.Lock()
	defer l.mu.Unlock()
	head := l.first
	var last *waiter[E]
	for ; k > 0 && l.first != nil; k-- {
		last = l.first
		last.answer = granted
		// The item is moved by the goroutine that made room, not by its producer: between waking
		// and adding, another producer could take the room.
		q.putLocked(last.item, last.ticket)
		l.first, last.prev = last.next, nil
		l.n.Add(-1)
	}
	if last == nil {
		return rest // all that waited have given up meanwhile
	}
	if l.first == nil {
		l.last = nil
	} else {
		l.first.prev = nil
	}
	// Chained and woken after the queue is unlocked: a wakeup takes some hundred nanoseconds, and
	// every worker would wait for it.
	last.next = rest
	return head
}

// leave takes w out of the line; false if it has been answered.
func (l *line[E]) leave(w *waiter[E]) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The goroutine that answered owns w now, and reads its links without this lock.
	if w.answer != waiting {
		return false
	}
	// A doubly linked list, so that giving up costs the same with a thousand producers in line as
	// with two.
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.prev, w.next = nil, nil
	l.n.Add(-1)
	return true
}

// close refuses all producers that wait, and those to come.
func (l *line[E]) close() {
	l.mu.Lock()
	l.closed = true
	head := l.first
	// Answered under the lock, so that none of them can leave and be recycled while it is still
	// linked.
	for w := head; w != nil; w = w.next {
		w.answer = refused
	}
	l.first, l.last = nil, nil
	// Workers that look at the count find no producer to let in, without taking the lock.
	l.n.Store(0)
	l.mu.Unlock()
	wakeAll(head)
}

// wakeAll wakes producers whose wait has ended.
func wakeAll[E any](w *waiter[E]) {
	for w != nil {
		// Read first: once told, the producer may recycle w.
		next := w.next
		// A recycled waiter must not keep the next one alive.
		w.next, w.prev = nil, nil
		w.ready <- struct{}{}
		w = next
	}
}

// await waits for the answer to w, and recycles it. stop, which may be nil, refuses the item as
// close does.
func (l *line[E]) await(
	ctx context.Context, stop <-chan struct{}, spare *sync.Pool, w *waiter[E],
) (err error) {
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
		// Both may happen at once. leave decides under the lock which came first, so that an item
		// is never both refused and run.
		if err != nil && !l.leave(w) {
			// Too late to give up: the item may be running already.
			<-w.ready
			err = nil
		}
	}
	if w.answer == refused {
		err = ErrClosed
	}
	w.release(spare)
	return err
}

// release gives back a waiter to which no other goroutine has a reference.
func (w *waiter[E]) release(spare *sync.Pool) {
	var zero E
	w.item, w.ticket = zero, nil // a waiter that is kept must not keep a task alive
	spare.Put(w)
}
