// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gostkit/kit/getty/internal/wsframe"
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

const wsMaxHeaderBytes = 16 << 10

// NewWSServer returns a server of WebSocket sessions (RFC 6455). One package is one message, whatever its
// size. The dispatch is Ordered unless another is chosen, so that pings are answered while a handler runs.
//
// Connections count for MaxSessions from the moment they are accepted. One too many is answered
// with status 503.
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
	waiting := upgrades{ep: s.ep, limit: s.opts.MaxSessions, places: make(map[net.Conn]*place)}
	srv.ConnContext, srv.ConnState = waiting.accepted, waiting.changed
	v.mu.Lock()
	v.srv = srv
	v.mu.Unlock()
	if !s.ep.spawnUnlessClosing(func() { _ = srv.Serve(ln) }) {
		_ = ln.Close()
		return nil, ErrEndpointClosed
	}
	return ln.Addr(), nil
}

// upgrades are the connections of a webService that are no sessions yet. Each has a place among the
// sessions from the moment it is accepted, so that those who never ask for an upgrade count too.
type upgrades struct {
	ep    *endpoint
	limit int

	mu     sync.Mutex
	places map[net.Conn]*place // guarded by mu
	excess int                 // guarded by mu: how many of them have none
}

// maxExcess is how many connections without a place wait for their request, to be answered with
// status 503. Beyond that they are closed at once.
const maxExcess = 256

// A place is what a connection holds while it is no session yet.
type place struct{ reserved bool }

type placeKey struct{}

// accepted is the http.Server's ConnContext.
func (u *upgrades) accepted(ctx context.Context, conn net.Conn) context.Context {
	pl := &place{reserved: u.ep.reserve(u.limit)}
	u.mu.Lock()
	u.places[conn] = pl
	if !pl.reserved {
		u.excess++
	}
	full := u.excess > maxExcess
	u.mu.Unlock()
	if full && !pl.reserved {
		u.ep.stats.accepts.Add(1)
		u.ep.stats.refused.Add(1)
		_ = conn.Close() // the http.Server notices when it reads
	}
	return context.WithValue(ctx, placeKey{}, pl)
}

// changed is the http.Server's ConnState. The place of a connection that was taken over goes with it.
func (u *upgrades) changed(conn net.Conn, state http.ConnState) {
	if state != http.StateClosed && state != http.StateHijacked {
		return
	}
	u.mu.Lock()
	pl := u.places[conn]
	delete(u.places, conn)
	if pl != nil && !pl.reserved {
		u.excess--
	}
	u.mu.Unlock()
	if pl != nil && pl.reserved && state == http.StateClosed {
		u.ep.unreserve()
	}
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

// upgrade makes a session of a request, or answers why not. The session's place is taken before the
// client is told that there is one.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, prepare NewSessionCallback) {
	s.ep.stats.accepts.Add(1)
	refuse := func(status int, why string) {
		s.ep.stats.refused.Add(1)
		http.Error(w, why, status)
	}
	q, err := wsframe.ParseRequest(r)
	if err != nil {
		status := http.StatusBadRequest
		if e := (*wsframe.Refusal)(nil); errors.As(err, &e) {
			status = e.Status
		}
		w.Header().Set("Sec-WebSocket-Version", "13")
		if status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodGet)
		}
		refuse(status, err.Error())
		return
	}
	if !s.originAllowed(r) {
		refuse(http.StatusForbidden, "origin not allowed")
		return
	}
	pl, _ := r.Context().Value(placeKey{}).(*place)
	if pl == nil { // the http.Server is the user's
		pl = &place{}
	}
	if s.ep.isClosed() || !pl.reserved && !s.ep.reserve(s.opts.MaxSessions) {
		w.Header().Set("Connection", "close")
		refuse(http.StatusServiceUnavailable, http.StatusText(http.StatusServiceUnavailable))
		return
	}
	conn, brw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		if !pl.reserved {
			s.ep.unreserve()
		}
		refuse(http.StatusInternalServerError, "the connection cannot be taken over")
		return
	}
	t, err := s.switchProtocols(conn, brw.Reader, q)
	if err == nil {
		_, err = s.ep.openReserved(t, func(ss Session) error {
			if err := s.tune(conn); err != nil {
				return err
			}
			return prepare(ss)
		})
	} else {
		s.ep.unreserve()
		s.ep.stats.refused.Add(1)
	}
	if err != nil {
		_ = conn.Close()
	}
}

// switchProtocols answers q on a connection that was taken over from an http.Server.
func (s *Server) switchProtocols(
	conn net.Conn, early *bufio.Reader, q wsframe.Request,
) (*webSocket, error) {
	if early.Buffered() > 0 {
		const answer = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
		_, _ = conn.Write([]byte(answer))
		return nil, errors.New("the client did not wait for the answer")
	}
	o := &s.opts.WebSocketServerOptions
	answer, deflate := q.Accept(o.Subprotocols, o.Compression)
	if err := conn.SetDeadline(time.Now().Add(s.opts.HandshakeTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(answer); err != nil {
		return nil, err
	}
	// Deadlines belong to the handshake. From here on the session's clock keeps all limits.
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	t := newWebSocket(newStream(conn), false, deflate, nil)
	t.text, t.pings = o.TextMessages, o.PingPeriod
	return t, nil
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
