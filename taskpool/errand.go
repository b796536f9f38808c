// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"runtime/debug"
	"sync/atomic"
)

// errand is a task that somebody waits for.
type errand struct {
	state atomic.Int32
	t     Task
	err   error // valid after done
	done  chan struct{}
}

const (
	errandWaiting int32 = iota
	errandTaken         // runs, or ran
	errandWithdrawn
)

func newErrand(t Task) *errand { return &errand{t: t, done: make(chan struct{})} }

func (d *errand) run() {
	if !d.state.CompareAndSwap(errandWaiting, errandTaken) {
		return
	}
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
	d.t()
	returned = true
}

// withdraw makes sure that the task never starts; false if it has.
func (d *errand) withdraw() bool { return d.state.CompareAndSwap(errandWaiting, errandWithdrawn) }

// do submits t and waits for its end; a task of c, which may have no other worker, runs t itself.
func (c *crew) do(ctx context.Context, t Task, submit func(context.Context, Task) error) error {
	if c.tracked && c.inside() {
		d := newErrand(t)
		d.run()
		return d.err
	}
	return c.await(ctx, t, submit)
}

// doInOrder is do for a task that must not run before others. A task that waits for its own key waits until ctx ends.
func (c *crew) doInOrder(ctx context.Context, t Task, submit func(context.Context, Task) error) error {
	if ctx.Done() == nil && c.inside() {
		return ErrInTask
	}
	return c.await(ctx, t, submit)
}

func (c *crew) await(ctx context.Context, t Task, submit func(context.Context, Task) error) error {
	d := newErrand(t)
	if err := submit(ctx, d.run); err != nil {
		return err
	}
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		d.withdraw()
		return context.Cause(ctx)
	case <-c.ended:
		if d.withdraw() {
			return ErrClosed
		}
	}
	select {
	case <-d.done:
		return d.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
