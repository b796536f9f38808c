// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// stall connects a peer that reads nothing, and returns it with the server's session.
func stall(t testing.TB, l *tracer, opts ...getty.ServerOption) (*net.TCPConn, getty.Session) {
	t.Helper()
	c := dial(t, serve(t, prepare(l), opts...))
	require.NoError(t, c.SetReadBuffer(64<<10)) // and no growing while nothing is read
	return c, within(t, l.opened, "OnOpen")
}

// A peer that reads slowly keeps its session, although the kernel calls a socket writable only when a third of its
// buffer is free, which takes longer than WriteTimeout.
func TestASlowPeerIsNotAStuckOne(t *testing.T) {
	t.Parallel()
	l := newTracer(t)
	c, s := stall(t, l, func(o *getty.ServerOptions) {
		o.WriteTimeout, o.HighWater = time.Second, 64<<20
		o.Socket.WriteBuffer = 1 << 20 // or as much as the system gives
	})
	_, _, err := s.WritePkg(strings.Repeat("x", 16<<20), 0)
	require.NoError(t, err)
	for b, begun := make([]byte, 8<<10), time.Now(); time.Since(begun) < 2500*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		_, err := io.ReadFull(c, b)
		require.NoError(t, err)
		require.False(t, s.IsClosed(), "%v: %v", time.Since(begun), s.Err())
	}
}

// fill queues packages until the session refuses one, and returns how many it accepted.
func fill(t testing.TB, s getty.Session, p string) int {
	t.Helper()
	// The kernel takes what fits its buffers, a little more each time it looks; then the queue fills.
	for n, calm := 0, 0; ; {
		switch _, _, err := s.WritePkg(p, 0); {
		case err == nil:
			n, calm = n+1, 0
		case !errors.Is(err, getty.ErrSessionBlocked):
			require.NoError(t, err)
		case calm == 20:
			return n
		default:
			calm++
			time.Sleep(2 * time.Millisecond) // nothing announces that the kernel takes more
		}
	}
}

// heap returns how much is in use.
func heap() int64 {
	runtime.GC()
	runtime.GC() // the pools are emptied by the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// fillMany fills the queues of so many sessions that open, and returns them.
func fillMany(t testing.TB, l *tracer, peers int, p string) []getty.Session {
	t.Helper()
	sessions := make([]getty.Session, peers)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < peers; i += 4 {
				s := <-l.opened
				sessions[i] = s
				for refused := 0; refused < 3; {
					if _, _, err := s.WritePkg(p, 0); errors.Is(err, getty.ErrSessionBlocked) {
						refused++
						runtime.Gosched()
					} else if err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return sessions
}

// A session whose peer reads nothing is closed within WaitTime, no OS thread stays in close(2), and the
// descriptors come back.
//
// acceptance: W01 fault: 22
func TestCloseWithPeersThatNeverRead(t *testing.T) {
	const peers = 2000
	l := newTracer(t)
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.WaitTime, o.HighWater = 100*time.Millisecond, 32<<10
		o.Socket.WriteBuffer = 4096
	})
	var conns []*net.TCPConn
	for range peers {
		c := dial(t, srv)
		require.NoError(t, c.SetReadBuffer(4096))
		conns = append(conns, c)
	}
	sessions := fillMany(t, l, peers, strings.Repeat("x", 16<<10))
	threads := pprof.Lookup("threadcreate").Count()
	for _, s := range sessions {
		s.Close()
	}
	for range peers {
		s := within(t, l.closed, "OnClose")
		require.Positive(t, s.Stats().Unsent, "the peer took it all")
		require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
	}
	// Not one for each session; how many else depends on how long system calls take here.
	require.Less(t, pprof.Lookup("threadcreate").Count()-threads, peers/4, "threads created meanwhile")
	for _, c := range conns {
		_ = c.Close()
	}
}

// Each call has its own timeout; none outlives its call.
//
// acceptance: W02, W08
func TestTimeoutsBelongToTheirCalls(t *testing.T) {
	l := newTracer(t)
	c, s := stall(t, l)
	_, sent, err := s.WritePkg("short", 30*time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, 9, sent)
	time.Sleep(40 * time.Millisecond) // the first call's timeout passes
	_, _, err = s.WritePkg("long", 5*time.Second)
	require.NoError(t, err, "a deadline of an earlier call")
	time.Sleep(40 * time.Millisecond) // and again, though nobody waits
	_, _, err = s.WritePkg("none", 0)
	require.NoError(t, err)
	for _, want := range []string{"short", "long", "none"} {
		require.Equal(t, want, readFrame(t, c))
	}
	require.False(t, s.IsClosed())

	// Behind a package that takes long, a call without a timeout of its own has the session's, whatever an
	// earlier call had; and only the call is over then, since the peer goes on reading.
	l = newTracer(t)
	c, s = stall(t, l, func(o *getty.ServerOptions) {
		o.WriteTimeout, o.HighWater = time.Second, 1<<30
		o.Socket.WriteBuffer = 64 << 10 // the kernel wants a third of it free before it takes more
	})
	_, _, err = s.WritePkg("an hour", time.Hour)
	require.NoError(t, err)
	_, _, err = s.WritePkg(strings.Repeat("b", 32<<20), 0)
	require.NoError(t, err)
	expired := make(chan struct{})
	go func() {
		for {
			select {
			case <-expired:
				discard(c)
				return
			case <-time.After(10 * time.Millisecond):
				_, _ = io.CopyN(io.Discard, c, 64<<10)
			}
		}
	}()
	_, sent, err = s.WritePkg("the session's", -1)
	require.ErrorIs(t, err, getty.ErrWriteTimeout)
	require.Zero(t, sent)
	_, _, err = s.WritePkg("its own", 20*time.Millisecond)
	require.ErrorIs(t, err, getty.ErrWriteTimeout)
	require.False(t, s.IsClosed(), "the batch makes progress")
	close(expired)
	require.NoError(t, s.Flush(context.Background()))
	require.EqualValues(t, 2, s.Stats().Withdrawn)
}

// A package that expires while a part of it has left ends the session; the peer gets a prefix and nothing
// after it.
//
// acceptance: W03, W10 fault: 24
func TestAPartlySentPackageEndsTheSession(t *testing.T) {
	l := newTracer(t)
	c, s := stall(t, l)
	big := strings.Repeat("b", 64<<20)
	total, sent, err := s.WritePkg(big, 50*time.Millisecond)
	require.ErrorIs(t, err, getty.ErrWriteTimeout)
	require.Equal(t, len(big)+4, total)
	require.Positive(t, sent)
	require.Less(t, sent, total)
	_, _, err = s.WritePkg("after", 0)
	require.ErrorIs(t, err, getty.ErrSessionClosed)
	require.ErrorIs(t, err, net.ErrClosed)
	got, _ := io.ReadAll(c)
	require.Equal(t, sent, len(got), "sent is what the peer gets")
	require.Equal(t, len(got)-4, bytes.Count(got[4:], []byte("b")))
	within(t, l.closed, "OnClose")
	require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
	require.ErrorIs(t, s.Err(), os.ErrDeadlineExceeded)
	st := s.Stats()
	require.EqualValues(t, 1, st.Unsent)
	require.EqualValues(t, total-sent, st.UnsentBytes)
}

// A package that expires before any of it left is taken back, and the session lives. A small one behind a
// large one waits in line, with its own deadline.
//
// acceptance: W09
func TestAnExpiredPackageIsWithdrawn(t *testing.T) {
	l := newTracer(t)
	c, s := stall(t, l)
	big := strings.Repeat("b", 16<<20)
	_, sent, err := s.WritePkg(big, 0)
	require.NoError(t, err)
	require.Equal(t, len(big)+4, sent)
	begun := time.Now()
	_, sent, err = s.WritePkg("refused", 0)
	require.ErrorIs(t, err, getty.ErrSessionBlocked)
	require.Zero(t, sent)
	require.Less(t, time.Since(begun), patience/2, "a refusal does not wait")
	_, sent, err = s.WritePkg("expires", 30*time.Millisecond)
	require.ErrorIs(t, err, getty.ErrWriteTimeout)
	require.Zero(t, sent)
	require.False(t, s.IsClosed())
	done := make(chan error, 1)
	go func() {
		_, _, err := s.WritePkg("waits", patience)
		done <- err
	}()
	require.Equal(t, big, readFrame(t, c))
	require.Equal(t, "waits", readFrame(t, c))
	require.NoError(t, within(t, done, "the waiting write"))
}

// Below the high mark a package is queued behind others and withdrawn from between them.
//
// acceptance: W09
func TestWithdrawFromTheMiddle(t *testing.T) {
	l := newTracer(t)
	c, s := stall(t, l, func(o *getty.ServerOptions) { o.HighWater = 64 << 20 })
	big := strings.Repeat("b", 16<<20)
	_, _, err := s.WritePkg(big, 0)
	require.NoError(t, err)
	_, _, err = s.WritePkg("before", 0)
	require.NoError(t, err)
	total, sent, err := s.WritePkg("expires", 20*time.Millisecond)
	require.ErrorIs(t, err, getty.ErrWriteTimeout)
	require.Equal(t, 11, total)
	require.Zero(t, sent)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("changed my mind")
	cancel(why)
	_, _, err = s.WritePkgContext(ctx, "cancelled")
	require.Error(t, err)
	ctx, cancel = context.WithCancelCause(context.Background())
	later := make(chan error, 1)
	queued := s.Stats().Queued
	go func() {
		_, _, err := s.WritePkgContext(ctx, "cancelled later")
		later <- err
	}()
	eventually(t, "it is queued", func() bool { return s.Stats().Queued > queued })
	cancel(why)
	require.ErrorIs(t, within(t, later, "the cancelled write"), why)
	_, _, err = s.WritePkg("after", 0)
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Stats().Withdrawn)
	for _, want := range []string{big, "before", "after"} {
		require.Equal(t, want, readFrame(t, c))
	}
	eventually(t, "the queue is empty", func() bool { return s.Stats().Queued == 0 })
	require.EqualValues(t, 3, s.Stats().PkgsWritten)
}

// acceptance: W06 fault: 30
func TestEncoderFailures(t *testing.T) {
	why := errors.New("cannot encode")
	for name, test := range map[string]struct {
		writer getty.Writer
		want   func(error) bool
		lives  bool
	}{
		"error":  {writerFunc(func(any) ([]byte, error) { return nil, why }), func(err error) bool { return errors.Is(err, why) }, true},
		"append": {failingAppender{}, func(err error) bool { return errors.Is(err, errAppend) }, true},
		"nil":    {writerFunc(func(any) ([]byte, error) { return nil, nil }), func(err error) bool { return errors.Is(err, getty.ErrBadReader) }, true},
		"none":   {nil, func(err error) bool { return errors.Is(err, getty.ErrBadReader) }, true},
		"panics": {writerFunc(func(any) ([]byte, error) { panic(why) }), func(err error) bool { return errors.Is(err, why) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newTracer(t)
			srv := serve(t, func(s getty.Session) error {
				_ = s.SetEventListener(l)
				_ = s.SetReader(frames)
				if test.writer != nil {
					return s.SetWriter(test.writer)
				}
				return nil
			})
			dial(t, srv)
			s := within(t, l.opened, "OnOpen")
			for _, timeout := range []time.Duration{0, time.Second} {
				_, sent, err := s.WritePkg("x", timeout)
				require.Error(t, err)
				require.Zero(t, sent)
				if timeout == 0 {
					require.True(t, test.want(err), "%v", err)
				}
			}
			require.Equal(t, !test.lives, s.IsClosed())
			if test.lives {
				require.False(t, getty.HoldsBatch(s), "memory for a package that was not encoded")
			}
			if !test.lives {
				var p *getty.PanicError
				require.ErrorAs(t, within(t, l.closed, "OnClose").Err(), &p)
			}
		})
	}
}

var errAppend = errors.New("cannot append")

// failingAppender fails when it has written a part.
type failingAppender struct{}

func (failingAppender) Write(getty.Session, any) ([]byte, error) { return nil, errors.New("not used") }

func (failingAppender) AppendPkg(dst []byte, _ getty.Session, _ any) ([]byte, error) {
	return append(dst, "part"...), errAppend
}

type writerFunc func(any) ([]byte, error)

func (f writerFunc) Write(_ getty.Session, pkg any) ([]byte, error) { return f(pkg) }

// An encoder that writes to its own session, or flushes it, gets an error instead of waiting for itself, however deep
// in its calls it does so.
func TestEncoderWritesToItsSession(t *testing.T) {
	var s getty.Session
	var dive func(depth int, f func() error) error
	dive = func(depth int, f func() error) error {
		if depth > 0 {
			return dive(depth-1, f)
		}
		return f()
	}
	for name, f := range map[string]func() error{
		"write": func() error { _, _, err := s.WritePkg("inner", 0); return err },
		"bytes": func() error { _, err := s.WriteBytes([]byte("inner")); return err },
		"wait":  func() error { _, _, err := s.WritePkg("inner", time.Second); return err },
		"flush": func() error { return s.Flush(context.Background()) },
	} {
		for _, depth := range []int{0, 50, 500} {
			t.Run(fmt.Sprint(name, depth), func(t *testing.T) {
				l := newTracer(t)
				inner := make(chan error, 1)
				l.message = func(s getty.Session, _ any) {
					_, _, _ = s.WritePkg("before", 0) // stays queued until the turn ends
					_, _, _ = s.WritePkg("outer", 0)
				}
				c := dial(t, serve(t, func(ss getty.Session) error {
					s = ss
					_ = ss.SetEventListener(l)
					_ = ss.SetReader(frames)
					return ss.SetWriter(writerFunc(func(pkg any) ([]byte, error) {
						if pkg == "outer" {
							inner <- dive(depth, f)
						}
						return frame(pkg.(string)), nil
					}))
				}))
				_, err := c.Write(frame("go"))
				require.NoError(t, err)
				require.Equal(t, "before", readFrame(t, c))
				require.Equal(t, "outer", readFrame(t, c))
				require.ErrorIs(t, within(t, inner, "the inner call"), getty.ErrBadReader)
			})
		}
	}
}

// Close and Stats do not wait for an encoder, and the descriptor is freed; OnClose comes when it has returned, and what it
// made is counted like all that was accepted.
func TestTheEndWaitsForAnEncoder(t *testing.T) {
	l := newTracer(t)
	encoding, hold := make(chan struct{}), make(chan struct{})
	srv := serve(t, func(s getty.Session) error {
		_ = s.SetEventListener(l)
		_ = s.SetReader(frames)
		return s.SetWriter(writerFunc(func(pkg any) ([]byte, error) {
			if pkg == "hold" {
				close(encoding)
				<-hold
			}
			return frame(pkg.(string)), nil
		}))
	})
	c := dial(t, srv)
	s := within(t, l.opened, "OnOpen")
	_, _, err := s.WritePkg("first", time.Second)
	require.NoError(t, err)
	accepted := make(chan error, 1)
	go func() {
		_, _, err := s.WritePkg("hold", 0)
		accepted <- err
	}()
	within(t, encoding, "the encoder")
	s.Close()
	s.CloseNow()
	require.EqualValues(t, 1, s.Stats().PkgsWritten)
	require.Equal(t, "first", readFrame(t, c))
	_, err = tryReadFrame(c)
	require.Error(t, err, "the descriptor is closed")
	select {
	case <-l.closed:
		require.Fail(t, "OnClose beside an encoder")
	default:
	}
	close(hold)
	require.NoError(t, within(t, accepted, "WritePkg"))
	st := within(t, l.closed, "OnClose").Stats()
	require.EqualValues(t, 1, st.PkgsWritten)
	require.EqualValues(t, 1, st.Unsent)
	require.EqualValues(t, len(frame("hold")), st.UnsentBytes)
	require.Zero(t, st.Queued)
}

// Whoever asks for counters may be the one who finds a flush to do, and that may need the endpoint's lock.
func TestStatsUnderWriters(t *testing.T) {
	l := newTracer(t)
	srv := serve(t, prepare(l))
	c := dial(t, srv)
	go func() { _, _ = io.Copy(io.Discard, c) }()
	s := within(t, l.opened, "OnOpen")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 3000 {
				_, _, _ = s.WritePkg(strings.Repeat("x", 3000), 0)
				srv.Stats()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	within(t, done, "writers and readers of counters")
}

// A flush that meets the encoder lock in other hands is not lost, whatever they hold it for: each package leaves though
// nothing follows it.
func TestNoPackageStaysBehind(t *testing.T) {
	l := newTracer(t)
	srv := serve(t, prepare(l))
	c := dial(t, srv)
	s := within(t, l.opened, "OnOpen")
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				for range 100 {
					s.Stats()
				}
				runtime.Gosched() // with one processor each round waits for those who spin
			}
		})
	}
	defer wg.Wait()
	defer stop.Store(true)
	for n := range 2000 {
		require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
		_, err := s.WriteBytes(numbered(n))
		require.NoError(t, err)
		require.Equal(t, string(numbered(n)[4:]), readFrame(t, c))
	}
}

// OnWritable comes at the low mark and not before; where a turn has the token meanwhile, after that.
func TestWritableAtTheLowMark(t *testing.T) {
	const low = 64 << 10
	for _, inTurn := range []bool{false, true} {
		l := newTracer(t)
		full, writable := make(chan struct{}), make(chan uint64, 10)
		p := strings.Repeat("x", 4000)
		l.writable = func(s getty.Session) { writable <- s.Stats().Queued }
		l.message = func(s getty.Session, _ any) {
			fill(t, s, p)
			close(full)
			for inTurn && s.Stats().Queued > 0 {
				time.Sleep(time.Millisecond) // OnWritable, which would tell, waits for this turn
			}
		}
		c := dial(t, serve(t, prepare(l), func(o *getty.ServerOptions) { o.HighWater, o.LowWater = 8<<20, low }))
		_, err := c.Write(frame("fill"))
		require.NoError(t, err)
		within(t, full, "the high mark")
		go func() {
			for b := make([]byte, 64<<10); err == nil; _, err = c.Read(b) { // the queue falls in many steps
			}
		}()
		require.LessOrEqual(t, within(t, writable, "OnWritable"), uint64(low))
	}
}

// The queue falls to the low mark while an encoder is at work that then queues nothing: who waits for the fall is told
// all the same, though nothing follows.
func TestTheQueueFallsBesideAnEncoder(t *testing.T) {
	// What the kernel takes at once while this goroutine does not run may be all between the marks: then once more.
	oneOf(t, 20, "a queue between the marks", func() bool { return queueFallsBesideAnEncoder(t) })
}

// queueFallsBesideAnEncoder returns false if it did not come to that.
func queueFallsBesideAnEncoder(t *testing.T) bool {
	const high, low, size = 8 << 20, 1 << 20, 24 << 20
	l := newTracer(t)
	writable := make(chan struct{}, 10)
	l.writable = func(getty.Session) { writable <- struct{}{} }
	encoding, hold := make(chan struct{}), make(chan struct{})
	c := dial(t, serve(t, func(s getty.Session) error {
		_ = s.SetEventListener(l)
		_ = s.SetReader(frames)
		return s.SetWriter(writerFunc(func(pkg any) ([]byte, error) {
			if pkg == "fails" {
				close(encoding)
				<-hold
				return nil, errAppend
			}
			return frame(pkg.(string)), nil
		}))
	}, func(o *getty.ServerOptions) { o.HighWater, o.LowWater = high, low }))
	require.NoError(t, c.SetReadBuffer(64<<10))
	s := within(t, l.opened, "OnOpen")
	_, _, err := s.WritePkg(strings.Repeat("x", size), 0)
	require.NoError(t, err)
	left := int64(size + 4)
	read := func(n int64) {
		_, err := io.CopyN(io.Discard, c, n)
		require.NoError(t, err)
		left -= n
	}
	for s.Stats().Queued >= high {
		read(64 << 10)
	}
	failed := make(chan error, 1)
	go func() {
		_, _, err := s.WritePkg("fails", 0)
		failed <- err
	}()
	within(t, encoding, "the encoder")
	if s.Stats().Queued <= low {
		close(hold)
		return false
	}
	read(left)
	eventually(t, "it is left to the encoder to look", func() bool { return getty.AwaitsReview(s) })
	close(hold)
	require.ErrorIs(t, within(t, failed, "the encoder's error"), errAppend)
	within(t, writable, "OnWritable")
	return true
}

// A turn that writes much does not keep it all: what exceeds 64 KiB leaves at once.
func TestALongTurnWritesAsItGoes(t *testing.T) {
	l := newTracer(t)
	written := make(chan uint64, 1)
	l.message = func(s getty.Session, _ any) {
		before := s.Stats().BytesWritten
		for range 40 {
			_, _, _ = s.WritePkg(strings.Repeat("x", 3500), 0)
		}
		written <- s.Stats().BytesWritten - before
	}
	c := dial(t, serve(t, prepare(l)))
	go discard(c)
	// A kernel that has no room at the moment leaves it to the flusher: then once more.
	oneOf(t, 50, "a turn whose bytes left before its end", func() bool {
		_, err := c.Write(frame("write"))
		require.NoError(t, err)
		return within(t, written, "the turn") >= 128<<10
	})
}

// oneOf repeats what the machine may spoil, and what a wrong engine never does.
func oneOf(t testing.TB, tries int, what string, ok func() bool) {
	t.Helper()
	for range tries {
		if ok() {
			return
		}
	}
	require.FailNow(t, "never happened: "+what)
}

// The counts of a call are what the transport accepted, also when it fails.
//
// acceptance: W10
func TestByteCounts(t *testing.T) {
	l := newTracer(t)
	c, s := stall(t, l)
	n, err := s.WriteBytes(frame("one"))
	require.NoError(t, err)
	require.Equal(t, 7, n)
	n, err = s.WriteBytesArray(frame("two"), frame("three"), frame(strings.Repeat("4", 20000)))
	require.NoError(t, err)
	require.Equal(t, 7+9+20004, n)
	for _, want := range []string{"one", "two", "three", strings.Repeat("4", 20000)} {
		require.Equal(t, want, readFrame(t, c))
	}
	eventually(t, "all is counted", func() bool { return s.Stats().PkgsWritten == 4 })
	require.EqualValues(t, 7+7+9+20004, s.Stats().BytesWritten)
	n, err = s.WriteBytes(nil)
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = s.WriteBytesArray()
	require.NoError(t, err)
	require.Zero(t, n)
	s.CloseNow()
	n, err = s.WriteBytes(frame("late"))
	require.ErrorIs(t, err, getty.ErrSessionClosed)
	require.Zero(t, n)
}

// Many goroutines write; packages are whole and each goroutine's keep their order. They leave merged.
//
// fault: 25
func TestManyWriters(t *testing.T) {
	const writers, each = 64, 200
	l := newTracer(t)
	c, s := stall(t, l)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				timeout := []time.Duration{0, patience, -1}[i%3]
				for {
					_, _, err := s.WritePkg(fmt.Sprintf("%d %d", w, i), timeout)
					if err == nil {
						break
					}
					if !errors.Is(err, getty.ErrSessionBlocked) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	next := make([]int, writers)
	for range writers * each {
		var w, i int
		_, err := fmt.Sscanf(readFrame(t, c), "%d %d", &w, &i)
		require.NoError(t, err)
		require.Equal(t, next[w], i, "writer %d", w)
		next[w]++
	}
	wg.Wait()
	require.Less(t, s.Stats().Writes, uint64(writers*each))
}

// Writers that meet a close at any moment get nil or an error; what was accepted is sent or counted.
//
// fault: 26, 27
func TestCloseAtAnyMoment(t *testing.T) {
	const rounds = 1000
	l := newTracer(t)
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.WaitTime, o.HighWater = longClose, 16<<10
		o.Socket.WriteBuffer = 16 << 10
	})
	for round := range rounds {
		c := dial(t, srv)
		s := within(t, l.opened, "OnOpen")
		var accepted atomic.Uint64
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for {
					switch _, _, err := s.WritePkg("package", time.Duration(w%2)*patience); {
					case err == nil:
						accepted.Add(1)
					case errors.Is(err, getty.ErrSessionBlocked):
						time.Sleep(20 * time.Microsecond) // those who read need the processor too
					default:
						if !errors.Is(err, getty.ErrSessionClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		received, mayRead := make(chan uint64), make(chan struct{})
		if round%3 > 0 { // else the close meets full queues
			close(mayRead)
		}
		go func() {
			<-mayRead
			n := uint64(0)
			in := bufio.NewReaderSize(c, 64<<10)
			for {
				if _, err := tryReadFrame(in); err != nil {
					received <- n
					return
				}
				n++
			}
		}()
		time.Sleep(time.Duration(round%7) * 100 * time.Microsecond) // any moment
		graceful := round%2 == 0
		if graceful {
			s.Close()
		} else {
			s.CloseNow()
		}
		if round%3 == 0 {
			close(mayRead)
		}
		wg.Wait()
		n := within(t, received, "the end of the stream")
		_ = c.Close()
		within(t, l.closed, "OnClose")
		st := s.Stats()
		require.Zero(t, st.Queued)
		require.GreaterOrEqual(t, st.PkgsWritten+st.Unsent, accepted.Load(), "what was accepted is accounted")
		if graceful {
			require.NoError(t, s.Err())
			require.Zero(t, st.Unsent)
			require.Equal(t, st.PkgsWritten, n, "a close that drained delivers everything")
		} else {
			require.LessOrEqual(t, n, st.PkgsWritten)
		}
		_, _, err := s.WritePkg("late", 0)
		require.ErrorIs(t, err, getty.ErrSessionClosed)
	}
}

// The bytes given to a write may be reused when it returns.
//
// fault: 31
func TestCallersBufferIsCopied(t *testing.T) {
	l := newTracer(t)
	c, s := stall(t, l, func(o *getty.ServerOptions) { o.HighWater = 1 << 30 })
	big := strings.Repeat("b", 16<<20) // what follows waits behind it
	_, _, err := s.WritePkg(big, 0)
	require.NoError(t, err)
	sizes := []int{10, 3000, 200_000}
	for _, size := range sizes {
		b := frame(strings.Repeat("g", size))
		_, err := s.WriteBytes(b)
		require.NoError(t, err)
		clear(b)
		b = frame(strings.Repeat("h", size))
		_, err = s.WriteBytesArray(b, frame("and"))
		require.NoError(t, err)
		clear(b)
	}
	require.Equal(t, len(big), len(readFrame(t, c)))
	for _, size := range sizes {
		require.Equal(t, strings.Repeat("g", size), readFrame(t, c))
		require.Equal(t, strings.Repeat("h", size), readFrame(t, c))
		require.Equal(t, "and", readFrame(t, c))
	}
}

// At the high mark packages are refused or wait, reading pauses, and all of it ends at the low mark.
//
// fault: 22
func TestBackpressure(t *testing.T) {
	const high, low = 256 << 10, 64 << 10
	l := newTracer(t)
	var mayRead atomic.Bool
	got := make(chan struct{})
	l.message = func(s getty.Session, pkg any) {
		if !mayRead.Load() {
			t.Error("read above the high mark")
		}
		close(got)
	}
	writable := make(chan struct{}, 10)
	l.writable = func(getty.Session) { writable <- struct{}{} }
	c, s := stall(t, l, func(o *getty.ServerOptions) { o.HighWater, o.LowWater = high, low })
	p := strings.Repeat("p", 10_000)
	n := fill(t, s, p)
	require.LessOrEqual(t, s.Stats().Queued, uint64(high+len(p)+4), "the queue is bounded")
	_, err := c.Write(frame("not now"))
	require.NoError(t, err)
	waited := make(chan error, 1)
	go func() {
		_, _, err := s.WritePkg(p, patience)
		waited <- err
	}()
	eventually(t, "the writer waits", func() bool { return getty.InLine(s) == 1 })
	select {
	case err := <-waited:
		require.Fail(t, "did not wait", "%v, stats %+v", err, s.Stats())
	default:
	}
	mayRead.Store(true)
	for range n + 1 {
		require.Equal(t, p, readFrame(t, c))
	}
	require.NoError(t, within(t, waited, "the waiting write"))
	within(t, writable, "OnWritable")
	within(t, got, "the package that waited to be read")
}

// What is written before OnOpen may fill the queue and leave it again; OnWritable waits for OnOpen, and does not
// follow one that failed.
func TestWritableBeforeOnOpen(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for _, fails := range []bool{false, true} {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			writable := make(chan struct{}, 16)
			l.writable = func(getty.Session) { writable <- struct{}{} }
			l.open = func(s getty.Session) error {
				select {
				case <-writable:
					t.Error("OnWritable before OnOpen")
				default:
				}
				if fails {
					return errors.New("not this one")
				}
				return nil
			}
			big := strings.Repeat("x", 16<<20)
			over := make(chan struct{})
			c := dial(t, serve(t, func(s getty.Session) error {
				go func() {
					<-s.Done()
					close(over)
				}()
				if err := prepare(l)(s); err != nil {
					return err
				}
				if _, err := s.WriteBytes(frame(big)); err != nil {
					return err
				}
				return s.Flush(context.Background())
			}, getty.WithServerDispatch(d)))
			require.Equal(t, big, readFrame(t, c))
			if !fails {
				within(t, writable, "OnWritable")
				require.NoError(t, c.Close())
			}
			within(t, over, "Done")
			require.Empty(t, writable)
		}
	})
}

// A peer that takes nothing for WriteTimeout loses its session; so does a slow consumer, by policy.
//
// fault: 22
func TestSlowConsumers(t *testing.T) {
	t.Run("write timeout", func(t *testing.T) {
		l := newTracer(t)
		_, s := stall(t, l, func(o *getty.ServerOptions) { o.WriteTimeout = 50 * time.Millisecond })
		_, _, err := s.WritePkg(strings.Repeat("x", 16<<20), 0)
		require.NoError(t, err)
		within(t, l.closed, "OnClose")
		require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
		require.Positive(t, s.Stats().Unsent)
	})
	t.Run("write timeout set while a write waits", func(t *testing.T) {
		l := newTracer(t)
		_, s := stall(t, l, func(o *getty.ServerOptions) { o.WriteTimeout = -1 })
		_, _, err := s.WritePkg(strings.Repeat("x", 16<<20), 0)
		require.NoError(t, err)
		eventually(t, "it waits", func() bool { return getty.WriteStalled(s) })
		s.SetWriteTimeout(50 * time.Millisecond)
		within(t, l.closed, "OnClose")
		require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
	})
	t.Run("write timeout of a later batch", func(t *testing.T) {
		l := newTracer(t)
		c, s := stall(t, l, func(o *getty.ServerOptions) {
			o.WriteTimeout, o.HighWater = patience, 64<<20
		})
		for _, p := range []string{"first", "second"} { // the second waits for the first and forms a batch of its own
			_, _, err := s.WritePkg(strings.Repeat(p, 4<<20), 0)
			require.NoError(t, err)
		}
		require.Equal(t, strings.Repeat("first", 4<<20), readFrame(t, c))
		s.SetWriteTimeout(50 * time.Millisecond) // not before: this machine may read slowly
		within(t, l.closed, "OnClose")
		require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
		require.EqualValues(t, 1, s.Stats().Unsent)
	})
	t.Run("policy", func(t *testing.T) {
		l := newTracer(t)
		_, s := stall(t, l, func(o *getty.ServerOptions) { o.SlowConsumer = getty.SlowClose })
		_, _, err := s.WritePkg(strings.Repeat("x", 16<<20), 0)
		require.NoError(t, err)
		_, _, err = s.WritePkg("x", 20*time.Millisecond)
		require.ErrorIs(t, err, getty.ErrWriteTimeout, "the policy is for those who do not wait")
		require.False(t, s.IsClosed())
		eventually(t, "the policy strikes", func() bool { _, _, err := s.WritePkg("x", 0); return err != nil })
		within(t, l.closed, "OnClose")
		require.ErrorIs(t, s.Err(), getty.ErrSessionBlocked)
	})
}

// One of a thousand peers is stuck: the others get every package of a broadcast soon, and the policy cuts the
// stuck one.
//
// acceptance: W16 fault: 34
func TestBroadcastCutsTheStuckPeer(t *testing.T) {
	const peers, high = 1000, 64 << 10
	l := newTracer(t)
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.HighWater, o.SlowConsumer = high, getty.SlowClose
		o.WriteTimeout = time.Hour // whoever waits for the stuck peer waits for ever
		o.Socket.WriteBuffer = 16 << 10
	})
	stuck := dial(t, srv)
	require.NoError(t, stuck.SetReadBuffer(4096))
	victim := within(t, l.opened, "OnOpen")
	var got atomic.Int64
	for range peers - 1 {
		c := dial(t, srv)
		within(t, l.opened, "OnOpen")
		go func() {
			for {
				if _, err := tryReadFrame(c); err != nil {
					return
				}
				got.Add(1)
			}
		}()
	}
	eventually(t, "all are open", func() bool { return srv.Stats().Opened == peers })
	p, err := frames.AppendPkg(nil, nil, strings.Repeat("n", 10_000))
	require.NoError(t, err)
	var slowest time.Duration
	rounds := int64(0)
	for !victim.IsClosed() {
		require.Less(t, rounds, int64(200), "the stuck peer is never cut")
		rounds++
		begun := time.Now()
		r := getty.Broadcast(srv.Sessions(), p)
		require.Zero(t, r.Failed)
		require.LessOrEqual(t, r.Blocked+r.Closed, 1)
		require.GreaterOrEqual(t, r.Accepted, peers-1)
		eventually(t, "all that read have it", func() bool { return got.Load() == rounds*(peers-1) })
		slowest = max(slowest, time.Since(begun))
		require.LessOrEqual(t, victim.Stats().Queued, uint64(high+len(p)))
	}
	t.Logf("%d rounds, the slowest took %v", rounds, slowest)
	require.Same(t, victim, within(t, l.closed, "OnClose"))
	within(t, victim.Done(), "Done")
	require.ErrorIs(t, victim.Err(), getty.ErrSessionBlocked)
	require.EqualValues(t, 1, len(l.of(victim).errs))
	require.Equal(t, peers-1, srv.Stats().Open)
}

// Where the policy is to refuse, the stuck peer stays and the others get a broadcast of large packages; memory
// stays bounded.
//
// acceptance: W16 fault: 34
func TestBroadcast(t *testing.T) {
	const peers, rounds = 30, 25
	l := newTracer(t)
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) { o.HighWater = 256 << 10 })
	stuck := dial(t, srv)
	_ = stuck.SetReadBuffer(4096)
	victim := within(t, l.opened, "OnOpen of the stuck one")
	var conns []*net.TCPConn
	for range peers {
		conns = append(conns, dial(t, srv))
	}
	eventually(t, "all are open", func() bool { return srv.Stats().Opened == peers+1 })
	p, err := frames.AppendPkg(nil, nil, strings.Repeat("n", 250_000))
	require.NoError(t, err)
	var wg sync.WaitGroup
	for _, c := range conns {
		wg.Go(func() {
			for range rounds {
				if _, err := tryReadFrame(c); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	blocked := 0
	for range rounds {
		// Those that read keep up; the broadcast waits for their queues, not for the stuck one's.
		r := getty.Broadcast(srv.Sessions(), p)
		blocked += r.Blocked
		require.LessOrEqual(t, r.Blocked, 1)
		require.Equal(t, peers+1, r.Accepted+r.Blocked)
		eventually(t, "those that read have read", func() bool {
			idle := 0
			for s := range srv.Sessions() {
				if s != victim && s.Stats().Queued == 0 {
					idle++
				}
			}
			return idle == peers
		})
	}
	wg.Wait()
	require.Positive(t, blocked)
	require.LessOrEqual(t, srv.Stats().Total.Queued, uint64(256<<10+len(p)))
}

// Flush returns when the kernel has taken everything that was queued before.
func TestFlush(t *testing.T) {
	l := newTracer(t)
	c, s := stall(t, l)
	require.NoError(t, s.Flush(context.Background()), "nothing to flush")
	big := strings.Repeat("x", 16<<20)
	_, _, err := s.WritePkg(big, 0)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Flush(ctx), context.DeadlineExceeded)
	done := make(chan error, 1)
	go func() { done <- s.Flush(context.Background()) }()
	require.Equal(t, big, readFrame(t, c))
	require.NoError(t, within(t, done, "Flush"))
	require.Zero(t, s.Stats().Queued)
	s.CloseNow()
	require.ErrorIs(t, s.Flush(context.Background()), getty.ErrSessionClosed)
}

// Calls of Flush that are given up leave nothing behind.
func TestFlushGivenUp(t *testing.T) {
	l := newTracer(t)
	c, s := stall(t, l)
	big := strings.Repeat("x", 16<<20)
	_, _, err := s.WritePkg(big, 0)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 {
		require.ErrorIs(t, s.Flush(ctx), context.Canceled)
	}
	require.Zero(t, getty.MarksHeld(s))
	require.Equal(t, big, readFrame(t, c))
	require.NoError(t, s.Flush(context.Background()))
}

// What a turn writes leaves in one system call; a turn that takes long does not hold it back.
func TestWritesOfATurnLeaveTogether(t *testing.T) {
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
		t.Run(d.String(), func(t *testing.T) {
			l := newTracer(t)
			hold := make(chan struct{})
			l.message = func(s getty.Session, pkg any) {
				echoPkg(s, pkg)
				if pkg.(*codec.Frame).String() == "hold" {
					<-hold
				}
			}
			c, s := stall(t, l, getty.WithServerDispatch(d))
			all := func() getty.SessionStats {
				eventually(t, "all is counted", func() bool { st := s.Stats(); return st.BytesWritten == st.BytesRead })
				return s.Stats()
			}
			// A turn that loses the processor is one that takes long: then once more.
			oneOf(t, 50, "a turn whose answers left together", func() bool {
				before := all()
				_, err := c.Write(slices.Repeat(frame("x"), 16))
				require.NoError(t, err)
				for range 16 {
					readFrame(t, c)
				}
				after := all()
				return after.Writes-before.Writes <= after.Reads-before.Reads
			})
			_, err := c.Write(frame("hold"))
			require.NoError(t, err)
			require.Equal(t, "hold", readFrame(t, c), "an answer queued in a turn that is not over")
			close(hold)
		})
	}
}

// A thousand peers that never read hold no more of the engine's memory than their queues may: of bytes the high
// mark and one package each, and of heap what the size classes of the buffers add, and two batches: one with the flusher, one that fills.
//
// fault: 22
func TestManyPeersThatNeverReadAreBounded(t *testing.T) {
	const peers, high = 1000, 32 << 10
	l := newTracer(t)
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.HighWater = high
		o.WaitTime = 50 * time.Millisecond
		o.Socket.WriteBuffer = 4096
	})
	for range peers {
		c := dial(t, srv)
		require.NoError(t, c.SetReadBuffer(4096))
	}
	p := strings.Repeat("m", 8<<10)
	eventually(t, "all are open", func() bool { return srv.Stats().Opened == peers })
	before := heap()
	fillMany(t, l, peers, p)
	held := srv.Stats().Total.Queued
	require.Greater(t, held, uint64(peers*high/2), "the queues are full")
	require.LessOrEqual(t, held, uint64(peers*(high+len(p)+4)))
	grown := heap() - before
	t.Logf("%d bytes of packages in %d bytes of heap", held, grown)
	require.LessOrEqual(t, grown, int64(peers*((high+len(p)+4)*5/4+20<<10)))
}

// A peer that floods and never reads stops itself between two packages: no answer is refused for want of room,
// and when it reads at last everything has been answered in order.
func TestAFloodThatIsNotReadStopsItself(t *testing.T) {
	const n = 3000
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
		t.Run(d.String(), func(t *testing.T) {
			l := newTracer(t)
			answer := strings.Repeat("a", 4000)
			l.message = func(s getty.Session, pkg any) {
				if _, _, err := s.WritePkg(pkg.(*codec.Frame).String()+answer, 0); err != nil {
					t.Error(err)
				}
			}
			c, s := stall(t, l, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
				o.HighWater = 64 << 10
				o.Socket.WriteBuffer = 16 << 10
			})
			go func() {
				var out []byte
				for i := range n {
					out = append(out, numbered(i)...)
				}
				_, _ = c.Write(out)
			}()
			eventually(t, "the session is blocked", func() bool { return s.Stats().Queued >= 64<<10 })
			require.Less(t, s.Stats().PkgsRead, uint64(n))
			for i := range n {
				require.Equal(t, fmt.Sprintf("%08d", i)+answer, readFrame(t, c))
			}
		})
	}
}

// Writers that spin at the high mark take the encoder's lock again and again; no flush may get lost between
// them, however many processors they share.
func TestWritersThatSpinAtTheHighMark(t *testing.T) {
	for _, procs := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			const writers, each = 8, 3000
			l := newTracer(t)
			srv := serve(t, prepare(l), func(o *getty.ServerOptions) { o.HighWater = 64 })
			c := dial(t, srv)
			s := within(t, l.opened, "OnOpen")
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					for i := range each {
						for {
							_, _, err := s.WritePkg(fmt.Sprintf("%d %d", w, i), 0)
							if err == nil {
								break
							}
							if !errors.Is(err, getty.ErrSessionBlocked) {
								t.Error(err)
								return
							}
							if procs == 1 {
								runtime.Gosched() // else each spins for its whole time slice
							}
						}
					}
				})
			}
			for range writers * each {
				readFrame(t, c)
			}
			wg.Wait()
			eventually(t, "all is counted", func() bool { return s.Stats().PkgsWritten == writers*each })
		})
	}
}
