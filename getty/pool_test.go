// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// A hookedPool does what its hook says with every task.
type hookedPool struct{ hook func(taskpool.Task) error }

func (p hookedPool) Submit(_ context.Context, t taskpool.Task) error { return p.hook(t) }
func (p hookedPool) TrySubmit(t taskpool.Task) error                 { return p.hook(t) }

// A user's pool that panics or fails costs the session that wanted something of it, and no process.
//
// case: 12
func TestOddPools(t *testing.T) {
	odd := errors.New("odd")
	for name, hook := range map[string]func(taskpool.Task) error{
		"panics": func(taskpool.Task) error { panic(odd) },
		"fails":  func(taskpool.Task) error { return odd },
	} {
		t.Run(name, func(t *testing.T) {
			eachCarrier(t, func(t *testing.T, c carrier) {
				for _, d := range []getty.Dispatch{getty.Ordered, getty.Unordered} {
					t.Run(d.String(), func(t *testing.T) {
						l := newTracer(t)
						l.unordered = d == getty.Unordered
						srv := c.server(getty.WithServerTaskPool(hookedPool{hook}), getty.WithServerDispatch(d),
							briefClose)
						run(t, srv, prepare(l, codec.Message{}))
						client := c.client(srv.Addr().String())
						run(t, client, prepare(newTracer(t), codec.Message{}))
						_, _, err := ready(t, client).WritePkg("x", 0)
						require.NoError(t, err)
						s := within(t, l.closed, "OnClose")
						require.ErrorIs(t, s.Err(), odd)
						require.EqualValues(t, 1, s.Stats().PkgsRead)
						require.EqualValues(t, 1, s.Stats().Undelivered+s.Stats().Dropped)
					})
				}
			})
		})
	}
}
