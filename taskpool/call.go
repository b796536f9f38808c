// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"runtime/debug"
	"sync/atomic"
)

// call is a task with a caller that waits for its end.
type call struct {
	state  atomic.Int32
	t      Task  // nil once it has begun or was withdrawn
	err    error // valid after done
	done   chan struct{}
	ticket ticket
}

const (
	callWaiting int32 = iota
	callTaken         // runs, or ran
	callWithdrawn
)

func newCall(t Task) *call { return &call{t: t, done: make(chan struct{})} }

func (d *call) run() {
	// The caller may give up at any moment. One of the two wins here: either the task runs, or the
	// caller may say that it never will.
	if !d.state.CompareAndSwap(callWaiting, callTaken) {
		return
	}
	// A Future may live for long after its function has ended: it must keep the result, and not
	// the function with everything that the function refers to.
	t := d.t
	d.t = nil
	// Set before the call, since Goexit cannot be recovered: only the deferred functions run then,
	// and recover returns nil as it does after a normal return.
	d.err = ErrGoexit
	defer close(d.done)
	// A flag and not the result of recover: panic(nil) and Goexit would look like a normal return.
	returned := false
	defer func() {
		if returned {
			d.err = nil
		} else if v := recover(); v != nil {
			d.err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	t()
	returned = true
}

// withdraw makes sure that the task never starts; false if it has. The task is let go of and its
// place in the queue is free at once.
func (d *call) withdraw() bool {
	// Losing means that the task has begun. It cannot be stopped, and its caller must not report
	// that it did not run.
	if !d.state.CompareAndSwap(callWaiting, callWithdrawn) {
		return false
	}
	d.t = nil
	if d.ticket.at != nil { // else it is in the queue of a Pool that gives no tickets
		d.ticket.at.withdraw(&d.ticket)
	}
	return true
}

// giveUp is the answer to a caller whose ctx has ended.
func (d *call) giveUp(ctx context.Context) error {
	// Whether or not the task has begun the answer is the cause of ctx, unless the result is there
	// already: select chooses at random between two that are ready, and a task that has succeeded
	// should not be reported as given up.
	if !d.withdraw() {
		select {
		case <-d.done: // both were ready: the result is there
			return d.err
		default:
		}
	}
	return context.Cause(ctx)
}

// submitter is a pool's Submit with a ticket, under which the task can be withdrawn.
type submitter func(ctx context.Context, t Task, place *ticket) error

// do submits t and waits for its end.
func (in *intake[E]) do(ctx context.Context, t Task, item func(Task) E, submit submitter) error {
	if t == nil {
		return ErrNilTask
	}
	// All workers may be waiting like this one, and then no worker would be left for t. It runs on
	// a goroutine of its own.
	if in.c.tracked && in.c.inside() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		d := newCall(t)
		return in.doInside(ctx, d, item(d.run))
	}
	return in.c.await(ctx, t, submit)
}

// doInOrder is do for a task that must not run before others. A task that waits for its own key
// waits until ctx ends.
func (c *workers) doInOrder(ctx context.Context, t Task, submit submitter) error {
	if t == nil {
		return ErrNilTask
	}
	// With a ctx that can end it may wait, because the key may well be another one; only without an
	// end could it wait forever.
	if ctx.Done() == nil && c.inside() {
		return ErrInTask
	}
	return c.await(ctx, t, submit)
}

func (c *workers) await(ctx context.Context, t Task, submit submitter) error {
	d := newCall(t)
	if err := submit(ctx, d.run, &d.ticket); err != nil {
		return err
	}
	for ended := c.ended; ; {
		select {
		case <-d.done:
			return d.err
		case <-ctx.Done():
			return d.giveUp(ctx)
		// The pool has ended. A task that is still in a queue comes back to the caller of Shutdown
		// or Close, which must find that it does nothing when called.
		case <-ended:
			if d.withdraw() {
				return ErrClosed
			}
			ended = nil // it has begun, and is waited for like any running task
		}
	}
}
