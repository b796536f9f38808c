// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"bufio"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// WebSocketServerOptions are the part of [ServerOptions] that only WebSocket servers use.
type WebSocketServerOptions struct {
	// Path is the only path that is served. "": "/".
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
)

// NewWSServer returns a server of WebSocket sessions (RFC 6455). One package is one message, whatever its
// size. The dispatch is Ordered unless another is chosen, so that pings are answered while a handler runs.
//
// A session keeps about 1 KiB of gorilla's buffers while it is idle.
func NewWSServer(opts ...ServerOption) *Server {
	return newServer(opts, &webService{}, wsDefaults)
}

func wsDefaults(o *ServerOptions) {
	if o.Dispatch == DispatchAuto {
		o.Dispatch = Ordered
	}
	if o.Path == "" {
		o.Path = "/"
	}
	if o.MaxHeaderBytes <= 0 {
		o.MaxHeaderBytes = wsMaxHeaderBytes
	}
}

// A WSEndPoint is a WebSocket server that is mounted on the user's own http.Server. Its sessions outlive
// the request, and http.Server.Shutdown does not know them: Shutdown or Close of the WSEndPoint ends them.
type WSEndPoint struct {
	*Server
	prepare NewSessionCallback
}

// WSHandler returns an http.Handler that upgrades every request to a session, on the user's own mux and
// server; newSession prepares each. Addr, Listener and Path are not used; the limits on time and header size
// before the upgrade are those of the http.Server. Bad options are answered with status 500 and logged.
func WSHandler(newSession NewSessionCallback, opts ...ServerOption) *WSEndPoint {
	e := &WSEndPoint{Server: newServer(opts, &mountedService{}, wsDefaults), prepare: newSession}
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
	e.upgrade(w, r, e.prepare)
}

// mountedService listens nowhere.
type mountedService struct{}

func (mountedService) start(*Server, NewSessionCallback) (net.Addr, error) { return nil, nil }
func (mountedService) stop()                                               {}

// webService runs an http.Server that knows one path.
type webService struct {
	mu  sync.Mutex
	srv *http.Server // guarded by mu
}

func (v *webService) start(s *Server, prepare NewSessionCallback) (net.Addr, error) {
	ln := s.opts.Listener
	if ln == nil {
		var err error
		if ln, err = s.listen(); err != nil {
			return nil, err
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc(s.opts.Path, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != s.opts.Path {
			http.NotFound(w, r)
			return
		}
		s.upgrade(w, r, prepare)
	})
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: s.opts.HandshakeTimeout,
		ReadTimeout:       s.opts.HandshakeTimeout,
		IdleTimeout:       s.opts.HandshakeTimeout,
		MaxHeaderBytes:    s.opts.MaxHeaderBytes,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
	v.mu.Lock()
	v.srv = srv
	v.mu.Unlock()
	if !s.ep.spawnUnlessClosing(func() { _ = srv.Serve(ln) }) {
		_ = ln.Close()
		return nil, ErrEndpointClosed
	}
	return ln.Addr(), nil
}

// stop closes the listener and the connections that are still shaking hands; those of sessions were taken
// over and stay.
func (v *webService) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.srv != nil {
		_ = v.srv.Close()
	}
}

// upgrade makes a session of a request, or answers why not.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, prepare NewSessionCallback) {
	s.ep.stats.accepts.Add(1)
	if limit := s.opts.MaxSessions; s.ep.isClosed() || limit > 0 && s.ep.table.Load() >= int64(limit) {
		s.ep.stats.refused.Add(1)
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
	h := &hijacker{ResponseWriter: w}
	ws, err := up.Upgrade(h, r, nil)
	if err != nil {
		s.ep.stats.refused.Add(1)
		if h.t != nil {
			_ = h.t.close()
		}
		return
	}
	t := h.t
	t.text = s.opts.WebSocketServerOptions.TextMessages
	t.pings = s.opts.WebSocketServerOptions.PingPeriod
	t.begin(ws)
	if _, err := s.ep.open(t, s.opts.MaxSessions, func(ss Session) error {
		if err := s.tune(t.conn); err != nil {
			return err
		}
		return prepare(ss)
	}); err != nil {
		_ = t.close()
	}
}

// hijacker gives the upgrader an engine-owned connection.
type hijacker struct {
	http.ResponseWriter
	t *webSocket
}

// Hijack implements [http.Hijacker].
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.t = &webSocket{stream: newStream(conn)}
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
