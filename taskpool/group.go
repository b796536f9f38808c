// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"sync"
)

// stopper is implemented by the pools of this package. A Group or Future on another kind of Pool
// cannot notice that its tasks were abandoned.
type stopper interface{ Stopped() <-chan struct{} }

func stopped(p Pool) <-chan struct{} {
	switch p := p.(type) {
	case stopper:
		return p.Stopped()
	case *Mailbox:
		return p.pool.Stopped()
	}
	return nil
}

// Group runs functions on a pool and waits for them, as golang.org/x/sync/errgroup does with
// goroutines; where no pool is needed, use that. Create it with [NewGroup]. Go and Wait may be
// called from any goroutine, but Wait not from a task of a pool that may have no worker left for
// the group.
type Group struct {
	pool   Pool
	ctx    context.Context
	cancel context.CancelCauseFunc
	sem    chan struct{} // nil: no limit

	mu      sync.Mutex
	cond    sync.Cond // of mu: done or abandoned changed
	pending int       // accepted or being submitted, not started
	running int
	gone    bool // the pool has ended: nothing pending will start
	err     error
}

// NewGroup returns a group on p and a context that is cancelled with the first error, or when Wait
// returns. At most limit functions of the group are submitted at a time; zero or less means no
// limit.
func NewGroup(ctx context.Context, p Pool, limit int) (*Group, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	g := &Group{pool: p, ctx: ctx, cancel: cancel}
	g.cond.L = &g.mu
	if limit > 0 {
		g.sem = make(chan struct{}, limit)
	}
	return g, ctx
}

// Go submits f, and waits for room in the pool and within the limit of the group. If that fails,
// because the group's context has ended, the pool is closed or f is nil, f does not run and the
// error counts as one of the group. A panic in f becomes a *[PanicError], Goexit [ErrGoexit]. A
// function of the group that calls Go while the group is at its limit waits for a place that it may
// hold itself: with a limit of one it waits until the context ends.
func (g *Group) Go(f func(ctx context.Context) error) {
	if f == nil {
		g.fail(ErrNilTask)
		return
	}
	if g.sem != nil {
		// The place is taken here and not on the worker, so that a group over its limit does not
		// fill the queue of a pool that others use.
		select {
		case g.sem <- struct{}{}:
		case <-g.ctx.Done():
			g.fail(context.Cause(g.ctx))
			return
		case <-stopped(g.pool):
			// The functions that hold the places may be among those that never start.
			g.fail(ErrClosed)
			return
		}
	}
	g.mu.Lock()
	g.pending++
	g.mu.Unlock()
	// Counted as pending before Submit: a Wait in between must not return, and the function may
	// start before Submit returns.
	if err := g.pool.Submit(g.ctx, func() { g.run(f) }); err != nil {
		g.mu.Lock()
		g.pending--
		// Wait may be waiting for exactly this function, which will not start now.
		g.cond.Broadcast()
		g.mu.Unlock()
		g.release()
		g.fail(err)
	}
}

func (g *Group) run(f func(context.Context) error) {
	g.mu.Lock()
	if g.gone {
		g.mu.Unlock()
		return // Wait has reported it; the caller of Shutdown has the task and may call it
	}
	g.pending--
	g.running++
	g.mu.Unlock()
	var err error
	// A call turns a panic and Goexit into errors, so that the pool reports neither: they are the
	// group's to report.
	d := newCall(func() { err = f(g.ctx) })
	// Deferred, because after Goexit nothing else runs. The order matters: the error is recorded
	// before running falls to zero, so that Wait cannot miss it; the place is given up last.
	defer func() {
		if d.err != nil {
			err = d.err
		}
		g.fail(err)
		g.mu.Lock()
		g.running--
		g.cond.Broadcast()
		g.mu.Unlock()
		g.release()
	}()
	d.run()
}

func (g *Group) release() {
	if g.sem != nil {
		<-g.sem
	}
}

func (g *Group) fail(err error) {
	if err == nil {
		return
	}
	g.mu.Lock()
	// Later errors are mostly the consequence of the cancelled context, and would hide the cause.
	if g.err == nil {
		g.err = err
		g.cancel(err)
	}
	g.mu.Unlock()
}

// Wait returns when all functions have returned, with the first error. If the pool ends before some
// of them have started, those never run, and the error is [ErrClosed] unless there was one before.
func (g *Group) Wait() error {
	quit := make(chan struct{})
	watched := make(chan struct{})
	// A condition variable cannot wait for a channel. The goroutine ends with Wait and is waited
	// for below.
	go func() {
		defer close(watched)
		select {
		case <-quit:
		case <-stopped(g.pool):
			g.mu.Lock()
			// From here run refuses to start functions, so that Wait may return without them.
			g.gone = true
			g.cond.Broadcast()
			g.mu.Unlock()
		}
	}()
	g.mu.Lock()
	// Running functions are waited for in any case: they may write to memory that the caller reads
	// after Wait.
	for g.running > 0 || (g.pending > 0 && !g.gone) {
		g.cond.Wait()
	}
	lost := g.pending > 0
	g.mu.Unlock()
	close(quit)
	<-watched
	if lost {
		g.fail(ErrClosed)
	}
	// Releases what hangs on the context, also after success; a first error was the cause already
	// and stays.
	g.cancel(nil)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}
