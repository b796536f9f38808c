// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A waiter is a caller that waits until the kernel has taken its package. The state decides who may
// still change the package's fate:
//
//	queued -> offered -> queued     by the flusher, around each system call that includes the package
//	offered -> partial              by the flusher: a part of the package has left
//	queued -> withdrawn             by the caller, when its time is over; the flusher passes over it
//	offered, partial -> done        by the flusher, or by the end of the session
//	queued -> done                  by the end of the session
//
// result and sent are written before done is announced on ch.
type waiter struct {
	state atomic.Int32
	ch    chan struct{} // capacity 1
	err   error
	sent  int
}

const (
	waiterQueued int32 = iota
	waiterOffered
	waiterPartial
	waiterDone
	waiterWithdrawn
)

var waiters = sync.Pool{New: func() any { return &waiter{ch: make(chan struct{}, 1)} }}

func newWaiter() *waiter {
	w := waiters.Get().(*waiter)
	w.sent = 0
	w.state.Store(waiterQueued)
	return w
}

// free gives back a waiter whose result was received. A withdrawn one is still in a batch: not that.
func (w *waiter) free() {
	w.err = nil
	waiters.Put(w)
}

func (w *waiter) offer() bool {
	return w.state.CompareAndSwap(waiterQueued, waiterOffered) || w.state.Load() == waiterPartial
}

func (w *waiter) unoffer() { w.state.CompareAndSwap(waiterOffered, waiterQueued) }

func (w *waiter) partly(n int) {
	w.sent += n
	w.state.Store(waiterPartial)
}

// finish announces the result; the flusher holds the package, so that it cannot be withdrawn.
func (w *waiter) finish(err error) {
	w.err = err
	w.state.Store(waiterDone)
	w.ch <- struct{}{}
}

// fail announces err unless the caller has withdrawn the package, and reports whether it did.
func (w *waiter) fail(err error) bool {
	if !w.offer() {
		return false
	}
	w.finish(err)
	return true
}

// withdraw takes the package back if no byte of it has left. While it is with the kernel, which takes
// microseconds, the call waits for the outcome.
func (w *waiter) withdraw() bool {
	for {
		if w.state.CompareAndSwap(waiterQueued, waiterWithdrawn) {
			return true
		}
		if w.state.Load() != waiterOffered {
			return false
		}
		runtime.Gosched()
	}
}
