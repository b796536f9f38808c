// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// A readerFunc is a Reader; its Writer is the length field's.
type readerFunc func(b []byte) (pkg any, n int, err error)

func (f readerFunc) Read(_ getty.Session, b []byte) (any, int, error) { return f(b) }
func (f readerFunc) Write(s getty.Session, pkg any) ([]byte, error)   { return frames.Write(s, pkg) }

// A Reader that breaks its contract costs its session, with a typed error, at its first answer.
//
// acceptance: R03 fault: 12
func TestMisbehavingReader(t *testing.T) {
	why := errors.New("cannot decode")
	for name, test := range map[string]struct {
		answer readerFunc
		want   error
	}{
		"package of zero bytes":     {func(b []byte) (any, int, error) { return "x", 0, nil }, getty.ErrBadReader},
		"negative package":          {func(b []byte) (any, int, error) { return "x", -1, nil }, getty.ErrBadReader},
		"package beyond the buffer": {func(b []byte) (any, int, error) { return "x", len(b) + 1, nil }, getty.ErrBadReader},
		"negative need":             {func(b []byte) (any, int, error) { return nil, -1, nil }, getty.ErrBadReader},
		"need that is there":        {func(b []byte) (any, int, error) { return nil, len(b), nil }, getty.ErrBadReader},
		"error":                     {func(b []byte) (any, int, error) { return nil, 0, why }, why},
	} {
		t.Run(name, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				var calls atomic.Int32
				l.message = func(getty.Session, any) { t.Error("OnMessage") }
				c := dial(t, serve(t, prepare(l, readerFunc(func(b []byte) (any, int, error) {
					calls.Add(1)
					return test.answer(b)
				})), getty.WithServerDispatch(d), briefClose))
				_, err := c.Write([]byte("hello"))
				require.NoError(t, err)
				s := within(t, l.closed, "OnClose")
				require.ErrorIs(t, s.Err(), test.want)
				require.Len(t, l.of(s).errs, 1)
				require.EqualValues(t, 1, calls.Load(), "calls of Read")
				_, err = tryReadFrame(c)
				require.Error(t, err, "the connection is closed")
			})
		})
	}
}

// What is buffered for a package never exceeds MaxMsgLen by more than a read, whatever the Reader answers or
// a header claims.
//
// acceptance: R04 fault: 10
func TestMaxMsgLen(t *testing.T) {
	undecided := readerFunc(func(b []byte) (any, int, error) { return nil, 0, nil })
	for name, test := range map[string]struct {
		codec getty.ReadWriter
		sent  []byte
	}{
		"no end in sight":  {undecided, bytes.Repeat([]byte("x"), 1<<20)},
		"claims too much":  {frames, []byte{0, 0, 4, 1}},
		"claims 4 GiB":     {frames, []byte{0xff, 0xff, 0xff, 0xff}},
		"is there, whole":  {frames, frame(strings.Repeat("x", 1021))},
		"line without end": {&codec.Line{}, bytes.Repeat([]byte("x"), 1<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				l := newTracer(t)
				l.message = func(getty.Session, any) { t.Error("OnMessage") }
				c := dial(t, serve(t, prepare(l, test.codec), getty.WithServerDispatch(d), briefClose,
					func(o *getty.ServerOptions) { o.MaxMsgLen = 1024 }))
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, _ = c.Write(test.sent)
				s := within(t, l.closed, "OnClose")
				require.ErrorIs(t, s.Err(), getty.ErrTooLong)
				runtime.ReadMemStats(&after)
				require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(8<<20))
			})
		})
	}
	// A package of exactly the limit passes.
	l := newTracer(t)
	l.message = echoPkg
	c := dial(t, serve(t, prepare(l), func(o *getty.ServerOptions) { o.MaxMsgLen = 1024 }))
	p := strings.Repeat("x", 1020)
	_, err := c.Write(frame(p))
	require.NoError(t, err)
	require.Equal(t, p, readFrame(t, c))
}

// countingCodec counts the bytes that it looked at.
type countingCodec struct {
	codec.Line
	looked atomic.Int64
}

func (c *countingCodec) ReadResume(s getty.Session, b []byte, seen int) (any, int, error) {
	pkg, n, err := c.Line.ReadResume(s, b, seen)
	if pkg != nil {
		c.looked.Add(int64(n - seen))
	} else {
		c.looked.Add(int64(len(b) - seen))
	}
	return pkg, n, err
}

// Frames that arrive a byte at a time are all decoded, and each byte is looked at once.
//
// fault: 6
func TestFramesByteByByte(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		n := 1000
		if d == getty.Inline {
			n = 5000
		}
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		var got atomic.Int64
		done := make(chan struct{})
		l.message = func(getty.Session, any) {
			if got.Add(1) == int64(2*n) {
				close(done)
			}
		}
		rw := &countingCodec{}
		c := dial(t, serve(t, prepare(l, rw), getty.WithServerDispatch(d)))
		var out []byte
		for i := range n {
			out = fmt.Appendf(out, "%d\n%d\n", i, i)
		}
		for i := range out {
			_, err := c.Write(out[i : i+1])
			require.NoError(t, err)
		}
		within(t, done, "the last frame")
		require.LessOrEqual(t, rw.looked.Load(), int64(len(out)), "bytes looked at")
	})
}

// A fed connection serves whatever is asked of it from memory and takes what is written; it has no
// descriptor, so that the engine reads and writes through net.Conn alone.
type fedConn struct {
	net.Conn // unused: addresses come from it
	read     func(b []byte) (int, error)
	written  atomic.Int64
	closed   chan struct{}
	once     sync.Once
}

func newFedConn(read func(b []byte) (int, error)) *fedConn {
	a, b := net.Pipe()
	_ = b.Close()
	return &fedConn{Conn: a, read: read, closed: make(chan struct{})}
}

func (c *fedConn) Read(b []byte) (int, error) {
	n, err := c.read(b)
	if err == io.EOF { // the peer never ends its stream
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *fedConn) Write(b []byte) (int, error) {
	c.written.Add(int64(len(b)))
	return len(b), nil
}

func (c *fedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A handedListener accepts the connections it is handed.
type handedListener struct {
	conns chan net.Conn
	errs  chan error
	quit  chan struct{}
	once  sync.Once
}

func newHandedListener(conns ...net.Conn) *handedListener {
	l := &handedListener{conns: make(chan net.Conn, 100), errs: make(chan error, 100), quit: make(chan struct{})}
	for _, c := range conns {
		l.conns <- c
	}
	return l
}

func (l *handedListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs: // errors first
		return nil, err
	default:
	}
	select {
	case err := <-l.errs:
		return nil, err
	case c := <-l.conns:
		return c, nil
	case <-l.quit:
		return nil, net.ErrClosed
	}
}

func (l *handedListener) Close() error   { l.once.Do(func() { close(l.quit) }); return nil }
func (l *handedListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// A package of 1 MiB that is there takes few reads, whatever path they take.
//
// acceptance: R17
func TestLargePackageTakesFewReads(t *testing.T) {
	p := frame(strings.Repeat("m", 1<<20-4))
	t.Run("socket", func(t *testing.T) {
		l := newTracer(t)
		hold, got := make(chan struct{}), make(chan getty.SessionStats, 1)
		l.open = func(getty.Session) error { <-hold; return nil }
		l.message = func(s getty.Session, _ any) { got <- s.Stats() }
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) { setReadBuffer(fd, 2<<20) })
		}}
		ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		require.NoError(t, err)
		c := dial(t, serve(t, prepare(l), getty.WithListener(ln)))
		require.NoError(t, c.SetWriteBuffer(2<<20))
		_, err = c.Write(p)
		require.NoError(t, err)
		eventually(t, "all is in the server's kernel", func() bool { return unacked(t, c) == 0 })
		close(hold)
		require.LessOrEqual(t, within(t, got, "the package").Reads, uint64(20))
	})
	t.Run("plain", func(t *testing.T) {
		l := newTracer(t)
		got := make(chan getty.SessionStats, 1)
		l.message = func(s getty.Session, _ any) { got <- s.Stats() }
		r := bytes.NewReader(p)
		serve(t, prepare(l), getty.WithListener(newHandedListener(newFedConn(r.Read))))
		require.LessOrEqual(t, within(t, got, "the package").Reads, uint64(20))
	})
}

// Counters have 64 bits: 5 GiB are reported as 5 GiB.
//
// acceptance: R20
func TestCountersDoNotWrap(t *testing.T) {
	const total = int64(5 << 30)
	l := newTracer(t)
	left := total
	conn := newFedConn(func(b []byte) (int, error) {
		n := min(int64(len(b)), left)
		if left -= n; n == 0 {
			return 0, io.EOF
		}
		return int(n), nil
	})
	done, sum := make(chan getty.Session), int64(0)
	l.message = func(s getty.Session, pkg any) {
		if sum += pkg.(int64); sum == total {
			done <- s
		}
	}
	srv := serve(t, prepare(l, readerFunc(func(b []byte) (any, int, error) { return int64(len(b)), len(b), nil })),
		getty.WithListener(newHandedListener(conn)), func(o *getty.ServerOptions) { o.WaitTime = -1 })
	s := within(t, done, "the last byte")
	require.EqualValues(t, total, s.Stats().BytesRead)
	require.EqualValues(t, total, srv.Stats().Total.BytesRead)
}

// acceptance: L13 fault: 1
func TestPeerResets(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		c := dial(t, serve(t, prepare(l), getty.WithServerDispatch(d)))
		within(t, l.opened, "OnOpen")
		require.NoError(t, c.SetLinger(0))
		require.NoError(t, c.Close())
		s := within(t, l.closed, "OnClose")
		require.ErrorIs(t, s.Err(), syscall.ECONNRESET)
		require.Len(t, l.of(s).errs, 1)
		require.ErrorIs(t, l.of(s).errs[0], syscall.ECONNRESET)
		_, _, err := s.WritePkg("late", 0)
		require.ErrorIs(t, err, getty.ErrSessionClosed)
		within(t, s.Done(), "Done")
		require.Empty(t, l.closed, "a second OnClose")
	})
}

// A write that waits for the peer learns of its reset at once.
//
// fault: 2
func TestPeerResetsUnderAWaitingWrite(t *testing.T) {
	l := newTracer(t)
	c, s := stall(t, l)
	done := make(chan error, 1)
	go func() {
		_, _, err := s.WritePkg(strings.Repeat("w", 32<<20), time.Hour)
		done <- err
	}()
	eventually(t, "the write waits", func() bool { return s.Stats().BytesWritten > 0 && s.Stats().Queued > 0 })
	require.NoError(t, c.SetLinger(0))
	require.NoError(t, c.Close())
	require.Error(t, within(t, done, "the write's end"))
	require.Same(t, s, within(t, l.closed, "OnClose"))
	require.EqualValues(t, 1, s.Stats().Unsent)
}

// A peer that half-closes gets all answers to what it sent, then our end.
//
// acceptance: R13 fault: 4
func TestPeerHalfCloses(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		const n = 500
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		hold := make(chan struct{})
		answer := strings.Repeat("a", 20_000) // so that most of it waits when the peer's end is seen
		l.message = func(s getty.Session, pkg any) {
			<-hold
			_, _, _ = s.WritePkg(pkg.(*codec.Frame).String()+answer, 0)
		}
		c := dial(t, serve(t, prepare(l), getty.WithServerDispatch(d), func(o *getty.ServerOptions) { o.HighWater = 1 << 30 }))
		for i := range n {
			_, err := c.Write(numbered(i))
			require.NoError(t, err)
		}
		require.NoError(t, c.CloseWrite())
		close(hold)
		s := within(t, l.opened, "OnOpen")
		eventually(t, "the session closes", s.IsClosed)
		seen := make(map[string]bool)
		for i := range n {
			p, whole := strings.CutSuffix(readFrame(t, c), answer)
			require.True(t, whole)
			seen[p] = true
			if d != getty.Unordered {
				require.Equal(t, fmt.Sprintf("%08d", i), p)
			}
		}
		require.Len(t, seen, n)
		_, err := tryReadFrame(c)
		require.ErrorIs(t, err, io.EOF)
		require.Same(t, s, within(t, l.closed, "OnClose"))
		require.ErrorIs(t, s.Err(), io.EOF)
		require.Empty(t, l.of(s).errs, "a clean end")
		require.Zero(t, s.Stats().Unsent+s.Stats().Undelivered)
	})
}

// fault: 8
func TestStreamEndsInsideAPackage(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		c := dial(t, serve(t, prepare(l), getty.WithServerDispatch(d)))
		_, err := c.Write(append(frame("whole"), frame("half")[:6]...))
		require.NoError(t, err)
		require.NoError(t, c.CloseWrite())
		s := within(t, l.closed, "OnClose")
		require.ErrorIs(t, s.Err(), io.ErrUnexpectedEOF)
		require.Len(t, l.of(s).errs, 1)
		require.Equal(t, 1, l.of(s).messages, "the whole one is delivered")
	})
}

// Random bytes end their session at most, with a clean error; the next connection is served.
//
// fault: 14
func TestRandomBytes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, rw := range map[string]getty.ReadWriter{"length field": frames, "line": &codec.Line{MaxLen: 4096}} {
		t.Run(name, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				srv := serve(t, prepare(l, rw), getty.WithServerDispatch(d))
				junk := make([]byte, 1<<20)
				for i := range junk {
					junk[i] = byte(rnd.Uint32())
				}
				c := dial(t, srv)
				_, _ = c.Write(junk)
				_ = c.CloseWrite()
				s := within(t, l.closed, "OnClose")
				if err := s.Err(); !errors.Is(err, getty.ErrTooLong) && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
					require.NoError(t, err)
				}
				l.message = echoPkg
				c = dial(t, srv)
				p, err := rw.Write(nil, "fine")
				require.NoError(t, err)
				_, err = c.Write(p)
				require.NoError(t, err)
				back := make([]byte, len(p))
				_, err = io.ReadFull(c, back)
				require.NoError(t, err)
				require.Equal(t, p, back)
			})
		})
	}
}

// countedPkg counts how often it is released.
type countedPkg struct {
	text     string
	released atomic.Int32
}

func (p *countedPkg) Release() { p.released.Add(1) }

// Every package with a Release is released exactly once, after its OnMessage or when it is dropped.
//
// acceptance: R12
func TestPackagesAreReleasedOnce(t *testing.T) {
	for _, end := range []string{"peer", "now", "panic", "reader"} {
		t.Run(end, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				const n = 100
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				var mu sync.Mutex
				var all []*countedPkg
				rw := readerFunc(func(b []byte) (any, int, error) {
					i := bytes.IndexByte(b, '\n')
					if i < 0 {
						return nil, 0, nil
					}
					p := &countedPkg{text: string(b[:i])}
					if end == "reader" && p.text == "50" {
						panic("boom")
					}
					mu.Lock()
					all = append(all, p)
					mu.Unlock()
					return p, i + 1, nil
				})
				var delivered atomic.Int32
				l.message = func(s getty.Session, pkg any) {
					p := pkg.(*countedPkg)
					if p.released.Load() != 0 {
						t.Error("released before OnMessage returned")
					}
					delivered.Add(1)
					if p.text == "50" {
						switch end {
						case "now":
							s.CloseNow()
						case "panic":
							panic("boom")
						}
					}
				}
				c := dial(t, serve(t, prepare(l, rw), getty.WithServerDispatch(d)))
				var out []byte
				for i := range n {
					out = fmt.Appendf(out, "%d\n", i)
				}
				_, err := c.Write(out)
				require.NoError(t, err)
				require.NoError(t, c.CloseWrite())
				s := within(t, l.closed, "OnClose")
				within(t, s.Done(), "Done")
				mu.Lock()
				defer mu.Unlock()
				for _, p := range all {
					if end == "panic" && p.text == "50" {
						require.Zero(t, p.released.Load(), "who knows who holds it")
						continue
					}
					require.EqualValues(t, 1, p.released.Load(), "releases of package %s", p.text)
				}
				st := s.Stats()
				require.EqualValues(t, len(all), st.PkgsRead)
				require.EqualValues(t, len(all), uint64(delivered.Load())+st.Undelivered, "every package is delivered or counted")
				if end == "peer" {
					require.EqualValues(t, n, delivered.Load())
				}
			})
		})
	}
}

// A package may alias the read buffer until an inline OnMessage returns, and a pooled frame is valid as long
// as it is retained, whatever arrives meanwhile.
//
// acceptance: R12
func TestOwnershipOfPackages(t *testing.T) {
	const n = 2000
	fill := func(i int) string { return strings.Repeat(fmt.Sprintf("%08d", i), 1+i%50) }
	t.Run("alias", func(t *testing.T) {
		l := newTracer(t)
		i, done := 0, make(chan struct{})
		l.message = func(_ getty.Session, pkg any) {
			if string(pkg.([]byte)) != fill(i) {
				t.Errorf("package %d is %.20q", i, pkg)
			}
			if i++; i == n {
				close(done)
			}
		}
		c := dial(t, serve(t, prepare(l, readerFunc(func(b []byte) (any, int, error) {
			if i := bytes.IndexByte(b, '\n'); i >= 0 {
				return b[:i:i], i + 1, nil
			}
			return nil, 0, nil
		}))))
		for i := range n {
			_, err := c.Write([]byte(fill(i) + "\n"))
			require.NoError(t, err)
		}
		within(t, done, "the last package")
	})
	t.Run("retain", func(t *testing.T) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			kept := make(chan *codec.Frame, n)
			l.message = func(_ getty.Session, pkg any) {
				f := pkg.(*codec.Frame)
				f.Retain()
				kept <- f
			}
			c := dial(t, serve(t, prepare(l), getty.WithServerDispatch(d)))
			for i := range n {
				_, err := c.Write(frame(fill(i)))
				require.NoError(t, err)
			}
			seen := make(map[string]bool)
			for range n {
				f := within(t, kept, "a package")
				seen[f.String()] = true
				f.Release()
			}
			for i := range n {
				require.True(t, seen[fill(i)], "package %d was overwritten", i)
			}
		})
	})
}

// After an own Close no package is delivered; what waited is counted.
//
// acceptance: R13
func TestNothingIsDeliveredAfterAnOwnClose(t *testing.T) {
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
		for name, end := range map[string]func(getty.Session){"Close": getty.Session.Close, "CloseNow": getty.Session.CloseNow} {
			t.Run(name+"/"+d.String(), func(t *testing.T) {
				const n = 100
				l := newTracer(t)
				hold, stuck := make(chan struct{}), make(chan struct{})
				l.message = func(getty.Session, any) { close(stuck); <-hold } // a second one would panic
				c := dial(t, serve(t, prepare(l), getty.WithServerDispatch(d)))
				_, err := c.Write(bytes.Repeat(frame("x"), n))
				require.NoError(t, err)
				s := within(t, l.opened, "OnOpen")
				within(t, stuck, "the first package")
				if d == getty.Ordered {
					eventually(t, "all is read", func() bool { return s.Stats().PkgsRead == n })
				}
				end(s)
				require.True(t, s.IsClosed())
				require.Empty(t, l.closed, "OnClose while a handler runs")
				close(hold)
				_ = c.Close()
				within(t, l.closed, "OnClose")
				require.Equal(t, 1, l.of(s).messages)
				st := s.Stats()
				require.EqualValues(t, st.PkgsRead, 1+st.Undelivered)
				if d == getty.Ordered {
					require.EqualValues(t, n-1, st.Undelivered)
				}
			})
		}
	}
}

// Shutdown lets every session handle what it has read before it closes.
//
// acceptance: R13
func TestShutdownDeliversWhatWasRead(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		const n = 200
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		hold, stuck := make(chan struct{}), make(chan struct{})
		var once sync.Once
		l.message = func(s getty.Session, pkg any) {
			once.Do(func() { close(stuck) })
			<-hold
			echoPkg(s, pkg)
		}
		srv := getty.NewTCPServer(getty.WithServerDispatch(d))
		start(t, srv, prepare(l))
		c := dial(t, srv)
		_, err := c.Write(bytes.Repeat(frame("x"), n))
		require.NoError(t, err)
		s := within(t, l.opened, "OnOpen")
		within(t, stuck, "a handler")
		if d != getty.Inline {
			eventually(t, "all is read", func() bool { return s.Stats().PkgsRead == n })
		}
		done := make(chan getty.Report, 1)
		go func() {
			report, err := srv.Shutdown(t.Context())
			if err != nil {
				t.Error(err)
			}
			done <- report
		}()
		eventually(t, "the shutdown has begun", srv.IsClosed)
		close(hold)
		for range n {
			require.Equal(t, "x", readFrame(t, c))
		}
		_, err = tryReadFrame(c)
		require.ErrorIs(t, err, io.EOF)
		_ = c.Close()
		require.Equal(t, getty.Report{Drained: 1}, counts(within(t, done, "Shutdown")))
		require.NoError(t, s.Err())
		require.Zero(t, s.Stats().Undelivered)
	})
}

// A Shutdown ends though the peer never stops and the handlers are slower than it: what was read when it began is
// handled, and nothing else is read.
//
// case: 36
func TestShutdownUnderAFlood(t *testing.T) {
	pool := taskpool.NewOrdered(taskpool.Config{Workers: 1})
	t.Cleanup(func() { _ = pool.Close() })
	// shutDown starts what newServer makes, shuts it down under the flood that begin begins, and returns what the
	// session counted and how many packages were handled.
	shutDown := func(t *testing.T, d getty.Dispatch, newServer func(...getty.ServerOption) *getty.Server, begin func(*getty.Server)) (getty.SessionStats, uint64) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		var handled atomic.Int32
		l.message = func(getty.Session, any) { handled.Add(1); time.Sleep(200 * time.Microsecond) }
		srv := newServer(func(o *getty.ServerOptions) {
			o.Dispatch, o.Pool = d, pool
			o.MailboxLen = 150 // more than a worker handles at a time, so that it is never empty
		})
		start(t, srv, prepare(l))
		begin(srv)
		s := within(t, l.opened, "OnOpen")
		eventually(t, "the flood", func() bool { return handled.Load() > 20 })
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		report, err := srv.Shutdown(ctx)
		require.NoError(t, err)
		require.Equal(t, getty.Report{Drained: 1}, counts(report))
		return s.Stats(), uint64(handled.Load())
	}
	t.Run("tcp", func(t *testing.T) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			st, handled := shutDown(t, d, getty.NewTCPServer, func(srv *getty.Server) {
				c := dial(t, srv)
				go discardThenClose(c)
				go func() {
					for p, err := frame(strings.Repeat("x", 4000)), error(nil); err == nil; _, err = c.Write(p) {
					}
				}()
			})
			require.Zero(t, st.Undelivered)
			require.Equal(t, st.PkgsRead, handled+st.Undelivered)
		})
	})
	t.Run("websocket", func(t *testing.T) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			st, handled := shutDown(t, d, getty.NewWSServer, func(srv *getty.Server) {
				ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
				require.NoError(t, err)
				go func() {
					_, _, _ = ws.ReadMessage() // answers the close frame
					discardThenClose(ws.NetConn())
				}()
				go func() {
					for p, err := frame(strings.Repeat("x", 4000)), error(nil); err == nil; {
						err = ws.WriteMessage(websocket.BinaryMessage, p)
					}
				}()
			})
			require.Zero(t, st.Undelivered)
			require.Equal(t, st.PkgsRead, handled+st.Undelivered)
		})
	})
	t.Run("udp", func(t *testing.T) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			stop := make(chan struct{})
			var flood sync.WaitGroup
			shutDown(t, d, getty.NewUDPEndPoint, func(srv *getty.Server) {
				c := udpSocket(t, srv.Addr())
				flood.Go(func() {
					for p := frame("x"); ; {
						select {
						case <-stop:
							return
						default:
							_, _ = c.Write(p)
						}
					}
				})
			})
			close(stop)
			flood.Wait()
		})
	})
}

// A full mailbox stops reading; nothing is dropped.
func TestFullMailboxStopsReading(t *testing.T) {
	for _, d := range []getty.Dispatch{getty.Ordered, getty.Unordered} {
		for _, limit := range []string{"packages", "bytes"} {
			t.Run(d.String()+"/"+limit, func(t *testing.T) {
				const n, size = 500, 1000
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				hold := make(chan struct{})
				var handled atomic.Int32
				done := make(chan struct{})
				l.message = func(getty.Session, any) {
					<-hold
					if handled.Add(1) == n {
						close(done)
					}
				}
				c := dial(t, serve(t, prepare(l), getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
					if limit == "packages" {
						o.MailboxLen = 10
					} else {
						o.MailboxBytes = 10 * (size + 4)
					}
				}))
				_, err := c.Write(bytes.Repeat(frame(strings.Repeat("x", size)), n))
				require.NoError(t, err)
				s := within(t, l.opened, "OnOpen")
				eventually(t, "the mailbox is full", func() bool { return s.Stats().PkgsRead == 10 })
				time.Sleep(20 * time.Millisecond) // nothing announces that no more is decoded
				require.EqualValues(t, 10, s.Stats().PkgsRead, "decoded above the limit")
				close(hold)
				within(t, done, "the last package")
			})
		}
	}
}

// A pool without room makes its sessions wait; it loses nothing and keeps the order.
//
// fault: 125
func TestFullPool(t *testing.T) {
	const sessions, n = 8, 100
	ordered := taskpool.NewOrdered(taskpool.Config{Workers: 1, QueueLen: 1})
	shared := taskpool.NewShared(taskpool.Config{Workers: 1, QueueLen: 1})
	t.Cleanup(func() { _, _ = ordered.Close(), shared.Close() })
	for _, test := range []struct {
		pool taskpool.Pool
		d    getty.Dispatch
	}{{ordered, getty.Ordered}, {ordered, getty.Unordered}, {shared, getty.Ordered}, {shared, getty.Unordered}} {
		pool, d := test.pool, test.d
		t.Run(fmt.Sprintf("%T/%v", pool, d), func(t *testing.T) {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			l.message = echoPkg
			srv := serve(t, prepare(l), getty.WithServerTaskPool(pool), getty.WithServerDispatch(d))
			var wg sync.WaitGroup
			for range sessions {
				c := dial(t, srv)
				wg.Go(func() {
					for range n { // a wake that got lost would not be made good by the next
						_, _ = c.Write(frame("one"))
						if p, err := tryReadFrame(c); err != nil || p != "one" {
							t.Errorf("answer %q, %v", p, err)
							return
						}
					}
					go func() {
						for i := range n {
							_, _ = c.Write(numbered(i))
						}
					}()
					for i := range n {
						p, err := tryReadFrame(c)
						if err != nil || d == getty.Ordered && p != fmt.Sprintf("%08d", i) {
							t.Errorf("answer %d is %q, %v", i, p, err)
							return
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// A mailbox that stood still at the high mark goes on when the queue has fallen, also if the pool has no room then
// and no further package comes.
func TestFullPoolAtTheLowMark(t *testing.T) {
	pool := taskpool.NewShared(taskpool.Config{Workers: 1, QueueLen: 1})
	defer pool.Close()
	l := newTracer(t)
	got := make(chan string, 2)
	big := strings.Repeat("x", 16<<20)
	l.message = func(s getty.Session, pkg any) {
		p := pkg.(*codec.Frame).String()
		if p == "00000000" {
			_, _, err := s.WritePkg(big, 0)
			require.NoError(t, err)
		}
		got <- p
	}
	c, _ := stall(t, l, getty.WithServerTaskPool(pool))
	_, err := c.Write(append(numbered(0), numbered(1)...))
	require.NoError(t, err)
	require.Equal(t, "00000000", within(t, got, "the first package"))
	hold, held := make(chan struct{}), make(chan struct{})
	require.NoError(t, pool.Submit(t.Context(), func() {
		close(held)
		<-hold
	}))
	within(t, held, "the worker is busy")
	require.NoError(t, pool.Submit(t.Context(), func() {}))
	require.Equal(t, big, readFrame(t, c))
	time.Sleep(20 * time.Millisecond) // the queue has fallen, and nobody may be told yet
	close(hold)
	require.Equal(t, "00000001", within(t, got, "the second package"))
}

// A pool that is closed under its sessions ends them with the reason; every package is delivered or counted.
//
// fault: 126
func TestPoolClosedUnderItsSessions(t *testing.T) {
	for _, d := range []getty.Dispatch{getty.Ordered, getty.Unordered} {
		t.Run(d.String(), func(t *testing.T) {
			pool := taskpool.NewOrdered(taskpool.Config{Workers: 1})
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			hold, stuck := make(chan struct{}), make(chan struct{})
			var once sync.Once
			l.message = func(getty.Session, any) { once.Do(func() { close(stuck) }); <-hold }
			srv := serve(t, prepare(l), getty.WithServerTaskPool(pool), getty.WithServerDispatch(d))
			c := dial(t, srv)
			_, err := c.Write(bytes.Repeat(frame("x"), 50))
			require.NoError(t, err)
			within(t, stuck, "a handler")
			var wg sync.WaitGroup
			wg.Go(func() { _ = pool.Close() }) // it waits for the handler
			eventually(t, "the pool is closing", func() bool { return pool.TrySubmit(func() {}) == taskpool.ErrClosed })
			close(hold)
			wg.Wait()
			_, _ = c.Write(frame("more"))
			s := within(t, l.closed, "OnClose")
			require.ErrorIs(t, s.Err(), taskpool.ErrClosed)
			st := s.Stats()
			require.EqualValues(t, st.PkgsRead, uint64(l.of(s).messages)+st.Undelivered)
		})
	}
}
