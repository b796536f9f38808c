// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// Writers that wait when their session ends are told ErrSessionClosed, as those that come later are, and
// the cause as well, whatever ended it.
//
// case: 25
func TestWritersThatTheEndOvertakes(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(s getty.Session, p wirePeer)
		want error
	}{
		"reset": {func(_ getty.Session, p wirePeer) {
			_ = p.conn.SetLinger(0)
			_ = p.conn.Close()
		}, nil},
		"write timeout": {func(s getty.Session, _ wirePeer) {
			s.SetWriteTimeout(20 * time.Millisecond)
		}, getty.ErrWriteTimeout},
		"CloseNow": {func(s getty.Session, _ wirePeer) { s.CloseNow() }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			eachWire(t, func(t *testing.T, w wire) {
				l := newTracer(t)
				srv := w.server(t, briefClose, func(o *getty.ServerOptions) {
					o.WriteTimeout, o.ReadWhileBlocked = time.Hour, true
				})
				run(t, srv, prepare(l))
				p := w.dial(t, srv)
				require.NoError(t, p.conn.SetReadBuffer(64<<10))
				s := within(t, l.opened, "OnOpen")
				_, _, err := s.WritePkg(noise(16<<20), 0)
				require.NoError(t, err)
				const n = 4
				errs := make(chan error, 2*n)
				for range n {
					go func() {
						_, _, err := s.WritePkg("y", time.Hour)
						errs <- err
					}()
					go func() { errs <- s.Flush(context.Background()) }()
				}
				eventually(t, "they wait", func() bool { return getty.WriteStalled(s) })
				c.end(s, p)
				for range 2 * n {
					err := within(t, errs, "a writer's end")
					require.ErrorIs(t, err, getty.ErrSessionClosed)
					if c.want != nil && err != getty.ErrSessionClosed { // it came before the end
						require.ErrorIs(t, err, c.want)
					}
				}
			})
		})
	}
}

// A Flush whose mark is taken by a flush of its own, after the write before it has failed, fails too: there is
// nothing left to be written then, and a mark has no bytes of its own.
//
// case: 25
func TestAMarkBehindAFailedWrite(t *testing.T) {
	eachWire(t, func(t *testing.T, w wire) {
		result := make(chan error, 1)
		srv := w.server(t, briefClose)
		run(t, srv, prepare(getty.Funcs{Open: func(s getty.Session) error {
			if _, _, err := s.WritePkg(noise(16<<20), 0); err != nil {
				return err
			}
			eventually(t, "a flusher waits for the peer", func() bool { return getty.WriteStalled(s) })
			result <- getty.FlushLate(s, s.CloseNow)
			return nil
		}}))
		w.dial(t, srv)
		require.ErrorIs(t, within(t, result, "Flush"), getty.ErrSessionClosed)
	})
}
