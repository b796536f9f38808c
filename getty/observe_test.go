// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"io"
	"net"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// stations notes what a Trace is told.
type stations struct {
	mu   sync.Mutex
	n    map[string]int // guarded by mu
	errs []error        // guarded by mu
}

func (b *stations) add(what string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n[what] += n
}

func (b *stations) get(what string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n[what]
}

func newStations() (*stations, *getty.Trace) {
	b := &stations{n: make(map[string]int)}
	return b, &getty.Trace{
		Accepted:  func(net.Addr) { b.add("accepted", 1) },
		Refused:   func(string, error) { b.add("refused", 1) },
		Opened:    func(getty.Session) { b.add("opened", 1) },
		Read:      func(_ getty.Session, n int) { b.add("read", n) },
		Decoded:   func(_ getty.Session, n int) { b.add("decoded", n) },
		Delivered: func(_ getty.Session, took time.Duration) { b.add("delivered", 1); b.add("time", int(took)) },
		Queued:    func(_ getty.Session, n int) { b.add("queued", n) },
		Flushed:   func(_ getty.Session, n int) { b.add("flushed", n) },
		Ended: func(_ getty.Session, err error) {
			b.add("ended", 1)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.errs = append(b.errs, err)
		},
	}
}

// A Trace is told what Stats count, at each station, on every transport and dispatch.
func TestTrace(t *testing.T) {
	const n = 20
	eachCarrier(t, func(t *testing.T, c carrier) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			b, trace := newStations()
			sl := newTracer(t)
			sl.unordered = d == getty.Unordered
			sl.message = func(s getty.Session, pkg any) {
				time.Sleep(10 * time.Microsecond)
				echoPkg(s, pkg)
			}
			srv := c.server(getty.WithServerDispatch(d), func(o *getty.ServerOptions) { o.Trace = trace })
			require.NoError(t, srv.RunEventLoop(prepare(sl)))
			cl := newTracer(t)
			got := make(chan struct{}, n)
			cl.message = func(getty.Session, any) { got <- struct{}{} }
			client := c.client(srv.Addr().String(), func(o *getty.ClientOptions) { o.UDP.NoProbe = c.name == "udp" })
			require.NoError(t, client.RunEventLoop(prepare(cl)))
			s := ready(t, client)
			for range n {
				_, _, err := s.WritePkg("hello", -1)
				require.NoError(t, err)
				within(t, got, "the echo")
			}
			client.Close()
			within(t, client.Done(), "Done")
			if c.name == "udp" {
				srv.Close()
			}
			within(t, sl.closed, "OnClose")
			srv.Close()
			within(t, srv.Done(), "Done")
			st := srv.Stats().Total
			require.Equal(t, 1, b.get("opened"))
			require.Equal(t, 1, b.get("ended"))
			require.Equal(t, n, b.get("delivered"))
			require.GreaterOrEqual(t, b.get("time"), n*10_000)
			require.EqualValues(t, st.BytesRead, b.get("read"))
			require.EqualValues(t, st.PkgsRead, b.get("decoded"))
			require.EqualValues(t, st.BytesWritten, b.get("flushed"))
			require.LessOrEqual(t, b.get("queued"), b.get("flushed")) // control frames are no packages
			require.Positive(t, b.get("queued"))
			if c.name != "udp" {
				require.Equal(t, 1, b.get("accepted"))
				require.Equal(t, []error{io.EOF}, b.errs)
			}
		})
	})
}

// A connection that becomes no session is told too; a function that panics harms nobody.
func TestTraceOfRefusals(t *testing.T) {
	book := newLogBook()
	b, trace := newStations()
	trace.Accepted = func(net.Addr) { panic("enough") }
	srv := serve(t, prepare(newTracer(t)), func(o *getty.ServerOptions) {
		o.Trace, o.MaxSessions, o.Logger = trace, 1, book.Logger
	})
	dial(t, srv)
	eventually(t, "one is open", func() bool { return srv.Stats().Open == 1 })
	gone(t, dial(t, srv))
	require.Equal(t, 1, b.get("refused"))
	require.Equal(t, 2, book.count("a function of Trace panicked"))
}

// The classes of callback times are told apart, and slow handlers are logged with their stack while
// they are at work.
func TestCallbackTimes(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		book := newLogBook()
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		release := make(chan struct{})
		l.message = func(_ getty.Session, pkg any) { handlerAtWork(release) }
		srv := serve(t, prepare(l), getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
			o.TimeCallbacks, o.SlowHandler, o.Logger = true, 20*time.Millisecond, book.Logger
		})
		c := dial(t, srv)
		_, err := c.Write(frame("x"))
		require.NoError(t, err)
		eventually(t, "it is called slow", func() bool { return book.count("slow handler") == 1 })
		require.Equal(t, 1, book.count("handlerAtWork"), "the stack is the handler's")
		require.EqualValues(t, 1, srv.Stats().CallbackTimes.Slow)
		close(release)
		for range 10 {
			_, err := c.Write(frame("y"))
			require.NoError(t, err)
		}
		eventually(t, "all are counted", func() bool {
			x := srv.Stats().CallbackTimes
			return x.Below100us+x.Below1ms+x.Below10ms+x.Below100ms+x.Below1s+x.Longer == 11
		})
		x := srv.Stats().CallbackTimes
		require.Positive(t, x.Below100ms+x.Below1s+x.Longer)
		require.Less(t, x.Below100ms+x.Below1s+x.Longer, uint64(11))
		// A handler that has returned is not called slow any more. No event tells that nothing comes.
		time.Sleep(100 * time.Millisecond)
		require.LessOrEqual(t, srv.Stats().CallbackTimes.Slow, x.Below100ms+x.Below1s+x.Longer)
	})
}

//go:noinline
func handlerAtWork(release chan struct{}) { <-release }

// Callbacks have the labels of their endpoint where that is wanted, on every dispatch, and no
// others.
func TestProfileLabels(t *testing.T) {
	for _, on := range []bool{true, false} {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			working, release := make(chan struct{}), make(chan struct{})
			l.message = func(getty.Session, any) { working <- struct{}{}; <-release }
			srv := serve(t, prepare(l), getty.WithServerDispatch(d), func(o *getty.ServerOptions) { o.ProfileLabels = on })
			_, err := dial(t, srv).Write(frame("x"))
			require.NoError(t, err)
			within(t, working, "OnMessage")
			var b bytes.Buffer
			require.NoError(t, pprof.Lookup("goroutine").WriteTo(&b, 1))
			close(release)
			labels := `"dispatch":"` + d.String() + `", "getty":"server-`
			require.Equal(t, on, strings.Contains(b.String(), labels), b.String())
		})
	}
}

// What waits, and how long reading paused, is told.
func TestStatsOfWhatWaits(t *testing.T) {
	l := newTracer(t)
	hold := make(chan struct{})
	l.message = func(getty.Session, any) { <-hold }
	srv := serve(t, prepare(l), getty.WithServerDispatch(getty.Ordered))
	c := dial(t, srv)
	for i := range 5 {
		_, err := c.Write(numbered(i))
		require.NoError(t, err)
	}
	s := within(t, l.opened, "OnOpen")
	eventually(t, "they wait", func() bool { return s.Stats().Mailbox == 5 })
	require.Equal(t, 5*len(numbered(0)), s.Stats().MailboxBytes)
	require.Equal(t, 5, srv.Stats().Total.Mailbox)
	close(hold)
	eventually(t, "none waits", func() bool { return s.Stats().Mailbox == 0 })

	st, read := stalled(t, carriers[0], func(o *getty.ServerOptions) { o.WriteTimeout = -1 })
	require.Zero(t, st.Stats().Stalls)
	fill(t, st, strings.Repeat("x", 30_000))
	require.NotZero(t, st.Stats().Stalls)
	read()
	eventually(t, "the queue is empty", func() bool { return st.Stats().Queued == 0 })
	paced := getty.ReadRate{Packages: 50, Burst: time.Millisecond}
	l2 := newTracer(t)
	c2 := dial(t, serve(t, prepare(l2), func(o *getty.ServerOptions) { o.ReadRate = paced }))
	s2 := within(t, l2.opened, "OnOpen")
	for range 3 {
		n := s2.Stats().PkgsRead
		_, err := c2.Write(frame("x"))
		require.NoError(t, err)
		eventually(t, "it is read", func() bool { return s2.Stats().PkgsRead > n })
	}
	eventually(t, "reading has paused", func() bool { return s2.Stats().Paused > 0 })
}
