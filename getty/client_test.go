// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// nobody returns an address that refuses connections until the test ends. The port belongs to a
// client's end of a connection meanwhile, so that no listener of another test can get it.
func nobody(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", own()+":0")
	require.NoError(t, err)
	defer ln.Close()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(own())}}
	c, err := d.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c.LocalAddr().String()
}

// freed returns an address where nobody listens yet. Another test that runs at the same time may get
// the port.
func freed(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", own()+":0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}

// connect runs a TCP client until the test ends.
func connect(t testing.TB, l *tracer, addr string, opts ...getty.ClientOption) *getty.Client {
	t.Helper()
	c := getty.NewTCPClient(append([]getty.ClientOption{
		getty.WithServerAddress(addr), getty.WithReconnectInterval(time.Millisecond),
		func(o *getty.ClientOptions) { o.ReconnectMax = 50 * time.Millisecond },
	}, opts...)...)
	run(t, c, prepare(l))
	return c
}

// The pool is filled again after the server's FIN and after its RST.
//
// acceptance: C01
func TestClientReconnects(t *testing.T) {
	for name, end := range map[string]func(getty.Session){
		"FIN": getty.Session.Close,
		"RST": func(s getty.Session) { _ = s.Conn().(*net.TCPConn).SetLinger(0); s.CloseNow() },
	} {
		t.Run(name, func(t *testing.T) {
			sl, cl := newTracer(t), newTracer(t)
			srv := serve(t, prepare(sl))
			client := connect(t, cl, srv.Addr().String())
			for range 10 {
				s := within(t, sl.opened, "a session of the server")
				within(t, cl.opened, "a session of the client") // a reset could also hit the dial
				end(s)
				err := within(t, cl.closed, "the end of the client's").Err()
				require.Equal(t, name == "RST", errors.Is(err, syscall.ECONNRESET), "%v", err)
			}
			within(t, sl.opened, "one more session")
			ready(t, client)
		})
	}
}

// A dial that succeeds costs no back-off: with one of an hour the pool still fills at once.
//
// acceptance: C02
func TestClientFillsItsPoolAtOnce(t *testing.T) {
	sl, cl := newTracer(t), newTracer(t)
	client := connect(t, cl, serve(t, prepare(sl)).Addr().String(), getty.WithConnectionNumber(16),
		getty.WithReconnectInterval(time.Hour), func(o *getty.ClientOptions) { o.ReconnectMax = time.Hour })
	for range 16 {
		within(t, cl.opened, "OnOpen")
	}
	require.EqualValues(t, 16, client.Stats().Dials)
}

// Without a server the start does not block; Ready says why there is no session, and the attempts become
// rare. Close ends the back-off at once.
//
// acceptance: C03, C07 fault: 109
func TestClientWithoutServer(t *testing.T) {
	t.Parallel()
	client := connect(t, newTracer(t), nobody(t), func(o *getty.ClientOptions) { o.ReconnectMax = time.Hour })
	_, err := client.Session()
	require.ErrorIs(t, err, getty.ErrNoSession)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_, err = client.Ready(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	eventually(t, "no dial is in progress", func() bool { st := client.Stats(); return st.Dials == st.DialErrs })
	st := client.Stats()
	require.Greater(t, st.Dials, uint64(1))
	require.Less(t, st.Dials, uint64(60), "the span doubles with each failure")
	client.Close()
	within(t, client.Done(), "Done")
	_, err = client.Ready(context.Background())
	require.ErrorIs(t, err, getty.ErrEndpointClosed)
	_, err = client.Session()
	require.ErrorIs(t, err, getty.ErrEndpointClosed)
}

// A server that comes up later is found.
func TestClientWaitsForTheServer(t *testing.T) {
	addr := freed(t)
	client := connect(t, newTracer(t), addr)
	eventually(t, "a dial failed", func() bool { return client.Stats().DialErrs > 0 })
	serve(t, prepare(newTracer(t)), getty.WithLocalAddress(addr))
	ready(t, client)
}

// Sessions that the user's preparation refuses, or that the server ends at once, are replaced after a back-off
// and counted.
//
// acceptance: C04, C05
func TestClientBacksOffFromSessionsThatFail(t *testing.T) {
	hour := func(o *getty.ClientOptions) { o.ReconnectInterval, o.ReconnectMax = time.Hour, time.Hour }
	t.Run("refused", func(t *testing.T) {
		srv := serve(t, prepare(newTracer(t)))
		client := getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()), hour)
		run(t, client, func(getty.Session) error { return errors.New("no, thank you") })
		eventually(t, "the refusal", func() bool { return client.Stats().Refused == 1 })
		time.Sleep(50 * time.Millisecond) // nothing announces that no dial comes
		require.EqualValues(t, 1, client.Stats().Dials)
	})
	t.Run("ended at once", func(t *testing.T) {
		sl, cl := newTracer(t), newTracer(t)
		sl.open = func(getty.Session) error { return errors.New("go away") }
		client := connect(t, cl, serve(t, prepare(sl)).Addr().String())
		for range 5 {
			within(t, cl.closed, "OnClose")
		}
		require.GreaterOrEqual(t, client.Stats().Dials, uint64(5))
	})
	t.Run("ended at once, backing off", func(t *testing.T) {
		sl, cl := newTracer(t), newTracer(t)
		sl.open = func(getty.Session) error { return errors.New("go away") }
		client := connect(t, cl, serve(t, prepare(sl)).Addr().String(), hour)
		within(t, cl.closed, "OnClose")
		time.Sleep(50 * time.Millisecond) // nothing announces that no dial comes
		require.EqualValues(t, 1, client.Stats().Dials)
	})
}

// The pool never holds more than N sessions, however they die.
//
// acceptance: C06
func TestClientNeverExceedsItsPool(t *testing.T) {
	const n = 4
	sl, cl := newTracer(t), newTracer(t)
	srv := serve(t, prepare(sl))
	var live, most atomic.Int32
	// Of the descriptor, not of the callbacks: the refill begins when that is free.
	cl.open = func(s getty.Session) error {
		open := int32(0)
		for other := range s.EndPoint().Sessions() {
			if !other.IsClosed() {
				open++
			}
		}
		if open > most.Load() {
			most.Store(open)
		}
		live.Add(1)
		return nil
	}
	client := connect(t, cl, srv.Addr().String(), getty.WithConnectionNumber(n), func(o *getty.ClientOptions) { o.ReconnectMax = 5 * time.Millisecond })
	for round := range 200 {
		s := within(t, sl.opened, "a session")
		switch round % 3 {
		case 0:
			s.CloseNow()
		case 1:
			s.Close()
		default:
			if mine, err := client.Session(); err == nil {
				mine.CloseNow()
			}
			s.CloseNow()
		}
	}
	require.LessOrEqual(t, most.Load(), int32(n))
}

// When the server is gone a session ends and its OnClose comes, while the refill waits.
//
// acceptance: L04
func TestOnCloseDoesNotWaitForTheReconnect(t *testing.T) {
	sl, cl := newTracer(t), newTracer(t)
	srv := getty.NewTCPServer()
	start(t, srv, prepare(sl))
	client := connect(t, cl, srv.Addr().String(), func(o *getty.ClientOptions) { o.ReconnectInterval, o.ReconnectMax = time.Hour, time.Hour })
	s := ready(t, client)
	_, err := srv.Shutdown(t.Context())
	require.NoError(t, err)
	require.Same(t, s, within(t, cl.closed, "OnClose"))
	_, err = client.Session()
	require.ErrorIs(t, err, getty.ErrNoSession)
}

// acceptance: L05
func TestClientCloseDuringMassDisconnect(t *testing.T) {
	for round := range 1000 {
		fleet := 1 + round%3
		sl := newTracer(t)
		srv := getty.NewTCPServer()
		start(t, srv, prepare(sl))
		client := getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()), getty.WithConnectionNumber(fleet),
			getty.WithReconnectInterval(time.Microsecond))
		start(t, client, prepare(newTracer(t)))
		var sessions []getty.Session
		for range fleet {
			sessions = append(sessions, within(t, sl.opened, "OnOpen"))
		}
		var wg sync.WaitGroup
		for _, s := range sessions {
			wg.Go(s.CloseNow)
		}
		wg.Go(client.Close)
		wg.Go(srv.Close)
		wg.Wait()
		within(t, client.Done(), "the client's Done")
		within(t, srv.Done(), "the server's Done")
	}
}

// A client that is closed while it dials, or is upgrading, ends at once and gets no session afterwards.
//
// acceptance: C05, C07 fault: 113
func TestCloseDuringTheDial(t *testing.T) {
	t.Run("upgrade", func(t *testing.T) {
		ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
		require.NoError(t, err)
		defer ln.Close()
		accepted := make(chan net.Conn, 1)
		go func() {
			if c, err := ln.Accept(); err == nil {
				accepted <- c
			}
		}()
		client := getty.NewWSClient(getty.WithServerAddress("ws://"+ln.Addr().String()+"/"),
			func(o *getty.ClientOptions) { o.DialTimeout = time.Hour })
		l := newTracer(t)
		start(t, client, prepare(l))
		defer within(t, accepted, "the dial").Close()
		client.Close()
		within(t, client.Done(), "Done")
		require.Empty(t, l.opened)
	})
	t.Run("at any moment", func(t *testing.T) {
		srv := serve(t, prepare(newTracer(t)))
		for round := range 50 {
			l := newTracer(t)
			client := getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()), getty.WithConnectionNumber(4))
			start(t, client, prepare(l))
			time.Sleep(time.Duration(round) * 10 * time.Microsecond) // any moment
			client.Close()
			within(t, client.Done(), "Done")
			require.Equal(t, len(l.opened), len(l.closed), "sessions that were opened and closed")
			require.Zero(t, client.Stats().Open)
		}
	})
}

// Session picks the live ones in turn, Sessions yields them all, and both skip what is closed.
//
// acceptance: C09
func TestClientPicksSessions(t *testing.T) {
	sl, cl := newTracer(t), newTracer(t)
	client := connect(t, cl, serve(t, prepare(sl)).Addr().String(), getty.WithConnectionNumber(3),
		func(o *getty.ClientOptions) { o.ReconnectInterval, o.ReconnectMax = time.Hour, time.Hour })
	eventually(t, "three are open", func() bool { return client.Stats().Opened == 3 })
	picked := make(map[getty.Session]int)
	for range 30 {
		s, err := client.Session()
		require.NoError(t, err)
		picked[s]++
	}
	require.Len(t, picked, 3)
	for s := range client.Sessions() {
		require.Equal(t, 10, picked[s])
	}
	s, err := client.Session()
	require.NoError(t, err)
	s.Close()
	for range 10 {
		other, err := client.Session()
		require.NoError(t, err)
		require.NotEqual(t, s, other)
	}
}

// Callers that find no session share one dial, however many they are, and then the session.
//
// fault: 115
func TestManyCallersShareADial(t *testing.T) {
	const callers = 500
	sl := newTracer(t)
	var got atomic.Int32
	done := make(chan struct{})
	sl.message = func(getty.Session, any) {
		if got.Add(1) == callers {
			close(done)
		}
	}
	hold := make(chan struct{})
	sl.unordered = true
	srv := serve(t, prepare(sl))
	client := getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()))
	cl := newTracer(t)
	cl.open = func(getty.Session) error { <-hold; return nil }
	run(t, client, prepare(cl))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			s, err := client.Ready(ctx)
			if err == nil {
				_, _, err = s.WritePkg("x", 0)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond) // most callers wait when the session opens, some come later
	close(hold)
	wg.Wait()
	within(t, done, "all packages")
	require.EqualValues(t, 1, client.Stats().Dials)
}

// One session of a pool dies: one dial, and the others go on.
//
// fault: 119
func TestOneSessionOfAPoolDies(t *testing.T) {
	const n = 5
	sl, cl := newTracer(t), newTracer(t)
	client := connect(t, cl, serve(t, prepare(sl)).Addr().String(), getty.WithConnectionNumber(n))
	before := make(map[getty.Session]bool)
	for range n {
		within(t, cl.opened, "OnOpen")
		before[within(t, sl.opened, "OnOpen")] = true
	}
	for s := range before {
		s.CloseNow()
		delete(before, s)
		break
	}
	within(t, cl.opened, "the replacement")
	within(t, cl.closed, "OnClose, which the refill does not wait for")
	for s := range before {
		require.False(t, s.IsClosed())
	}
	require.EqualValues(t, n+1, client.Stats().Dials)
	require.Empty(t, cl.closed)
}

// Bad options are errors of the start, on each kind of endpoint.
func TestBadOptions(t *testing.T) {
	for name, bad := range map[string]func(*getty.SessionOptions){
		"water":        func(o *getty.SessionOptions) { o.HighWater, o.LowWater = 10, 10 },
		"mailbox":      func(o *getty.SessionOptions) { o.MailboxLen = -1 },
		"dispatch":     func(o *getty.SessionOptions) { o.Dispatch = 9 },
		"slowConsumer": func(o *getty.SessionOptions) { o.SlowConsumer = 9 },
	} {
		t.Run(name, func(t *testing.T) {
			eachCarrier(t, func(t *testing.T, c carrier) {
				srv := c.server(func(o *getty.ServerOptions) { bad(&o.SessionOptions) })
				require.Error(t, srv.RunEventLoop(prepare(newTracer(t))))
				client := c.client("127.0.0.1:1", func(o *getty.ClientOptions) { bad(&o.SessionOptions) })
				require.Error(t, client.RunEventLoop(prepare(newTracer(t))))
				client.Close()
				srv.Close()
				within(t, client.Done(), "Done")
				within(t, srv.Done(), "Done")
			})
		})
	}
	require.Equal(t, "auto inline ordered unordered Dispatch(7)", fmt.Sprint(getty.DispatchAuto, getty.Inline, getty.Ordered, getty.Unordered, getty.Dispatch(7)))
}

// The back-off doubles up to its limit, and stays there however long the interval, and the outage, are.
func TestBackOff(t *testing.T) {
	const endless = time.Duration(math.MaxInt64)
	for _, interval := range []time.Duration{1, 300 * time.Millisecond, 20 * time.Second, time.Hour, endless} {
		for _, most := range []time.Duration{interval, max(interval, time.Hour), endless} {
			want := interval
			for failures := range 200 {
				require.Equal(t, want, getty.BackOff(interval, most, failures), "interval %v, %d failures", interval, failures)
				if want > most/2 {
					want = most
				} else {
					want *= 2
				}
			}
		}
	}
}

// A client that is told to wait for ever does.
func TestEndlessReconnectInterval(t *testing.T) {
	cl := getty.NewTCPClient(getty.WithServerAddress("127.0.0.1:1"), getty.WithReconnectInterval(math.MaxInt64))
	start(t, cl, prepare(newTracer(t)))
	eventually(t, "the first dial fails", func() bool { return cl.Stats().DialErrs == 1 })
	cl.Close()
	within(t, cl.Done(), "Done")
}
