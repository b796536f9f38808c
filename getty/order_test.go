// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// Every one of many sessions sees its answers in order, through a pool that all share.
func TestManySessionsKeepOrderThroughAPool(t *testing.T) {
	const sessions, requests = 200, 50
	l := newTracer(t)
	l.message = echoPkg
	pool := taskpool.NewOrdered(taskpool.Config{})
	t.Cleanup(func() { _ = pool.Close() })
	srv := serve(t, prepare(l), getty.WithServerTaskPool(pool))
	var wg sync.WaitGroup
	for range sessions {
		c := dial(t, srv)
		wg.Go(func() {
			var out []byte
			for i := range requests {
				out = append(out, numbered(i)...)
			}
			if _, err := c.Write(out); err != nil {
				t.Error(err)
			}
			for i := range requests {
				got, err := tryReadFrame(c)
				if err != nil || got != fmt.Sprintf("%08d", i) {
					t.Errorf("answer %d is %q, %v", i, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// acceptance: R11
func TestMessagesOfASessionKeepTheirOrder(t *testing.T) {
	const n = 5000
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
		t.Run(d.String(), func(t *testing.T) {
			l := newTracer(t)
			next, done := 0, make(chan struct{})
			l.message = func(s getty.Session, pkg any) {
				got, err := strconv.Atoi(pkg.(*codec.Frame).String())
				if err != nil || got != next {
					t.Errorf("package %d came where %d was due", got, next)
				}
				if next++; next == n {
					close(done)
				}
			}
			c := dial(t, serve(t, prepare(l), getty.WithServerDispatch(d)))
			for i := range n {
				_, err := c.Write(numbered(i))
				require.NoError(t, err)
			}
			within(t, done, "the last package")
		})
	}
}

// fault: 122
func TestASlowHandlerDelaysOnlyItsOwnSession(t *testing.T) {
	l := newTracer(t)
	release, stuck := make(chan struct{}), make(chan struct{})
	l.message = func(s getty.Session, pkg any) {
		if pkg.(*codec.Frame).String() == "wait" {
			close(stuck)
			<-release
		}
		echoPkg(s, pkg)
	}
	srv := serve(t, prepare(l), getty.WithServerDispatch(getty.Ordered))
	slow, quick := dial(t, srv), dial(t, srv)
	_, err := slow.Write(frame("wait"))
	require.NoError(t, err)
	within(t, stuck, "the slow handler")
	for range 100 {
		_, err = quick.Write(frame("go"))
		require.NoError(t, err)
		require.Equal(t, "go", readFrame(t, quick))
	}
	close(release)
	require.Equal(t, "wait", readFrame(t, slow))
}

// A panic or Goexit anywhere costs its own session: reported once, with the stack, and nothing after OnClose.
//
// acceptance: L08 fault: 120
func TestPanicCostsOneSession(t *testing.T) {
	places := []string{"NewSessionCallback", "OnOpen", "OnMessage", "OnCron", "OnError", "OnClose", "Reader", "Writer"}
	for _, kind := range []string{"panic", "goexit"} {
		for _, place := range places {
			t.Run(kind+"/"+place, func(t *testing.T) {
				eachDispatch(t, func(t *testing.T, d getty.Dispatch) { testPanic(t, kind, place, d) })
			})
		}
	}
}

func testPanic(t *testing.T, kind, place string, d getty.Dispatch) {
	var armed atomic.Bool
	armed.Store(true)
	blow := func(where string) {
		if where == place && armed.CompareAndSwap(true, false) {
			if kind == "panic" {
				panic("boom")
			}
			runtime.Goexit()
		}
	}
	l := newTracer(t)
	l.unordered = d == getty.Unordered
	l.open = func(getty.Session) error { blow("OnOpen"); return nil }
	l.message = func(s getty.Session, pkg any) { blow("OnMessage"); echoPkg(s, pkg) }
	l.cron = func(getty.Session) { blow("OnCron") }
	l.onError = func(getty.Session, error) { blow("OnError") }
	l.onClose = func(getty.Session) { blow("OnClose") }
	srv := serve(t, func(s getty.Session) error {
		blow("NewSessionCallback")
		return prepare(l, hookedCodec{blow})(s)
	}, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
		if place == "OnCron" {
			o.CronPeriod = time.Millisecond
		}
	})
	c := dial(t, srv)
	if place == "OnError" {
		require.NoError(t, c.SetLinger(0)) // its end is not clean
		within(t, l.opened, "OnOpen")
		_ = c.Close()
	} else if place == "OnClose" {
		within(t, l.opened, "OnOpen")
		_ = c.Close()
	} else {
		_, _ = c.Write(frame("x"))
	}
	switch place {
	case "NewSessionCallback", "OnOpen":
		_, err := tryReadFrame(c)
		require.Error(t, err, "the connection is closed")
		require.Empty(t, l.closed, "no callback after a failed start")
		eventually(t, "the refusal is counted", func() bool { return srv.Stats().Refused == 1 })
	default:
		s := within(t, l.closed, "OnClose")
		within(t, s.Done(), "Done")
		if place != "OnError" && place != "OnClose" {
			var p *getty.PanicError
			require.ErrorAs(t, s.Err(), &p)
			require.Equal(t, place, p.Where)
			require.Contains(t, string(p.Stack), "testPanic")
			if kind == "panic" {
				require.Equal(t, "boom", p.Value)
			}
			require.Len(t, l.of(s).errs, 1, "OnError")
			require.ErrorAs(t, l.of(s).errs[0], &p)
		}
	}
	// The engine lives.
	c = dial(t, srv)
	_, err := c.Write(frame("again"))
	require.NoError(t, err)
	require.Equal(t, "again", readFrame(t, c))
}

// hookedCodec is the length-field codec with a hook at each half.
type hookedCodec struct{ hook func(where string) }

func (c hookedCodec) Read(s getty.Session, b []byte) (any, int, error) {
	c.hook("Reader")
	return frames.Read(s, b)
}

func (c hookedCodec) Write(s getty.Session, pkg any) ([]byte, error) {
	c.hook("Writer")
	return frames.Write(s, pkg)
}

// Callbacks may close anything, their own endpoint included.
//
// fault: 123
func TestClosingFromACallback(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for name, end := range map[string]func(getty.Session){
			"session":    func(s getty.Session) { s.Close() },
			"sessionNow": func(s getty.Session) { s.CloseNow() },
			"endpoint":   func(s getty.Session) { s.EndPoint().Close() },
		} {
			t.Run(name, func(t *testing.T) {
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				l.message = func(s getty.Session, pkg any) { end(s) }
				c := dial(t, serve(t, prepare(l), getty.WithServerDispatch(d)))
				_, err := c.Write(frame("x"))
				require.NoError(t, err)
				_, err = tryReadFrame(c)
				require.Error(t, err)
				_ = c.Close()
				within(t, l.closed, "OnClose")
			})
		}
	})
}

// A shutdown whose time is over closes the sessions with peers that read nothing, and tells what was not sent.
//
// fault: 134
func TestShutdownForcesStuckPeers(t *testing.T) {
	// What was forced has a tenth of a second for its callbacks, else it is called stuck: a busy machine may need more.
	oneOf(t, 5, "a forced end with nobody stuck", func() bool { return shutdownForces(t) == 0 })
}

// shutdownForces returns how many sessions were called stuck.
func shutdownForces(t *testing.T) int {
	const peers = 5
	l := newTracer(t)
	srv := getty.NewTCPServer(func(o *getty.ServerOptions) { o.HighWater, o.WaitTime = 64<<10, time.Hour })
	start(t, srv, prepare(l))
	reads := dial(t, srv)
	done := make(chan struct{})
	go func() { discard(reads); _ = reads.Close(); close(done) }()
	within(t, l.opened, "OnOpen")
	var stuck []getty.Session
	accepted := 0
	for range peers {
		c := dial(t, srv)
		require.NoError(t, c.SetReadBuffer(4096))
		s := within(t, l.opened, "OnOpen")
		accepted += fill(t, s, strings.Repeat("x", 10_000))
		stuck = append(stuck, s)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	enough := errors.New("enough")
	go func() {
		for srv.Stats().Open > peers { // until the one that reads has drained
			time.Sleep(time.Millisecond) // a poll: endpoints announce no ends
		}
		time.Sleep(20 * time.Millisecond) // nothing announces that the others do not drain
		cancel(enough)
	}()
	report, err := srv.Shutdown(ctx)
	require.ErrorIs(t, err, enough)
	within(t, srv.Done(), "Done")
	within(t, done, "the end of the one that reads")
	require.Equal(t, 1, report.Drained)
	require.Equal(t, peers, report.Forced)
	written, unsent := 0, uint64(0)
	for _, s := range stuck {
		require.ErrorIs(t, s.Err(), enough)
		require.ErrorIs(t, s.Err(), getty.ErrSessionClosed)
		require.Len(t, l.of(s).errs, 1, "OnError")
		written += int(s.Stats().PkgsWritten)
		unsent += s.Stats().Unsent
	}
	require.Positive(t, unsent)
	require.EqualValues(t, unsent, report.Unsent)
	require.EqualValues(t, accepted, uint64(written)+unsent)
	return len(report.Stuck)
}

// fault: 124, 134
func TestShutdownNamesAStuckHandler(t *testing.T) {
	l := newTracer(t)
	release, stuck := make(chan struct{}), make(chan struct{})
	l.message = func(getty.Session, any) { close(stuck); <-release }
	srv := getty.NewTCPServer(getty.WithServerDispatch(getty.Ordered))
	start(t, srv, prepare(l))
	_, err := dial(t, srv).Write(frame("x"))
	require.NoError(t, err)
	within(t, stuck, "the handler")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	report, err := srv.Shutdown(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, 1, report.Forced)
	require.Len(t, report.Stuck, 1)
	close(release)
	within(t, srv.Done(), "Done")
}
