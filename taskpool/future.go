// SPDX-License-Identifier: Apache-2.0

package taskpool

import "context"

// Future is the result of a function that runs on a pool. Create it with [Async]; its methods may
// be called from any goroutine and any number of times.
type Future[T any] struct {
	call  *call
	ended <-chan struct{}
	value T
	err   error
}

// Async submits f to p, waiting for room if there is none, and returns its future. The error is
// that of p's Submit, or [ErrNilTask].
func Async[T any](ctx context.Context, p Pool, f func() (T, error)) (*Future[T], error) {
	if f == nil {
		return nil, ErrNilTask
	}
	r := &Future[T]{ended: stopped(p)}
	r.call = newCall(func() { r.value, r.err = f() })
	if err := p.Submit(ctx, r.call.run); err != nil {
		return nil, err
	}
	return r, nil
}

// Done returns a channel that is closed when f has returned. If the pool ends before f has started
// it is never closed; Wait notices that.
func (r *Future[T]) Done() <-chan struct{} { return r.call.done }

// Wait waits for the end of f and returns its results, or the zero value and a *[PanicError],
// [ErrGoexit], [ErrClosed] if the pool ended before f had started (f then never runs), or the cause
// of ctx (f may still run, and Wait be called again). A task of the same pool that waits holds its
// worker: if all workers wait for functions that have not started, nobody runs them, and Wait
// returns only when ctx ends.
func (r *Future[T]) Wait(ctx context.Context) (T, error) {
	var zero T
	select {
	case <-r.call.done:
	case <-ctx.Done():
		select {
		case <-r.call.done: // both were ready: the result is there
		default:
			return zero, context.Cause(ctx)
		}
	// Without this case Wait would hang: the task came back from Shutdown or Close and may never
	// run.
	case <-r.ended:
		// The state is read and not the answer, since an earlier Wait may have withdrawn the call.
		r.call.withdraw()
		if r.call.state.Load() == callWithdrawn {
			return zero, ErrClosed
		}
		// It had begun when the pool ended, so its result will come.
		select {
		case <-r.call.done:
		case <-ctx.Done():
			return zero, context.Cause(ctx)
		}
	}
	if r.call.err != nil {
		return zero, r.call.err
	}
	return r.value, r.err
}
