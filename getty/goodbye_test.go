// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// A muteConn takes writes until it is muted, and then none until it is closed.
type muteConn struct {
	net.Conn
	muted  atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (c *muteConn) Write(p []byte) (int, error) {
	if c.muted.Load() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *muteConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A Close says what happened when its WaitTime was over before the goodbye had left, without which the peer
// takes the end for a cut: on both sides the end is then no clean one. Where a stream just ends, nothing is
// missing.
func TestGoodbyeThatDidNotLeave(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		if c.name == "udp" || c.name == "unix" { // no stream; Unix takes no other address
			t.Skip("has no goodbye")
		}
		sl, cl := newTracer(t), newTracer(t)
		got := make(chan any, 1)
		sl.message = func(_ getty.Session, pkg any) { got <- pkg }
		srv := c.server()
		run(t, srv, prepare(sl))
		conns := make(chan *muteConn, 1)
		run(t, c.client(srv.Addr().String(), func(o *getty.ClientOptions) {
			o.WaitTime, o.ReconnectInterval, o.ReconnectMax = 50*time.Millisecond, time.Hour, time.Hour
			o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				if err != nil {
					return nil, err
				}
				m := &muteConn{Conn: conn, closed: make(chan struct{})}
				conns <- m
				return m, nil
			}
		}), prepare(cl))
		conn, s, peer := within(t, conns, "Dial"), within(t, cl.opened, "OnOpen"), within(t, sl.opened, "OnOpen")
		_, _, err := s.WritePkg("all that is to be said", patience)
		require.NoError(t, err)
		within(t, got, "the package")
		conn.muted.Store(true)
		s.Close()
		within(t, s.Done(), "Done")
		within(t, peer.Done(), "Done of the peer")
		require.Zero(t, s.Stats().Unsent)
		if c.name == "tcp" || c.name == "snappy" {
			require.NoError(t, s.Err())
			require.Equal(t, io.EOF, peer.Err())
			return
		}
		require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
		if c.name != "ws" { // an end between two frames is an end, also without a close frame
			require.ErrorIs(t, peer.Err(), io.ErrUnexpectedEOF)
		}
		require.Len(t, cl.of(s).errs, 1)
	})
}
