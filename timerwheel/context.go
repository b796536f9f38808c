// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"context"
	"errors"
	"time"
)

// Context returns a copy of parent that is done with [context.DeadlineExceeded] after d, as
// [context.WithTimeout] does it, but with a timer of the Wheel. The CancelFunc stops the timer;
// call it as soon as the work is done. If parent ends before, or the Wheel is closed, so does
// the Context, in the latter case with [context.Canceled].
//
// Contexts derived from it learn of its end from a goroutine of their own, a moment later.
func (w *Wheel) Context(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(d)
	if first, ok := parent.Deadline(); ok && first.Before(deadline) {
		deadline = first // the parent sees to it; the timer is there for Close
	}
	inner, cancel := context.WithCancelCause(parent)
	ctx := &wheelContext{Context: inner, parent: parent, deadline: deadline}
	if d <= 0 {
		cancel(errExpired)
		return ctx, func() {}
	}
	t := new(Timer)
	w.init(t, w.waited, cancelFunc(cancel), nil)
	t.start(d)
	if w.closed.Load() { // then t may not have been started
		cancel(nil)
	}
	return ctx, func() {
		t.Stop()
		cancel(nil)
	}
}

// errExpired is the inner context's cause when the timer fired.
var errExpired = errors.New("timerwheel: context expired")

type cancelFunc context.CancelCauseFunc

func (c cancelFunc) run(any)         { c(errExpired) }
func (c cancelFunc) wheelClosed(any) { c(nil) }

// wheelContext turns a cancelable context into one with a deadline: only the error differs.
//
// Package context looks through Value for a context it knows, and would tie derived contexts
// to inner, whose error is Canceled. Value therefore leads past inner, and AfterFunc offers the
// way that package context has for contexts it does not know.
type wheelContext struct {
	context.Context // inner: Done
	parent          context.Context
	deadline        time.Time
}

// Deadline implements [context.Context].
func (c *wheelContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Value implements [context.Context].
func (c *wheelContext) Value(key any) any {
	v := c.Context.Value(key)
	if v != any(c.Context) {
		return v
	}
	// It is package context that asks. It may have the parent, except for the cause of an end
	// that was not the parent's: then it finds nothing and takes Err.
	if cause := context.Cause(c.Context); cause == errExpired || cause == context.Canceled {
		return nil
	}
	return c.parent.Value(key)
}

// Err implements [context.Context].
func (c *wheelContext) Err() error {
	err := c.Context.Err()
	if err != nil && context.Cause(c.Context) == errExpired {
		return context.DeadlineExceeded
	}
	return err
}

// AfterFunc is what package context looks for in a context of another package.
func (c *wheelContext) AfterFunc(f func()) (stop func() bool) {
	return context.AfterFunc(c.Context, f)
}
