// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty/internal/deflate"
	"github.com/gostkit/kit/getty/internal/wsframe"
)

// WebSocketServerOptions are the part of [ServerOptions] that only WebSocket servers use.
type WebSocketServerOptions struct {
	// Path is the only path that is served, in its decoded form: no pattern, and nothing that would
	// have to be encoded but letters beyond ASCII. "": "/".
	Path string

	// AllowedOrigins are the origins ("https://example.com") that may connect beside the server's
	// own. "https://*.example.com" allows every origin below that domain, "*" allows all. Requests
	// without an Origin header, which browsers always send, are allowed.
	AllowedOrigins []string

	// CheckOrigin, if set, is the whole origin policy: AllowedOrigins and the server's own origin
	// count no more. It runs like OnUpgrade.
	CheckOrigin func(*http.Request) bool

	// OnUpgrade, if set, decides about a request that is in order and has a place, before the client
	// is told that there will be a session: it authenticates, and refuses with an error. An
	// *[UpgradeError] says what the client is answered; any other error is logged and answered with
	// status 403 alone. The header that it returns goes into the answer, without what belongs to
	// the handshake. It runs on the goroutine of the request, for many requests at once; one that
	// panics is answered with status 500. [WSRequest] has the request later.
	OnUpgrade func(*http.Request) (http.Header, error)

	// Subprotocols are offered in the order of preference; see [WSSubprotocol].
	Subprotocols []string

	// RequireSubprotocol refuses a request with status 400 that names none of Subprotocols.
	RequireSubprotocol bool

	// Compression accepts permessage-deflate (RFC 7692) without context takeover. MaxMsgLen bounds
	// a message after decompression.
	Compression bool

	// CompressionLevel is 1 (least time, the default) to 9 (least bytes). 0: 1.
	CompressionLevel int

	// CompressionThreshold is the size in bytes from which messages are compressed: small ones take
	// time and save nothing. See also [CompressingWriter]. 0: 512; negative: all messages.
	CompressionThreshold int

	// TextMessages sends text instead of binary messages; see TypedWriter for a choice per package.
	TextMessages bool

	// PingPeriod is how often a session is pinged whose peer is silent; the answer is a sign of
	// life for IdleTimeout, the ping is none. 0: never.
	PingPeriod time.Duration

	// MaxHeaderBytes bounds the upgrade request. 0: 16 KiB.
	MaxHeaderBytes int
}

func (o *WebSocketServerOptions) complete() {
	o.Path = cmp.Or(o.Path, "/")
	o.MaxHeaderBytes = cmp.Or(o.MaxHeaderBytes, wsMaxHeaderBytes)
	o.CompressionLevel = cmp.Or(o.CompressionLevel, deflate.Fastest)
	o.CompressionThreshold = cmp.Or(o.CompressionThreshold, wsCompressionThreshold)
	o.AllowedOrigins = slices.Clone(o.AllowedOrigins)
	o.Subprotocols = slices.Clone(o.Subprotocols)
}

func (o *WebSocketServerOptions) check() error {
	if err := checkPath(o.Path); err != nil {
		return fmt.Errorf("getty: WebSocket.Path: %w", err)
	}
	for _, origin := range o.AllowedOrigins {
		if err := checkOrigin(origin); err != nil {
			return fmt.Errorf("getty: WebSocket.AllowedOrigins: %w", err)
		}
	}
	return checkWebSocket(&commonWebSocket{o.PingPeriod, o.MaxHeaderBytes, o.CompressionLevel,
		o.Subprotocols, o.RequireSubprotocol})
}

const (
	wsMaxHeaderBytes       = 16 << 10
	wsCompressionThreshold = 512
	httpSlack              = 4096 // what net/http adds to a server's MaxHeaderBytes
)

// NewWSServer returns a server of WebSocket sessions (RFC 6455). One package is one message,
// whatever its size. The dispatch is Ordered unless another is chosen, so that pings are answered
// while a handler runs.
//
// Connections count for MaxSessions from the moment they are accepted. One too many is answered
// with status 503.
func NewWSServer(opts ...ServerOption) *Server {
	return newServer(opts, &webService{shakes: newHandshakes()}, wsServer)
}

// A WSEndPoint is a WebSocket server that is mounted on the user's own http.Server. Its sessions
// outlive the request, and http.Server.Shutdown does not know them: Shutdown or Close of the
// WSEndPoint ends them.
type WSEndPoint struct {
	*Server
	prepare NewSessionCallback
}

// WSHandler returns an http.Handler that upgrades every request to a session, on the user's own mux
// and server; newSession prepares each. Addr, Listener, MultipathTCP, DrainTimeout, WebSocket.Path
// and WebSocket.MaxHeaderBytes are errors here; the limits on time and header size before the
// upgrade are those of the http.Server. Bad options are answered with status 500 and logged.
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

// webService gives what is accepted to an http.Server that knows one path. The http.Server never
// sees the listener: it would give up at the first error that it does not know.
type webService struct {
	acceptor
	shakes *handshakes // those of TLS

	srvMu sync.Mutex
	srv   *http.Server // guarded by srvMu
}

func (v *webService) start(s *Server, prepare NewSessionCallback) (net.Addr, error) {
	shaking := upgrades{s: s, ep: s.ep}
	in := &feed{conns: make(chan net.Conn), quit: make(chan struct{})}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			shaking.answered(r)
			if r.URL.Path != s.opts.WebSocket.Path {
				s.turnAway(r.RemoteAddr, fmt.Errorf("getty: websocket: no such path: %q", r.URL.Path))
				http.NotFound(w, r)
				return
			}
			s.upgrade(w, r, prepare)
		}),
		ReadHeaderTimeout: s.opts.HandshakeTimeout,
		ReadTimeout:       s.opts.HandshakeTimeout,
		IdleTimeout:       s.opts.HandshakeTimeout,
		MaxHeaderBytes:    min(s.opts.WebSocket.MaxHeaderBytes, math.MaxInt-httpSlack),
		ErrorLog:          slog.NewLogLogger(s.ep.log.Handler(), slog.LevelWarn),
		ConnContext:       shaking.begin,
		ConnState:         func(conn net.Conn, st http.ConnState) { shaking.state(s, conn, st) },
	}
	v.srvMu.Lock()
	v.srv = srv
	v.srvMu.Unlock()
	addr, err := v.acceptor.start(s, func(conn net.Conn) {
		v.shakes.admit(s, conn, in.give)
	})
	if err != nil {
		return nil, err
	}
	if !s.ep.spawnUnlessClosing(func() { _ = srv.Serve(in) }) {
		v.stop()
		return nil, ErrEndpointClosed
	}
	return addr, nil
}

// stop closes the listener and the connections that are still shaking hands; those of sessions were
// taken over and stay.
func (v *webService) stop() {
	v.acceptor.stop()
	v.shakes.stop()
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

// upgrades follows the connections that an http.Server has and that are no sessions yet: the
// endpoint's end waits for their goroutines, and a request that never reached the handler is a
// refusal like any other. Each has a place among the sessions from the moment it is accepted, so
// that those who never ask for an upgrade count too.
type upgrades struct {
	s      *Server
	ep     *endpoint
	all    sync.Map     // net.Conn to *handshake
	excess atomic.Int32 // how many of them have no place
}

// maxExcess is how many connections without a place wait for their request, to be answered with
// status 503. Beyond that they are closed at once.
const maxExcess = 256

type handshake struct {
	place    place
	reserved bool        // it has that place
	refused  error       // why it has none
	asked    bool        // bytes of a request have come
	answered atomic.Bool // the handler was called
}

type handshakeKey struct{}

// begin is the http.Server's ConnContext.
func (h *upgrades) begin(ctx context.Context, conn net.Conn) context.Context {
	one := new(handshake)
	one.place, one.refused = h.s.reserve(conn.RemoteAddr())
	one.reserved = one.refused == nil
	if !one.reserved && h.excess.Add(1) > maxExcess {
		h.ep.stats.refused.Add(1)
		h.ep.stats.refusals.count(one.refused)
		_ = conn.Close() // the http.Server notices when it reads
	}
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
		switch {
		case !ok:
		case !one.(*handshake).reserved:
			h.excess.Add(-1)
		case st == http.StateClosed: // else the place is the session's
			h.ep.places.release(one.(*handshake).place)
		}
		if ok && st == http.StateClosed && one.(*handshake).asked && !one.(*handshake).answered.Load() && !s.ep.isClosed() {
			s.turnAway(addrText(conn.RemoteAddr()), errNoRequest)
		}
		s.ep.leave()
	}
}

var errNoRequest = errors.New("getty: websocket: the request is malformed, too large or too slow")

// upgrade makes a session of a request, or answers why not. The session's place is taken before the
// client is told that there is one.
func (s *Server) upgrade(w http.ResponseWriter, r *http.Request, prepare NewSessionCallback) {
	refuse := func(status int, why error) {
		s.turnAway(r.RemoteAddr, why)
		http.Error(w, why.Error(), status)
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
		refuse(status, err)
		return
	}
	if !s.originAllowed(r) {
		refuse(http.StatusForbidden, errors.New("origin not allowed"))
		return
	}
	if o := &s.opts.WebSocket; o.RequireSubprotocol && q.Choose(o.Subprotocols) == "" {
		refuse(http.StatusBadRequest, fmt.Errorf("want one of the subprotocols %q", o.Subprotocols))
		return
	}
	at, err := s.placeOf(r)
	if err != nil {
		w.Header().Set("Connection", "close")
		refuse(http.StatusServiceUnavailable, err)
		return
	}
	header, refusal, why := s.decide(r)
	if refusal != nil {
		s.leavePlace(r, at)
		s.turnAway(r.RemoteAddr, why)
		answerRefusal(w, refusal)
		return
	}
	conn, brw, err := http.NewResponseController(w).Hijack()
	if err == nil && (conn == nil || brw == nil) {
		err = fmt.Errorf("getty: %T.Hijack returned no connection", w)
	}
	if err != nil {
		s.leavePlace(r, at)
		refuse(http.StatusInternalServerError, err)
		return
	}
	conn = s.ep.contain(conn)
	t, err := s.switchProtocols(conn, brw.Reader, q, extraHeader(header))
	if err == nil {
		t.request.Store(keepRequest(r))
		_, err = s.ep.openReserved(t, at, s.prepareOn(conn, prepare))
	} else {
		s.ep.places.release(at)
		s.ep.stats.refused.Add(1)
		s.ep.stats.refusals.count(err)
	}
	if err != nil {
		s.refused(r.RemoteAddr, err)
		_ = conn.Close()
	}
}

// placeOf returns the place of a request that is in order: that of its connection, or a new one if
// the http.Server is the user's.
func (s *Server) placeOf(r *http.Request) (place, error) {
	one, _ := r.Context().Value(handshakeKey{}).(*handshake)
	switch {
	case s.ep.isClosed():
		return place{}, ErrEndpointClosed
	case one != nil && one.reserved:
		return one.place, nil
	}
	return s.reserve(textAddr{"tcp", r.RemoteAddr})
}

// leavePlace gives back a place that does not belong to the connection of r.
func (s *Server) leavePlace(r *http.Request, at place) {
	if one, _ := r.Context().Value(handshakeKey{}).(*handshake); one == nil || !one.reserved {
		s.ep.places.release(at)
	}
}

// switchProtocols answers q on a connection that was taken over from an http.Server.
func (s *Server) switchProtocols(
	conn net.Conn, early *bufio.Reader, q wsframe.Request, extra []byte,
) (*webSocket, error) {
	if early.Buffered() > 0 {
		const answer = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
		_, _ = conn.Write([]byte(answer))
		return nil, errors.New("the client did not wait for the answer")
	}
	o := &s.opts.WebSocket
	answer, agreed := q.Accept(o.Subprotocols, o.Compression, extra)
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
	t := newWebSocket(newStream(conn, CompressNone), false, agreed, nil)
	t.text, t.pings = o.TextMessages, o.PingPeriod
	t.level, t.threshold = o.CompressionLevel, o.CompressionThreshold
	return t, nil
}
