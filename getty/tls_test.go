// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// secureCarriers are the carriers with TLS.
func secureCarriers() (all []carrier) {
	for _, c := range carriers {
		if c.name == "tls" || c.name == "wss" {
			all = append(all, c)
		}
	}
	return all
}

// A TLS server speaks no plain text: neither when its address is incomplete, nor when a peer does.
// Such a peer costs one line of the log that says so, and its own connection.
//
// acceptance: S01
// fault: 50
func TestPlainTextOnATLSPort(t *testing.T) {
	for _, c := range secureCarriers() {
		t.Run(c.name, func(t *testing.T) {
			require.ErrorContains(t, c.server(getty.WithLocalAddress("127.0.0.1")).
				RunEventLoop(prepare(newTracer(t))), "Addr")
			book := newLogBook()
			srv := c.server(func(o *getty.ServerOptions) { o.Logger = book.Logger })
			run(t, srv, prepare(newTracer(t)))
			for _, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x00\x00\x00\x05hello"} {
				conn := dial(t, srv)
				_, err := conn.Write([]byte(text))
				require.NoError(t, err)
				_, err = io.Copy(io.Discard, conn)
				var timeout net.Error
				require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "still open: %v", err)
			}
			eventually(t, "both are refused", func() bool { return srv.Stats().Refused == 2 })
			eventually(t, "both are logged", func() bool {
				return book.count("plain text came to a TLS port") == 2
			})
			require.Zero(t, srv.Stats().Opened)
		})
	}
}

// readyError returns the error of a client that cannot get ready.
func readyError(t testing.TB, c *getty.Client) error {
	t.Helper()
	eventually(t, "a dial has failed", func() bool { return c.Stats().DialErrs > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := c.Ready(ctx)
	require.Error(t, err)
	return err
}

// A client takes no certificate of another host or of an unknown authority, and none that is out of
// date. It says so to its caller and backs off.
//
// acceptance: S03
// fault: 52
func TestClientVerifiesItsServer(t *testing.T) {
	a, other := newAuthority(), newAuthority()
	for name, test := range map[string]struct {
		cert   tls.Certificate
		client *tls.Config
		want   string
	}{
		"right":      {a.issue(), &tls.Config{RootCAs: a.pool()}, ""},
		"wrong host": {a.issue("elsewhere.example"), &tls.Config{RootCAs: a.pool()}, "certificate"},
		"wrong name": {a.issue(), &tls.Config{RootCAs: a.pool(), ServerName: "x.example"}, "x.example"},
		"wrong CA":   {other.issue(), &tls.Config{RootCAs: a.pool()}, "unknown authority"},
		"no CA":      {a.issue(), &tls.Config{}, "authority"},
		"late": {a.issue(), &tls.Config{RootCAs: a.pool(), Time: func() time.Time {
			return time.Now().Add(48 * time.Hour)
		}}, "expired"},
		"opt-out": {other.issue("x"), &tls.Config{InsecureSkipVerify: true}, ""}, //nolint:gosec
	} {
		t.Run(name, func(t *testing.T) {
			srv := getty.NewTCPServer(getty.WithServerTLS(&tls.Config{Certificates: []tls.Certificate{test.cert}}))
			run(t, srv, prepare(newTracer(t)))
			client := getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()),
				getty.WithClientTLS(test.client), getty.WithReconnectInterval(time.Hour))
			run(t, client, prepare(newTracer(t)))
			if test.want == "" {
				ready(t, client)
				return
			}
			require.ErrorContains(t, readyError(t, client), test.want)
			require.EqualValues(t, 1, client.Stats().Dials, "it backs off")
		})
	}
}

// With a CA file a server wants a certificate that this authority has issued, from every client;
// without one it wants none.
//
// acceptance: S02
// fault: 52
func TestMutualTLS(t *testing.T) {
	a, other := newAuthority(), newAuthority()
	dir := t.TempDir()
	writePEM(t, dir, "server", a.issue(), nil)
	writePEM(t, dir, "client", a.issue(), nil)
	writePEM(t, dir, "stranger", other.issue(), nil)
	writePEM(t, dir, "root", tls.Certificate{}, a)
	files := func(name, ca string) *getty.TLSFiles {
		f := new(getty.TLSFiles)
		if name != "" {
			f.Certificate = filepath.Join(dir, name+".crt")
			f.Key = filepath.Join(dir, name+".key")
		}
		if ca != "" {
			f.CA = filepath.Join(dir, ca)
		}
		return f
	}
	for _, c := range []string{"tls", "wss"} {
		for _, test := range []struct {
			serverCA, client string
			ok               bool
		}{{"", "", true}, {"", "stranger", true}, {"root.ca", "client", true}, {"root.ca", "", false},
			{"root.ca", "stranger", false}} {
			t.Run(fmt.Sprintf("%s/%s/%s", c, test.serverCA, test.client), func(t *testing.T) {
				l := newTracer(t)
				l.message = echoPkg
				serverOption := getty.WithServerTLSFiles(files("server", test.serverCA))
				clientOption := getty.WithClientTLSFiles(files(test.client, "root.ca"))
				srv, client := getty.NewTCPServer(serverOption), (*getty.Client)(nil)
				if c == "wss" {
					srv = getty.NewWSServer(serverOption)
				}
				run(t, srv, prepare(l))
				addr := srv.Addr().String()
				if c == "tls" {
					client = getty.NewTCPClient(clientOption, getty.WithServerAddress(addr))
				} else {
					client = getty.NewWSClient(clientOption, getty.WithServerAddress("wss://"+addr+"/"))
				}
				got := make(chan string, 1)
				cl := newTracer(t)
				cl.message = func(_ getty.Session, pkg any) { got <- pkg.(*codec.Frame).String() }
				cl.open = func(s getty.Session) error { _, _, err := s.WritePkg("hello", 0); return err }
				run(t, client, prepare(cl))
				if test.ok {
					require.Equal(t, "hello", within(t, got, "the echo"))
					return
				}
				eventually(t, "it is refused", func() bool { return srv.Stats().Refused > 0 })
				require.Zero(t, srv.Stats().Opened)
			})
		}
	}
}

// The certificate of each new connection is the one that was read last, and the authority too,
// while sessions come, go and talk. Open ones stay. A Reload that fails changes nothing. Tickets of
// sessions that a withdrawn authority vouched for are worth nothing.
//
// acceptance: S04
func TestCertificatesAreReloadedUnderLoad(t *testing.T) {
	a, dir := newAuthority(), t.TempDir()
	first := a.issue()
	writePEM(t, dir, "server", first, nil)
	writePEM(t, dir, "client", a.issue(), nil)
	writePEM(t, dir, "root", tls.Certificate{}, a)
	in := func(name string) string { return filepath.Join(dir, name) }
	serverFiles := &getty.TLSFiles{Certificate: in("server.crt"), Key: in("server.key"), CA: in("root.ca")}
	clientFiles := &getty.TLSFiles{Certificate: in("client.crt"), Key: in("client.key"), CA: in("root.ca")}
	l := newTracer(t)
	l.message = echoPkg
	srv := getty.NewTCPServer(getty.WithServerTLSFiles(serverFiles))
	run(t, srv, prepare(l))
	tickets := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(8), ServerName: "localhost"}
	newClient := func() *getty.Client {
		return getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()),
			getty.WithClientTLSFiles(clientFiles), getty.WithClientTLS(tickets),
			getty.WithReconnectInterval(time.Millisecond))
	}
	listener := func() (*tracer, chan string) {
		l, answers := newTracer(t), make(chan string, 1)
		l.message = func(_ getty.Session, pkg any) { answers <- pkg.(*codec.Frame).String() }
		return l, answers
	}
	cl, answers := listener()
	old := newClient()
	run(t, old, prepare(cl))
	oldest := ready(t, old)
	serial := func(s getty.Session) int64 {
		st, ok := s.ConnectionState()
		require.True(t, ok)
		return st.PeerCertificates[0].SerialNumber.Int64()
	}
	require.Equal(t, first.Leaf.SerialNumber.Int64(), serial(oldest))

	stop := make(chan struct{})
	var load sync.WaitGroup
	var rounds atomic.Int64
	for range 3 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				cl, answers := listener()
				c := newClient()
				if err := c.RunEventLoop(prepare(cl)); err != nil {
					t.Error(err)
					return
				}
				s := ready(t, c)
				_, _, _ = s.WritePkg("load", patience)
				within(t, answers, "an answer under load")
				rounds.Add(1)
				c.Close()
				within(t, c.Done(), "Done")
			}
		})
	}
	await := func(n int64) {
		from := rounds.Load()
		eventually(t, "rounds of load", func() bool { return rounds.Load() >= from+n })
	}
	await(5)
	second := a.issue()
	writePEM(t, dir, "server", second, nil)
	require.NoError(t, serverFiles.Reload())
	await(5)
	require.NoError(t, os.WriteFile(in("server.crt"), []byte("nonsense"), 0o600))
	require.ErrorContains(t, serverFiles.Reload(), "server.crt")
	await(5)
	close(stop)
	load.Wait()
	require.Zero(t, srv.Stats().Refused)

	tickets.ClientSessionCache = tls.NewLRUClientSessionCache(8) // a resumed session has the old one
	fresh := newClient()
	run(t, fresh, prepare(cl))
	require.Equal(t, second.Leaf.SerialNumber.Int64(), serial(ready(t, fresh)))
	_, _, err := oldest.WritePkg("still here", 0)
	require.NoError(t, err)
	require.Equal(t, "still here", within(t, answers, "the answer to the oldest session"))

	// Both authorities change. The client shows its ticket; its certificate is not good any more.
	other := newAuthority()
	writePEM(t, dir, "server", second, nil)
	require.NoError(t, os.Rename(in("root.ca"), in("old.ca")))
	writePEM(t, dir, "root", tls.Certificate{}, other)
	require.NoError(t, serverFiles.Reload())
	stranger := newClient()
	run(t, stranger, prepare(newTracer(t)))
	eventually(t, "it is refused", func() bool { return srv.Stats().Refused > 0 })
}

// A client that has a ticket resumes, and sessions tell what was agreed: name, protocol, version.
//
// acceptance: S04
func TestWhatTheHandshakeAgreed(t *testing.T) {
	l := newTracer(t)
	conf := localTLS().server.Clone()
	conf.NextProtos = []string{"getty/2", "getty/1"}
	srv := getty.NewTCPServer(getty.WithServerTLS(conf))
	l.open = func(s getty.Session) error {
		st, ok := s.ConnectionState()
		require.True(t, ok)
		require.Equal(t, "localhost", st.ServerName)
		require.Equal(t, "getty/1", st.NegotiatedProtocol)
		require.GreaterOrEqual(t, st.Version, uint16(tls.VersionTLS12))
		_, _, err := s.WritePkg("hello", 0) // tickets come before it
		return err
	}
	run(t, srv, prepare(l))
	client := localTLS().client.Clone()
	client.NextProtos = []string{"getty/1"}
	client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for i := range 2 {
		cl, got := newTracer(t), make(chan any, 1)
		cl.message = func(_ getty.Session, pkg any) { got <- nil }
		c := getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()), getty.WithClientTLS(client))
		run(t, c, prepare(cl))
		st, ok := ready(t, c).ConnectionState()
		require.True(t, ok)
		require.Equal(t, "getty/1", st.NegotiatedProtocol)
		require.Equal(t, i > 0, st.DidResume)
		within(t, got, "the hello")
	}
	plain := serve(t, prepare(newTracer(t)))
	c := getty.NewTCPClient(getty.WithServerAddress(plain.Addr().String()))
	run(t, c, prepare(newTracer(t)))
	_, ok := ready(t, c).ConnectionState()
	require.False(t, ok)
}

// What is wrong with TLS options is an error of RunEventLoop that names the option or the file.
//
// acceptance: L09, S04
func TestBadTLSOptions(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority()
	writePEM(t, dir, "x", a.issue(), nil)
	in := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(in("empty"), nil, 0o600))
	cert := localTLS().server.Certificates
	server := func(c *tls.Config, f *getty.TLSFiles) getty.EndPoint {
		return getty.NewTCPServer(getty.WithServerTLS(c), getty.WithServerTLSFiles(f))
	}
	client := func(c *tls.Config, f *getty.TLSFiles) getty.EndPoint {
		return getty.NewTCPClient(getty.WithServerAddress("localhost:9"), getty.WithClientTLS(c),
			getty.WithClientTLSFiles(f))
	}
	for want, e := range map[string]getty.EndPoint{
		"needs a certificate":  server(&tls.Config{}, nil),
		"below TLS 1.2":        server(&tls.Config{Certificates: cert, MinVersion: tls.VersionTLS10}, nil), //nolint:gosec
		"MaxVersion":           client(&tls.Config{MaxVersion: tls.VersionTLS11}, nil),
		"Renegotiation":        client(&tls.Config{Renegotiation: tls.RenegotiateOnceAsClient}, nil),
		"needs a Certificate":  server(nil, &getty.TLSFiles{}),
		"needs its Key":        client(nil, &getty.TLSFiles{Certificate: in("x.crt")}),
		"no-such.crt":          server(nil, &getty.TLSFiles{Certificate: in("no-such.crt"), Key: in("x.key")}),
		"no certificate in":    client(nil, &getty.TLSFiles{CA: in("empty")}),
		"no-such.ca":           client(nil, &getty.TLSFiles{CA: in("no-such.ca")}),
		"InsecureSkipVerify":   client(&tls.Config{InsecureSkipVerify: true}, &getty.TLSFiles{CA: in("empty")}), //nolint:gosec
		"begin with wss://":    getty.NewWSClient(getty.WithServerAddress("ws://x"), getty.WithClientTLS(&tls.Config{})),
		"use the option TLS":   getty.NewUDPClient(getty.WithServerAddress("localhost:9"), getty.WithClientTLS(&tls.Config{})),
		"the option TLSFiles":  getty.NewUDPEndPoint(getty.WithServerTLSFiles(&getty.TLSFiles{})),
		"ws://host:port/path ": getty.NewWSClient(getty.WithServerAddress("https://x")),
	} {
		require.ErrorContains(t, e.RunEventLoop(prepare(newTracer(t))), want)
		e.Close()
	}
}

// A function of the user's configuration that panics costs one handshake.
func TestTLSFunctionsThatPanic(t *testing.T) {
	conf := localTLS().server.Clone()
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { panic("server") }
	srv := getty.NewTCPServer(getty.WithServerTLS(conf))
	run(t, srv, prepare(newTracer(t)))
	client := localTLS().client.Clone()
	c := getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()), getty.WithClientTLS(client),
		getty.WithReconnectInterval(time.Hour))
	run(t, c, prepare(newTracer(t)))
	require.Error(t, readyError(t, c))

	good := getty.NewTCPServer(getty.WithServerTLS(localTLS().server))
	run(t, good, prepare(newTracer(t)))
	client.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { panic("client") }
	c = getty.NewTCPClient(getty.WithServerAddress(good.Addr().String()), getty.WithClientTLS(client),
		getty.WithReconnectInterval(time.Hour))
	run(t, c, prepare(newTracer(t)))
	require.ErrorContains(t, readyError(t, c), "client")
}

// A peer that never reads ends its session with ErrWriteTimeout, once, and no zombie stays. A
// handshake that does not come is cut. Both while the session beside them talks.
//
// acceptance: W14, R02
// fault: 51
func TestTLSTimeouts(t *testing.T) {
	l := newTracer(t)
	l.message = echoPkg
	srv := getty.NewTCPServer(getty.WithServerTLS(localTLS().server), func(o *getty.ServerOptions) {
		o.HandshakeTimeout, o.WriteTimeout = 100*time.Millisecond, 200*time.Millisecond
		o.Socket.WriteBuffer = 16 << 10
	})
	run(t, srv, prepare(l))
	silent := silentPeers(t, srv.Addr(), 20)
	p := dialTLS(t, srv)
	require.NoError(t, p.conn.SetReadBuffer(4<<10))
	s := within(t, l.opened, "OnOpen")
	for range 8 {
		if _, _, err := s.WritePkg(noise(1<<20), 0); err != nil {
			break
		}
	}
	require.Equal(t, s, within(t, l.closed, "OnClose"))
	require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
	require.Len(t, l.of(s).errs, 1)
	_, _, err := s.WritePkg("x", 0)
	require.ErrorIs(t, err, getty.ErrSessionClosed)
	for _, conn := range silent {
		_, err := conn.Read(make([]byte, 1))
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "still open: %v", err)
	}
}

// A record that was changed on the way ends its session with an alert, and no other.
//
// fault: 53
func TestChangedRecord(t *testing.T) {
	l := newTracer(t)
	l.message = echoPkg
	srv := getty.NewTCPServer(getty.WithServerTLS(localTLS().server))
	run(t, srv, prepare(l))
	good, bad := dialTLS(t, srv), dialTLS(t, srv)
	within(t, l.opened, "OnOpen")
	within(t, l.opened, "OnOpen")
	for _, p := range []wirePeer{good, bad} {
		_, err := p.conn.Write(p.encode(frame("hello")))
		require.NoError(t, err)
		require.Equal(t, "hello", readFrame(t, p.conn))
	}
	record := append([]byte{23, 3, 3, 0, 40}, make([]byte, 40)...)
	_, err := bad.conn.(*tlsPeer).socket.Write(record)
	require.NoError(t, err)
	_, err = bad.conn.Read(make([]byte, 1))
	require.ErrorContains(t, err, "bad record MAC", "the alert tells why")
	s := within(t, l.closed, "OnClose")
	require.ErrorContains(t, s.Err(), "bad record MAC")
	require.Len(t, l.of(s).errs, 1)
	_, err = good.conn.Write(good.encode(frame("again")))
	require.NoError(t, err)
	require.Equal(t, "again", readFrame(t, good.conn))
}

// A stream that ends without close_notify may have been cut by somebody else: that is no clean end.
// After an own Close it is.
func TestTheEndWithoutAGoodbye(t *testing.T) {
	l := newTracer(t)
	srv := getty.NewTCPServer(getty.WithServerTLS(localTLS().server), patientClose)
	run(t, srv, prepare(l))
	p := dialTLS(t, srv)
	s := within(t, l.opened, "OnOpen")
	require.NoError(t, p.conn.(*tlsPeer).socket.CloseWrite())
	within(t, l.closed, "OnClose")
	require.ErrorIs(t, s.Err(), io.ErrUnexpectedEOF)

	p = dialTLS(t, srv)
	s = within(t, l.opened, "OnOpen")
	s.Close()
	_, err := io.Copy(io.Discard, p.conn)
	require.NoError(t, err, "close_notify")
	require.NoError(t, p.conn.(*tlsPeer).socket.Close())
	within(t, l.closed, "OnClose")
	require.NoError(t, s.Err())
}
