// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"sync"
	"sync/atomic"
)

// queue is a growing ring with an optional limit and a line of producers that wait for room. Whoever pops moves the
// waiting producers' items into the ring itself: no item is overtaken, no wakeup can be lost, and a producer that gives
// up learns under the lock whether it was too late. It is refilled only once it is half empty, so that one wakeup of a
// blocked producer pays for many items.
type queue[E any] struct {
	limit int // <= 0: none; set before use

	some atomic.Bool // n > 0, for looking without the lock

	mu       sync.Mutex
	buf      []E // length is a power of two
	head, n  int
	closed   bool
	accepted uint64
	first    *waiter[E]
	last     *waiter[E]
}

// waiter is a producer in line. Its fields are guarded by the queue's mu.
type waiter[E any] struct {
	item       E
	prev, next *waiter[E]
	granted    bool
	ready      chan struct{} // capacity 1: granting never blocks
}

func (q *queue[E]) fullLocked() bool {
	return q.limit > 0 && (q.n >= q.limit || q.first != nil)
}

func (q *queue[E]) putLocked(e E) {
	if q.n == len(q.buf) {
		q.growLocked()
	}
	q.buf[(q.head+q.n)&(len(q.buf)-1)] = e
	q.n++
	q.accepted++
	if q.n == 1 {
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
	q.some.Store(q.n > 0)
}

func (q *queue[E]) growLocked() {
	buf := make([]E, max(4, 2*len(q.buf)))
	k := copy(buf, q.buf[q.head:])
	copy(buf[k:], q.buf[:q.head])
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
	var zero E
	p := &q.buf[q.head]
	e, *p = *p, zero
	q.head = (q.head + 1) & (len(q.buf) - 1)
	q.n--
	q.poppedLocked()
	return e, true
}

func (q *queue[E]) poppedLocked() {
	if q.first != nil && q.n <= q.limit/2 {
		q.grantLocked()
	}
	if q.n == 0 {
		q.some.Store(false)
	}
}

// grantLocked moves items of waiting producers into the ring.
func (q *queue[E]) grantLocked() {
	for q.first != nil && q.n < q.limit {
		w := q.first
		q.unlinkLocked(w)
		w.granted = true
		q.putLocked(w.item)
		w.ready <- struct{}{}
	}
}

func (q *queue[E]) enqueueLocked(w *waiter[E]) {
	w.prev = q.last
	if q.last != nil {
		q.last.next = w
	} else {
		q.first = w
	}
	q.last = w
}

func (q *queue[E]) unlinkLocked(w *waiter[E]) {
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
}

// await waits in line with an item; the queue is locked on entry and unlocked on return. lines recycles waiters.
func (q *queue[E]) await(ctx context.Context, stop <-chan struct{}, lines *sync.Pool, e E) error {
	w, _ := lines.Get().(*waiter[E])
	if w == nil {
		w = &waiter[E]{ready: make(chan struct{}, 1)}
	}
	w.item, w.granted = e, false
	q.enqueueLocked(w)
	q.mu.Unlock()

	var err error
	select {
	case <-w.ready:
	case <-ctx.Done():
		err = q.giveUp(w, context.Cause(ctx))
	case <-stop:
		err = q.giveUp(w, ErrClosed)
	}
	var zero E
	w.item = zero
	lines.Put(w)
	return err
}

// giveUp takes w out of the line and returns err, or nil if its item had been taken.
func (q *queue[E]) giveUp(w *waiter[E], err error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w.granted {
		<-w.ready
		return nil
	}
	q.unlinkLocked(w)
	return err
}

// close refuses further items; what is in the ring stays. Producers in line are told by their stop channel.
func (q *queue[E]) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
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
	q.buf, q.head, q.n = nil, 0, 0
	q.some.Store(false)
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
