// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/netx"
	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// An endpoint on all addresses answers from the one that was asked, the dial's probe too: a
// connected client hears no other.
//
// case: 26
func TestUDPAnswersFromTheAddressThatWasAsked(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("netx knows packet info on Linux only")
	}
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for listen, asked := range map[string][]string{
			"0.0.0.0:0": {"127.0.0.1", "127.0.0.2", "127.9.9.9"},
			"[::]:0":    {"::1", "127.0.0.1", "127.0.0.2"}, // IPv4 too
		} {
			sl := newTracer(t)
			sl.unordered = d == getty.Unordered
			sl.message = func(s getty.Session, pkg any) {
				c := pkg.(getty.UDPContext)
				_, _, err := s.WritePkg(c.Reply(c.Pkg.(string)+" at "+c.LocalAddr.String()), 0)
				if err != nil {
					t.Error(err)
				}
			}
			srv := getty.NewUDPEndPoint(getty.WithLocalAddress(listen), getty.WithServerDispatch(d))
			if err := srv.RunEventLoop(prepare(sl, rawCodec{})); err != nil {
				t.Skip("no IPv6:", err)
			}
			port := srv.Addr().(*net.UDPAddr).AddrPort().Port()
			for _, ip := range asked {
				cl := newTracer(t)
				got := make(chan any, 1)
				cl.message = func(_ getty.Session, pkg any) { got <- pkg }
				client := getty.NewUDPClient(
					getty.WithServerAddress(netip.AddrPortFrom(netip.MustParseAddr(ip), port).String()),
					// With an hour of ProbeWait silence would not do, and nor would it with the
					// DialTimeout.
					func(o *getty.ClientOptions) { o.UDP.ProbeWait, o.DialTimeout = time.Hour, time.Hour })
				run(t, client, prepare(cl, rawCodec{}))
				_, _, err := ready(t, client).WritePkg("asked", 0)
				require.NoError(t, err)
				require.Equal(t, "asked at "+ip, within(t, got, "the answer"))
			}
			srv.Close()
			within(t, srv.Done(), "Done")
		}
	})
}

// A local address that cannot be used costs its own datagram only.
//
// case: 26
func TestUDPBadLocalAddress(t *testing.T) {
	l := newTracer(t)
	srv, s := endpoint(t, l, l.opened)
	peer := udpSocket(t, srv.Addr())
	to := peer.LocalAddr().(*net.UDPAddr).AddrPort()
	for _, local := range []string{"::1", "192.0.2.1"} {
		_, sent, err := s.WritePkg(getty.UDPContext{Pkg: "x", PeerAddr: to, LocalAddr: netip.MustParseAddr(local)}, 0)
		require.Error(t, err, local)
		require.Zero(t, sent)
	}
	_, _, err := s.WritePkg(getty.UDPContext{Pkg: "fits", PeerAddr: to}, 0)
	require.NoError(t, err)
	b := make([]byte, 10)
	n, err := peer.Read(b)
	require.NoError(t, err)
	require.Equal(t, "fits", string(b[:n]))
}

// A full socket refuses a package with timeout 0 at once, and lets others wait outside of the
// encoder lock for as long as they want; reading goes on, for every dispatch.
//
// case: 27
func TestUDPFullSocket(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newPacketTracer(t)
		l.unordered = d == getty.Unordered
		got := make(chan struct{}, 100)
		l.message = func(s getty.Session, pkg any) {
			if _, _, err := s.WritePkg(pkg.(getty.UDPContext).Reply("late"), 0); err != getty.ErrSessionBlocked {
				t.Errorf("on a full socket: %v", err)
			}
			got <- struct{}{}
		}
		writable := make(chan struct{}, 10)
		l.writable = func(getty.Session) { writable <- struct{}{} }
		srv, s := endpoint(t, l, l.opened, getty.WithServerDispatch(d))
		c := udpSocket(t, srv.Addr())
		to := getty.UDPContext{Pkg: "x", PeerAddr: c.LocalAddr().(*net.UDPAddr).AddrPort()}

		var full atomic.Bool
		full.Store(true)
		room := make(chan struct{})
		getty.Fake(s, getty.FakeWriter{
			Write: func(b []byte) error {
				if full.Load() {
					return netx.ErrWouldBlock
				}
				return nil
			},
			Room: func() error { <-room; return nil },
		})
		for range 3 {
			_, sent, err := s.WritePkg(to, 0)
			require.Equal(t, getty.ErrSessionBlocked, err)
			require.Zero(t, sent)
			_, sent, err = s.WritePkg(to, time.Millisecond)
			require.ErrorIs(t, err, getty.ErrWriteTimeout)
			require.Zero(t, sent)
		}
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if total, sent, err := s.WritePkg(to, patience); err != nil || total != 1 || sent != 1 {
					t.Error(total, sent, err)
				}
			})
		}
		for range 30 {
			_, err := c.Write([]byte("ask"))
			require.NoError(t, err)
			within(t, got, "a datagram while the socket is full")
		}
		require.Empty(t, writable)
		full.Store(false)
		close(room)
		wg.Wait()
		within(t, writable, "OnWritable")
		_, sent, err := s.WritePkg(to, 0)
		require.NoError(t, err)
		require.Equal(t, 1, sent)
		require.False(t, s.IsClosed())
	})
}

// The end of a session ends the wait for room.
//
// case: 27
func TestUDPFullSocketCloses(t *testing.T) {
	for name, end := range map[string]func(getty.Session){
		"Close":    func(s getty.Session) { s.Close() },
		"CloseNow": func(s getty.Session) { s.CloseNow() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newTracer(t)
			srv, s := endpoint(t, l, l.opened)
			to := getty.UDPContext{Pkg: "x", PeerAddr: srv.Addr().(*net.UDPAddr).AddrPort()}
			waits := make(chan struct{})
			getty.Fake(s, getty.FakeWriter{
				Write: func([]byte) error { return netx.ErrWouldBlock },
				Room:  func() error { close(waits); <-s.Done(); return net.ErrClosed },
			})
			written := make(chan error, 1)
			go func() {
				_, _, err := s.WritePkg(to, time.Hour)
				written <- err
			}()
			within(t, waits, "somebody waits for room")
			end(s)
			require.ErrorIs(t, within(t, written, "the end of the wait"), getty.ErrSessionClosed)
			within(t, srv.Done(), "Done")
		})
	}
}

// An error that only a new socket cures ends a client's session, so that the client dials again;
// one that passes is the writer's alone. An endpoint keeps its socket.
//
// case: 28
func TestUDPErrorsOfTheSocket(t *testing.T) {
	write := func(err error) error {
		return &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendmsg", err)}
	}
	passes := []error{
		syscall.ENOBUFS, syscall.EMSGSIZE, syscall.EPERM, syscall.EACCES,
		syscall.ENETUNREACH, syscall.EHOSTUNREACH, errors.New("odd"),
	}
	fatal := []error{
		syscall.EADDRNOTAVAIL, syscall.ENETDOWN, syscall.ENODEV, syscall.EBADF,
		syscall.ENOTSOCK, syscall.ENOTCONN, syscall.ECONNREFUSED,
	}
	if runtime.GOOS == "windows" {
		t.Skip("Windows has numbers of its own")
	}
	sl := newTracer(t)
	srv, ss := endpoint(t, sl, sl.opened)
	cl := newTracer(t)
	client := getty.NewUDPClient(
		getty.WithServerAddress(srv.Addr().String()), getty.WithReconnectInterval(time.Millisecond))
	run(t, client, prepare(cl, rawCodec{}))
	for _, errno := range fatal {
		s := within(t, cl.opened, "OnOpen")
		var next error
		getty.Fake(s, getty.FakeWriter{Write: func([]byte) error { return next }})
		for _, pass := range passes {
			next = write(pass)
			_, sent, err := s.WritePkg("x", 0)
			require.ErrorIs(t, err, pass)
			require.Zero(t, sent)
			require.False(t, s.IsClosed(), "%v", pass)
		}
		next = write(errno)
		_, _, err := s.WritePkg("x", 0)
		require.ErrorIs(t, err, errno)
		require.True(t, s.IsClosed())
		require.Equal(t, s, within(t, cl.closed, "OnClose"))
		require.ErrorIs(t, s.Err(), errno)
		require.Len(t, cl.of(s).errs, 1, "OnError")
	}
	within(t, cl.opened, "OnOpen") // the client has dialled again, after each

	getty.Fake(ss, getty.FakeWriter{Write: func([]byte) error { return write(syscall.ENETDOWN) }})
	_, _, err := ss.WritePkg(getty.UDPContext{Pkg: "x", PeerAddr: netip.MustParseAddrPort("127.0.0.1:9")}, 0)
	require.ErrorIs(t, err, syscall.ENETDOWN)
	require.False(t, ss.IsClosed())
}

// A refusal that a writer meets instead of the reader ends the session as well, unless it is to be
// kept.
//
// case: 28
func TestUDPRefusalMetByAWriter(t *testing.T) {
	sl := newTracer(t)
	srv, _ := endpoint(t, sl, sl.opened)
	cl := newTracer(t)
	client := getty.NewUDPClient(getty.WithServerAddress(srv.Addr().String()),
		func(o *getty.ClientOptions) { o.UDP.KeepOnRefused = true })
	run(t, client, prepare(cl, rawCodec{}))
	s := ready(t, client)
	getty.Fake(s, getty.FakeWriter{Write: func([]byte) error { return syscall.ECONNREFUSED }})
	_, _, err := s.WritePkg("x", 0)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.False(t, s.IsClosed())
}

// Handlers that wait, and a pool that is full because of them, stop neither reading nor the
// endpoint, whatever the pool does when it is full.
//
// case: 27
func TestUDPFullPool(t *testing.T) {
	for _, policy := range []taskpool.Policy{taskpool.Block, taskpool.Reject} {
		for _, d := range []getty.Dispatch{getty.Ordered, getty.Unordered} {
			t.Run(fmt.Sprint(policy, d), func(t *testing.T) {
				pool := taskpool.NewShared(taskpool.Config{Workers: 1, QueueLen: 1, Policy: policy})
				t.Cleanup(func() { _ = pool.Close() })
				hold, busy := make(chan struct{}), make(chan struct{})
				require.NoError(t, pool.Submit(t.Context(), func() { close(busy); <-hold }))
				within(t, busy, "the worker is at work")
				require.NoError(t, pool.Submit(t.Context(), func() {}))
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				got := make(chan struct{}, 100)
				l.message = func(getty.Session, any) { got <- struct{}{} }
				srv, s := endpoint(t, l, l.opened, getty.WithServerTaskPool(pool), getty.WithServerDispatch(d))
				c := udpSocket(t, srv.Addr())
				for range 30 {
					_, err := c.Write([]byte("x"))
					require.NoError(t, err)
				}
				eventually(t, "all are read and dropped", func() bool {
					st := s.Stats()
					return st.Reads == 30 && st.Dropped == 30
				})
				require.Empty(t, got)
				close(hold)
				eventually(t, "one is handled again", func() bool {
					_, err := c.Write([]byte("x"))
					return err == nil && len(got) > 0
				})
				require.False(t, s.IsClosed())
			})
		}
	}
}
