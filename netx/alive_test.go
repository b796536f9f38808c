// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// aliveIs waits until Alive gives want, then checks that it stays so: asking changes nothing.
func aliveIs(t *testing.T, c net.Conn, want State, stub bool) {
	t.Helper()
	if stub {
		state, err := Alive(c)
		require.ErrorIs(t, err, errors.ErrUnsupported, "Alive on the stub")
		require.Equal(t, Unknown, state, "Alive on the stub")
		return
	}
	var state State
	var err error
	eventually(t, "Alive gives "+want.String(), func() bool {
		state, err = Alive(c)
		return err != nil || state == want
	})
	for range 3 {
		state, err = Alive(c)
		require.NoError(t, err, "Alive")
		require.Equal(t, want.String(), state.String(), "Alive again")
	}
	k, err := NewChecker(c)
	require.NoError(t, err, "NewChecker")
	state, err = k.State()
	require.NoError(t, err, "Checker.State")
	require.Equal(t, want, state, "Checker.State")
}

// The table of ways in which a stream can stand and end. Each case also says what a read
// afterwards must find, since a query that consumes changes that.
func TestAliveStates(t *testing.T) {
	type halfCloser interface {
		net.Conn
		CloseWrite() error
		CloseRead() error
	}
	cases := []struct {
		name string
		do   func(t *testing.T, near, far halfCloser)
		want State
		read string // what ReadAll of near gives
		err  error  // and how it ends
		only string // network, "" for all
	}{
		{"nothing", func(t *testing.T, near, far halfCloser) {}, Open, "", os.ErrDeadlineExceeded, ""},
		{"data", func(t *testing.T, near, far halfCloser) {
			far.Write([]byte("abc"))
		}, HasData, "abc", os.ErrDeadlineExceeded, ""},
		{"fin", func(t *testing.T, near, far halfCloser) { far.Close() }, PeerClosed, "", nil, ""},
		{"data,fin", func(t *testing.T, near, far halfCloser) {
			far.Write([]byte("abc"))
			far.Close()
		}, HasData, "abc", nil, ""},
		{"half-close", func(t *testing.T, near, far halfCloser) {
			far.CloseWrite()
		}, PeerClosed, "", nil, ""},
		{"own half-close", func(t *testing.T, near, far halfCloser) {
			near.CloseWrite()
		}, Open, "", os.ErrDeadlineExceeded, ""},
		{"both half-closed", func(t *testing.T, near, far halfCloser) {
			near.CloseWrite()
			far.CloseWrite()
		}, PeerClosed, "", nil, ""},
		{"own close-read", func(t *testing.T, near, far halfCloser) {
			if runtime.GOOS != "linux" {
				t.Skip("told apart on Linux only")
			}
			near.CloseRead()
		}, Open, "", nil, "tcp"},
		{"own close-read,fin", func(t *testing.T, near, far halfCloser) {
			near.CloseRead()
			far.Close()
		}, PeerClosed, "", nil, "tcp"},
		{"own close-write,close-read", func(t *testing.T, near, far halfCloser) {
			if runtime.GOOS != "linux" {
				t.Skip("told apart on Linux only")
			}
			near.CloseWrite()
			near.CloseRead()
		}, Open, "", nil, "tcp"},
		{"rst", func(t *testing.T, near, far halfCloser) {
			far.(*net.TCPConn).SetLinger(0)
			far.Close()
		}, Broken, "", syscall.ECONNRESET, "tcp"},
		{"data,rst", func(t *testing.T, near, far halfCloser) {
			far.Write([]byte("abc"))
			eventually(t, "the data is there", func() bool { s, err := Alive(near); return err != nil || s == HasData })
			far.(*net.TCPConn).SetLinger(0)
			far.Close()
		}, HasData, "abc", syscall.ECONNRESET, "tcp"},
		{"half-close,rst", func(t *testing.T, near, far halfCloser) {
			far.CloseWrite()
			eventually(t, "the FIN is there", func() bool { s, err := Alive(near); return err != nil || s == PeerClosed })
			far.(*net.TCPConn).SetLinger(0)
			far.Close()
		}, Broken, "", syscall.EPIPE, "tcp"},
		{"unread,close", func(t *testing.T, near, far halfCloser) {
			near.Write([]byte("never read"))
			if _, ok := near.(*net.TCPConn); ok {
				eventually(t, "the data is there", func() bool { s, err := Alive(far); return err != nil || s == HasData })
			}
			far.Close() // both TCP and Unix answer with a reset
		}, Broken, "", syscall.ECONNRESET, ""},
	}
	bothSystems(t, func(t *testing.T, stub bool) {
		for _, network := range []string{"tcp", "unix"} {
			for _, c := range cases {
				if c.only != "" && c.only != network {
					continue
				}
				t.Run(network+"/"+c.name, func(t *testing.T) {
					near, far := pair(t, network)
					c.do(t, near.(halfCloser), far.(halfCloser))
					aliveIs(t, near, c.want, stub)
					if stub {
						return
					}
					if errors.Is(c.err, os.ErrDeadlineExceeded) {
						near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
					}
					got, err := io.ReadAll(near)
					require.Equal(t, c.read, string(got), "what a read finds after Alive")
					if c.err == syscall.EPIPE && runtime.GOOS == "linux" || c.err == nil {
						if c.err == nil {
							require.NoError(t, err, "how the stream ends after Alive")
						}
						return // Linux reports a reset behind a FIN as EPIPE
					}
					require.ErrorIs(t, err, c.err, "how the stream ends after Alive")
				})
			}
		}
	})
}

// A half-closed connection is still good for writing, which is why PeerClosed is not Broken.
func TestAliveHalfCloseStillWrites(t *testing.T) {
	near, far := pair(t, "tcp")
	require.NoError(t, far.(*net.TCPConn).CloseWrite())
	aliveIs(t, near, PeerClosed, false)
	_, err := near.Write([]byte("late answer"))
	require.NoError(t, err)
	near.Close()
	got, err := io.ReadAll(far)
	require.NoError(t, err)
	require.Equal(t, "late answer", string(got))
}

func TestAliveOwnClose(t *testing.T) {
	near, _ := pair(t, "tcp")
	k, err := NewChecker(near)
	require.NoError(t, err)
	near.Close()
	for range 2 {
		state, err := Alive(near)
		require.ErrorIs(t, err, net.ErrClosed)
		require.Equal(t, Unknown, state)
		state, err = k.State()
		require.ErrorIs(t, err, net.ErrClosed)
		require.Equal(t, Unknown, state)
	}
}

// A query must neither wait for the reader's lock nor fail for a deadline that has passed, nor
// disarm one that has not.
func TestAliveDeadlines(t *testing.T) {
	near, far := pair(t, "tcp")
	near.SetDeadline(time.Unix(1, 0))
	aliveIs(t, near, Open, false)
	far.Write([]byte("x"))
	aliveIs(t, near, HasData, false)
	_, err := near.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the deadline is still there")
	near.SetDeadline(time.Time{})
	_, err = near.Read(make([]byte, 1))
	require.NoError(t, err, "the byte is still there")

	near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	aliveIs(t, near, Open, false)
	_, err = near.Read(make([]byte, 1))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the deadline is still armed")
}

// While a reader takes bytes as they come, queries from several goroutines take none and
// delay none; and when the peer resets, the reader gets the reset and not a clean end, however the
// query falls into the moment.
// acceptance: B05
func TestAliveConcurrentReader(t *testing.T) {
	rounds := 40
	if os.Getenv("GOSTKIT_LONG") != "" {
		rounds = 2000
	}
	message := bytes.Repeat([]byte("0123456789abcdef"), 256)
	for range rounds {
		near, far := pair(t, "tcp")
		stop := make(chan struct{})
		var askers sync.WaitGroup
		for range 3 {
			askers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if state, err := Alive(near); err != nil || state == Unknown {
						t.Errorf("Alive beside a reader: %v, %v", state, err)
						return
					}
				}
			})
		}
		got := make([]byte, len(message))
		read := make(chan error, 1)
		halfway := make(chan struct{})
		go func() {
			_, err := io.ReadFull(near, got)
			close(halfway)
			if err == nil {
				_, err = near.Read(make([]byte, 1))
			}
			read <- err
		}()
		for b := message; len(b) > 0; b = b[512:] {
			_, err := far.Write(b[:512])
			require.NoError(t, err)
		}
		<-halfway
		far.(*net.TCPConn).SetLinger(0)
		far.Close()
		require.ErrorIs(t, <-read, syscall.ECONNRESET, "the reader's error")
		close(stop)
		askers.Wait()
		require.Equal(t, message, got, "the reader's bytes")
		near.Close()
	}
}

// acceptance: B05
func TestAliveThroughTLS(t *testing.T) {
	near, far := pair(t, "tcp")
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	require.NoError(t, client.Handshake())
	require.NoError(t, <-shaken)

	aliveIs(t, client, Open, false)
	aliveIs(t, wrapped{wrapped{client}}, Open, false)
	_, err := server.Write([]byte("secret"))
	require.NoError(t, err)
	aliveIs(t, client, HasData, false)
	b := make([]byte, 16)
	n, err := client.Read(b)
	require.NoError(t, err)
	require.Equal(t, "secret", string(b[:n]), "nothing was taken from the stream")
	far.Close()
	aliveIs(t, wrapped{client}, PeerClosed, false)
}

// gathering is a connection whose writes, once on is set, leave together when flush is called.
type gathering struct {
	net.Conn
	on bool
	b  []byte
}

func (g *gathering) Write(p []byte) (int, error) {
	if !g.on {
		return g.Conn.Write(p)
	}
	g.b = append(g.b, p...)
	return len(p), nil
}

func (g *gathering) flush(t *testing.T) {
	_, err := g.Conn.Write(g.b)
	require.NoError(t, err)
	g.b = nil
}

// Beside TLS, the state is that of the socket: bytes may be no data, and data may be no longer in
// the socket.
func TestAliveBesideTLSKnowsOnlyTheSocket(t *testing.T) {
	near, far := pair(t, "tcp")
	config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
	shaken := make(chan error, 1)
	// A server that asks for a certificate sends the session ticket after the handshake.
	ticket := config.Clone()
	ticket.ClientAuth = tls.RequestClientCert
	go func() { shaken <- tls.Server(far, ticket).Handshake() }()
	cache := tls.NewLRUClientSessionCache(1)
	client := tls.Client(near, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: cache})
	require.NoError(t, client.Handshake())
	require.NoError(t, <-shaken)
	aliveIs(t, client, HasData, false) // the session ticket of TLS 1.3
	near.Close()

	near, far = pair(t, "tcp")
	out := &gathering{Conn: far}
	server := tls.Server(out, config)
	client = tls.Client(near, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	go func() { shaken <- server.Handshake() }()
	require.NoError(t, client.Handshake())
	require.NoError(t, <-shaken)
	out.on = true
	for _, s := range []string{"one", "two"} { // a record each
		_, err := server.Write([]byte(s))
		require.NoError(t, err)
	}
	aliveIs(t, client, Open, false)
	out.flush(t)
	aliveIs(t, client, HasData, false)
	b := make([]byte, 16)
	n, err := client.Read(b)
	require.NoError(t, err)
	require.Equal(t, "one", string(b[:n]))
	aliveIs(t, client, Open, false) // the second record is in the tls.Conn already
	n, err = client.Read(b)
	require.NoError(t, err)
	require.Equal(t, "two", string(b[:n]))

	out.on = false
	require.NoError(t, server.CloseWrite())
	aliveIs(t, client, HasData, false) // a close_notify
	_, err = client.Read(b)
	require.Equal(t, io.EOF, err)
	aliveIs(t, client, Open, false) // at its end, and the socket is not
}

// wrapped hides everything of a connection but the way to it.
type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// cyclic is a wrapper gone wrong.
type cyclic struct{ net.Conn }

func (c cyclic) NetConn() net.Conn { return c }

func TestAliveUnsupported(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	type bare struct{ net.Conn }
	for _, c := range []net.Conn{a, wrapped{a}, wrapped{}, cyclic{a}, bare{a}, nil} {
		state, err := Alive(c)
		require.ErrorIs(t, err, errors.ErrUnsupported, "Alive(%T)", c)
		require.Equal(t, Unknown, state, "Alive(%T)", c)
		_, err = NewChecker(c)
		require.ErrorIs(t, err, errors.ErrUnsupported, "NewChecker(%T)", c)
	}
	state, err := Alive((*net.TCPConn)(nil))
	require.Error(t, err)
	require.Equal(t, Unknown, state)
}

// On a connected UDP socket a refusal waits as an error: it is seen and stays for the reader. An
// empty datagram is data and no end of stream.
func TestAliveUDP(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		server, addr := listenUDP(t, "127.0.0.1")
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
		require.NoError(t, err)
		defer c.Close()
		aliveIs(t, c, Open, stub)
		_, err = server.WriteToUDPAddrPort(nil, c.LocalAddr().(*net.UDPAddr).AddrPort())
		require.NoError(t, err)
		aliveIs(t, c, HasData, stub)
		n, err := c.Read(make([]byte, 1))
		require.NoError(t, err)
		require.Zero(t, n)
		aliveIs(t, c, Open, stub)

		server.Close()
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		if runtime.GOOS != "linux" || stub {
			return
		}
		aliveIs(t, c, Broken, stub)
		_, err = c.Read(make([]byte, 1))
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "the error is still there")
		aliveIs(t, c, Open, stub)
	})
}

func TestAliveAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under the race detector")
	}
	near, _ := pair(t, "tcp")
	k, err := NewChecker(near)
	require.NoError(t, err)
	require.Zero(t, fewestAllocs(200, func() {
		if s, _ := k.State(); s != Open {
			t.Fatal(s)
		}
	}), "Checker.State")
	require.LessOrEqual(t, fewestAllocs(200, func() {
		if s, _ := Alive(near); s != Open {
			t.Fatal(s)
		}
	}), 1.0, "Alive")
}

func TestStateString(t *testing.T) {
	for s, want := range map[State]string{Unknown: "unknown", Open: "open", HasData: "has data",
		PeerClosed: "peer closed", Broken: "broken", 99: "invalid state"} {
		require.Equal(t, want, s.String())
	}
	for s, want := range map[ProbeState]string{Skipped: "skipped", Answered: "answered",
		Refused: "refused", Silent: "silent", 99: "invalid probe state"} {
		require.Equal(t, want, s.String())
	}
}

// selfSigned makes a certificate for the tests.
func selfSigned(t testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// idleRaw is a syscall.RawConn that reports success and does nothing.
type idleRaw struct{ syscall.RawConn }

func (idleRaw) Control(func(fd uintptr)) error { return nil }

type rawWrapper struct {
	net.Conn
	rc syscall.RawConn
}

func (w rawWrapper) SyscallConn() (syscall.RawConn, error) { return w.rc, nil }

// TestOddRawConn: a wrapper whose SyscallConn yields nil, or a RawConn that runs nothing, has no
// descriptor that can be asked.
// case: 12
func TestOddRawConn(t *testing.T) {
	c, peer := net.Pipe()
	defer c.Close()
	defer peer.Close()
	for name, rc := range map[string]syscall.RawConn{"nil": nil, "idle": idleRaw{}} {
		conn := rawWrapper{c, rc}
		s, err := Alive(conn)
		require.Equal(t, Unknown, s, name)
		require.ErrorIs(t, err, errors.ErrUnsupported, name)
		_, err = SendQueue(conn)
		require.ErrorIs(t, err, errors.ErrUnsupported, name)
		if k, err := NewChecker(conn); err == nil {
			_, err = k.State()
			require.ErrorIs(t, err, errors.ErrUnsupported, name)
		} else {
			require.ErrorIs(t, err, errors.ErrUnsupported, name)
		}
		o := SocketOptions{ReadBuffer: 1 << 16}
		require.ErrorIs(t, o.Apply(conn), errors.ErrUnsupported, name)
	}
}
