// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math"
	"math/big"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// Ready returns the session that it waited for: between it and Session the session might end.
//
// case: 40
func TestReadyReturnsTheSession(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		srv := c.server()
		run(t, srv, prepare(newTracer(t)))
		client := c.client(srv.Addr().String(), getty.WithReconnectInterval(time.Millisecond),
			func(o *getty.ClientOptions) { o.ReconnectMax = 2 * time.Millisecond })
		run(t, client, prepare(newTracer(t)))
		seen := make(map[getty.Session]bool)
		for range 20 {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			s, err := client.Ready(ctx)
			cancel()
			require.NoError(t, err)
			require.Equal(t, getty.EndPoint(client), s.EndPoint())
			require.False(t, seen[s], "one that has ended")
			seen[s] = true
			s.CloseNow()
		}
	})
}

// What zero and negative mean does not depend on who says it, the options or a setter.
//
// case: 40
func TestSettersAndOptionsAgree(t *testing.T) {
	for _, v := range []int64{0, -1, math.MinInt64, 1, 5000, math.MaxInt64} {
		n, d := int(max(min(v, math.MaxInt), math.MinInt)), time.Duration(v)
		eachCarrier(t, func(t *testing.T, c carrier) {
			limits := make(chan [6]int64, 2)
			srv := c.server(func(o *getty.ServerOptions) {
				o.MaxMsgLen, o.IdleTimeout = n, d
				o.WriteTimeout, o.WaitTime, o.CronPeriod = d, d, d
				if c.name != "udp" { // a datagram has no first and last byte
					o.ReadTimeout = d
				}
			})
			err := srv.RunEventLoop(func(s getty.Session) error {
				limits <- getty.Limits(s)
				s.SetMaxMsgLen(n)
				if c.name != "udp" {
					s.SetReadTimeout(d)
				}
				s.SetIdleTimeout(d)
				s.SetWriteTimeout(d)
				s.SetWaitTime(d)
				s.SetCronPeriod(d)
				limits <- getty.Limits(s)
				return errors.New("enough")
			})
			if c.name != "udp" { // whose only session is refused by now
				require.NoError(t, err)
				client := c.client(srv.Addr().String(),
					func(o *getty.ClientOptions) { o.ReconnectInterval = time.Hour })
				start(t, client, prepare(newTracer(t)))
				defer client.Close()
			}
			want := within(t, limits, "the limits of the options")
			require.Equal(t, want, within(t, limits, "those of the setters"), "%d", v)
			srv.Close()
			within(t, srv.Done(), "Done")
		})
	}
}

// A UDP endpoint's session is open when RunEventLoop has returned; one that does not open is its
// error.
//
// case: 40
func TestUDPEndpointIsOpen(t *testing.T) {
	for range 20 {
		l := newTracer(t)
		var addr atomic.Value
		srv := getty.NewUDPEndPoint()
		l.open = func(s getty.Session) error {
			runtime.Gosched()
			addr.Store(srv.Addr().String())
			return nil
		}
		run(t, srv, prepare(l, rawCodec{}))
		all := slices.Collect(srv.Sessions())
		require.Len(t, all, 1)
		require.Equal(t, srv.Addr().String(), all[0].LocalAddr())
		require.Equal(t, addr.Load(), all[0].LocalAddr())
		require.EqualValues(t, 1, srv.Stats().Opened)
	}
	refusal := errors.New("not today")
	l := newTracer(t)
	l.open = func(getty.Session) error { return refusal }
	for name, newSession := range map[string]getty.NewSessionCallback{
		"preparation": func(getty.Session) error { return refusal },
		"OnOpen":      prepare(l, rawCodec{}),
		"panic":       func(getty.Session) error { panic(refusal) },
	} {
		srv := getty.NewUDPEndPoint()
		err := srv.RunEventLoop(newSession)
		require.ErrorIs(t, err, refusal, name)
		require.ErrorIs(t, err, getty.ErrEndpointClosed, name)
		within(t, srv.Done(), "Done")
	}
	// Close does not wait for an OnOpen that takes its time, and neither does RunEventLoop then.
	hold, in, ran := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	l = newTracer(t)
	l.open = func(getty.Session) error { close(in); <-hold; return nil }
	srv := getty.NewUDPEndPoint()
	go func() { ran <- srv.RunEventLoop(prepare(l, rawCodec{})) }()
	within(t, in, "OnOpen")
	srv.Close()
	require.ErrorIs(t, within(t, ran, "RunEventLoop"), getty.ErrEndpointClosed)
	close(hold)
	within(t, srv.Done(), "Done")
	// An OnOpen that waits for the caller of RunEventLoop costs HandshakeTimeout.
	sessions := make(chan getty.Session)
	l = newTracer(t)
	l.open = func(s getty.Session) error { sessions <- s; return nil }
	srv = getty.NewUDPEndPoint(func(o *getty.ServerOptions) { o.HandshakeTimeout = time.Millisecond })
	run(t, srv, prepare(l, rawCodec{}))
	within(t, sessions, "the session")
}

// WriteBytes and WriteBytesArray count the caller's bytes, whatever a transport adds, and no bytes
// are nobody's fault.
//
// case: 40
func TestWriteBytesCounts(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		srv := c.server()
		run(t, srv, prepare(newTracer(t), rawCodec{})) // which takes a message of no bytes
		client := c.client(srv.Addr().String())
		run(t, client, prepare(newTracer(t)))
		s := ready(t, client)
		for _, size := range []int{1, 200, 50_000} {
			p := frame(strings.Repeat("x", size))
			n, err := s.WriteBytes(p)
			require.NoError(t, err)
			require.Equal(t, len(p), n)
			n, err = s.WriteBytesArray(p, p)
			require.NoError(t, err)
			require.Equal(t, 2*len(p), n)
		}
		for _, none := range [][]byte{nil, {}} {
			n, err := s.WriteBytes(none)
			require.NoError(t, err)
			require.Zero(t, n)
			n, err = s.WriteBytesArray(none, none)
			require.NoError(t, err)
			require.Zero(t, n)
		}
		require.False(t, s.IsClosed())
		s.CloseNow()
		_, err := s.WriteBytes(nil)
		require.ErrorIs(t, err, getty.ErrSessionClosed)
	})
}

// tlsListener is a listener as a user brings it, and what its clients need.
func tlsListener(t testing.TB) (net.Listener, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	require.NoError(t, err)
	return ln, &tls.Config{RootCAs: roots, ServerName: "localhost"}
}

// silentPeers connect and say nothing.
func silentPeers(t testing.TB, addr net.Addr, n int) (conns []net.Conn) {
	t.Helper()
	for range n {
		conn, err := net.Dial("tcp", addr.String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		conns = append(conns, conn)
	}
	return conns
}

// A peer that connects to a TLS listener of the user's and stays silent is cut by HandshakeTimeout,
// and never becomes a session.
//
// case: 40
func TestSilentTLSPeer(t *testing.T) {
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			ln, _ := tlsListener(t)
			srv := c.server(getty.WithListener(ln),
				func(o *getty.ServerOptions) { o.HandshakeTimeout = 50 * time.Millisecond })
			run(t, srv, prepare(newTracer(t)))
			for _, conn := range silentPeers(t, ln.Addr(), 10) {
				_, err := conn.Read(make([]byte, 1))
				require.Error(t, err)
				var timeout net.Error
				require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "still open: %v", err)
			}
			require.Zero(t, srv.Stats().Opened)
			if c.name == "tcp" {
				eventually(t, "they are counted", func() bool { return srv.Stats().Refused == 10 })
			}
		})
	}
}

// Silent peers of a TLS listener hold up nobody else.
//
// case: 40
func TestTLSPeerBesideSilentOnes(t *testing.T) {
	ln, conf := tlsListener(t)
	l := newTracer(t)
	l.message = echoPkg
	srv := getty.NewTCPServer(getty.WithListener(ln),
		func(o *getty.ServerOptions) { o.HandshakeTimeout = time.Hour })
	run(t, srv, prepare(l))
	silentPeers(t, ln.Addr(), 10)
	conn, err := tls.Dial("tcp", ln.Addr().String(), conf)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = conn.Write(frame("hello"))
	require.NoError(t, err)
	require.Equal(t, "hello", readFrame(t, conn))
	require.EqualValues(t, 1, srv.Stats().Opened)
}

// Handshakes count for MaxSessions, and the server's end does not wait for them.
//
// case: 40
func TestHandshakesAreBounded(t *testing.T) {
	ln, _ := tlsListener(t)
	srv := getty.NewTCPServer(getty.WithListener(ln), getty.WithMaxSessions(2),
		func(o *getty.ServerOptions) { o.HandshakeTimeout = time.Hour })
	start(t, srv, prepare(newTracer(t)))
	silentPeers(t, ln.Addr(), 3)
	eventually(t, "one is refused", func() bool { return srv.Stats().Refused == 1 })
	require.EqualValues(t, 3, srv.Stats().Accepts)
	srv.Close()
	within(t, srv.Done(), "Done")
}

// A badShake is a connection of the user's whose handshake goes wrong.
type badShake struct {
	net.Conn
	shake func()
}

func (c badShake) HandshakeContext(context.Context) error {
	c.shake()
	return nil
}

// A handshake that panics, ends its goroutine or does not look at its context costs its own
// connection.
//
// case: 40
func TestBadHandshakes(t *testing.T) {
	for name, shake := range map[string]func(net.Conn){
		"panic":    func(net.Conn) { panic("boom") },
		"Goexit":   func(net.Conn) { runtime.Goexit() },
		"deafness": func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			srv := serve(t, prepare(newTracer(t)),
				getty.WithListener(newHandedListener(badShake{ours, func() { shake(ours) }})),
				func(o *getty.ServerOptions) { o.HandshakeTimeout = 10 * time.Millisecond })
			_, err := theirs.Read(make([]byte, 1))
			require.Error(t, err, "closed")
			eventually(t, "it is counted", func() bool { return srv.Stats().Refused == 1 })
			require.Zero(t, srv.Stats().Opened)
		})
	}
}
