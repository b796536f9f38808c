// SPDX-License-Identifier: Apache-2.0

package sendq

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A Waiter is a caller that waits until its package is sent, or for another event that somebody
// announces with Fail. Its state says who may still change the package's fate:
//
//	queued -> offered -> queued     by the flush, around each write that includes the package
//	offered -> partial              by the flush: a part of the package has left
//	queued -> withdrawn             by the caller, when its time is over; the flush passes over it
//	offered, partial -> done        by the flush, or by the end of the session
//	queued -> done                  by Fail
//
// The result is written before done is announced.
type Waiter struct {
	home  *Waiters
	state atomic.Int32
	done  chan struct{} // capacity 1
	err   error
	sent  int
}

const (
	queued int32 = iota
	offered
	partial
	done
	withdrawn
)

// Waiters make Waiters, and keep them for the next callers. The zero value is ready for use. Each
// endpoint has its own: a channel that was made in a bubble of testing/synctest must never be used
// outside of it, and one pool for the process would carry it there.
type Waiters struct{ pool sync.Pool }

// New returns a Waiter for one package, mark or event.
func (p *Waiters) New() *Waiter {
	w, _ := p.pool.Get().(*Waiter)
	if w == nil {
		w = &Waiter{home: p, done: make(chan struct{}, 1)}
	}
	w.sent = 0
	w.state.Store(queued)
	return w
}

// Free gives back a Waiter that was never added to a batch.
func (w *Waiter) Free() {
	w.err = nil // which may hold much
	w.home.pool.Put(w)
}

// Done announces the outcome, once: whoever has received from it calls Result. It is not closed.
func (w *Waiter) Done() <-chan struct{} { return w.done }

// Result returns the outcome, and gives w back: sent is how many bytes of the package have left,
// though after an error it may be 0.
func (w *Waiter) Result() (sent int, err error) {
	sent, err = w.sent, w.err
	w.Free()
	return sent, err
}

// Withdraw takes the package back if no byte of it has left, and reports whether it did; then w is
// not used any more. While the package is with the kernel, which takes microseconds, the call waits
// for the outcome.
func (w *Waiter) Withdraw() bool {
	for {
		if w.state.CompareAndSwap(queued, withdrawn) {
			return true
		}
		if w.state.Load() != offered {
			return false
		}
		runtime.Gosched()
	}
}

// Partial reports whether a part of the package, but not all of it, has left.
func (w *Waiter) Partial() bool { return w.state.Load() == partial }

// Fail announces err, which may be nil, unless the caller has withdrawn, and reports whether it
// did. A Waiter in a batch is told by the batch.
func (w *Waiter) Fail(err error) bool {
	if !w.offer() {
		return false
	}
	w.finish(err)
	return true
}

// offer makes the package impossible to withdraw until unoffer; it fails if it is withdrawn.
func (w *Waiter) offer() bool {
	return w.state.CompareAndSwap(queued, offered) || w.state.Load() == partial
}

func (w *Waiter) unoffer() { w.state.CompareAndSwap(offered, queued) }

// partly notes that n bytes have left, or with 0 that some may have.
func (w *Waiter) partly(n int) {
	w.sent += n
	w.state.Store(partial)
}

// finish announces the outcome; the package is offered, so that it cannot be withdrawn.
func (w *Waiter) finish(err error) {
	w.err = err
	w.state.Store(done)
	w.done <- struct{}{}
}
