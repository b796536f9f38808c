// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"context"
	"errors"
	"time"
)

// Context returns a copy of parent that is done with [context.DeadlineExceeded] after d, as
// [context.WithTimeout] does it, but with a timer of the Wheel. The CancelFunc stops the timer;
// call it as soon as the work is done. If parent ends before, so does the Context, and its timer
// is stopped. If the Wheel is closed, the Context ends with [context.Canceled].
//
// Contexts derived from it learn of its end from a goroutine of their own, a moment later.
func (w *Wheel) Context(
	parent context.Context, d time.Duration,
) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(d)
	if first, ok := parent.Deadline(); ok && first.Before(deadline) {
		deadline = first // the parent sees to it; the timer is there for Close
	}
	inner, cancel := context.WithCancelCause(parent)
	c := &wheelContext{Context: inner, parent: parent, deadline: deadline, cancel: cancel}
	if d <= 0 {
		cancel(errExpired) // without a timer, so that the Context has ended when it is returned
		return c, func() {}
	}
	if inner.Err() != nil {
		return c, func() {} // parent has ended already: nothing to wait for
	}
	w.init(&c.timer, w.waited, contextTimer{}, c)
	if parent.Done() != nil {
		c.unwatch = context.AfterFunc(inner, func() { c.timer.Stop() })
	}
	c.timer.start(d)
	switch {
	case w.closed.Load():
		c.end(nil) // Close may have come before start, and then released nobody
	case inner.Err() != nil:
		c.timer.Stop() // parent may have ended before start: that Stop came too early
	}
	return c, func() {
		c.timer.Stop()
		c.end(nil)
	}
}

// errExpired is the inner context's cause when the timer fired.
var errExpired = errors.New("timerwheel: context expired")

// contextTimer is the caller of a wheelContext's timer, which has the context as its argument.
type contextTimer struct{}

func (contextTimer) run(arg any)         { arg.(*wheelContext).end(errExpired) }
func (contextTimer) wheelClosed(arg any) { arg.(*wheelContext).end(nil) }

// wheelContext turns a cancelable context into one with a deadline: only the error differs.
//
// Package context looks through Value for a context it knows, and would tie derived contexts
// to inner, whose error is Canceled. Value therefore leads past inner, and AfterFunc offers the
// way that package context has for contexts it does not know.
type wheelContext struct {
	context.Context // inner: Done
	parent          context.Context
	deadline        time.Time
	cancel          context.CancelCauseFunc // of inner
	timer           Timer
	unwatch         func() bool // ends the watch on inner; nil if parent never ends
}

// end cancels the context, whose timer has fired or is stopped.
func (c *wheelContext) end(cause error) {
	if c.unwatch != nil {
		c.unwatch() // else the cancel starts a goroutine that stops the timer once more
	}
	c.cancel(cause)
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
