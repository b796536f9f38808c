// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"runtime/debug"
	"sync/atomic"
)

// call is a task that somebody waits for.
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
	if !d.state.CompareAndSwap(callWaiting, callTaken) {
		return
	}
	// A Future may live on for long; what is over keeps its result, and not the function.
	t := d.t
	d.t = nil
	d.err = ErrGoexit
	defer close(d.done)
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
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return d.giveUp(ctx)
	case <-c.ended:
		if d.withdraw() {
			return ErrClosed
		}
	}
	// It had begun when the pool ended, and is waited for like any running task.
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return d.giveUp(ctx)
	}
}
