// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"

	"github.com/gostkit/kit/taskpool"
)

// A foreignPool is a user's pool. Its methods are called on goroutines whose panic would end the
// process: a panic becomes an error, as that of a user's connection does, and costs one session.
type foreignPool struct{ pool taskpool.Pool }

var _ taskpool.Pool = foreignPool{}

// containPool returns p, behind a foreignPool unless it is of the kind that knows sessions.
func containPool(p taskpool.Pool) taskpool.Pool {
	if _, ok := p.(*taskpool.Ordered); ok {
		return p
	}
	return foreignPool{p}
}

// Submit implements [taskpool.Pool].
func (p foreignPool) Submit(ctx context.Context, t taskpool.Task) (err error) {
	defer caught("taskpool.Pool.Submit", &err)
	return p.pool.Submit(ctx, t)
}

// TrySubmit implements [taskpool.Pool].
func (p foreignPool) TrySubmit(t taskpool.Task) (err error) {
	defer caught("taskpool.Pool.TrySubmit", &err)
	return p.pool.TrySubmit(t)
}
