// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// everyMethod calls what a session offers; none may panic, whatever its state.
func everyMethod(s getty.Session, key *getty.Key[int]) {
	_ = s.ID()
	_ = s.LocalAddr() + s.RemoteAddr() + s.Stat()
	_, _ = s.Conn(), s.EndPoint()
	_, _ = s.GetActive(), s.MaxMsgLen()
	s.UpdateActive()
	_, _, _ = s.Stats(), s.Err(), s.IsClosed()
	_ = s.Done()
	s.SetName("name")
	s.SetMaxMsgLen(1 << 20)
	s.SetReadTimeout(time.Hour)
	s.SetIdleTimeout(time.Hour)
	s.SetWriteTimeout(time.Hour)
	s.SetWaitTime(time.Second)
	s.SetCronPeriod(time.Hour)
	_ = s.SetPkgHandler(frames)
	_ = s.SetReader(frames)
	_ = s.SetWriter(frames)
	_ = s.SetDispatch(getty.Ordered)
	key.Set(s, 1)
	_, _ = key.Get(s)
	key.Remove(s)
	_ = s.Flush(context.Background())
}

// Every method may be called by anybody at any time: while the session runs, closes, and afterwards.
//
// acceptance: L01, L02, L15 fault: 27, 127
func TestEveryMethodAtAnyTime(t *testing.T) {
	key := getty.NewKey[int]("number")
	require.Equal(t, "number", key.String())
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		l.message = echoPkg
		srv := serve(t, prepare(l), getty.WithServerDispatch(d))
		for round := range 10 {
			c := dial(t, srv)
			s := within(t, l.opened, "OnOpen")
			go func() { _, _ = io.Copy(io.Discard, c) }()
			var wg sync.WaitGroup
			for w := range 16 {
				wg.Go(func() {
					for s.Err() == nil && !s.IsClosed() {
						everyMethod(s, key)
						_, _, _ = s.WritePkg("x", time.Duration(w%3-1))
						_, _ = c.Write(frame("y"))
					}
				})
			}
			time.Sleep(time.Duration(round) * time.Millisecond / 2) // any moment
			if round%2 == 0 {
				s.Close()
			} else {
				s.CloseNow()
			}
			wg.Wait()
			_ = c.Close()
			within(t, l.closed, "OnClose")
			within(t, s.Done(), "Done")
			everyMethod(s, key)
			s.Close()
			s.CloseNow()
			for _, timeout := range []time.Duration{0, -1, time.Hour} {
				_, _, err := s.WritePkg("late", timeout)
				require.ErrorIs(t, err, getty.ErrSessionClosed)
				require.ErrorIs(t, err, net.ErrClosed)
			}
			_, err := s.WriteBytes([]byte("late"))
			require.ErrorIs(t, err, getty.ErrSessionClosed)
			_, err = s.WriteBytesArray([]byte("la"), []byte("te"))
			require.ErrorIs(t, err, getty.ErrSessionClosed)
			_, _, err = s.WritePkgContext(context.Background(), "late")
			require.ErrorIs(t, err, getty.ErrSessionClosed)
		}
	})
}

// A close is never a matter of timeouts: the descriptor of a session without work is free as soon as the peer
// has ended too; the peer of a CloseNow sees its end at once, also while a handler runs.
//
// acceptance: L03
func TestCloseDoesNotWaitForTimeouts(t *testing.T) {
	hour := func(o *getty.ServerOptions) {
		o.ReadTimeout, o.IdleTimeout, o.WriteTimeout, o.WaitTime = time.Hour, time.Hour, time.Hour, time.Hour
	}
	t.Run("Close", func(t *testing.T) {
		l := newTracer(t)
		c, s := stall(t, l, hour)
		s.Close()
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.Empty(t, l.closed, "the peer has not ended")
		_ = c.Close()
		within(t, l.closed, "OnClose")
		require.NoError(t, s.Err())
	})
	t.Run("CloseNow", func(t *testing.T) {
		l := newTracer(t)
		hold, stuck := make(chan struct{}), make(chan struct{})
		l.message = func(getty.Session, any) { close(stuck); <-hold }
		c, s := stall(t, l, hour)
		_, err := c.Write(frame("x"))
		require.NoError(t, err)
		within(t, stuck, "the handler")
		s.CloseNow()
		_, err = c.Read(make([]byte, 1))
		require.Error(t, err, "the connection has ended while the handler runs")
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout())
		close(hold)
		within(t, l.closed, "OnClose")
		require.ErrorIs(t, s.Err(), getty.ErrSessionClosed)
		require.Empty(t, l.of(s).errs, "nothing was lost")
	})
	t.Run("a peer that never ends", func(t *testing.T) {
		l := newTracer(t)
		c, s := stall(t, l, func(o *getty.ServerOptions) { o.WaitTime = 50 * time.Millisecond })
		s.Close()
		within(t, l.closed, "OnClose after WaitTime")
		require.NoError(t, s.Err())
		_ = c.Close()
	})
}

// The last answers reach a peer that keeps sending: what it sends is read and dropped, so that no reset
// overtakes them.
func TestLastAnswersSurviveUnreadInput(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for range 20 {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			answer := strings.Repeat("a", 200<<10)
			var once sync.Once
			l.message = func(s getty.Session, pkg any) {
				once.Do(func() {
					_, _, _ = s.WritePkg(answer, 0)
					s.Close()
				})
			}
			c := dial(t, serve(t, prepare(l), getty.WithServerDispatch(d)))
			go func() {
				_, _ = c.Write(bytes.Repeat(frame("more and more"), 50_000))
				_ = c.CloseWrite()
			}()
			require.Equal(t, answer, readFrame(t, c))
			_, err := tryReadFrame(c)
			require.ErrorIs(t, err, io.EOF, "not a reset")
			require.NoError(t, within(t, l.closed, "OnClose").Err())
		}
	})
}

// No timer outlives its session.
//
// acceptance: L11
func TestTimersEndWithTheirSessions(t *testing.T) {
	l := newTracer(t)
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.CronPeriod, o.IdleTimeout, o.ReadTimeout, o.WaitTime = time.Hour, time.Hour, time.Hour, time.Hour
	})
	var conns []*net.TCPConn
	for range 100 {
		conns = append(conns, dial(t, srv))
	}
	for range conns {
		within(t, l.opened, "OnOpen")
	}
	eventually(t, "one timer for each session", func() bool { return getty.PendingTimers() == len(conns) })
	for _, c := range conns {
		_ = c.Close()
	}
	for range conns {
		within(t, l.closed, "OnClose")
	}
	eventually(t, "no timer is left", func() bool { return getty.PendingTimers() == 0 })
}

// A setter either takes effect or says that it does not.
//
// acceptance: L14
func TestSettersAfterTheStart(t *testing.T) {
	l := newTracer(t)
	ticks := make(chan struct{}, 1000)
	l.cron = func(getty.Session) { ticks <- struct{}{} }
	c, s := stall(t, l)
	require.ErrorIs(t, s.SetPkgHandler(frames), getty.ErrSessionStarted)
	require.ErrorIs(t, s.SetReader(frames), getty.ErrSessionStarted)
	require.ErrorIs(t, s.SetWriter(frames), getty.ErrSessionStarted)
	require.ErrorIs(t, s.SetEventListener(l), getty.ErrSessionStarted)
	require.ErrorIs(t, s.SetDispatch(getty.Inline), getty.ErrSessionStarted)
	s.SetCronPeriod(time.Millisecond)
	within(t, ticks, "a tick")
	s.SetCronPeriod(0)
	s.SetName("alice")
	require.Contains(t, s.Stat(), "alice")
	s.SetMaxMsgLen(math.MaxInt)
	s.SetMaxMsgLen(8)
	require.Equal(t, 8, s.MaxMsgLen())
	s.SetIdleTimeout(time.Millisecond)
	require.ErrorIs(t, within(t, l.closed, "OnClose").Err(), getty.ErrIdleTimeout)
	_ = c.Close()
}

// A session runs over any net.Conn, here one without a descriptor, which offers neither readiness nor a half
// close.
//
// acceptance: L16
func TestAnyNetConn(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		l.message = echoPkg
		ours, theirs := net.Pipe()
		defer theirs.Close()
		serve(t, prepare(l), getty.WithListener(newHandedListener(ours)), getty.WithServerDispatch(d))
		require.NoError(t, theirs.SetDeadline(time.Now().Add(patience)))
		for _, p := range []string{"small", strings.Repeat("large", 50_000)} {
			go func() { _, _ = theirs.Write(frame(p)) }()
			require.Equal(t, p, readFrame(t, theirs))
		}
		s := within(t, l.opened, "OnOpen")
		_, _, err := s.WritePkg("nobody reads this", 20*time.Millisecond)
		require.ErrorIs(t, err, getty.ErrWriteTimeout)
		within(t, l.closed, "OnClose")
	})
}

// A maskedConn does something with the bytes, and has all other methods of the connection inside.
type maskedConn struct{ *net.TCPConn }

func mask(b []byte) []byte {
	for i := range b {
		b[i] ^= 0x55
	}
	return b
}

func (c maskedConn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	mask(b[:n])
	return n, err
}

func (c maskedConn) Write(b []byte) (int, error) { return c.TCPConn.Write(mask(bytes.Clone(b))) }

// A connection that embeds a TCP connection is read and written through its own methods, never past them.
//
// acceptance: L16
func TestConnThatEmbedsAnother(t *testing.T) {
	l := newTracer(t)
	l.message = echoPkg
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c, err := net.Dial("tcp", inner.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	ours, err := inner.Accept()
	require.NoError(t, err)
	require.NoError(t, inner.Close())
	serve(t, prepare(l), getty.WithListener(newHandedListener(maskedConn{ours.(*net.TCPConn)})))
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	for _, p := range []string{"small", strings.Repeat("large", 50_000)} {
		go func() { _, _ = maskedConn{c.(*net.TCPConn)}.Write(frame(p)) }()
		require.Equal(t, p, readFrame(t, maskedConn{c.(*net.TCPConn)}))
	}
}

// Endpoints answer calls out of order with defined errors.
//
// fault: 135
func TestEndpointCallsOutOfOrder(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		for name, make := range map[string]func() getty.EndPoint{
			"server": func() getty.EndPoint { return c.server() },
			"client": func() getty.EndPoint {
				return c.client("127.0.0.1:1", getty.WithReconnectInterval(time.Hour))
			},
		} {
			t.Run(name, func(t *testing.T) {
				e := make()
				e.Close()
				e.Close()
				require.True(t, e.IsClosed())
				within(t, e.Done(), "Done of what never ran")
				require.ErrorIs(t, e.RunEventLoop(prepare(newTracer(t))), getty.ErrEndpointClosed)
				require.ErrorIs(t, e.RunEventLoop(prepare(newTracer(t))), net.ErrClosed)
				_, err := e.Shutdown(t.Context())
				require.NoError(t, err)

				e = make()
				require.Error(t, e.RunEventLoop(nil))
				start(t, e, prepare(newTracer(t)))
				require.Error(t, e.RunEventLoop(prepare(newTracer(t))), "a second start")
				var wg sync.WaitGroup
				for range 4 {
					wg.Go(func() {
						if _, err := e.Shutdown(t.Context()); err != nil {
							t.Error(err)
						}
					})
					wg.Go(e.Close)
				}
				wg.Wait()
				within(t, e.Done(), "Done")
				_, err = e.Shutdown(t.Context())
				require.NoError(t, err)
			})
		}
	})
}

// An idle session holds neither a read buffer nor a batch nor mail queues; an incomplete package is
// kept compactly.
//
// acceptance: R17
func TestIdleSessionHoldsNoMemory(t *testing.T) {
	if instrumented {
		t.Skip("it looks at fields that belong to the session's goroutine")
	}
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
		t.Run(d.String(), func(t *testing.T) {
			l := newTracer(t)
			l.message = echoPkg
			c, s := stall(t, l, getty.WithServerDispatch(d))
			idle := func() bool {
				buf, batch, mails := getty.Held(s)
				return !buf && !batch && !mails
			}
			eventually(t, "a fresh one holds nothing", idle)
			_, err := c.Write(bytes.Repeat(frame("x"), 100))
			require.NoError(t, err)
			for range 100 {
				readFrame(t, c)
			}
			eventually(t, "after traffic it holds nothing", idle)
			_, err = c.Write(frame("incomplete")[:9])
			require.NoError(t, err)
			eventually(t, "an incomplete package is kept compactly", func() bool {
				n := getty.KeptBuffer(s)
				return n >= 9 && n <= 256
			})
			_, err = c.Write(frame("incomplete")[9:])
			require.NoError(t, err)
			require.Equal(t, "incomplete", readFrame(t, c))
			eventually(t, "completed, it holds nothing", idle)
		})
	}
}

// Done may be asked for the first time at any moment, also while the session announces its end.
func TestDoneAtAnyMoment(t *testing.T) {
	const rounds = 20_000
	var closed atomic.Int64
	srv := getty.NewConnServer()
	run(t, srv, prepare(getty.Funcs{Close: func(getty.Session) { closed.Add(1) }}))
	for round := range int64(rounds) {
		ours, theirs := net.Pipe()
		s, err := srv.Adopt(ours, nil)
		require.NoError(t, err)
		_ = theirs.Close()
		for closed.Load() == round {
			runtime.Gosched()
		}
		for range round % 500 {
			closed.Load() // some nanoseconds
		}
		within(t, s.Done(), "Done")
	}
}
