// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// A maskedListener accepts connections that the engine can only use through their methods.
type maskedListener struct{ net.Listener }

func (l maskedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return plainConn{c}, nil
}

// A plainConn has the methods that a tls.Conn has, too: the engine cannot read or write past them.
type plainConn struct{ net.Conn }

func (c plainConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }
func (c plainConn) NetConn() net.Conn { return c.Conn }

// A wire is a transport as a plain peer sees it.
type wire struct {
	name   string
	server func(t testing.TB, opts ...getty.ServerOption) *getty.Server
	dial   func(t testing.TB, srv *getty.Server) wirePeer
}

// A wirePeer is the plain end of a connection.
type wirePeer struct {
	conn peerConn
	ws   *websocket.Conn // nil: a byte stream
}

// A peerConn is a plain connection, or one of crypto/tls that behaves alike.
type peerConn interface {
	net.Conn
	CloseWrite() error
	SetLinger(sec int) error
	SetReadBuffer(bytes int) error
}

var wires = []wire{
	{"tcp", func(_ testing.TB, opts ...getty.ServerOption) *getty.Server {
		return getty.NewTCPServer(opts...)
	}, dialStream},
	{"wrapped", func(t testing.TB, opts ...getty.ServerOption) *getty.Server {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		return getty.NewTCPServer(append(opts, getty.WithListener(maskedListener{ln}))...)
	}, dialStream},
	{"websocket", func(_ testing.TB, opts ...getty.ServerOption) *getty.Server {
		return getty.NewWSServer(opts...)
	}, dialWebSocket},
	{"tls", func(_ testing.TB, opts ...getty.ServerOption) *getty.Server {
		return getty.NewTCPServer(append(opts, getty.WithServerTLS(localTLS().server))...)
	}, dialTLS},
	{"wss", func(_ testing.TB, opts ...getty.ServerOption) *getty.Server {
		return getty.NewWSServer(append(opts, getty.WithServerTLS(localTLS().server))...)
	}, dialWSS},
	{"unix", func(_ testing.TB, opts ...getty.ServerOption) *getty.Server {
		return getty.NewUnixServer(append(opts, getty.WithLocalAddress(unixPath()))...)
	}, dialUnix},
	{"snappy", func(_ testing.TB, opts ...getty.ServerOption) *getty.Server {
		return getty.NewTCPServer(append(opts, compressServer(getty.CompressSnappy))...)
	}, dialSnappy},
	{"tls, snappy", func(_ testing.TB, opts ...getty.ServerOption) *getty.Server {
		opts = append(opts, getty.WithServerTLS(localTLS().server), compressServer(getty.CompressSnappy))
		return getty.NewTCPServer(opts...)
	}, func(t testing.TB, srv *getty.Server) wirePeer { return overSnappy(dialTLS(t, srv).conn) }},
	{"pipe", func(_ testing.TB, opts ...getty.ServerOption) *getty.Server {
		return getty.NewConnServer(opts...)
	}, adoptPipe},
}

// A softPeer is a peer without the options of a TCP socket.
type softPeer struct{ net.Conn }

func (softPeer) SetLinger(int) error     { return nil }
func (softPeer) SetReadBuffer(int) error { return nil }

// CloseWrite ends both directions where one alone cannot end.
func (p softPeer) CloseWrite() error {
	if c, ok := p.Conn.(*net.UnixConn); ok {
		return c.CloseWrite()
	}
	return p.Close()
}

func dialUnix(t testing.TB, srv *getty.Server) wirePeer {
	c, err := net.Dial("unix", srv.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return wirePeer{conn: softPeer{c}}
}

func compressServer(c getty.CompressType) getty.ServerOption {
	return func(o *getty.ServerOptions) { o.Compress = c }
}

func compressClient(c getty.CompressType) getty.ClientOption {
	return func(o *getty.ClientOptions) { o.Compress = c }
}

// A snappyPeer is a peer built on golang/snappy.
type snappyPeer struct {
	peerConn
	reading, writing sync.Mutex // any goroutine may use a connection
	r                *snappy.Reader
	w                *snappy.Writer
}

func (p *snappyPeer) Read(b []byte) (int, error) {
	p.reading.Lock()
	defer p.reading.Unlock()
	return p.r.Read(b)
}

func (p *snappyPeer) Write(b []byte) (int, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	n, err := p.w.Write(b)
	if err == nil {
		err = p.w.Flush()
	}
	return n, err
}

func dialSnappy(t testing.TB, srv *getty.Server) wirePeer {
	return overSnappy(dial(t, srv))
}

func overSnappy(c peerConn) wirePeer {
	return wirePeer{conn: &snappyPeer{peerConn: c, r: snappy.NewReader(c), w: snappy.NewBufferedWriter(c)}}
}

func adoptPipe(t testing.TB, srv *getty.Server) wirePeer {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _ = theirs.Close() })
	require.NoError(t, theirs.SetDeadline(time.Now().Add(patience)))
	_, err := srv.Adopt(ours, nil)
	require.NoError(t, err)
	return wirePeer{conn: softPeer{theirs}}
}

func dialWebSocket(t testing.TB, srv *getty.Server) wirePeer {
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
	require.NoError(t, err)
	c := ws.NetConn().(*net.TCPConn)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return wirePeer{c, ws}
}

func dialStream(t testing.TB, srv *getty.Server) wirePeer { return wirePeer{conn: dial(t, srv)} }

// encode returns frames as they are on this wire; a WebSocket's are masked with zeros, which leaves
// them readable.
func (p wirePeer) encode(frames ...[]byte) (b []byte) {
	for _, f := range frames {
		if p.ws != nil {
			b = append(b, 0x82, 0x80|byte(len(f)), 0, 0, 0, 0)
		}
		b = append(b, f...)
	}
	return b
}

// end returns what a peer sends to end its stream, before it half-closes.
func (p wirePeer) end() []byte {
	if p.ws == nil {
		return nil
	}
	return []byte{0x88, 0x82, 0, 0, 0, 0, 1000 >> 8, 1000 & 0xff}
}

// receive returns the next package.
func (p wirePeer) receive() (string, error) {
	if p.ws == nil {
		return tryReadFrame(p.conn)
	}
	_, b, err := p.ws.ReadMessage()
	if err != nil {
		return "", err
	}
	return tryReadFrame(bytes.NewReader(b))
}

// discard reads until the stream ends, and ends it too.
func (p wirePeer) discard() {
	for err := error(nil); err == nil; {
		_, err = p.receive()
	}
	discardThenClose(p.conn)
}

// ended reports whether err is the regular end of a stream: not a reset.
func (p wirePeer) ended(err error) bool {
	if p.ws == nil {
		return err == io.EOF
	}
	_, ok := err.(*websocket.CloseError)
	return ok
}

// patientClose makes nothing of a test depend on a WaitTime.
func patientClose(o *getty.ServerOptions) { o.WaitTime = longClose }

// briefClose is for peers that do not end when the session does.
func briefClose(o *getty.ServerOptions) { o.WaitTime = 20 * time.Millisecond }

func eachWire(t *testing.T, f func(t *testing.T, w wire)) {
	for _, w := range wires {
		t.Run(w.name, func(t *testing.T) { f(t, w) })
	}
}

// eachSocket is eachWire without the pipe, which has no buffers, and no end of one direction.
func eachSocket(t *testing.T, f func(t *testing.T, w wire)) {
	for _, w := range wires {
		if w.name != "pipe" {
			t.Run(w.name, func(t *testing.T) { f(t, w) })
		}
	}
}

// Shutdown delivers everything that was read, at whatever moment between a read and its turn it
// comes.
//
// case: 36
func TestShutdownJustAfterAPackage(t *testing.T) {
	wrapped := carrier{"wrapped", func(opts ...getty.ServerOption) *getty.Server {
		return wires[1].server(t, opts...)
	}, carriers[0].client}
	test := func(t *testing.T, c carrier) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			for range 6 {
				const sessions = 50
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				var handled atomic.Int64
				l.message = func(getty.Session, any) { handled.Add(1) }
				srv := c.server(getty.WithServerDispatch(d))
				start(t, srv, prepare(l))
				client := c.client(srv.Addr().String(), func(o *getty.ClientOptions) {
					o.Connections = sessions
					o.UDP.NoProbe = c.name == "udp"
				})
				start(t, client, prepare(newTracer(t)))
				eventually(t, "all are connected", func() bool {
					return client.Stats().Open == sessions &&
						(c.name == "udp" || srv.Stats().Opened == sessions)
				})
				for s := range client.Sessions() {
					_, _, _ = s.WritePkg("the last line", 0)
				}
				report, err := srv.Shutdown(t.Context())
				require.NoError(t, err)
				require.Zero(t, report.Forced)
				st := srv.Stats().Total
				require.Zero(t, st.Undelivered, "of %d", st.PkgsRead)
				require.EqualValues(t, st.PkgsRead, handled.Load())
				client.Close()
				within(t, client.Done(), "Done")
			}
		})
	}
	eachCarrier(t, test)
	t.Run(wrapped.name, func(t *testing.T) { test(t, wrapped) })
}

// What a closing session has read and does not deliver is counted, to the last package of the read.
//
// case: 36
func TestTheRestOfAReadIsCounted(t *testing.T) {
	const n = 20
	end := map[string]func(getty.Session){
		"Close":    func(s getty.Session) { s.Close() },
		"CloseNow": func(s getty.Session) { s.CloseNow() },
		"panic":    func(getty.Session) { panic("enough") },
	}
	eachWire(t, func(t *testing.T, w wire) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			for name, how := range end {
				t.Run(name, func(t *testing.T) {
					l := newTracer(t)
					l.unordered = d == getty.Unordered
					var handled atomic.Int64
					l.message = func(s getty.Session, _ any) {
						handled.Add(1)
						how(s)
					}
					srv := w.server(t, getty.WithServerDispatch(d))
					run(t, srv, prepare(l))
					p := w.dial(t, srv)
					_, err := p.conn.Write(p.encode(manyFrames(n)...))
					require.NoError(t, err)
					go p.discard()
					st := within(t, l.closed, "OnClose").Stats()
					require.EqualValues(t, st.PkgsRead, handled.Load()+int64(st.Undelivered))
					if w.name == "tcp" || name == "Close" {
						require.EqualValues(t, n, st.PkgsRead)
					}
				})
			}
		})
	})
}

func manyFrames(n int) (all [][]byte) {
	for i := range n {
		all = append(all, numbered(i))
	}
	return all
}

// The same bytes have the same outcome in every dispatch: what came before a bad package is
// delivered and answered, then the session ends with the error. What the peer still sends destroys
// no answer.
//
// case: 37
func TestWhatCameBeforeABadPackage(t *testing.T) {
	const n = 5
	eachWire(t, func(t *testing.T, w wire) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			l.message = func(s getty.Session, pkg any) {
				time.Sleep(time.Millisecond) // the error comes first, where handlers run elsewhere
				echoPkg(s, pkg)
			}
			srv := w.server(t, getty.WithServerDispatch(d), patientClose)
			run(t, srv, prepare(l))
			for range 10 {
				p := w.dial(t, srv)
				bad := []byte{0xff, 0xff, 0xff, 0xff, 'b', 'a', 'd'}
				_, err := p.conn.Write(p.encode(append(manyFrames(n), bad)...))
				require.NoError(t, err)
				_, err = p.conn.Write(p.encode(manyFrames(n)...)) // of no interest any more
				require.NoError(t, err)
				got := 0
				for ; err == nil; got++ {
					_, err = p.receive()
				}
				require.Equal(t, n, got-1, "answers, then %v", err)
				require.True(t, p.ended(err), "%v", err)
				_ = p.conn.Close()
				s := within(t, l.closed, "OnClose")
				require.Error(t, s.Err())
				require.NotErrorIs(t, s.Err(), io.EOF)
				require.Equal(t, []error{s.Err()}, l.of(s).errs)
				require.Equal(t, n, l.of(s).messages)
				require.Zero(t, s.Stats().Undelivered)
				require.Zero(t, s.Stats().Unsent)
			}
		})
	})
}

// An own Close and a panic end delivery at once, also before a bad package.
//
// case: 37
func TestAnOwnEndBeforeABadPackage(t *testing.T) {
	eachWire(t, func(t *testing.T, w wire) {
		for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
			t.Run(d.String(), func(t *testing.T) {
				l := newTracer(t)
				l.message = func(s getty.Session, pkg any) {
					time.Sleep(time.Millisecond) // the error comes first, where handlers run elsewhere
					if pkg.(*codec.Frame).String() == "panic" {
						panic("enough")
					}
					s.Close()
				}
				srv := w.server(t, getty.WithServerDispatch(d))
				run(t, srv, prepare(l))
				for _, how := range []string{"close", "panic"} {
					p := w.dial(t, srv)
					bad := []byte{0xff, 0xff, 0xff, 0xff}
					_, err := p.conn.Write(p.encode(frame(how), frame("x"), bad))
					require.NoError(t, err)
					go p.discard()
					s := within(t, l.closed, "OnClose")
					require.Equal(t, 1, l.of(s).messages)
					require.EqualValues(t, 1, s.Stats().Undelivered)
					var panicked *getty.PanicError
					require.Equal(t, how == "panic", errors.As(s.Err(), &panicked), "%v", s.Err())
				}
			})
		}
	})
}

// A reset ends what can be sent, not what was received: that is handled, as it is where handlers
// run on the goroutine that reads.
//
// case: 37
func TestWhatCameBeforeAReset(t *testing.T) {
	const n = 100 // more than a worker handles at a time
	eachSocket(t, func(t *testing.T, w wire) {
		if w.name == "unix" {
			t.Skip("it has no resets")
		}
		for _, d := range []getty.Dispatch{getty.Ordered, getty.Unordered} {
			t.Run(d.String(), func(t *testing.T) {
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				hold := make(chan struct{})
				l.message = func(s getty.Session, pkg any) {
					<-hold
					if w.name != "wrapped" { // there only a failed write tells that nothing can be written
						echoPkg(s, pkg)
					}
				}
				srv := w.server(t, getty.WithServerDispatch(d))
				run(t, srv, prepare(l))
				p := w.dial(t, srv)
				_, err := p.conn.Write(p.encode(manyFrames(n)...))
				require.NoError(t, err)
				s := within(t, l.opened, "OnOpen")
				eventually(t, "all is read", func() bool { return s.Stats().PkgsRead == n })
				require.NoError(t, p.conn.SetLinger(0))
				require.NoError(t, p.conn.Close())
				eventually(t, "the reset is noticed", func() bool { return s.Err() != nil })
				close(hold)
				within(t, l.closed, "OnClose")
				require.ErrorIs(t, s.Err(), syscall.ECONNRESET)
				require.Equal(t, n, l.of(s).messages)
				require.Zero(t, s.Stats().Undelivered)
			})
		}
	})
}

// A cutConn is a connection whose second read fails.
type cutConn struct {
	plainConn
	reads atomic.Int32
}

var errCut = errors.New("cut")

func (c *cutConn) Read(b []byte) (int, error) {
	if c.reads.Add(1) > 1 {
		return 0, errCut
	}
	return c.Conn.Read(b)
}

// What a connection that is not the kernel's own says about reading need not concern writing: the
// answers are flushed.
//
// case: 37
func TestWhatCameBeforeAFailedRead(t *testing.T) {
	const n = 5
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		l.message = func(s getty.Session, pkg any) {
			time.Sleep(time.Millisecond) // the error comes first, where handlers run elsewhere
			echoPkg(s, pkg)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		ours, err := ln.Accept()
		require.NoError(t, err)
		require.NoError(t, ln.Close())
		_, err = c.Write(bytes.Join(manyFrames(n), nil))
		require.NoError(t, err)
		serve(t, prepare(l), getty.WithServerDispatch(d),
			getty.WithListener(newHandedListener(&cutConn{plainConn: plainConn{ours}})))
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		for range n {
			readFrame(t, c)
		}
		s := within(t, l.closed, "OnClose")
		require.ErrorIs(t, s.Err(), errCut)
		require.Zero(t, s.Stats().Undelivered)
		require.Zero(t, s.Stats().Unsent)
	})
}

// skipUnlessAcksShow skips a test where the system does not tell what a peer has acknowledged.
func skipUnlessAcksShow(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("the system does not tell what is acknowledged")
	}
}

// stalledClose makes a server close after n answers of some size to a peer that has not read any,
// and returns the peer and the session.
func stalledClose(
	t *testing.T, w wire, d getty.Dispatch, room, n, size int, wait time.Duration,
) (wirePeer, getty.Session, *tracer) {
	l := newTracer(t)
	answer := noise(size)
	var timeout time.Duration
	if n*size < 100<<10 {
		timeout = patience // the kernel has room for all
	}
	l.message = func(s getty.Session, _ any) {
		for range n {
			if _, _, err := s.WritePkg(answer, timeout); err != nil {
				t.Errorf("an answer: %v", err)
			}
		}
		s.Close()
	}
	srv := w.server(t, func(o *getty.ServerOptions) {
		o.Dispatch, o.WaitTime, o.HighWater = d, wait, 64<<20
		o.Socket.WriteBuffer = 200 << 10
	})
	run(t, srv, prepare(l))
	p := w.dial(t, srv)
	if room > 0 {
		require.NoError(t, p.conn.SetReadBuffer(room))
	}
	_, err := p.conn.Write(p.encode(frame("go")))
	require.NoError(t, err)
	return p, within(t, l.opened, "OnOpen"), l
}

// A Close whose WaitTime ends while the kernel holds what the peer has not acknowledged is no clean
// end: that is counted, and is a cause of its own.
//
// case: 41
func TestCloseOverUnacknowledgedBytes(t *testing.T) {
	skipUnlessAcksShow(t)
	const small, large = 2000, 50_000
	for name, size := range map[string]int{"the kernel has taken all": small, "a part": large} {
		t.Run(name, func(t *testing.T) {
			eachSocket(t, func(t *testing.T, w wire) {
				for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
					t.Run(d.String(), func(t *testing.T) {
						t.Parallel()
						const n = 40
						// Time enough for the kernel to take what it has room for.
						p, s, l := stalledClose(t, w, d, 4<<10, n, size, 300*time.Millisecond)
						within(t, l.closed, "OnClose")
						st := s.Stats()
						require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
						require.Equal(t, size == small, errors.Is(s.Err(), getty.ErrUnacknowledged))
						require.Equal(t, []error{s.Err()}, l.of(s).errs)
						require.EqualValues(t, n, st.PkgsWritten+st.Unsent-st.Unacked)
						require.Greater(t, st.Unsent, uint64(n/2))
						require.NotZero(t, st.UnackedBytes)
						require.GreaterOrEqual(t, st.UnsentBytes, st.UnackedBytes)
						require.LessOrEqual(t, st.Unsent, st.UnsentBytes/uint64(size)+1)
						_ = p.conn.Close()
					})
				}
			})
		})
	}
}

// A peer that is slow and takes all in the end makes a clean end of the same Close.
//
// case: 41
func TestCloseAwaitsAcknowledgement(t *testing.T) {
	const n, size = 80, 50_000
	eachSocket(t, func(t *testing.T, w wire) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			p, s, l := stalledClose(t, w, d, 0, n, size, patience)
			eventually(t, "it closes", s.IsClosed)
			time.Sleep(10 * time.Millisecond) // the peer is slow
			for range n {
				got, err := p.receive()
				require.NoError(t, err)
				require.Len(t, got, size)
			}
			_, err := p.receive()
			require.True(t, p.ended(err), "%v", err)
			_ = p.conn.Close()
			within(t, l.closed, "OnClose")
			require.NoError(t, s.Err())
			require.Zero(t, s.Stats().Unsent)
			require.Zero(t, s.Stats().Unacked)
			require.Empty(t, l.of(s).errs)
		})
	})
}

// A peer that closes with more behind its end, and reads its answers only then, gets them all and
// the regular end: what is behind the end is read and thrown away. (Behind the end of a byte stream
// nothing can come.)
//
// case: 42
func TestMessagesBehindTheCloseFrame(t *testing.T) {
	const n, size = 64, 50_000
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		answer := noise(size)
		l.message = func(s getty.Session, _ any) { _, _, _ = s.WritePkg(answer, 0) }
		w := wires[2]
		srv := w.server(t, patientClose, func(o *getty.ServerOptions) {
			o.Dispatch, o.HighWater = d, 64<<20
		})
		run(t, srv, prepare(l))
		p := w.dial(t, srv)
		b := append(p.encode(manyFrames(n)...), p.end()...)
		_, err := p.conn.Write(append(b, p.encode(manyFrames(n)...)...))
		require.NoError(t, err)
		s := within(t, l.opened, "OnOpen")
		eventually(t, "all is answered", s.IsClosed)
		_, err = p.conn.Write(p.encode(manyFrames(n)...))
		require.NoError(t, err)
		for range n {
			got, err := p.receive()
			require.NoError(t, err)
			require.Len(t, got, size)
		}
		_, err = p.receive()
		require.True(t, p.ended(err), "%v", err)
		_, err = p.conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		_ = p.conn.Close()
		within(t, l.closed, "OnClose")
		require.ErrorIs(t, s.Err(), io.EOF)
		require.Empty(t, l.of(s).errs)
		require.Equal(t, n, l.of(s).messages)
	})
}

// When WaitTime is over, what the kernel holds is not destroyed by a reset, though a callback has
// kept the session from reading what the peer sent.
//
// case: 42
func TestTheEndOfWaitTimeIsNoReset(t *testing.T) {
	skipUnlessAcksShow(t)
	answer := noise(100 << 10)
	eachSocket(t, func(t *testing.T, w wire) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			hold := make(chan struct{})
			release := sync.OnceFunc(func() { close(hold) })
			var first atomic.Bool
			written := make(chan struct{})
			l.message = func(s getty.Session, _ any) {
				if first.CompareAndSwap(false, true) {
					_, _, _ = s.WritePkg(answer, -1)
					close(written)
				}
				<-hold
			}
			srv := w.server(t, func(o *getty.ServerOptions) {
				o.Dispatch, o.WaitTime = d, 50*time.Millisecond
				o.Socket.WriteBuffer = 200 << 10
			})
			run(t, srv, prepare(l))
			t.Cleanup(release)
			p := w.dial(t, srv)
			require.NoError(t, p.conn.SetReadBuffer(16<<10))
			_, err := p.conn.Write(p.encode(frame("go")))
			require.NoError(t, err)
			within(t, written, "the answer")
			_, err = p.conn.Write(p.encode(manyFrames(100)...)) // nobody will read this
			require.NoError(t, err)
			s := within(t, l.opened, "OnOpen")
			s.Close()
			eventually(t, "WaitTime is over", func() bool { return getty.HasFreed(s) })
			got, err := p.receive()
			require.NoError(t, err)
			require.Equal(t, answer, got)
			_, err = p.receive()
			require.True(t, p.ended(err), "%v", err)
			_, err = p.conn.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF)
			release()
			within(t, l.closed, "OnClose")
			require.ErrorIs(t, s.Err(), getty.ErrUnacknowledged)
		})
	})
}

// A onceConn counts how often its stream is ended.
type onceConn struct {
	plainConn
	ends *atomic.Int32
}

func (c onceConn) CloseWrite() error {
	c.ends.Add(1)
	return c.plainConn.CloseWrite()
}

type onceListener struct {
	net.Listener
	ends chan *atomic.Int32
}

func (l onceListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := onceConn{plainConn{c}, new(atomic.Int32)}
	l.ends <- conn.ends
	return conn, nil
}

// Two sides that say goodbye at the same moment end each stream once. A second end of a connection
// whose peer is gone already would fail, and make an error of a clean end.
func TestBothSidesCloseAtOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	const rounds = 4000
	ends := make(chan *atomic.Int32, rounds)
	l := newTracer(t)
	srv := getty.NewWSServer(patientClose, getty.WithListener(onceListener{ln, ends}))
	run(t, srv, prepare(l))
	for range rounds {
		p := dialWebSocket(t, srv)
		s := within(t, l.opened, "OnOpen")
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = p.conn.Write(p.end())
		}()
		s.Close()
		<-written
		_, err := p.receive()
		require.True(t, p.ended(err), "%v", err)
		_ = p.conn.Close()
		within(t, l.closed, "OnClose")
		if err := s.Err(); err != io.EOF { // the peer's may have come first
			require.NoError(t, err)
		}
		require.EqualValues(t, 1, within(t, ends, "a connection").Load())
	}
}
