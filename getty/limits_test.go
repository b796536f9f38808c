// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// A peerLine connects a session of a server with a peer that the test plays, over one kind of connection.
type peerLine struct {
	name    string
	connect func(t testing.TB, l *tracer, opts ...getty.ServerOption) (peer, getty.Session)
}

// A peer is the other end of a session.
type peer struct {
	net.Conn                             // where it reads and writes bytes
	read     func() (string, error)      // reads a package
	write    func(payload string) error  // writes one
	begin    func(size int, some []byte) // writes the first bytes of one that long
}

// masked hides all but the methods of a net.Conn, as a wrapper of the user's own may.
type masked struct{ net.Conn }

var peerLines = []peerLine{
	{"tcp", func(t testing.TB, l *tracer, opts ...getty.ServerOption) (peer, getty.Session) {
		return streamPeer(t, l, opts, func(c net.Conn) net.Conn { return c }, func(c net.Conn) net.Conn { return c })
	}},
	{"wrapped", func(t testing.TB, l *tracer, opts ...getty.ServerOption) (peer, getty.Session) {
		return streamPeer(t, l, opts, func(c net.Conn) net.Conn {
			_ = c.(*net.TCPConn).SetWriteBuffer(64 << 10) // nobody can tell how full it is
			return masked{c}
		}, func(c net.Conn) net.Conn { return c })
	}},
	{"tls", func(t testing.TB, l *tracer, opts ...getty.ServerOption) (peer, getty.Session) {
		cert := certificate(t)
		return streamPeer(t, l, opts,
			func(c net.Conn) net.Conn { return tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}}) },
			func(c net.Conn) net.Conn {
				tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
				done := make(chan error, 1)
				go func() { done <- tc.Handshake() }()
				require.NoError(t, within(t, done, "the handshake"))
				return tc
			})
	}},
	{"pipe", func(t testing.TB, l *tracer, opts ...getty.ServerOption) (peer, getty.Session) {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _ = theirs.Close() })
		serve(t, prepare(l), append(opts, getty.WithListener(newHandedListener(ours)))...)
		return plainPeer(theirs), within(t, l.opened, "OnOpen")
	}},
	{"ws", func(t testing.TB, l *tracer, opts ...getty.ServerOption) (peer, getty.Session) {
		srv := getty.NewWSServer(opts...)
		run(t, srv, prepare(l))
		d := websocket.Dialer{NetDial: func(network, addr string) (net.Conn, error) {
			c, err := net.Dial(network, addr)
			if err == nil {
				err = c.(*net.TCPConn).SetReadBuffer(64 << 10)
			}
			return c, err
		}}
		ws, _, err := d.Dial("ws://"+srv.Addr().String()+"/", nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = ws.Close() })
		return webSocketPeer(t, ws), within(t, l.opened, "OnOpen")
	}},
}

func webSocketPeer(t testing.TB, ws *websocket.Conn) peer {
	return peer{
		Conn: ws.NetConn(),
		read: func() (string, error) {
			_, b, err := ws.ReadMessage()
			return string(b[min(4, len(b)):]), err
		},
		write: func(p string) error { return ws.WriteMessage(websocket.BinaryMessage, frame(p)) },
		begin: func(size int, some []byte) {
			head := []byte{0x82, 0x80 | byte(size+4)}
			if size+4 > 125 {
				head = []byte{0x82, 0x80 | 126, byte((size + 4) >> 8), byte(size + 4)}
			}
			head = append(head, 0, 0, 0, 0)
			head = append(append(head, frame(noise(size))[:4]...), some...)
			_, err := ws.NetConn().Write(head)
			require.NoError(t, err)
		},
	}
}

func streamPeer(t testing.TB, l *tracer, opts []getty.ServerOption, ours, theirs func(net.Conn) net.Conn) (peer, getty.Session) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serve(t, prepare(l), append(opts, getty.WithListener(wrappingListener{ln, ours}))...)
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(2*patience)))
	require.NoError(t, c.(*net.TCPConn).SetReadBuffer(64<<10))
	return plainPeer(theirs(c)), within(t, l.opened, "OnOpen")
}

func plainPeer(c net.Conn) peer {
	return peer{
		Conn:  c,
		read:  func() (string, error) { return tryReadFrame(c) },
		write: func(p string) error { _, err := c.Write(frame(p)); return err },
		begin: func(size int, some []byte) {
			_, _ = c.Write(append(frame(noise(size))[:4], some...))
		},
	}
}

// certificate makes one for a server of the test.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// wrappingListener wraps what it accepts.
type wrappingListener struct {
	net.Listener
	wrap func(net.Conn) net.Conn
}

func (l wrappingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.wrap(c), nil
}

// A peer that reads a large package slowly and steadily keeps its session, whatever carries it: neither WriteTimeout
// nor IdleTimeout takes it for stuck or dead, also when all is with the kernel.
//
// case: 22
func TestAPeerThatReadsSlowlyIsAlive(t *testing.T) {
	t.Parallel()
	for _, line := range peerLines {
		for _, buffer := range []int{64 << 10, 4 << 20} {
			t.Run(line.name, func(t *testing.T) {
				t.Parallel()
				for range 5 {
					l := newTracer(t)
					c, s := line.connect(t, l, func(o *getty.ServerOptions) {
						o.WriteTimeout, o.HighWater, o.MaxMsgLen = slowReaderLimit, 64<<20, 64<<20
						if line.name != "wrapped" && line.name != "pipe" {
							o.Socket.WriteBuffer = buffer
						}
					})
					if buffer > 1<<20 {
						_, _, err := s.WritePkg(noise(2<<20), 0)
						require.NoError(t, err)
					} else {
						go func() { _, _, _ = s.WritePkg(noise(2<<20), -1) }()
					}
					s.SetIdleTimeout(slowReaderLimit)
					if readSlowly(t, c, s) {
						return
					}
					_ = c.Close()
				}
				t.Skip("this process was never given the time to read steadily")
			})
		}
	}
}

const slowReaderLimit = 2 * time.Second

// readSlowly reads steadily for longer than the limits of s, which must stay open. It returns false if the session has
// ended and this process had not read steadily: then nothing was shown.
func readSlowly(t *testing.T, c net.Conn, s getty.Session) bool {
	const (
		limit = slowReaderLimit
		pause = limit / 50
		// The peer's kernel tells of what is read only in steps of 64 KiB, eight reads. Three of them in each limit
		// are steady.
		steady = 24
	)
	b := make([]byte, 8<<10)
	var reads []time.Time
	for begun := time.Now(); time.Since(begun) < 5*limit/2; time.Sleep(pause) {
		_, err := io.ReadFull(c, b)
		reads = append(reads, time.Now())
		if err == nil && !s.IsClosed() {
			continue
		}
		for i, from := range reads {
			n := slices.IndexFunc(reads[i:], func(at time.Time) bool { return at.Sub(from) > limit })
			if n >= 0 && n < steady {
				return false
			}
		}
		if time.Since(begun) > limit/2 && len(reads) < steady {
			return false
		}
		require.NoError(t, err, "%v", s.Err())
		require.FailNow(t, "it has ended", "%v: %v", time.Since(begun), s.Err())
	}
	return true
}

// A peer that is silent is dead, however much this side sends: heartbeats, pings, and what the peer's kernel
// acknowledges without it.
//
// case: 22
func TestASilentPeerIsDead(t *testing.T) {
	t.Parallel()
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for _, line := range peerLines {
			t.Run(line.name, func(t *testing.T) {
				t.Parallel()
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				l.cron = func(s getty.Session) { _, _, _ = s.WritePkg("beat", 0) }
				_, s := line.connect(t, l, func(o *getty.ServerOptions) {
					o.Dispatch = d
					o.CronPeriod = 10 * time.Millisecond
					if line.name == "ws" {
						o.WebSocket.PingPeriod = 10 * time.Millisecond
					}
				})
				stop := make(chan struct{})
				defer close(stop)
				go func() { // from outside of a turn as well
					for {
						select {
						case <-stop:
							return
						case <-time.After(3 * time.Millisecond):
							_, _, _ = s.WritePkg("push", 0)
						}
					}
				}()
				s.SetIdleTimeout(200 * time.Millisecond)
				within(t, l.closed, "OnClose")
				require.ErrorIs(t, s.Err(), getty.ErrIdleTimeout)
			})
		}
	})
}

// The same for what a UDP client sends.
//
// case: 22
func TestUDPSilentPeerIsDead(t *testing.T) {
	t.Parallel()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer pc.Close()
	l := newTracer(t)
	l.cron = func(s getty.Session) { _, _, _ = s.WritePkg("beat", 0) }
	client := getty.NewUDPClient(getty.WithServerAddress(pc.LocalAddr().String()), func(o *getty.ClientOptions) {
		o.UDP.NoProbe = true
		o.CronPeriod, o.IdleTimeout = 10*time.Millisecond, 200*time.Millisecond
	})
	run(t, client, prepare(l))
	require.ErrorIs(t, within(t, l.closed, "OnClose").Err(), getty.ErrIdleTimeout)
}

// Nothing that is sent, and no ping before, keeps a silent peer from being pinged; one that answers is alive.
//
// case: 22, 23
func TestPingsGoOnUntilTheyAreAnswered(t *testing.T) {
	t.Parallel()
	for _, answers := range []bool{false, true} {
		l := newTracer(t)
		l.cron = func(s getty.Session) { _, _, _ = s.WritePkg("beat", 0) }
		srv := getty.NewWSServer(func(o *getty.ServerOptions) {
			o.WebSocket.PingPeriod = 20 * time.Millisecond
			o.CronPeriod = 5 * time.Millisecond
			if answers {
				o.WebSocket.PingPeriod = time.Hour // asked in time all the same
				o.IdleTimeout = time.Second
			}
		})
		run(t, srv, prepare(l))
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
		require.NoError(t, err)
		defer ws.Close()
		s := within(t, l.opened, "OnOpen")
		pings := make(chan string, 1000)
		answer := ws.PingHandler()
		ws.SetPingHandler(func(data string) error {
			pings <- data
			if answers {
				return answer(data)
			}
			return nil
		})
		go func() {
			for {
				if _, _, err := ws.ReadMessage(); err != nil {
					return
				}
			}
		}()
		for range 3 {
			within(t, pings, "a ping")
		}
		require.False(t, s.IsClosed())
	}
}

// A limit that comes late, because the process did not run, does not strike before it has looked once more and
// asked: the peer gets half of the time again, once.
//
// case: 23
func TestLateLimitsLookOnceMore(t *testing.T) {
	const limit = time.Hour
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for _, line := range peerLines {
			t.Run(line.name, func(t *testing.T) {
				start := func(set getty.ServerOption) (peer, getty.Session, *tracer, chan getty.Session) {
					l := newTracer(t)
					l.unordered = d == getty.Unordered
					l.message = echoPkg
					ticks := make(chan getty.Session, 100)
					l.cron = func(s getty.Session) { ticks <- s }
					c, s := line.connect(t, l, getty.WithServerDispatch(d), set)
					require.NoError(t, c.write("hello"))
					hello, err := c.read()
					require.NoError(t, err)
					require.Equal(t, "hello", hello)
					eventually(t, "its write has returned", func() bool { return !getty.WriteStalled(s) })
					return c, s, l, ticks
				}
				t.Run("idle", func(t *testing.T) {
					_, s, l, ticks := start(func(o *getty.ServerOptions) { o.IdleTimeout, o.CronPeriod = limit, 100*limit })
					getty.WasAway(s, 2*limit)
					within(t, ticks, "the tick in which the peer can be asked")
					require.False(t, s.IsClosed())
					getty.WasAway(s, limit/4)
					require.False(t, s.IsClosed())
					getty.WasAway(s, 2*limit)
					within(t, l.closed, "OnClose")
					require.ErrorIs(t, s.Err(), getty.ErrIdleTimeout)
				})
				t.Run("read", func(t *testing.T) {
					c, s, l, _ := start(func(o *getty.ServerOptions) { o.ReadTimeout = limit })
					before := s.Stats().BytesRead
					c.begin(100, []byte("xxx"))
					eventually(t, "it has begun", func() bool { return s.Stats().BytesRead > before })
					eventually(t, "the clock runs", func() bool { return getty.PackageBegun(s) })
					getty.WasAway(s, 2*limit)
					require.False(t, s.IsClosed())
					getty.WasAway(s, 2*limit)
					within(t, l.closed, "OnClose")
					require.ErrorIs(t, s.Err(), getty.ErrReadTimeout)
				})
				t.Run("write", func(t *testing.T) {
					_, s, l, _ := start(func(o *getty.ServerOptions) { o.WriteTimeout, o.HighWater = limit, 64<<20 })
					_, _, err := s.WritePkg(noise(16<<20), 0)
					require.NoError(t, err)
					eventually(t, "the write waits", func() bool { return getty.WriteStalled(s) })
					time.Sleep(20 * time.Millisecond) // and the kernel takes no more, which nothing shows
					getty.WasAway(s, 2*limit)
					require.False(t, s.IsClosed())
					for !s.IsClosed() { // looks, then the end
						getty.WasAway(s, limit)
					}
					within(t, l.closed, "OnClose")
					require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
				})
			})
		}
	})
}

// Nobody who has set no limit waits for the end of a package for ever.
//
// case: 43
func TestReadTimeoutHasADefault(t *testing.T) {
	for _, line := range peerLines {
		t.Run(line.name, func(t *testing.T) {
			l := newTracer(t)
			c, s := line.connect(t, l)
			c.begin(100, []byte("xxx"))
			eventually(t, "the clock runs", func() bool { return getty.PackageBegun(s) })
			getty.WasAway(s, getty.DefaultReadTimeout/2)
			require.False(t, s.IsClosed())
			getty.WasAway(s, 3*getty.DefaultReadTimeout)
			getty.WasAway(s, getty.DefaultReadTimeout)
			within(t, l.closed, "OnClose")
			require.ErrorIs(t, s.Err(), getty.ErrReadTimeout)
		})
	}
}
