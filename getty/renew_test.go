// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// stacks returns the memory that goroutines use for their stacks, when none is to be shrunk.
func stacks() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.StackInuse)
}

// deep makes the stack of its goroutine grow.
//
//go:noinline
func deep(n int) int {
	var a [512]byte
	if n > 0 {
		a[n] = byte(deep(n - 1))
	}
	return int(a[n/2]) + n
}

// A session that has been idle for a second waits on a small stack, whatever its callbacks
// needed, and answers as before.
func TestAnIdleSessionHasASmallStack(t *testing.T) {
	if instrumented {
		t.Skip("frames are larger")
	}
	const each, sessions, small = 100, 400, 2 << 10 // both sides, tcp and ws
	before := stacks()
	var back atomic.Int64
	var clients []*getty.Client
	for _, c := range carriers[:2] {
		sl, cl := newTracer(t), newTracer(t)
		sl.message = func(s getty.Session, pkg any) {
			deep(40)
			echoPkg(s, pkg)
		}
		cl.message = func(getty.Session, any) { deep(40); back.Add(1) }
		srv := c.server(getty.WithServerDispatch(getty.Inline))
		run(t, srv, prepare(sl))
		client := c.client(srv.Addr().String(), getty.WithConnectionNumber(each))
		run(t, client, prepare(cl))
		clients = append(clients, client)
	}
	answered := int64(0)
	echo := func() {
		for _, client := range clients {
			eventually(t, "all are connected", func() bool { return client.Stats().Opened == each })
			for s := range client.Sessions() {
				_, _, err := s.WritePkg("hello", 0)
				require.NoError(t, err)
				answered++
			}
		}
		eventually(t, "all is answered", func() bool { return back.Load() == answered })
	}
	echo()
	require.Greater(t, stacks(), before+sessions*2*small, "the callbacks need much")
	eventually(t, "the stacks are small", func() bool {
		return stacks() < before+sessions*(small+small/4)
	})
	echo()
}

// Readers that are replaced all the time lose no byte, change no order, and change no end.
func TestReadersAreReplacedUnderLoad(t *testing.T) {
	const pkgs = 300
	eachWire(t, func(t *testing.T, w wire) {
		if w.name == "wrapped" || w.name == "pipe" {
			t.Skip("a Read of a net.Conn cannot be interrupted")
		}
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			l.message = echoPkg
			srv := w.server(t, getty.WithServerDispatch(d), patientClose)
			run(t, srv, prepare(l))
			for round := range 10 {
				p := w.dial(t, srv)
				s := within(t, l.opened, "OnOpen")
				over := make(chan struct{})
				var renewing sync.WaitGroup
				renewing.Go(func() {
					for {
						select {
						case <-over:
							return
						default:
							getty.Renew(s)
							runtime.Gosched()
						}
					}
				})
				go func() {
					for i := range pkgs { // in parts: some turns end inside a package
						b := p.encode(numbered(i))
						_, _ = p.conn.Write(b[:i%len(b)])
						runtime.Gosched()
						_, _ = p.conn.Write(b[i%len(b):])
					}
				}()
				for range pkgs {
					_, err := p.receive()
					require.NoError(t, err)
				}
				switch round % 3 {
				case 0:
					s.Close()
				case 1:
					_, err := p.conn.Write(p.end())
					require.NoError(t, err)
					require.NoError(t, p.conn.CloseWrite())
				case 2:
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					go func() { _ = s.Flush(ctx); s.Close() }()
				}
				_, err := p.receive()
				require.True(t, p.ended(err), "%v", err)
				_ = p.conn.Close()
				within(t, l.closed, "OnClose")
				close(over)
				renewing.Wait()
				if err := s.Err(); err != io.EOF {
					require.NoError(t, err)
				}
				require.Equal(t, pkgs, l.of(s).messages)
				require.Zero(t, s.Stats().Undelivered)
				require.Zero(t, s.Stats().Unsent)
			}
		})
	})
}

// A Shutdown that comes while readers are replaced handles all that was read.
func TestShutdownWhileReadersAreReplaced(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for range 20 {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			var handled atomic.Int64
			l.message = func(getty.Session, any) { handled.Add(1) }
			srv := getty.NewTCPServer(getty.WithServerDispatch(d))
			start(t, srv, prepare(l))
			const n = 20
			for range n {
				c := dial(t, srv)
				go discardThenClose(c)
				go func(c net.Conn) {
					for range 10 {
						_, _ = c.Write(frame(strings.Repeat("x", 100)))
					}
				}(c)
			}
			for range n {
				go getty.Renew(within(t, l.opened, "OnOpen"))
			}
			report, err := srv.Shutdown(t.Context())
			require.NoError(t, err)
			require.Zero(t, report.Forced)
			st := srv.Stats().Total
			require.Zero(t, st.Undelivered)
			require.EqualValues(t, st.PkgsRead, handled.Load())
		}
	})
}

// One op is a reader that is replaced and then answers a message, which makes its stack grow again.
func BenchmarkRenew(b *testing.B) {
	for _, renew := range []bool{false, true} {
		name := "kept"
		if renew {
			name = "replaced"
		}
		b.Run(name, func(b *testing.B) {
			l := newEchoListener()
			c := dial(b, serve(b, prepare(l)))
			s := within(b, l.opened, "OnOpen")
			out := frame("x")
			for b.Loop() {
				if renew {
					getty.Renew(s)
				}
				if _, err := c.Write(out); err != nil {
					b.Fatal(err)
				}
				readFrame(b, c)
			}
		})
	}
}
