// SPDX-License-Identifier: Apache-2.0

package sendq

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A Waiter is a caller that waits for its package to be sent, or for another event that Fail
// announces. The package goes through these states:
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

// Waiters is a pool of Waiters. The zero value is ready for use.
//
// It is no variable of the package, since each endpoint needs its own: a channel that was made in a
// bubble of testing/synctest must not be used outside of it, and one pool for the process would
// carry it there.
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

// Done announces the outcome, once. The caller that has received from it calls Result. The channel
// is not closed.
func (w *Waiter) Done() <-chan struct{} { return w.done }

// Result returns the outcome, and gives w back. If err is not nil, sent is how many bytes of the
// package are known to have left.
func (w *Waiter) Result() (sent int, err error) {
	sent, err = w.sent, w.err
	w.Free()
	return sent, err
}

// Withdraw takes the package back if no byte of it has left, and reports whether it did; then w
// must not be used any more. If a write of the package is in progress, it waits for the outcome.
func (w *Waiter) Withdraw() bool {
	// It spins: a write to a socket does not block, and takes microseconds. A write that can block
	// calls Commit first, which makes the state partial.
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
// did. For a Waiter in a batch only the batch calls it.
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

// unoffer makes the package possible to withdraw again, unless a part of it has left.
func (w *Waiter) unoffer() { w.state.CompareAndSwap(offered, queued) }

// partly notes that n bytes have left. 0 means that some may have.
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
