// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// serverTLS returns a certificate of its own making; the clients of these tests do not look at it.
var serverTLS = sync.OnceValue(func() *tls.Config {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
})

var clientTLS = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // loopback

// A logBook is a slog.Handler that keeps the lines.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
	*slog.Logger
}

func newLogBook() *logBook {
	b := &logBook{}
	b.Logger = slog.New(slog.NewTextHandler(b, nil))
	return b
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// count returns how many lines contain all of the words.
func (b *logBook) count(words ...string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
lines:
	for _, line := range strings.Split(b.buf.String(), "\n") {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		n++
	}
	return n
}

// An oddConn is a connection one of whose methods misbehaves.
type oddConn struct {
	net.Conn
	odd string
}

var oddities = []string{
	"Read panics", "Read exits", "Read lies", "Read is negative", "Write panics", "Write exits", "Write lies", "Write is negative",
	"Write is short", "Close panics", "Close does nothing", "LocalAddr panics", "LocalAddr is nil", "RemoteAddr panics",
	"RemoteAddr is nil", "RemoteAddr is a nil pointer", "RemoteAddr.String panics", "SetDeadline panics",
	"SetReadDeadline panics", "SetWriteDeadline panics", "SetDeadline fails", "CloseWrite panics", "NetConn panics",
	"NetConn is nil", "all are nil",
}

func (c *oddConn) does(method string) bool {
	odd, found := strings.CutPrefix(c.odd, method+" ")
	switch {
	case !found:
	case odd == "panics":
		panic(c.odd)
	case odd == "exits":
		runtime.Goexit()
	default:
		return true
	}
	return false
}

func (c *oddConn) Read(p []byte) (int, error) {
	if c.does("Read") {
		return map[string]int{"Read lies": len(p) + 1, "Read is negative": -1}[c.odd], nil
	}
	return c.Conn.Read(p)
}

func (c *oddConn) Write(p []byte) (int, error) {
	if c.does("Write") {
		return map[string]int{"Write lies": len(p) + 1, "Write is negative": -1, "Write is short": len(p) / 2}[c.odd], nil
	}
	return c.Conn.Write(p)
}

func (c *oddConn) Close() error {
	if c.does("Close") {
		return nil
	}
	return c.Conn.Close()
}

type oddAddr struct{}

func (*oddAddr) Network() string { return "odd" }
func (*oddAddr) String() string  { panic("String") }

func (c *oddConn) LocalAddr() net.Addr {
	if c.does("LocalAddr") {
		return nil
	}
	return c.Conn.LocalAddr()
}

func (c *oddConn) RemoteAddr() net.Addr {
	switch {
	case c.odd == "RemoteAddr is a nil pointer":
		return (*net.TCPAddr)(nil)
	case c.odd == "RemoteAddr.String panics":
		return (*oddAddr)(nil)
	case c.does("RemoteAddr"):
		return nil
	}
	return c.Conn.RemoteAddr()
}

func (c *oddConn) SetDeadline(t time.Time) error {
	if c.does("SetDeadline") {
		return errors.New("SetDeadline")
	}
	return c.Conn.SetDeadline(t)
}

func (c *oddConn) SetReadDeadline(t time.Time) error {
	c.does("SetReadDeadline")
	return c.Conn.SetReadDeadline(t)
}

func (c *oddConn) SetWriteDeadline(t time.Time) error {
	c.does("SetWriteDeadline")
	return c.Conn.SetWriteDeadline(t)
}

func (c *oddConn) CloseWrite() error {
	c.does("CloseWrite")
	return c.Conn.(*net.TCPConn).CloseWrite()
}

func (c *oddConn) NetConn() net.Conn {
	if c.does("NetConn") {
		return nil
	}
	return c.Conn
}

// odd makes conn misbehave.
func odd(conn net.Conn, how string) net.Conn {
	if how == "all are nil" {
		return (*oddConn)(nil)
	}
	return &oddConn{conn, how}
}

// An oddListener is a listener whose first connection is odd.
type oddListener struct {
	net.Listener
	odd   string
	first sync.Once
}

func (l *oddListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.first.Do(func() { conn = odd(conn, l.odd) })
	}
	return conn, err
}

// An oddHijacker is a http.ResponseWriter whose connection is odd.
type oddHijacker struct {
	http.ResponseWriter
	odd string
}

func (h oddHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if h.odd == "Hijack is nil" {
		_ = conn.Close()
		return nil, nil, nil
	}
	return odd(conn, h.odd), brw, nil
}

// A bringing is a way to give a user's connections to a server.
type bringing struct {
	name   string
	serve  func(t *testing.T, how string, prepare getty.NewSessionCallback, opts ...getty.ServerOption) (*getty.Server, net.Addr)
	secure bool
	web    bool
}

func bringings() []bringing {
	listen := func(make func(...getty.ServerOption) *getty.Server, secure bool) func(
		*testing.T, string, getty.NewSessionCallback, ...getty.ServerOption) (*getty.Server, net.Addr) {
		return func(t *testing.T, how string, prepare getty.NewSessionCallback, opts ...getty.ServerOption) (*getty.Server, net.Addr) {
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			var ln net.Listener = &oddListener{Listener: inner, odd: how}
			if secure {
				ln = tls.NewListener(ln, serverTLS())
			}
			srv := make(append(opts, getty.WithListener(ln))...)
			start(t, srv, prepare)
			return srv, inner.Addr()
		}
	}
	mount := func(t *testing.T, how string, prepare getty.NewSessionCallback, opts ...getty.ServerOption) (*getty.Server, net.Addr) {
		e := getty.WSHandler(prepare, opts...)
		var first sync.Once
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			first.Do(func() { w = oddHijacker{w, how} })
			e.ServeHTTP(w, r)
		}), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
		go func() { _ = hs.Serve(ln) }()
		t.Cleanup(func() { _ = hs.Close() })
		return e.Server, ln.Addr()
	}
	return []bringing{
		{"tcp", listen(getty.NewTCPServer, false), false, false},
		{"tls", listen(getty.NewTCPServer, true), true, false},
		{"ws", listen(getty.NewWSServer, false), false, true},
		{"wss", listen(getty.NewWSServer, true), true, true},
		{"mounted", mount, false, true},
	}
}

// echo asks the server for one echo.
func (b bringing) echo(addr net.Addr, limit time.Duration) (close func(), err error) {
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	close = func() { _ = conn.Close() }
	_ = conn.SetDeadline(time.Now().Add(limit))
	if b.secure {
		conn = tls.Client(conn, clientTLS)
	}
	if !b.web {
		if _, err = conn.Write(frame("hello")); err == nil {
			_, err = tryReadFrame(conn)
		}
		return close, err
	}
	d := websocket.Dialer{NetDial: func(string, string) (net.Conn, error) { return conn, nil }}
	ws, _, err := d.Dial("ws://"+addr.String()+"/", nil)
	if err != nil {
		return close, err
	}
	_ = conn.SetDeadline(time.Now().Add(limit))
	if err = ws.WriteMessage(websocket.BinaryMessage, frame("hello")); err == nil {
		_, _, err = ws.ReadMessage()
	}
	return close, err
}

// Whatever a method of a user's connection returns, or if it panics or ends its goroutine, it costs
// that one connection at most: the next one is served, and the server ends.
//
// case: 12
func TestOddConnections(t *testing.T) {
	for _, b := range bringings() {
		t.Run(b.name, func(t *testing.T) {
			list := oddities
			if b.name == "mounted" {
				list = append([]string{"Hijack is nil"}, list...)
			}
			for _, how := range list {
				for _, full := range []bool{false, true} { // full: the odd connection is refused as well
					oddOnce(t, b, how, full)
				}
			}
		})
	}
}

func oddOnce(t *testing.T, b bringing, how string, full bool) {
	t.Helper()
	l := newTracer(t)
	l.message = echoPkg
	var refuse atomic.Bool
	refuse.Store(full)
	srv, addr := b.serve(t, how, func(s getty.Session) error {
		_ = s.Stat() + s.LocalAddr() + s.RemoteAddr()
		if refuse.Load() {
			return errors.New("refused")
		}
		return prepare(l)(s)
	}, getty.WithServerDispatch(getty.Inline), func(o *getty.ServerOptions) {
		o.WaitTime = 50 * time.Millisecond
		o.WriteTimeout = 100 * time.Millisecond // its clock asks for the bytes in the kernel
	})
	closeOdd, _ := b.echo(addr, 50*time.Millisecond)
	refuse.Store(false)
	closeSecond, err := b.echo(addr, patience)
	require.NoError(t, err, "%s: the next connection", how)
	closeOdd()
	closeSecond()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = srv.Shutdown(ctx)
	require.NoError(t, err, "%s: Shutdown", how)
}

// A writer that has to wait for an odd connection gets an error, and the session its end; the
// wheel, which asks for the bytes in the kernel, survives.
//
// case: 12
func TestOddConnectionThatIsStuck(t *testing.T) {
	for _, how := range []string{"NetConn panics", "NetConn is nil", "Close panics", "CloseWrite panics"} {
		l := newTracer(t)
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		srv := serve(t, prepare(l), getty.WithListener(&oddListener{Listener: inner, odd: how}), func(o *getty.ServerOptions) {
			o.WriteTimeout = 50 * time.Millisecond
		})
		c, err := net.Dial("tcp", inner.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		s := within(t, l.opened, "OnOpen")
		for err == nil {
			_, _, err = s.WritePkg(strings.Repeat("x", 1<<20), -1)
		}
		require.ErrorIs(t, err, getty.ErrWriteTimeout, how)
		require.NoError(t, c.Close())
		within(t, l.closed, "OnClose")
		require.EqualValues(t, 1, srv.Stats().Opened)
	}
}

// A fickleListener does what its script says before it behaves.
type fickleListener struct {
	net.Listener
	odd    string
	script chan string
	closed atomic.Bool
}

// A lateListener waits before it tells its address, for which a server asks while it starts.
type lateListener struct {
	*fickleListener
	wait func()
}

func (l lateListener) Addr() net.Addr {
	l.wait()
	return l.fickleListener.Addr()
}

func (l *fickleListener) Accept() (net.Conn, error) {
	select {
	case what := <-l.script:
		switch what {
		case "panic":
			panic("Accept")
		case "exit":
			runtime.Goexit()
		}
		return nil, nil
	default:
		return l.Listener.Accept()
	}
}

func (l *fickleListener) Addr() net.Addr {
	switch l.odd {
	case "Addr panics":
		panic(l.odd)
	case "Addr is nil":
		return nil
	}
	return l.Listener.Addr()
}

func (l *fickleListener) Close() error {
	err := l.Listener.Close()
	l.closed.Store(true)
	if l.odd == "Close panics" {
		panic(l.odd)
	}
	return err
}

// Whatever a user's listener does, the server goes on or ends; it does not take the process with
// it, and it is never deaf without a word.
//
// case: 12
func TestOddListeners(t *testing.T) {
	for _, c := range carriers[:2] {
		for _, how := range []string{"", "Addr panics", "Addr is nil", "Close panics"} {
			l := newTracer(t)
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			ln := &fickleListener{Listener: inner, odd: how, script: make(chan string, 9)}
			ln.script <- "panic"
			ln.script <- "nil"
			book := newLogBook()
			srv := c.server(getty.WithListener(ln), func(o *getty.ServerOptions) { o.Logger = book.Logger })
			run(t, srv, prepare(l))
			client := c.client(inner.Addr().String())
			run(t, client, prepare(newTracer(t)))
			ready(t, client)
			within(t, l.opened, "OnOpen")
			require.Equal(t, 1, book.count("accept failed", "panic in net.Listener.Accept"))
			require.Equal(t, 1, book.count("accept failed", "neither a connection nor an error"))
			srv.Close()
			within(t, srv.Done(), "Done")
		}
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		ln := &fickleListener{Listener: inner, script: make(chan string, 9)}
		ln.script <- "exit"
		srv := c.server(getty.WithListener(lateListener{ln, func() {
			eventually(t, "the server has closed itself", ln.closed.Load)
		}}))
		err = srv.Serve(context.Background(), prepare(newTracer(t)))
		require.ErrorContains(t, err, "net.Listener.Accept called runtime.Goexit")
		require.ErrorIs(t, err, getty.ErrEndpointClosed)
	}
}

// An error of accept that nobody has thought of is survived and logged, by every kind of server.
//
// case: 14
func TestAcceptErrorsOnEveryServer(t *testing.T) {
	errs := []error{
		syscall.ENOMEM, syscall.ENOBUFS, syscall.EPERM, syscall.EPROTO, syscall.ENETDOWN, syscall.EHOSTUNREACH,
		errors.New("no such error"), fmt.Errorf("wrapped: %w", syscall.EIO),
	}
	for _, c := range carriers[:2] {
		for _, odd := range errs {
			l := newTracer(t)
			ln := newHandedListener()
			ln.errs <- &net.OpError{Op: "accept", Err: odd}
			book := newLogBook()
			srv := c.server(getty.WithListener(ln), func(o *getty.ServerOptions) { o.Logger = book.Logger })
			run(t, srv, prepare(l))
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			go func() {
				if conn, err := inner.Accept(); err == nil {
					ln.conns <- conn
				}
			}()
			client := c.client(inner.Addr().String())
			run(t, client, prepare(newTracer(t)))
			ready(t, client)
			within(t, l.opened, "OnOpen")
			require.NoError(t, inner.Close())
			require.EqualValues(t, 1, srv.Stats().Retries, "%s: %v", c.name, odd)
			require.EqualValues(t, 1, srv.Stats().Accepts)
			require.Equal(t, 1, book.count("WARN", "accept failed", odd.Error()))
		}
	}
}

// A refused connection is logged once with the peer and the reason, and counted, whichever server
// refuses it.
//
// case: 14
func TestRefusalsAreLogged(t *testing.T) {
	const good = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	for _, test := range []struct{ name, request, status, why string }{
		{"origin", "GET / HTTP/1.1\r\nHost: x\r\n" + good + "Origin: http://evil.example\r\n\r\n", "403", "origin not allowed"},
		{"no upgrade", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "400", "not a WebSocket upgrade"},
		{"version", "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Replace(good, "13", "12", 1) + "\r\n", "426", "version"},
		{"path", "GET /other HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "404", "no such path"},
		{"not HTTP", "hello\r\n\r\n", "400", "malformed"},
		{"large", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 30_000) + "\r\n\r\n", "431", "too large"},
		{"full", "GET / HTTP/1.1\r\nHost: x\r\n" + good + "\r\n", "503", "too many sessions"},
	} {
		t.Run(test.name, func(t *testing.T) {
			book := newLogBook()
			srv := getty.NewWSServer(getty.WithMaxSessions(1), func(o *getty.ServerOptions) { o.Logger = book.Logger })
			l := newTracer(t)
			run(t, srv, prepare(l))
			if test.name == "full" {
				run(t, carriers[1].client(srv.Addr().String()), prepare(newTracer(t)))
				within(t, l.opened, "OnOpen")
			}
			c := dial(t, srv)
			_, err := c.Write([]byte(test.request))
			require.NoError(t, err)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			require.NoError(t, err)
			require.Equal(t, test.status, resp.Status[:3])
			_ = c.Close()
			eventually(t, "it is counted", func() bool { return srv.Stats().Refused == 1 })
			eventually(t, "it is logged", func() bool {
				return book.count("connection refused", c.LocalAddr().String(), test.why) == 1
			})
			require.Equal(t, 1, book.count("refused"))
		})
	}
	book := newLogBook()
	srv := serve(t, prepare(newTracer(t)), getty.WithMaxSessions(1), func(o *getty.ServerOptions) { o.Logger = book.Logger })
	dial(t, srv)
	c := dial(t, srv)
	eventually(t, "it is logged", func() bool {
		return book.count("connection refused", c.LocalAddr().String(), "too many sessions") == 1
	})
}

// A listener that somebody else closes ends the server, which says so: once in the log, and as
// Serve's result.
//
// case: 15
func TestListenerClosedByItsOwner(t *testing.T) {
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			l := newTracer(t)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			book := newLogBook()
			srv := c.server(getty.WithListener(ln), func(o *getty.ServerOptions) { o.Logger = book.Logger })
			result := make(chan error, 1)
			go func() { result <- srv.Serve(context.Background(), prepare(l)) }()
			client := c.client(ln.Addr().String())
			run(t, client, prepare(newTracer(t)))
			ready(t, client) // the kernel has connected it; the server may have yet to accept it
			within(t, l.opened, "OnOpen")
			require.NoError(t, ln.Close())
			err = within(t, result, "Serve's return")
			require.ErrorIs(t, err, getty.ErrEndpointClosed)
			require.ErrorContains(t, err, "listener was closed by its owner")
			within(t, srv.Done(), "Done")
			within(t, l.closed, "OnClose of the open session")
			require.Equal(t, 1, book.count("listener was closed"))
			require.Equal(t, 1, book.count("level"))
		})
	}
	// A UDP endpoint's socket is within reach of its handlers.
	l := newTracer(t)
	l.open = func(s getty.Session) error { return s.Conn().Close() }
	err := getty.NewUDPEndPoint().Serve(context.Background(), prepare(l))
	require.ErrorIs(t, err, getty.ErrEndpointClosed)
}
