// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/netx"
	"github.com/stretchr/testify/require"
)

// Closing a server ends every session that it accepted, and nothing answers any more.
//
// acceptance: L06
func TestServerCloseEndsItsSessions(t *testing.T) {
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			sl, cl := newTracer(t), newTracer(t)
			sl.message = echoPkg
			srv := c.server()
			start(t, srv, prepare(sl))
			client := c.client(srv.Addr().String(), getty.WithConnectionNumber(10), getty.WithReconnectInterval(time.Hour))
			run(t, client, prepare(cl))
			for range 10 {
				within(t, cl.opened, "OnOpen of the client")
				within(t, sl.opened, "OnOpen of the server")
			}
			srv.Close()
			for range 10 {
				require.NoError(t, within(t, sl.closed, "OnClose of the server").Err())
				within(t, cl.closed, "OnClose of the client")
			}
			within(t, srv.Done(), "Done")
			_, err := net.Dial("tcp", srv.Addr().String())
			require.Error(t, err)
			st := srv.Stats()
			require.Zero(t, st.Open)
			require.EqualValues(t, 10, st.Opened)
		})
	}
}

// acceptance: L10
func TestServerCloseDuringAccepts(t *testing.T) {
	for range 50 {
		srv := getty.NewTCPServer()
		l := newTracer(t)
		start(t, srv, prepare(l))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if c, err := net.Dial("tcp", srv.Addr().String()); err == nil {
					_, _ = io.Copy(io.Discard, c)
					_ = c.Close()
				}
			})
		}
		for range 2 {
			wg.Go(srv.Close)
		}
		wg.Wait()
		within(t, srv.Done(), "Done")
		require.Equal(t, len(l.opened), len(l.closed))
	}
}

// The accept loop runs no user code: sessions open side by side, however long their OnOpen takes.
//
// acceptance: S05
func TestSlowOnOpenDelaysNobody(t *testing.T) {
	const n = 10
	l := newTracer(t)
	var inside atomic.Int32
	all := make(chan struct{})
	l.open = func(getty.Session) error {
		if inside.Add(1) == n {
			close(all)
		}
		<-all
		return nil
	}
	srv := serve(t, prepare(l))
	for range n {
		dial(t, srv)
	}
	for range n {
		within(t, l.opened, "OnOpen")
	}
}

// An accept that fails is tried again after a growing pause, whatever the reason; then the connections that
// waited are served.
//
// acceptance: S07 fault: 99
func TestAcceptErrors(t *testing.T) {
	t.Parallel()
	l := newTracer(t)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ln := newHandedListener()
	errs := []error{syscall.EMFILE, syscall.ECONNABORTED, syscall.EPROTO, syscall.EINTR, syscall.ENFILE, syscall.ENOMEM}
	for _, err := range errs {
		ln.errs <- &net.OpError{Op: "accept", Err: err}
	}
	begun := time.Now()
	srv := serve(t, prepare(l), getty.WithListener(ln), func(o *getty.ServerOptions) { o.WaitTime = -1 })
	ln.conns <- ours
	within(t, l.opened, "the connection after the errors")
	require.GreaterOrEqual(t, time.Since(begun), (5+10+20+40+80+160)*time.Millisecond, "the pauses double")
	require.EqualValues(t, len(errs), srv.Stats().Retries)
	require.EqualValues(t, 1, srv.Stats().Accepts)
}

// A close during the pause ends it.
func TestCloseEndsTheAcceptPause(t *testing.T) {
	ln := newHandedListener()
	for range 10 {
		ln.errs <- syscall.EMFILE
	}
	srv := getty.NewTCPServer(getty.WithListener(ln))
	start(t, srv, prepare(newTracer(t)))
	eventually(t, "the pauses have grown", func() bool { return srv.Stats().Retries >= 4 })
	srv.Close()
	within(t, srv.Done(), "Done")
}

// acceptance: S08
func TestBusyPortIsAnError(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		first := c.server()
		run(t, first, prepare(newTracer(t)))
		second := c.server(getty.WithLocalAddress(first.Addr().String()))
		require.ErrorIs(t, second.RunEventLoop(prepare(newTracer(t))), syscall.EADDRINUSE)
		within(t, second.Done(), "Done of what never ran")
		if c.name == "unix" { // a path
			return
		}
		require.Error(t, c.server(getty.WithLocalAddress("127.0.0.1:99999")).RunEventLoop(prepare(newTracer(t))))
	})
}

// One connection more than MaxSessions is closed before any user code runs, and counted; a close makes room.
//
// acceptance: R09 fault: 102
func TestMaxSessions(t *testing.T) {
	l := newTracer(t)
	var prepared atomic.Int32
	srv := serve(t, func(s getty.Session) error {
		prepared.Add(1)
		return prepare(l)(s)
	}, getty.WithMaxSessions(2))
	first := dial(t, srv)
	dial(t, srv)
	for range 2 {
		within(t, l.opened, "OnOpen")
	}
	_, err := dial(t, srv).Read(make([]byte, 1))
	require.Error(t, err, "refused")
	require.EqualValues(t, 2, prepared.Load())
	require.EqualValues(t, 1, srv.Stats().Refused)
	_ = first.Close()
	within(t, l.closed, "OnClose")
	dial(t, srv)
	within(t, l.opened, "OnOpen in the free slot")
	eventually(t, "three were opened", func() bool { return srv.Stats().Opened == 3 })
}

// Socket options are the endpoint's; the connection is within reach for the rest.
//
// acceptance: S09
func TestSocketOptions(t *testing.T) {
	l, cl := newTracer(t), newTracer(t)
	var o netx.SocketOptions
	o.ReadBuffer = 32 << 10
	srv := serve(t, prepare(l), func(so *getty.ServerOptions) { so.Socket = o })
	client := connect(t, cl, srv.Addr().String(), func(co *getty.ClientOptions) { co.Socket = o })
	for _, s := range []getty.Session{within(t, l.opened, "OnOpen"), ready(t, client)} {
		c, ok := s.Conn().(*net.TCPConn)
		require.True(t, ok)
		require.NoError(t, c.SetNoDelay(false))
		require.Equal(t, c.LocalAddr().String(), s.LocalAddr())
		require.Equal(t, c.RemoteAddr().String(), s.RemoteAddr())
		require.LessOrEqual(t, readBuffer(t, c), 4*o.ReadBuffer) // the kernel doubles it
	}
	// Options that a connection cannot have refuse it.
	ours, theirs := net.Pipe()
	defer theirs.Close()
	srv = serve(t, prepare(l), getty.WithListener(newHandedListener(ours)), func(so *getty.ServerOptions) { so.Socket = o })
	eventually(t, "the refusal", func() bool { return srv.Stats().Refused == 1 })
}

// A server that closed its connections first can listen again at once.
//
// fault: 21
func TestListenAgain(t *testing.T) {
	addr := own() + ":0"
	for range 3 {
		l := newTracer(t)
		srv := getty.NewTCPServer(getty.WithLocalAddress(addr))
		start(t, srv, prepare(l))
		addr = srv.Addr().String()
		var conns []*net.TCPConn
		for range 50 {
			conns = append(conns, dial(t, srv))
			within(t, l.opened, "OnOpen")
		}
		srv.Close() // the server's end comes first: its side keeps the TIME_WAITs
		for _, c := range conns {
			_, err := io.Copy(io.Discard, c)
			require.NoError(t, err)
			require.NoError(t, c.Close())
		}
		within(t, srv.Done(), "Done")
	}
}

// Serve blocks until its context ends, drains, and forces what does not.
func TestServe(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		l := newTracer(t)
		hold := make(chan struct{})
		l.message = func(s getty.Session, pkg any) {
			if stuck {
				<-hold
			}
			echoPkg(s, pkg)
		}
		srv := getty.NewTCPServer(func(o *getty.ServerOptions) {
			if o.DrainTimeout = patience; stuck {
				o.DrainTimeout = 100 * time.Millisecond
			}
		})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ctx, prepare(l)) }()
		eventually(t, "the server listens", func() bool { return srv.Addr() != nil })
		c := dial(t, srv)
		within(t, l.opened, "OnOpen")
		_, err := c.Write(frame("x"))
		require.NoError(t, err)
		if stuck {
			eventually(t, "the handler runs", func() bool { return srv.Stats().Total.Reads > 0 })
		} else {
			readFrame(t, c)
			go discardThenClose(c) // it ends when the server does, and not before
		}
		cancel()
		err = within(t, done, "Serve")
		require.Equal(t, stuck, errors.Is(err, context.DeadlineExceeded), "%v", err)
		close(hold)
		within(t, srv.Done(), "Done")
	}
	srv := getty.NewTCPServer()
	done := make(chan error, 1)
	go func() { done <- srv.Serve(context.Background(), prepare(newTracer(t))) }()
	eventually(t, "the server listens", func() bool { return srv.Addr() != nil })
	srv.Close()
	require.ErrorIs(t, within(t, done, "Serve"), getty.ErrEndpointClosed)
}

// A session without listener or Reader is refused, as is one whose preparation or OnOpen fails.
func TestSessionsThatDoNotStart(t *testing.T) {
	why := errors.New("no")
	for name, newSession := range map[string]getty.NewSessionCallback{
		"no listener": func(s getty.Session) error { return s.SetPkgHandler(frames) },
		"no reader":   func(s getty.Session) error { return s.SetEventListener(newTracer(t)) },
		"error":       func(s getty.Session) error { return why },
		"OnOpen fails": func(s getty.Session) error {
			l := newTracer(t)
			l.open = func(getty.Session) error { return why }
			return prepare(l)(s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := serve(t, newSession)
			_, err := dial(t, srv).Read(make([]byte, 1))
			require.Error(t, err)
			eventually(t, "it is counted", func() bool { return srv.Stats().Refused == 1 })
			require.Zero(t, srv.Stats().Opened)
		})
	}
}

// A session that Shutdown finds while it is being prepared drains like the others.
func TestShutdownDuringThePreparation(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		in, hold := make(chan struct{}), make(chan struct{})
		srv := serve(t, func(s getty.Session) error {
			close(in)
			<-hold
			return prepare(l)(s)
		}, getty.WithServerDispatch(d))
		c := dial(t, srv)
		within(t, in, "NewSessionCallback")
		report := make(chan getty.Report, 1)
		go func() {
			r, err := srv.Shutdown(context.Background())
			if err != nil {
				t.Error(err)
			}
			report <- r
		}()
		eventually(t, "Shutdown", srv.IsClosed)
		time.Sleep(20 * time.Millisecond) // it has told the session, which nothing shows
		close(hold)
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.NoError(t, c.Close())
		require.Equal(t, getty.Report{Drained: 1}, counts(within(t, report, "the end of Shutdown")))
		require.NoError(t, within(t, l.closed, "OnClose").Err())
	})
}
