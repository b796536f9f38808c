// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// WebSocketServerOptions are the part of [ServerOptions] that only WebSocket servers use.
type WebSocketServerOptions struct {
	// Path is the only path that is served, in its decoded form: no pattern, and nothing that would have to be
	// encoded but letters beyond ASCII. "": "/".
	Path string

	// AllowedOrigins are the origins ("https://example.com") that may connect beside the server's own;
	// "*" allows all. Requests without an Origin header, which browsers always send, are allowed.
	AllowedOrigins []string

	// Subprotocols are offered in the order of preference.
	Subprotocols []string

	// Compression accepts permessage-deflate (RFC 7692) without context takeover. MaxMsgLen bounds a
	// message after decompression.
	Compression bool

	// TextMessages sends text instead of binary messages; see TypedWriter for a choice per package.
	TextMessages bool

	// PingPeriod is how often a session is pinged whose peer is silent; the answer is a sign of life for
	// IdleTimeout, the ping is none.
	// 0: never.
	PingPeriod time.Duration

	// MaxHeaderBytes bounds the upgrade request. 0: 16 KiB.
	MaxHeaderBytes int
}

const (
	wsServerBuffer   = 512 // gorilla's write buffer on servers: headers, and messages that are smaller
	wsClientBuffer   = 4096
	wsReadBuffer     = 256 // gorilla's read buffer: large enough for any control frame
	wsMaxHeaderBytes = 16 << 10
	httpSlack        = 4096 // what net/http adds to a server's MaxHeaderBytes
)

// NewWSServer returns a server of WebSocket sessions (RFC 6455). One package is one message, whatever its
// size. The dispatch is Ordered unless another is chosen, so that pings are answered while a handler runs.
//
// A session keeps about 1 KiB of gorilla's buffers while it is idle.
func NewWSServer(opts ...ServerOption) *Server {
	return newServer(opts, &webService{}, wsServer)
}

// A WSEndPoint is a WebSocket server that is mounted on the user's own http.Server. Its sessions outlive
// the request, and http.Server.Shutdown does not know them: Shutdown or Close of the WSEndPoint ends them.
type WSEndPoint struct {
	*Server
	prepare NewSessionCallback
}

// WSHandler returns an http.Handler that upgrades every request to a session, on the user's own mux and
// server; newSession prepares each. Addr, Listener, MultipathTCP, Path, MaxHeaderBytes and DrainTimeout are
// errors here; the limits on time and header size before the upgrade are those of the http.Server. Bad
// options are answered with status 500 and logged.
func WSHandler(newSession NewSessionCallback, opts ...ServerOption) *WSEndPoint {
	e := &WSEndPoint{Server: newServer(opts, &mountedService{}, wsHandler), prepare: newSession}
	if e.err == nil && newSession == nil {
		e.err = errors.New("getty: WSHandler without a new-session callback")
	}
	if e.err == nil {
		e.err = e.RunEventLoop(newSession)
	}
	return e
}

// ServeHTTP implements [http.Handler].
func (e *WSEndPoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.err != nil {
		e.ep.log.Error("getty: WSHandler has bad options", "error", e.err.Error())
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	e.ep.stats.accepts.Add(1)
	e.upgrade(w, r, e.prepare)
}

// mountedService listens nowhere.
type mountedService struct{}

func (mountedService) start(*Server, NewSessionCallback) (net.Addr, error) { return nil, nil }
func (mountedService) stop()                                               {}

// webService gives what is accepted to an http.Server that knows one path. The http.Server never sees the
// listener: it would give up at the first error that it does not know.
type webService struct {
	acceptor

	srvMu sync.Mutex
	srv   *http.Server // guarded by srvMu
}

func (v *webService) start(s *Server, prepare NewSessionCallback) (net.Addr, error) {
	var shaking upgrades
	in := &feed{conns: make(chan net.Conn), quit: make(chan struct{})}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			shaking.answered(r)
			if r.URL.Path != s.opts.Path {
				s.ep.stats.refused.Add(1)
				s.refused(r.RemoteAddr, fmt.Errorf("getty: websocket: no such path: %q", r.URL.Path))
				http.NotFound(w, r)
				return
			}
			s.upgrade(w, r, prepare)
		}),
		ReadHeaderTimeout: s.opts.HandshakeTimeout,
		ReadTimeout:       s.opts.HandshakeTimeout,
		IdleTimeout:       s.opts.HandshakeTimeout,
		MaxHeaderBytes:    min(s.opts.MaxHeaderBytes, math.MaxInt-httpSlack),
		ErrorLog:          slog.NewLogLogger(s.ep.log.Handler(), slog.LevelWarn),
		ConnContext:       shaking.begin,
		ConnState:         func(conn net.Conn, st http.ConnState) { shaking.state(s, conn, st) },
	}
	v.srvMu.Lock()
	v.srv = srv
	v.srvMu.Unlock()
	addr, err := v.acceptor.start(s, in.give)
	if err != nil {
		return nil, err
	}
	if !s.ep.spawnUnlessClosing(func() { _ = srv.Serve(in) }) {
		v.stop()
		return nil, ErrEndpointClosed
	}
	return addr, nil
}

// stop closes the listener and the connections that are still shaking hands; those of sessions were taken
// over and stay.
func (v *webService) stop() {
	v.acceptor.stop()
	v.srvMu.Lock()
	defer v.srvMu.Unlock()
	if v.srv != nil {
		_ = v.srv.Close()
	}
}

// A feed is the listener of an http.Server: it yields what the accept loop gives.
type feed struct {
	conns chan net.Conn
	quit  chan struct{}
	once  sync.Once
}

// give hands conn to the http.Server, which takes it at once.
func (f *feed) give(conn net.Conn) {
	select {
	case f.conns <- conn:
	case <-f.quit:
		_ = conn.Close()
	}
}

// Accept implements [net.Listener].
func (f *feed) Accept() (net.Conn, error) {
	select {
	case conn := <-f.conns:
		return conn, nil
	case <-f.quit:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (f *feed) Close() error {
	f.once.Do(func() { close(f.quit) })
	return nil
}

// Addr implements [net.Listener].
func (f *feed) Addr() net.Addr { return textAddr{} }

// upgrades follows the connections that an http.Server has and that are no sessions yet: the endpoint's end
// waits for their goroutines, and a request that never reached the handler is a refusal like any other.
type upgrades struct{ all sync.Map } // net.Conn to *handshake

type handshake struct {
	asked    bool        // bytes of a request have come
	answered atomic.Bool // the handler was called
}

type handshakeKey struct{}

// begin is the http.Server's ConnContext.
func (h *upgrades) begin(ctx context.Context, conn net.Conn) context.Context {
	one := new(handshake)
	h.all.Store(conn, one)
	return context.WithValue(ctx, handshakeKey{}, one)
}

// answered notes that the handler has a request, and logs itself what is wrong with it.
func (h *upgrades) answered(r *http.Request) {
	if one, ok := r.Context().Value(handshakeKey{}).(*handshake); ok {
		one.answered.Store(true)
	}
}

// state is the http.Server's ConnState.
func (h *upgrades) state(s *Server, conn net.Conn, st http.ConnState) {
	switch st {
	case http.StateNew:
		s.ep.enter()
	case http.StateActive:
		if one, ok := h.all.Load(conn); ok {
			one.(*handshake).asked = true
		}
	case http.StateHijacked, http.StateClosed:
		one, ok := h.all.LoadAndDelete(conn)
		if ok && st == http.StateClosed && one.(*handshake).asked && !one.(*handshake).answered.Load() && !s.ep.isClosed() {
			s.ep.stats.refused.Add(1)
			s.refused(addrText(conn.RemoteAddr()), errNoRequest)
		}
		s.ep.leave()
	}
}

var errNoRequest = errors.New("getty: websocket: the request is malformed, too large or too slow")

// upgrade makes a session of a request, or answers why not.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, prepare NewSessionCallback) {
	if limit := s.opts.MaxSessions; s.ep.isClosed() || limit > 0 && s.ep.table.Load() >= int64(limit) {
		s.ep.stats.refused.Add(1)
		why := ErrTooManySessions
		if s.ep.isClosed() {
			why = ErrEndpointClosed
		}
		s.refused(r.RemoteAddr, why)
		http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
		return
	}
	declineWindowBits(r.Header)
	up := websocket.Upgrader{
		HandshakeTimeout:  s.opts.HandshakeTimeout,
		ReadBufferSize:    wsReadBuffer,
		WriteBufferSize:   wsServerBuffer,
		Subprotocols:      s.opts.WebSocketServerOptions.Subprotocols,
		EnableCompression: s.opts.WebSocketServerOptions.Compression,
		CheckOrigin:       s.originAllowed,
	}
	h := &hijacker{ResponseWriter: w, ep: s.ep}
	ws, err := up.Upgrade(h, r, nil)
	if err != nil {
		s.ep.stats.refused.Add(1)
		s.refused(r.RemoteAddr, err)
		if h.t != nil {
			_ = h.t.close()
		}
		return
	}
	t := h.t
	t.text = s.opts.WebSocketServerOptions.TextMessages
	t.pings = s.opts.WebSocketServerOptions.PingPeriod
	t.begin(ws)
	if _, err := s.ep.open(t, s.opts.MaxSessions, s.prepareOn(t.conn, prepare)); err != nil {
		s.refused(r.RemoteAddr, err)
		_ = t.close()
	}
}

// hijacker gives the upgrader an engine-owned connection.
type hijacker struct {
	http.ResponseWriter
	ep *endpoint
	t  *webSocket
}

// Hijack implements [http.Hijacker]. On a user's own server the connection is what that server says it is.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err == nil && (conn == nil || brw == nil) {
		err = fmt.Errorf("getty: %T.Hijack returned no connection", h.ResponseWriter)
	}
	if err != nil {
		return nil, nil, err
	}
	h.t = &webSocket{stream: newStream(h.ep.contain(conn))}
	return h.t, brw, nil
}

// originAllowed is the origin policy: the same origin, and those that the options name.
func (s *Server) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	for _, o := range s.opts.AllowedOrigins {
		if o == "*" || strings.EqualFold(o, origin) {
			return true
		}
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// declineWindowBits removes every compression offer that asks the server for a window size. gorilla would
// accept it and not keep it, since compress/flate has one window; RFC 7692, section 7.1.2.1, wants such an
// offer declined.
func declineWindowBits(h http.Header) {
	const name = "Sec-Websocket-Extensions"
	var kept []string
	for _, line := range h[name] {
		for _, offer := range strings.Split(line, ",") {
			if !strings.Contains(strings.ToLower(offer), "server_max_window_bits") {
				kept = append(kept, strings.TrimSpace(offer))
			}
		}
	}
	if kept = slices.DeleteFunc(kept, func(o string) bool { return o == "" }); len(kept) == 0 {
		delete(h, name)
	} else {
		h[name] = []string{strings.Join(kept, ", ")}
	}
}
