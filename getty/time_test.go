// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/getty/gettytest"
	"github.com/stretchr/testify/require"
)

// bubble runs f in a bubble of testing/synctest, where time passes when everybody waits for it.
//
// All endpoints of a process share one timer wheel, which is made with the first of them and closed
// with the last. It must belong to the bubble, so none may run when the bubble begins. A test that
// uses bubbles is never parallel: Setenv panics if it is, or becomes so later.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Setenv("GOSTKIT_BUBBLE", "1")
	if leftOver && getty.WheelRuns() {
		t.Skip("a failed test has left an endpoint that runs")
	}
	leftOver = true // unless the wait succeeds
	eventually(t, "no endpoint of the tests before runs; it would share its timer wheel with the "+
		"bubble, so each test must shut its endpoints down", func() bool { return !getty.WheelRuns() })
	leftOver = false
	synctest.Test(t, f)
}

// leftOver is true when an endpoint of a test before does not end. One test says so; the others would
// each wait for it.
var leftOver bool

// eachBubble runs a test in a bubble for every way of dispatching.
func eachBubble(t *testing.T, f func(t *testing.T, d getty.Dispatch)) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		bubble(t, func(t *testing.T) { f(t, d) })
	})
}

// inMemory runs a server in memory and returns the peer of its first session.
func inMemory(
	t *testing.T, l *tracer, d getty.Dispatch, opts ...getty.ServerOption,
) (*gettytest.Conn, getty.Session) {
	t.Helper()
	l.unordered = d == getty.Unordered
	ln := gettytest.Listen()
	serve(t, prepare(l), append(opts, getty.WithListener(ln), getty.WithServerDispatch(d))...)
	return dialMemory(t, ln), <-l.opened
}

func dialMemory(t *testing.T, ln *gettytest.Listener) *gettytest.Conn {
	t.Helper()
	c, err := ln.Dial(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A memoryLine is a kind of session over a connection in memory.
type memoryLine struct {
	name    string
	connect func(t *testing.T, l *tracer, opts ...getty.ServerOption) (peer, getty.Session)
}

var memoryLines = []memoryLine{
	{"plain", func(t *testing.T, l *tracer, opts ...getty.ServerOption) (peer, getty.Session) {
		ln := gettytest.Listen()
		serve(t, prepare(l), append(opts, getty.WithListener(ln))...)
		return plainPeer(dialMemory(t, ln)), <-l.opened
	}},
	{"tls", func(t *testing.T, l *tracer, opts ...getty.ServerOption) (peer, getty.Session) {
		ln := gettytest.Listen()
		cert := certificate(t)
		serve(t, prepare(l), append(opts, getty.WithListener(wrappingListener{ln, func(c net.Conn) net.Conn {
			return tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
		}}))...)
		c := tls.Client(dialMemory(t, ln), &tls.Config{InsecureSkipVerify: true})
		require.NoError(t, c.Handshake())
		return plainPeer(c), <-l.opened
	}},
	{"ws", func(t *testing.T, l *tracer, opts ...getty.ServerOption) (peer, getty.Session) {
		ln := gettytest.Listen()
		run(t, getty.NewWSServer(append(opts, getty.WithListener(ln))...), prepare(l))
		d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) {
			return dialMemory(t, ln), nil
		}}
		ws, _, err := d.Dial("ws://memory/", nil)
		require.NoError(t, err)
		return webSocketPeer(t, ws), <-l.opened
	}},
}

// late is how much later than its limit a session that fails closes: a WebSocket first tells why.
func (line memoryLine) late() time.Duration {
	if line.name == "ws" {
		return time.Second
	}
	return tick
}

// eachMemoryLine runs a test in a bubble over each kind of session and for every way of dispatching.
func eachMemoryLine(t *testing.T, f func(t *testing.T, line memoryLine, d getty.Dispatch)) {
	for _, line := range memoryLines {
		t.Run(line.name, func(t *testing.T) {
			eachBubble(t, func(t *testing.T, d getty.Dispatch) { f(t, line, d) })
		})
	}
}

// requireElapsed wants want to have passed since begun, and at most a part more: the wheel rounds
// up to its ticks, and some limits are looked at now and then.
func requireElapsed(t *testing.T, begun time.Time, want, more time.Duration) {
	t.Helper()
	got := time.Since(begun)
	require.GreaterOrEqual(t, got, want)
	require.LessOrEqual(t, got, want+more)
}

const tick = 20 * time.Millisecond // more than the wheel is late by

// Session times are positive in a bubble too, where the year is 2000: 0 stands for none.
func TestSessionTimesInABubble(t *testing.T) {
	require.Positive(t, getty.Now())
	bubble(t, func(t *testing.T) { require.Positive(t, getty.Now()) })
}

// A session whose peer is silent for IdleTimeout ends, not earlier and not much later; each byte is
// a sign of life, and a handler at work is not idleness, however long it takes.
func TestIdleTimeout(t *testing.T) {
	const limit = 30 * time.Second
	eachMemoryLine(t, func(t *testing.T, line memoryLine, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		l.message = func(s getty.Session, pkg any) {
			if pkg.(*codec.Frame).String() == "slow" {
				time.Sleep(10 * limit)
			}
			echoPkg(s, pkg)
		}
		c, s := line.connect(t, l, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
			o.IdleTimeout = limit
		})
		for _, p := range []string{"quick", "slow", "quick"} {
			time.Sleep(limit - time.Second)
			require.NoError(t, c.write(p))
			got, err := c.read()
			require.NoError(t, err)
			require.Equal(t, p, got)
		}
		begun := time.Now()
		require.Same(t, s, <-l.closed)
		requireElapsed(t, begun, limit, line.late())
		require.Equal(t, getty.ErrIdleTimeout, s.Err())
		require.ErrorIs(t, s.Err(), os.ErrDeadlineExceeded)
		require.True(t, s.Err().(interface{ Timeout() bool }).Timeout())
		require.Equal(t, []error{getty.ErrIdleTimeout}, l.of(s).errs)
	})
}

// What this side writes is no sign of life of the peer, neither from a tick nor from elsewhere: not
// as long as the peer takes nothing, and not if it takes single beats, as its kernel would.
//
// case: 22
func TestTicksAndIdleness(t *testing.T) {
	const limit = 30 * time.Second
	for name, how := range map[string]struct{ writes, slow, taken bool }{
		"ticks only":   {},
		"slow ticks":   {slow: true},
		"beats":        {writes: true},
		"beats, taken": {writes: true, taken: true},
		"slow beats":   {writes: true, slow: true, taken: true},
	} {
		t.Run(name, func(t *testing.T) {
			eachMemoryLine(t, func(t *testing.T, line memoryLine, d getty.Dispatch) {
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				l.cron = func(s getty.Session) {
					if how.writes {
						_, _, _ = s.WritePkg("beat", 0)
					}
					if how.slow { // the clocks stand still meanwhile
						time.Sleep(limit / 160)
						s.SetIdleTimeout(limit) // looks at the limits while the tick runs
						time.Sleep(limit / 160)
					}
				}
				c, s := line.connect(t, l, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
					o.IdleTimeout, o.CronPeriod = limit, limit/20
				})
				begun := time.Now()
				if how.taken {
					go func() { _, _ = io.Copy(io.Discard, c) }()
				}
				<-l.closed
				require.Equal(t, getty.ErrIdleTimeout, s.Err())
				requireElapsed(t, begun, limit, limit)
				require.GreaterOrEqual(t, l.of(s).crons, 10)
			})
		})
	}
}

// A package that was begun must be complete in time, however it trickles in; silence between
// packages is no matter of ReadTimeout.
//
// fault: 9, 38
func TestReadTimeout(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Second} { // 0: the default
		eachMemoryLine(t, func(t *testing.T, line memoryLine, d getty.Dispatch) {
			want := limit
			if limit == 0 {
				want = getty.DefaultReadTimeout
			}
			for _, drip := range []bool{false, true} {
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				l.message = echoPkg
				c, s := line.connect(t, l, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
					o.ReadTimeout = limit
				})
				time.Sleep(10 * want)
				require.NoError(t, c.write("after a silence"))
				got, err := c.read()
				require.NoError(t, err)
				require.Equal(t, "after a silence", got)
				begun := time.Now()
				c.begin(60_000, []byte("x"))
				var dripping sync.WaitGroup
				if drip {
					dripping.Go(func() { // a byte in each eighth of the time, which is no pace
						for err := error(nil); err == nil; _, err = c.Write([]byte("x")) {
							time.Sleep(want / 8)
						}
					})
				}
				require.Same(t, s, <-l.closed)
				more := line.late()
				if drip {
					more += want / 8
				}
				requireElapsed(t, begun, want, more)
				require.ErrorIs(t, s.Err(), getty.ErrReadTimeout)
				require.ErrorIs(t, s.Err(), os.ErrDeadlineExceeded)
				require.True(t, s.Err().(interface{ Timeout() bool }).Timeout())
				_ = c.Close()
				dripping.Wait()
			}
		})
	}
}

// A package whose bytes keep coming at a reasonable pace is not late, however long it takes.
//
// case: 22, 43
func TestReadTimeoutLooksAtThePace(t *testing.T) {
	const size, limit = 60_000, time.Second
	eachMemoryLine(t, func(t *testing.T, line memoryLine, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		l.message = func(s getty.Session, pkg any) { _, _, _ = s.WritePkg("it is there", 0) }
		c, _ := line.connect(t, l, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
			o.ReadTimeout = limit
		})
		begun := time.Now()
		c.begin(size, nil)
		const step = 600 // each half of the limit: a little more than 1 KiB in each
		for sent := 0; sent < size; sent += step {
			time.Sleep(limit / 2)
			_, err := io.WriteString(c, strings.Repeat("x", step))
			require.NoError(t, err)
		}
		got, err := c.read()
		require.NoError(t, err)
		require.Equal(t, "it is there", got)
		requireElapsed(t, begun, 50*limit, limit)
	})
}

// A peer that takes nothing ends the session after WriteTimeout, however much was taken before; one
// that takes a little in time does not.
func TestWriteTimeout(t *testing.T) {
	eachMemoryLine(t, func(t *testing.T, line memoryLine, d getty.Dispatch) {
		const limit = getty.DefaultWriteTimeout
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		c, s := line.connect(t, l, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
			o.HighWater, o.MaxMsgLen = 4<<20, 4<<20
		})
		_, _, err := s.WritePkg(strings.Repeat("x", 2<<20), 0)
		require.NoError(t, err)
		b := make([]byte, 80<<10) // more than one piece of what the connection is given at once
		for range 10 {
			time.Sleep(limit * 3 / 4)
			_, err := io.ReadFull(c, b)
			require.NoError(t, err)
			require.False(t, s.IsClosed(), "%v", s.Err())
		}
		begun := time.Now()
		require.Same(t, s, <-l.closed)
		requireElapsed(t, begun, limit, limit/2)
		require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
		require.EqualValues(t, 1, s.Stats().Unsent)
	})
}

// A caller's timeout is its own: it gets its package back and the session goes on.
func TestWriteTimeoutOfACall(t *testing.T) {
	eachBubble(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		c, s := inMemory(t, l, d, func(o *getty.ServerOptions) { o.WriteTimeout = -1 })
		_, _, err := s.WritePkg(strings.Repeat("x", 512<<10), 0)
		require.NoError(t, err)
		for _, limit := range []time.Duration{time.Second, time.Hour} {
			begun := time.Now()
			_, _, err = s.WritePkg("late", limit)
			require.ErrorIs(t, err, getty.ErrWriteTimeout)
			requireElapsed(t, begun, limit, tick)
		}
		_, err = io.ReadFull(c, make([]byte, 4+512<<10))
		require.NoError(t, err)
		_, _, err = s.WritePkg("in time", time.Second)
		require.NoError(t, err)
		require.Equal(t, "in time", readFrame(t, c))
	})
}

// A peer that does not finish what precedes a session is cut after HandshakeTimeout.
func TestHandshakeTimeout(t *testing.T) {
	const limit = getty.DefaultHandshakeTimeout
	for name, listen := range map[string]func(*gettytest.Listener) *getty.Server{
		"tls": func(ln *gettytest.Listener) *getty.Server {
			return getty.NewTCPServer(getty.WithListener(wrappingListener{ln, func(c net.Conn) net.Conn {
				return tls.Server(c, &tls.Config{})
			}}))
		},
		"ws": func(ln *gettytest.Listener) *getty.Server { return getty.NewWSServer(getty.WithListener(ln)) },
	} {
		for _, sent := range []string{"", "GET / HTTP/1.1\r\nHost: x\r\nUpg"} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					if name == "tls" && sent != "" {
						sent = "\x16\x03\x01" // the first bytes of a ClientHello
					}
					ln := gettytest.Listen()
					srv := listen(ln)
					run(t, srv, prepare(newTracer(t)))
					begun := time.Now()
					c := dialMemory(t, ln)
					_, err := io.WriteString(c, sent)
					require.NoError(t, err)
					_, err = io.Copy(io.Discard, c)
					require.NoError(t, err)
					requireElapsed(t, begun, limit, tick)
					require.Zero(t, srv.Stats().Opened)
				})
			})
		}
	}
}

// The first tick comes after a random part of CronPeriod, so that the ticks of many sessions spread
// out; from then on they come in each period.
func TestCronPhases(t *testing.T) {
	eachBubble(t, func(t *testing.T, d getty.Dispatch) {
		const sessions, period = 200, 10 * time.Second
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		begun := time.Now()
		type at struct {
			s     getty.Session
			after time.Duration
		}
		ticks := make(chan at, 100*sessions)
		l.cron = func(s getty.Session) { ticks <- at{s, time.Since(begun)} }
		ln := gettytest.Listen()
		serve(t, prepare(l), getty.WithListener(ln), getty.WithServerDispatch(d),
			func(o *getty.ServerOptions) { o.CronPeriod = period })
		for range sessions {
			dialMemory(t, ln)
		}
		time.Sleep(10*period + tick)
		first, last := make(map[getty.Session]time.Duration), make(map[getty.Session]time.Duration)
		var quarters [4]int
		for len(ticks) > 0 {
			x := <-ticks
			if before, seen := last[x.s]; seen {
				require.InDelta(t, period, x.after-before, float64(tick))
			} else {
				first[x.s] = x.after
				require.LessOrEqual(t, x.after, period+tick)
				quarters[min(int(4*x.after/period), 3)]++
			}
			last[x.s] = x.after
		}
		require.Len(t, first, sessions)
		for _, n := range quarters {
			require.Greater(t, n, sessions/16, "ticks in the quarters of a period: %v", quarters)
		}
		for s := range srvSessions(l) {
			require.GreaterOrEqual(t, l.of(s).crons, 9)
		}
	})
}

// srvSessions returns the sessions that have opened.
func srvSessions(l *tracer) func(yield func(getty.Session) bool) {
	return func(yield func(getty.Session) bool) {
		for len(l.opened) > 0 {
			if !yield(<-l.opened) {
				return
			}
		}
	}
}

// While a handler runs, ticks merge into one; they never overlap it, do not come in a burst
// afterwards, and never stop coming.
func TestCronTakesItsTurn(t *testing.T) {
	eachBubble(t, func(t *testing.T, d getty.Dispatch) {
		const period = time.Minute
		l := newTracer(t)
		hold := make(chan struct{})
		release := sync.OnceFunc(func() { close(hold) })
		defer release()
		l.message = func(getty.Session, any) { <-hold }
		l.cron = func(s getty.Session) { _, _, _ = s.WritePkg("tick", 0) }
		c, s := inMemory(t, l, d, func(o *getty.ServerOptions) { o.CronPeriod = period })
		for range 3 {
			require.Equal(t, "tick", readFrame(t, c))
		}
		_, err := c.Write(frame("stop"))
		require.NoError(t, err)
		synctest.Wait()
		before := l.of(s).crons
		time.Sleep(20*period + period/2)
		missed := 0
		if d == getty.Unordered {
			missed = 20
		}
		require.Equal(t, before+missed, l.of(s).crons, "ticks while the handler runs")
		release()
		synctest.Wait()
		if d != getty.Unordered {
			missed = 1
		}
		require.Equal(t, before+missed, l.of(s).crons, "what was missed is one tick")
		time.Sleep(10 * period)
		require.InDelta(t, before+missed+10, l.of(s).crons, 1)
	})
}

// OnCron never runs on the goroutine of the timers: one that blocks delays no other session and no
// limit.
//
// acceptance: L12
func TestABlockedCronDelaysNobody(t *testing.T) {
	eachBubble(t, func(t *testing.T, d getty.Dispatch) {
		const period, limit = 2 * time.Second, 30 * time.Second
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		hold := make(chan struct{})
		defer close(hold)
		var first getty.Session
		l.cron = func(s getty.Session) {
			if s == first {
				<-hold
			}
		}
		ln := gettytest.Listen()
		serve(t, prepare(l), getty.WithListener(ln), getty.WithServerDispatch(d),
			func(o *getty.ServerOptions) { o.ReadTimeout = limit })
		dialMemory(t, ln)
		first = <-l.opened
		first.SetCronPeriod(period)
		time.Sleep(period + tick)
		require.Equal(t, 1, l.of(first).crons, "it is blocked")
		c := dialMemory(t, ln)
		other := <-l.opened
		other.SetCronPeriod(period)
		time.Sleep(10*period + tick)
		require.GreaterOrEqual(t, l.of(other).crons, 9)
		_, err := c.Write(frame("half")[:5])
		require.NoError(t, err)
		begun := time.Now()
		require.Same(t, other, <-l.closed)
		requireElapsed(t, begun, limit, tick)
		require.Equal(t, getty.ErrReadTimeout, other.Err())
	})
}

// Close waits WaitTime for what is queued to leave, and WaitTime for the peer's end; a peer that
// ends earlier is not waited for.
func TestWaitTime(t *testing.T) {
	const wait = 10 * time.Second
	eachMemoryLine(t, func(t *testing.T, line memoryLine, d getty.Dispatch) {
		if line.name == "ws" {
			return // its peer answers the close frame: TestWebSocketOwnEnds
		}
		for _, how := range []string{"reads nothing", "never ends", "ends"} {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			c, s := line.connect(t, l, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
				o.WaitTime, o.WriteTimeout = wait, time.Hour
			})
			_, _, err := s.WritePkg(strings.Repeat("x", 512<<10), 0)
			require.NoError(t, err)
			begun := time.Now()
			s.Close()
			if how != "reads nothing" {
				_, err := io.Copy(io.Discard, c)
				require.NoError(t, err)
			}
			if how == "ends" {
				time.Sleep(wait / 2)
				require.NoError(t, c.Close())
			}
			require.Same(t, s, <-l.closed)
			switch how {
			case "reads nothing":
				requireElapsed(t, begun, wait, wait)
				require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
				require.EqualValues(t, 1, s.Stats().Unsent)
			case "never ends":
				requireElapsed(t, begun, wait, wait)
				require.NoError(t, s.Err())
			case "ends":
				requireElapsed(t, begun, wait/2, tick)
				require.NoError(t, s.Err())
			}
			_ = c.Close()
		}
	})
}

// Once a session closes, only WaitTime and WriteTimeout limit it: neither the package that its peer
// has begun nor the peer's silence make a failure of it.
func TestClosingOutlastsReadLimits(t *testing.T) {
	eachBubble(t, func(t *testing.T, d getty.Dispatch) {
		const limit = time.Second
		l := newTracer(t)
		c, s := inMemory(t, l, d, func(o *getty.ServerOptions) {
			o.ReadTimeout, o.IdleTimeout, o.WriteTimeout, o.WaitTime = limit, limit, time.Hour, time.Hour
		})
		_, err := c.Write([]byte{0})
		require.NoError(t, err)
		big := strings.Repeat("x", 512<<10)
		_, _, err = s.WritePkg(big, 0)
		require.NoError(t, err)
		s.Close()
		time.Sleep(10 * limit)
		require.Equal(t, big, readFrame(t, c))
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		time.Sleep(10 * limit)
		require.NoError(t, c.Close())
		require.NoError(t, (<-l.closed).Err())
		require.Empty(t, l.of(s).errs)
	})
}

// A session that goes on after its peer's end is closed after HalfClose; silence ends it no
// earlier.
//
// case: 39
func TestHalfClose(t *testing.T) {
	eachBubble(t, func(t *testing.T, d getty.Dispatch) {
		l := &readEndTracer{tracer: newTracer(t)}
		l.unordered = d == getty.Unordered
		ln := gettytest.Listen()
		serve(t, prepare(l), getty.WithListener(ln), getty.WithServerDispatch(d),
			func(o *getty.ServerOptions) { o.IdleTimeout, o.ReadTimeout = time.Second, time.Second })
		c := dialMemory(t, ln)
		require.NoError(t, c.CloseWrite())
		begun := time.Now()
		s := <-l.closed
		requireElapsed(t, begun, getty.DefaultHalfClose, tick)
		require.Equal(t, io.EOF, s.Err())
		require.EqualValues(t, 1, l.ends.Load())
	})
}

// The spans of a client's back-off double from the first to the largest; a session that read
// something sets them back.
//
// acceptance: C07 fault: 109
func TestBackOffSpans(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const first, most = time.Second, time.Minute
		ln := gettytest.Listen()
		sl := newTracer(t)
		sl.open = func(s getty.Session) error {
			_, _, err := s.WritePkg("hello", 0)
			s.Close()
			return err
		}
		serve(t, prepare(sl), getty.WithListener(ln))
		dials, down := make(chan time.Time, 1000), errors.New("down")
		var ups atomic.Int32
		client := getty.NewDialedClient(func(ctx context.Context) (net.Conn, error) {
			dials <- time.Now()
			if ups.CompareAndSwap(1, 0) {
				return ln.Dial(ctx)
			}
			return nil, down
		}, getty.WithServerAddress("127.0.0.1:1"), func(o *getty.ClientOptions) {
			o.ReconnectInterval, o.ReconnectMax = first, most
		})
		run(t, client, prepare(newTracer(t)))
		outage := func(rounds int, span time.Duration) (longest time.Duration) {
			last := <-dials
			for range rounds {
				next := <-dials
				require.LessOrEqual(t, next.Sub(last), span+tick)
				longest = max(longest, next.Sub(last))
				last, span = next, min(2*span, most)
			}
			return longest
		}
		require.Greater(t, outage(40, first), most/2, "forty waits, of which thirty have the largest span")
		synctest.Wait()
		require.Empty(t, dials)
		ups.Store(1)
		<-dials // it has a session, which says hello: the first wait after its end has the first span
		outage(20, 2*first)
		client.Close()
		<-client.Done()
		synctest.Wait()
		require.Empty(t, dials)
	})
}

// Serve lets its sessions drain for DrainTimeout, and forces those that do not.
func TestDrainTimeout(t *testing.T) {
	eachBubble(t, func(t *testing.T, d getty.Dispatch) {
		const limit = getty.DefaultDrainTimeout
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		hold := make(chan struct{})
		l.message = func(s getty.Session, _ any) { <-hold }
		ln := gettytest.Listen()
		srv := getty.NewTCPServer(getty.WithListener(ln), getty.WithServerDispatch(d))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- srv.Serve(ctx, prepare(l)) }()
		_, err := dialMemory(t, ln).Write(frame("x"))
		require.NoError(t, err)
		synctest.Wait()
		begun := time.Now()
		cancel()
		require.ErrorIs(t, <-done, context.DeadlineExceeded)
		requireElapsed(t, begun, limit, time.Second)
		close(hold)
		<-srv.Done()
		require.ErrorIs(t, (<-l.closed).Err(), context.DeadlineExceeded)
	})
}

// The longest durations that there are mean what they say, not the past.
func TestEndlessDurations(t *testing.T) {
	const endless, years = time.Duration(1<<63 - 1), 20 * 365 * 24 * time.Hour
	for name, set := range map[string]getty.ServerOption{
		"options": func(o *getty.ServerOptions) {
			o.ReadTimeout, o.IdleTimeout, o.WriteTimeout = endless, endless, endless
			o.WaitTime, o.CronPeriod = endless, endless
		},
		"setters": nil,
	} {
		t.Run(name, func(t *testing.T) {
			eachBubble(t, func(t *testing.T, d getty.Dispatch) {
				l := newTracer(t)
				c, s := inMemory(t, l, d, set)
				if set == nil {
					for _, set := range []func(time.Duration){
						s.SetReadTimeout, s.SetIdleTimeout, s.SetWriteTimeout, s.SetWaitTime,
					} {
						set(endless)
					}
				}
				_, err := c.Write([]byte{0}) // begins a package
				require.NoError(t, err)
				_, _, err = s.WritePkg(strings.Repeat("x", 512<<10), 0)
				require.NoError(t, err)
				time.Sleep(years)
				s.SetCronPeriod(endless) // also looks at all limits
				s.Close()
				time.Sleep(years)
				require.Empty(t, l.closed, "it ended with %v", s.Err())
				require.NoError(t, c.Close())
				<-l.closed
			})
		})
	}
}

// A bubble leaves nothing behind that breaks those who come later: what the process keeps for
// reuse carries no channel out of it, and none into it.
func TestBubblesAndOthers(t *testing.T) {
	roomy := func(o *getty.ServerOptions) { o.HighWater = 64 << 20 }
	wait := func(c net.Conn, s getty.Session) {
		const writers = 20 // at once, each with a waiter
		_, _, err := s.WritePkg(strings.Repeat("x", 8<<20), 0)
		require.NoError(t, err)
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				if _, _, err := s.WritePkg("x", patience); err != nil {
					t.Error(err)
				}
				if err := s.Flush(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(10 * time.Millisecond) // most of them wait; not all have to
		for range writers + 1 {
			readFrame(t, c)
		}
		wg.Wait()
	}
	for range 2 {
		for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered, getty.Unordered} {
			t.Run(d.String(), func(t *testing.T) {
				wait(stall(t, newTracer(t), getty.WithServerDispatch(d), roomy))
			})
			t.Run(d.String()+" in a bubble", func(t *testing.T) {
				bubble(t, func(t *testing.T) { wait(inMemory(t, newTracer(t), d, roomy)) })
			})
		}
	}
}

// A WebSocket peer that is silent is asked before it is given up: one that answers pings stays, one
// that does not is ended after IdleTimeout.
//
// case: 22
func TestPingsBeforeIdleTimeout(t *testing.T) {
	const limit = 30 * time.Second
	for _, answers := range []bool{true, false} {
		eachBubble(t, func(t *testing.T, d getty.Dispatch) {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			ln := gettytest.Listen()
			run(t, getty.NewWSServer(getty.WithListener(ln), getty.WithServerDispatch(d),
				func(o *getty.ServerOptions) {
					o.IdleTimeout, o.WebSocket.PingPeriod = limit, time.Hour // asked in time all the same
				}), prepare(l))
			dialer := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) {
				return dialMemory(t, ln), nil
			}}
			ws, _, err := dialer.Dial("ws://memory/", nil)
			require.NoError(t, err)
			begun, pings := time.Now(), 0
			answer := ws.PingHandler()
			ws.SetPingHandler(func(data string) error {
				if pings++; answers {
					return answer(data)
				}
				return nil
			})
			ended := make(chan error, 1)
			go func() {
				_, _, err := ws.ReadMessage()
				ended <- err
			}()
			s := <-l.opened
			if !answers {
				<-l.closed
				require.Equal(t, getty.ErrIdleTimeout, s.Err())
				requireElapsed(t, begun, limit, time.Second)
				<-ended
				require.Equal(t, 1, pings)
				return
			}
			time.Sleep(10 * limit)
			require.False(t, s.IsClosed(), "%v", s.Err())
			_ = ws.Close()
			<-ended
			require.GreaterOrEqual(t, pings, 10)
		})
	}
}
