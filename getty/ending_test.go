// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// The reason of CloseWith is the cause, goes to OnError, and to a peer that can be told; what was
// queued is flushed before.
func TestCloseWith(t *testing.T) {
	reason := fmt.Errorf("no more credit: %w", errors.ErrUnsupported)
	eachCarrier(t, func(t *testing.T, c carrier) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			sl, cl := newTracer(t), newTracer(t)
			sl.unordered = d == getty.Unordered
			closing := make(chan getty.Session, 1)
			sl.message = func(s getty.Session, pkg any) {
				if c.name != "udp" { // its packages are those of all peers
					echoPkg(s, pkg)
				}
				s.CloseWith(reason)
				s.CloseWith(io.ErrShortBuffer) // the first counts
				s.Close()
				closing <- s
			}
			srv := c.server(getty.WithServerDispatch(d), patientClose)
			start(t, srv, prepare(sl))
			client := c.client(srv.Addr().String(), func(o *getty.ClientOptions) { o.UDP.NoProbe = c.name == "udp" })
			start(t, client, prepare(cl))
			_, _, err := ready(t, client).WritePkg("hello", 0)
			require.NoError(t, err)
			s := within(t, closing, "OnMessage")
			within(t, s.Done(), "Done")
			require.Equal(t, reason, s.Err())
			require.Equal(t, []error{reason}, sl.of(s).errs)
			require.Zero(t, s.Stats().Unsent)
			if c.name != "udp" {
				peer := within(t, cl.closed, "OnClose of the peer")
				require.EqualValues(t, 1, peer.Stats().PkgsRead)
				var e *getty.CloseError
				if c.name == "ws" || c.name == "wss" {
					require.ErrorAs(t, peer.Err(), &e)
					require.Equal(t, 1011, e.Code)
					require.Empty(t, e.Reason, "what an error says is not for the peer")
				} else {
					require.ErrorIs(t, peer.Err(), io.EOF)
				}
			}
			client.Close()
			srv.Close()
			within(t, client.Done(), "Done")
			within(t, srv.Done(), "Done")
		})
	})
}

// A WebSocket peer is told the code and the text that a CloseError names.
func TestCloseWithCodes(t *testing.T) {
	long := strings.Repeat("ö", 100)
	for _, c := range []struct {
		reason error
		code   int
		text   string
	}{
		{&getty.CloseError{Code: 4001, Reason: "sold out"}, 4001, "sold out"},
		{fmt.Errorf("why: %w", &getty.CloseError{Code: 1008, Reason: "rude"}), 1008, "rude"},
		{&getty.CloseError{Code: 1000, Reason: long}, 1000, strings.Repeat("ö", 61)},
		{&getty.CloseError{Code: 3000, Reason: "bad \xff text"}, 3000, "bad "},
		{&getty.CloseError{Code: 1005, Reason: "not to be sent"}, 1011, ""},
		{&getty.CloseError{Code: 99999}, 1011, ""},
		{getty.ErrIdleTimeout, 1001, ""},
		{getty.ErrTooLong, 1009, ""},
		{io.EOF, 1011, ""},
	} {
		l := newTracer(t)
		srv := getty.NewWSServer(patientClose)
		run(t, srv, prepare(l))
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
		require.NoError(t, err)
		s := within(t, l.opened, "OnOpen")
		s.CloseWith(c.reason)
		_, _, err = ws.ReadMessage()
		var e *websocket.CloseError
		require.ErrorAs(t, err, &e)
		require.Equal(t, c.code, e.Code)
		require.Equal(t, c.text, e.Text)
		_ = ws.Close()
		within(t, l.closed, "OnClose")
		require.Equal(t, c.reason, s.Err())
	}
}

// CloseWith nil is Close, and a session that closes already keeps its clean end.
func TestCloseWithNothing(t *testing.T) {
	for _, late := range []bool{false, true} {
		l := newTracer(t)
		c := dial(t, serve(t, prepare(l), patientClose))
		s := within(t, l.opened, "OnOpen")
		if late {
			s.Close()
			s.CloseWith(io.ErrShortBuffer)
		} else {
			s.CloseWith(nil)
		}
		go discardThenClose(c)
		within(t, l.closed, "OnClose")
		require.NoError(t, s.Err())
		require.Empty(t, l.of(s).errs)
	}
}

// After CloseWrite the peer sees the end of the stream behind all that was queued, and is still
// heard, until it ends its own.
func TestCloseWrite(t *testing.T) {
	const n = 50
	for _, w := range wires {
		if w.name == "websocket" || w.name == "wss" || w.name == "pipe" { // cannot; TestCloseWriteUnsupported
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				l.message = func(s getty.Session, pkg any) {
					if pkg.(*codec.Frame).String() != "end" {
						return
					}
					for range n {
						echoPkg(s, pkg)
					}
					if err := s.CloseWrite(); err != nil {
						t.Errorf("CloseWrite: %v", err)
					}
					_, _, err := s.WritePkg("more", 0)
					if !errors.Is(err, getty.ErrWriteClosed) || !errors.Is(err, getty.ErrSessionClosed) {
						t.Errorf("a write behind the end: %v", err)
					}
				}
				srv := w.server(t, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
					o.WaitTime = time.Millisecond // limits nothing: the session is not closing
				})
				run(t, srv, prepare(l))
				c := w.dial(t, srv).conn
				_, err := c.Write(frame("end"))
				require.NoError(t, err)
				for range n {
					require.Equal(t, "end", readFrame(t, c))
				}
				_, err = c.Read(make([]byte, 1))
				require.Equal(t, io.EOF, err)
				s := within(t, l.opened, "OnOpen")
				require.True(t, s.IsClosed())
				require.ErrorIs(t, s.Context().Err(), context.Canceled)
				require.ErrorIs(t, s.CloseWrite(), getty.ErrWriteClosed)
				time.Sleep(5 * time.Millisecond) // longer than WaitTime
				for i := range n {
					_, err = c.Write(numbered(i))
					require.NoError(t, err)
				}
				require.NoError(t, c.CloseWrite())
				within(t, l.closed, "OnClose")
				require.Equal(t, io.EOF, s.Err())
				require.Equal(t, n+1, l.of(s).messages)
				require.Empty(t, l.of(s).errs)
				require.Zero(t, s.Stats().Unsent)
			})
		})
	}
}

// CloseWrite of a session that has nothing to send ends its stream at once.
func TestCloseWriteOfAnIdleSession(t *testing.T) {
	l := newTracer(t)
	srv := serve(t, prepare(l))
	c := dial(t, srv)
	s := within(t, l.opened, "OnOpen")
	require.NoError(t, s.CloseWrite())
	_, err := c.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// CloseWrite of a session whose queue is stuck ends the stream when the peer has taken it; Close
// and the limits of the queue go on as ever.
func TestCloseWriteBehindAQueue(t *testing.T) {
	for _, end := range []string{"read", "close", "timeout"} {
		t.Run(end, func(t *testing.T) {
			s, read := stalled(t, carriers[0], func(o *getty.ServerOptions) {
				o.HighWater, o.WaitTime, o.WriteTimeout = 64<<20, 50*time.Millisecond, 100*time.Millisecond
				if end != "timeout" {
					o.WriteTimeout = -1
				}
			})
			_, _, err := s.WritePkg(noise(16<<20), 0)
			require.NoError(t, err)
			require.NoError(t, s.CloseWrite())
			switch end {
			case "read":
				read()
				eventually(t, "all is sent", func() bool { return s.Stats().PkgsWritten == 1 })
				s.Close()
				within(t, s.Done(), "Done")
				require.NoError(t, s.Err())
			case "close":
				s.Close()
				within(t, s.Done(), "Done")
				require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
			case "timeout":
				within(t, s.Done(), "Done")
				require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
			}
		})
	}
}

// Where a stream cannot end alone, CloseWrite says so and changes nothing.
func TestCloseWriteUnsupported(t *testing.T) {
	unable := func(t *testing.T, s getty.Session) {
		require.ErrorIs(t, s.CloseWrite(), errors.ErrUnsupported)
		require.False(t, s.IsClosed())
	}
	for _, c := range carriers {
		if c.name != "ws" && c.name != "wss" && c.name != "udp" {
			continue
		}
		srv := c.server()
		run(t, srv, prepare(newTracer(t)))
		client := c.client(srv.Addr().String())
		run(t, client, prepare(newTracer(t)))
		unable(t, ready(t, client))
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	l := newTracer(t)
	serve(t, prepare(l), getty.WithListener(newHandedListener(ours)))
	unable(t, within(t, l.opened, "OnOpen"))
}

// The context of a session ends when it accepts no package any more, with the cause, and not
// before: a handler at work when the peer ends its stream can still answer.
func TestContext(t *testing.T) {
	eachWire(t, func(t *testing.T, w wire) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			for name, c := range map[string]struct {
				end   func(s getty.Session, p wirePeer)
				cause error
			}{
				"Close":     {func(s getty.Session, _ wirePeer) { s.Close() }, getty.ErrSessionClosed},
				"CloseNow":  {func(s getty.Session, _ wirePeer) { s.CloseNow() }, getty.ErrSessionClosed},
				"CloseWith": {func(s getty.Session, _ wirePeer) { s.CloseWith(io.ErrShortBuffer) }, io.ErrShortBuffer},
				"the peer's end": {func(_ getty.Session, p wirePeer) {
					_, _ = p.conn.Write(p.end())
					_ = p.conn.CloseWrite()
				}, io.EOF},
			} {
				if w.name == "pipe" && name == "the peer's end" {
					continue // a pipe that has ended takes no answer
				}
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				working, go_ := make(chan context.Context, 1), make(chan struct{})
				l.message = func(s getty.Session, pkg any) {
					working <- s.Context()
					if name == "the peer's end" {
						<-go_
						echoPkg(s, pkg)
					}
				}
				srv := w.server(t, getty.WithServerDispatch(d), briefClose)
				run(t, srv, prepare(l))
				p := w.dial(t, srv)
				_, err := p.conn.Write(p.encode(frame("x")))
				require.NoError(t, err)
				s := within(t, l.opened, "OnOpen")
				ctx := within(t, working, "OnMessage")
				require.NoError(t, ctx.Err())
				require.Equal(t, ctx, s.Context())
				c.end(s, p)
				if name == "the peer's end" {
					require.NoError(t, ctx.Err())
					close(go_)
					got, err := p.receive()
					require.NoError(t, err, name)
					require.Equal(t, "x", got)
				}
				within(t, ctx.Done(), "the end of the context")
				require.ErrorIs(t, context.Cause(ctx), c.cause, name)
				_ = p.conn.Close()
				within(t, l.closed, "OnClose")
				require.ErrorIs(t, context.Cause(s.Context()), c.cause, "asked for again")
			}
		})
	})
}

// A session whose context was never asked for has one that is over.
func TestContextAfterTheEnd(t *testing.T) {
	l := newTracer(t)
	c := dial(t, serve(t, prepare(l)))
	_ = c.Close()
	s := within(t, l.closed, "OnClose")
	require.ErrorIs(t, context.Cause(s.Context()), io.EOF)
}

// What OnEnd was given runs once, in order, after OnClose and before Done, whatever the others do,
// also if the session never opened; what comes later runs at once.
func TestOnEnd(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		var order atomic.Value
		order.Store("")
		note := func(s string) { order.Store(order.Load().(string) + s) }
		l := newTracer(t)
		l.onClose = func(getty.Session) { note("close ") }
		srv := c.server()
		require.NoError(t, srv.RunEventLoop(func(s getty.Session) error {
			s.OnEnd(func(getty.Session) { note("1 ") })
			s.OnEnd(func(getty.Session) { panic("enough") })
			removed := s.OnEnd(func(getty.Session) { note("removed ") })
			s.OnEnd(func(getty.Session) { runtime.Goexit() })
			s.OnEnd(func(s getty.Session) {
				note("2 ")
				select {
				case <-s.Done():
					note("too late ")
				default:
				}
				s.OnEnd(func(getty.Session) { note("3 ") })
			})
			require.True(t, removed())
			require.False(t, removed())
			return prepare(l)(s)
		}))
		if c.name != "udp" {
			client := c.client(srv.Addr().String())
			run(t, client, prepare(newTracer(t)))
			ready(t, client)
		}
		s := within(t, l.opened, "OnOpen")
		s.CloseNow()
		within(t, s.Done(), "Done")
		require.Equal(t, "close 1 2 3 ", order.Load())
		late := make(chan getty.Session, 1)
		require.False(t, s.OnEnd(func(s getty.Session) { late <- s })())
		require.Equal(t, s, within(t, late, "what came later"))
		srv.Close()
		within(t, srv.Done(), "Done")
	})
}

func TestOnEndOfASessionThatDidNotOpen(t *testing.T) {
	ended := make(chan error, 1)
	srv := serve(t, func(s getty.Session) error {
		s.OnEnd(func(s getty.Session) { ended <- s.Err() })
		return io.ErrShortBuffer
	})
	dial(t, srv)
	require.ErrorIs(t, within(t, ended, "the end"), io.ErrShortBuffer)
}

// LastRead is when bytes came, and nothing else.
func TestLastRead(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		sl := newTracer(t)
		sl.message = echoPkg
		if c.name == "udp" {
			sl.message = func(s getty.Session, pkg any) { _, _, _ = s.WritePkg(pkg, 0) }
		}
		srv := c.server()
		run(t, srv, prepare(sl))
		cl := newTracer(t)
		got := make(chan struct{}, 1)
		cl.message = func(getty.Session, any) { got <- struct{}{} }
		client := c.client(srv.Addr().String(), func(o *getty.ClientOptions) { o.UDP.NoProbe = c.name == "udp" })
		run(t, client, prepare(cl))
		s := ready(t, client)
		require.Zero(t, s.LastRead())
		before := time.Now()
		_, _, err := s.WritePkg("x", -1)
		require.NoError(t, err)
		within(t, got, "the echo")
		eventually(t, "it is noted", func() bool { return !s.LastRead().IsZero() })
		at := s.LastRead()
		require.False(t, at.Before(before.Add(-time.Millisecond)))
		require.False(t, at.After(time.Now().Add(time.Millisecond)))
		_, _, err = s.WritePkg("y", -1)
		require.NoError(t, err)
		within(t, got, "the echo")
		eventually(t, "it moves", func() bool { return s.LastRead().After(at) })
		at = s.LastRead()
		s.UpdateActive()
		require.Equal(t, at, s.LastRead())
		require.False(t, s.GetActive().Before(at))
	})
}

// WriteBytesContext returns when the kernel has all of it, and takes it back if it did not begin.
func TestWriteBytesContext(t *testing.T) {
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			s, read := stalled(t, c, func(o *getty.ServerOptions) { o.WriteTimeout = -1 })
			n, err := s.WriteBytesContext(t.Context(), frame("hello"))
			require.NoError(t, err)
			require.Equal(t, len(frame("hello")), n)
			require.EqualValues(t, 1, s.Stats().PkgsWritten)
			n, err = s.WriteBytesContext(t.Context(), nil)
			require.NoError(t, err)
			require.Zero(t, n)
			fill(t, s, noise(30_000))
			ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, io.ErrShortBuffer)
			defer cancel()
			n, err = s.WriteBytesContext(ctx, frame("too late"))
			require.ErrorIs(t, err, io.ErrShortBuffer)
			require.Zero(t, n)
			n, err = s.WriteBytesContext(ctx, frame("over before"))
			require.ErrorIs(t, err, io.ErrShortBuffer)
			require.Zero(t, n)
			done := make(chan error, 1)
			go func() {
				_, err := s.WriteBytesContext(t.Context(), frame("patient"))
				done <- err
			}()
			eventually(t, "it waits in line", func() bool { return getty.InLine(s) > 0 })
			read()
			require.NoError(t, within(t, done, "the write"))
			s.CloseNow()
			within(t, s.Done(), "Done")
			_, err = s.WriteBytesContext(t.Context(), frame("x"))
			require.ErrorIs(t, err, getty.ErrSessionClosed)
		})
	}
	t.Run("udp", func(t *testing.T) {
		l := newTracer(t)
		got := make(chan string, 1)
		l.message = func(_ getty.Session, pkg any) { got <- pkg.(getty.UDPContext).Pkg.(*codec.Frame).String() }
		srv := getty.NewUDPEndPoint()
		run(t, srv, prepare(l))
		client := getty.NewUDPClient(getty.WithServerAddress(srv.Addr().String()))
		run(t, client, prepare(newTracer(t)))
		n, err := ready(t, client).WriteBytesContext(t.Context(), frame("hello"))
		require.NoError(t, err)
		require.Equal(t, len(frame("hello")), n)
		require.Equal(t, "hello", within(t, got, "the datagram"))
	})
}

// A session is found by its ID while it is open.
func TestSessionByID(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		l := newTracer(t)
		srv := c.server()
		early := make(chan bool, 1)
		l.open = func(s getty.Session) error {
			_, found := srv.SessionByID(s.ID())
			early <- found
			return nil
		}
		run(t, srv, prepare(l))
		client := c.client(srv.Addr().String())
		run(t, client, prepare(newTracer(t)))
		s := ready(t, client)
		require.False(t, within(t, early, "OnOpen"), "it is not open before OnOpen has returned")
		found, ok := client.SessionByID(s.ID())
		require.True(t, ok)
		require.Equal(t, s, found)
		peer := within(t, l.opened, "OnOpen")
		found, ok = srv.SessionByID(peer.ID())
		require.True(t, ok)
		require.Equal(t, peer, found)
		_, ok = srv.SessionByID(s.ID())
		require.False(t, ok)
		client.Close()
		within(t, client.Done(), "Done")
		_, ok = client.SessionByID(s.ID())
		require.False(t, ok)
	})
}

// A Shutdown tells which session it waited for longest.
func TestSlowestOfAShutdown(t *testing.T) {
	l := newTracer(t)
	release := make(chan struct{})
	l.onClose = func(s getty.Session) {
		if s.GetAttribute("slow") != nil {
			<-release
		}
	}
	srv := getty.NewTCPServer()
	start(t, srv, prepare(l))
	var slow getty.Session
	for range 3 {
		c := dial(t, srv)
		go discardThenClose(c)
		slow = within(t, l.opened, "OnOpen")
	}
	slow.SetAttribute("slow", true)
	slow.SetName("the slow one")
	const late = 20 * time.Millisecond
	go func() {
		eventually(t, "the others have ended", func() bool { return srv.Stats().Open == 1 })
		time.Sleep(late)
		close(release)
	}()
	report, err := srv.Shutdown(t.Context())
	require.NoError(t, err)
	require.Equal(t, getty.Report{Drained: 3}, counts(report))
	require.Contains(t, report.Slowest, "the slow one")
	require.GreaterOrEqual(t, report.Took, late)

	empty := getty.NewTCPServer()
	start(t, empty, prepare(l))
	report, err = empty.Shutdown(t.Context())
	require.NoError(t, err)
	require.Equal(t, getty.Report{}, report)
}
