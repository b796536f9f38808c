// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/netx"
	"github.com/stretchr/testify/require"
)

// stalled returns a session on c whose peer reads nothing until read is called, and then all.
func stalled(t *testing.T, c carrier, opts ...getty.ServerOption) (s getty.Session, read func()) {
	l := newTracer(t)
	srv := c.server(opts...)
	run(t, srv, prepare(l))
	var conn net.Conn = nil
	if c.name == "ws" {
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
		require.NoError(t, err)
		conn = ws.NetConn()
	} else {
		var err error
		conn, err = net.Dial("tcp", srv.Addr().String())
		require.NoError(t, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return within(t, l.opened, "OnOpen"), func() { go func() { _, _ = io.Copy(io.Discard, conn) }() }
}

// live returns how many bytes of the heap are in use.
func live() uint64 {
	var m runtime.MemStats
	for range 3 { // pools forget in two rounds
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A queue that was full and has drained leaves nothing behind: neither the idle session nor a pool
// keeps what was sent.
//
// case: 13
func TestDrainedQueueHoldsNothing(t *testing.T) {
	for _, c := range carriers[:2] {
		for _, size := range []int{100, 30_000, 300_000} {
			t.Run(fmt.Sprint(c.name, size), func(t *testing.T) {
				s, read := stalled(t, c, func(o *getty.ServerOptions) {
					o.HighWater = 8 << 20
					o.WriteTimeout = -1
				})
				before := live()
				p := strings.Repeat("x", size)
				fill(t, s, p) // also where the kernel takes some more meanwhile
				require.Greater(t, live(), before+(4<<20))
				read()
				eventually(t, "the queue is empty", func() bool { return s.Stats().Queued == 0 })
				require.NoError(t, s.Flush(t.Context()))
				eventually(t, "nothing is kept", func() bool { return live() < before+(128<<10) })
			})
		}
	}
}

// A small package behind a huge one costs what a small one costs.
//
// case: 18
func TestSmallPackageBehindAHugeOne(t *testing.T) {
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			s, read := stalled(t, c)
			read()
			huge := strings.Repeat("x", 32<<20)
			for range 3 {
				_, _, err := s.WritePkg(huge, patience)
				require.NoError(t, err)
				var before, after runtime.MemStats
				live()
				runtime.ReadMemStats(&before)
				_, _, err = s.WritePkg("small", patience)
				require.NoError(t, err)
				runtime.ReadMemStats(&after)
				require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
			}
		})
	}
}

// Linger never makes a session's end wait: neither CloseNow nor Shutdown, on either side.
//
// case: 20
func TestLingerDelaysNothing(t *testing.T) {
	const linger = 2 * patience // more than any of these tests waits
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			sl, cl := newTracer(t), newTracer(t)
			hold := make(chan struct{})
			handled := make(chan struct{}, 1000)
			sl.message = func(getty.Session, any) { handled <- struct{}{}; <-hold } // the server reads nothing more
			srv := c.server(getty.WithServerDispatch(getty.Inline), func(o *getty.ServerOptions) {
				o.Socket.Linger, o.WriteTimeout = linger, -1
			})
			require.NoError(t, srv.RunEventLoop(prepare(sl)))
			client := c.client(srv.Addr().String(), getty.WithConnectionNumber(4), func(o *getty.ClientOptions) {
				o.Socket.Linger, o.WriteTimeout, o.HighWater = linger, -1, 4<<20
			})
			require.NoError(t, client.RunEventLoop(prepare(cl)))
			var stuck []getty.Session
			for range 4 {
				s := within(t, cl.opened, "OnOpen")
				within(t, sl.opened, "OnOpen of the server")
				_, _, err := s.WritePkg("hold", 0)
				require.NoError(t, err)
				within(t, handled, "the handler")
				for err == nil {
					_, _, err = s.WritePkg(strings.Repeat("x", 256<<10), 0)
				}
				require.ErrorIs(t, err, getty.ErrSessionBlocked)
				eventually(t, "the kernel holds what the peer does not take", func() bool {
					n, err := netx.SendQueue(s.Conn())
					require.NoError(t, err)
					return n > 64<<10
				})
				stuck = append(stuck, s)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				stuck[0].CloseNow()
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				_, _ = client.Shutdown(ctx)
				<-client.Done()
			}()
			within(t, done, "the end of the client")
			close(hold)
			srv.Close()
			_, _ = srv.Shutdown(t.Context())
		})
	}
}

// A slowCloser is a connection whose Close waits.
type slowCloser struct {
	net.Conn
	closing chan<- struct{}
	release <-chan struct{}
}

func (c slowCloser) Close() error {
	c.closing <- struct{}{}
	<-c.release
	return c.Conn.Close()
}

// A user's Close that takes its time delays neither CloseNow nor the accept loop, and Shutdown
// closes all stuck sessions at the same time. OnClose comes when the descriptor is free.
//
// case: 12, 20
func TestSlowCloses(t *testing.T) {
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			l := newTracer(t)
			closing, release := make(chan struct{}, 100), make(chan struct{})
			ln := newHandedListener()
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer inner.Close()
			go func() {
				for {
					conn, err := inner.Accept()
					if err != nil {
						return
					}
					ln.conns <- slowCloser{conn, closing, release}
				}
			}()
			srv := c.server(getty.WithListener(ln), getty.WithMaxSessions(3))
			require.NoError(t, srv.RunEventLoop(prepare(l)))
			client := c.client(inner.Addr().String(), getty.WithConnectionNumber(3), getty.WithReconnectInterval(time.Hour))
			run(t, client, prepare(newTracer(t)))
			var first getty.Session
			for range 3 {
				first = within(t, l.opened, "OnOpen")
			}
			if c.name == "tcp" { // a refused connection, twice: the accept loop goes on
				for range 2 {
					dialed, err := net.Dial("tcp", inner.Addr().String())
					require.NoError(t, err)
					defer dialed.Close()
					within(t, closing, "the refusal")
				}
			}
			first.CloseNow() // it returns
			within(t, closing, "the Close")
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, err = srv.Shutdown(ctx)
			require.ErrorIs(t, err, context.Canceled)
			for range 2 {
				within(t, closing, "all are being closed")
			}
			require.Empty(t, l.closed, "OnClose follows the Close")
			close(release)
			within(t, srv.Done(), "Done")
			require.Len(t, l.closed, 3)
		})
	}
}

// Peers that never read hold what their queues may hold, the last package included, and what TLS or compression has
// encoded ahead of the kernel.
func TestPeersThatNeverReadAreBounded(t *testing.T) {
	peers := 100
	if os.Getenv("GOSTKIT_LONG") != "" {
		peers = 1000
	}
	const high, size, ahead = 1 << 20, 60_000, 64 << 10
	for _, w := range wires {
		extra := 0
		switch w.name {
		case "tls", "snappy":
			extra = ahead
		case "tcp":
		default:
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			l := newTracer(t)
			srv := w.server(t, func(o *getty.ServerOptions) {
				o.HighWater, o.WriteTimeout, o.WaitTime = high, -1, -1
				o.Socket.WriteBuffer = 4096
				o.HandshakeTimeout = patience
			})
			run(t, srv, prepare(l))
			var conns []wirePeer
			for range peers {
				p := w.dial(t, srv)
				require.NoError(t, p.conn.SetReadBuffer(4096))
				conns = append(conns, p)
			}
			p := noise(size)
			eventually(t, "all are open", func() bool { return srv.Stats().Open == peers })
			before := heap()
			sessions := fillMany(t, l, peers, p)
			held := heap() - before
			queued := uint64(0)
			for _, s := range sessions {
				queued += s.Stats().Queued
			}
			t.Logf("each holds %d bytes, of which %d are queued", held/int64(peers), queued/uint64(peers))
			require.LessOrEqual(t, queued, uint64(peers*(high+size)))
			require.Greater(t, queued, uint64(peers*high/2))
			// The memory for a package is reserved before its size is known, and is of a size that the pool has.
			require.Less(t, held/int64(peers), int64((high+size)*7/4+extra))
			for _, c := range conns {
				_ = c.conn.Close()
			}
		})
	}
}
