// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// An exitingPkg counts the calls of its Release, which end the goroutine.
type exitingPkg struct{ released *atomic.Int32 }

func (p exitingPkg) Release() {
	p.released.Add(1)
	runtime.Goexit()
}

// A Release that ends its goroutine keeps no session from its end, where packages are dropped too: each
// is released once, and OnClose comes.
//
// case: 12
func TestReleaseThatExits(t *testing.T) {
	const n = 10
	eachWire(t, func(t *testing.T, w wire) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			var released atomic.Int32
			l.message = func(s getty.Session, _ any) { s.CloseNow() }
			srv := w.server(t, getty.WithServerDispatch(d))
			run(t, srv, prepare(l, readerFunc(func(b []byte) (any, int, error) {
				if len(b) < 12 {
					return nil, 12, nil
				}
				return exitingPkg{&released}, 12, nil
			})))
			p := w.dial(t, srv)
			_, err := p.conn.Write(p.encode(manyFrames(n)...))
			require.NoError(t, err)
			s := within(t, l.closed, "OnClose")
			within(t, s.Done(), "Done")
			st := s.Stats()
			require.EqualValues(t, st.PkgsRead, released.Load(), "%+v", st)
			require.EqualValues(t, st.PkgsRead, uint64(l.of(s).messages)+st.Undelivered, "%+v", st)
		})
	})
}
