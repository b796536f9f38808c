// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"

	"github.com/gostkit/kit/taskpool"
)

// A foreignPool wraps a user's pool. Its methods are called on goroutines whose panic would end the
// process. Here a panic becomes an error, as in a foreign connection, and costs only one session.
type foreignPool struct{ pool taskpool.Pool }

var _ taskpool.Pool = foreignPool{}

// containPool returns p, wrapped in a foreignPool unless it is a [taskpool.Ordered].
func containPool(p taskpool.Pool) taskpool.Pool {
	// That one is of this project and does not panic, and a strand works with it directly only if
	// it sees its type.
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
