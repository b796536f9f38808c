// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"sync"
	"time"

	"github.com/gostkit/kit/netx"
	"github.com/gostkit/kit/taskpool"
)

// Defaults of [ServerOptions].
const (
	DefaultMaxSessions      = 64 << 10
	DefaultDrainTimeout     = 10 * time.Second
	DefaultHandshakeTimeout = 5 * time.Second
)

// ServerOptions configure a [Server]. The zero value of each field means its default.
type ServerOptions struct {
	// SessionOptions are what every session starts with.
	SessionOptions

	// Addr is where to listen, "host:port"; port 0 takes a free one. Without it the server listens
	// on a free port of the loopback address. A server of a Unix socket needs a path.
	Addr string

	// Listener, if set, is used instead of Addr; the server closes it. If somebody else does
	// (Accept reports [net.ErrClosed]), the server closes itself and its sessions. Any other error
	// of Accept is logged and Accept is called again after a pause.
	Listener net.Listener

	// MaxSessions is how many sessions may be open or opening. One more connection is closed at
	// once and counted. 0: DefaultMaxSessions; negative: no limit.
	MaxSessions int

	// MaxSessionsPerAddr is how many of them one address may have, and is for servers that face the
	// internet: one host that opens as many connections as it can leaves others their places. For
	// IPv6 an address is a network of 64 bits; peers without an IP address are not limited. One
	// more connection is closed at once and counted. 0 or negative: no limit.
	MaxSessionsPerAddr int

	// Admit, if set, decides about a connection by its remote address, before TLS, the request of an
	// upgrade, and any other user code; with an error the connection is closed at once, counted and
	// logged. It runs on the goroutine that accepts, and must not wait for anything. One that panics
	// refuses the connection. addr is what the connection says, for one of a user's Listener perhaps
	// nothing.
	Admit func(addr net.Addr) error

	// Handshake, if set, agrees with the peer on what precedes TLS, an upgrade and the session, such
	// as a PROXY header (package getty/proxyproto). It returns the connection to go on with, often
	// one around conn, or an error, which costs that connection. It runs on a goroutine of its own,
	// for HandshakeTimeout at most; when ctx ends, conn is closed. MaxSessions counts the connection
	// meanwhile, and MaxSessionsPerAddr afterwards, by what RemoteAddr says then.
	Handshake func(ctx context.Context, conn net.Conn) (net.Conn, error)

	// DrainTimeout is how long Serve lets sessions drain when its context has ended.
	// 0: DefaultDrainTimeout; negative: not at all.
	DrainTimeout time.Duration

	// HandshakeTimeout is how long a peer may take for what precedes a session: Handshake, that of
	// TLS, the request of a WebSocket upgrade.
	// For a UDP endpoint it is how long RunEventLoop waits for OnOpen. 0: DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// MultipathTCP accepts Multipath TCP (RFC 8684) where the system knows it. Go's own listeners
	// do by default; here it is a choice, since such a listener costs a little for every
	// connection.
	MultipathTCP bool

	// Socket are options for every accepted connection. Linger is used if it is negative: a session
	// waits for its peer as WaitTime says, never in the kernel.
	Socket netx.SocketOptions

	// WebSocket are the options that only WebSocket servers use.
	WebSocket WebSocketServerOptions

	// UDP are the options that only UDP endpoints use.
	UDP UDPServerOptions

	// Unix are the options that only servers of Unix sockets use.
	Unix UnixServerOptions

	// TLSOptions turn TLS on.
	TLSOptions
}

// A ServerOption changes one of the options. The With functions are shorthands for common fields;
// any function of this type can set the others.
type ServerOption func(*ServerOptions)

// WithLocalAddress sets Addr.
func WithLocalAddress(addr string) ServerOption { return func(o *ServerOptions) { o.Addr = addr } }

// WithListener sets Listener.
func WithListener(l net.Listener) ServerOption { return func(o *ServerOptions) { o.Listener = l } }

// WithServerTaskPool sets Pool, and with it Ordered dispatch unless another is chosen.
func WithServerTaskPool(p taskpool.Pool) ServerOption { return func(o *ServerOptions) { o.Pool = p } }

// WithServerDispatch sets Dispatch.
func WithServerDispatch(d Dispatch) ServerOption { return func(o *ServerOptions) { o.Dispatch = d } }

// WithMaxSessions sets MaxSessions.
func WithMaxSessions(n int) ServerOption { return func(o *ServerOptions) { o.MaxSessions = n } }

func (o *ServerOptions) complete(k kind) {
	if k != unixServer {
		o.Addr = cmp.Or(o.Addr, "127.0.0.1:0")
	}
	o.MaxSessions = cmp.Or(o.MaxSessions, DefaultMaxSessions)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, DefaultDrainTimeout)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, DefaultHandshakeTimeout)
	switch {
	case k&wsServers != 0:
		o.Dispatch = cmp.Or(o.Dispatch, Ordered) // so that pings are answered while a handler runs
	case k == udpEndPoint && o.Pool != nil:
		o.Dispatch = cmp.Or(o.Dispatch, Unordered) // Ordered would serve one peer after the other
	}
	o.SessionOptions.complete()
	o.WebSocket.complete()
	o.TLSOptions.complete(k)
}

func (o *ServerOptions) check(k kind) error {
	switch {
	case o.HandshakeTimeout < 0:
		return errors.New("getty: HandshakeTimeout is negative")
	case o.Listener != nil && isNilPointer(o.Listener):
		return fmt.Errorf("getty: Listener is a nil %T", o.Listener)
	case k == unixServer && o.Listener == nil:
		if err := checkUnix(o.Addr, &o.Unix); err != nil {
			return err
		}
	}
	return cmp.Or(o.SessionOptions.check(), o.WebSocket.check(), checkSocket(&o.Socket, k),
		o.TLSOptions.check(k))
}

// A Server accepts connections and runs a session for each. Make one with [NewTCPServer],
// [NewUnixServer], [NewWSServer], [NewUDPEndPoint] or [NewConnServer]. All its methods may be called from any goroutine.
//
// Its goroutines are one that accepts and one per session, on WebSocket also one per connection
// that is still shaking hands and one that starts those; Done tells when all have ended.
type Server struct {
	ep      *endpoint
	opts    ServerOptions
	err     error // from the options, reported by RunEventLoop
	service service
	kind    kind

	mu      sync.Mutex
	prepare NewSessionCallback // guarded by mu: of RunEventLoop
	addr    net.Addr           // guarded by mu
	cause   error              // guarded by mu: why the server has closed itself
}

var _ EndPoint = (*Server)(nil)

// A service is what differs between servers: how connections come in.
type service interface {
	// start listens and begins to serve; it returns the address.
	start(s *Server, prepare NewSessionCallback) (net.Addr, error)
	// stop ends listening; open sessions stay.
	stop()
}

func newServer(opts []ServerOption, sv service, k kind) *Server {
	s := &Server{service: sv, kind: k}
	s.err = settle(&s.opts, k, opts)
	s.ep = newEndpoint(s, "server", &s.opts.SessionOptions)
	return s
}

// NewTCPServer returns a server of plain TCP sessions. What is wrong with the options is reported
// by RunEventLoop and Serve.
func NewTCPServer(opts ...ServerOption) *Server {
	return newServer(opts, &streamService{shakes: newHandshakes()}, tcpServer)
}

// ID implements [EndPoint].
func (s *Server) ID() uint64 { return s.ep.id }

// RunEventLoop listens and returns; sessions are served until Close or Shutdown. newSession
// prepares each of them.
func (s *Server) RunEventLoop(newSession NewSessionCallback) error {
	switch {
	case s.err != nil:
		return s.err
	case newSession == nil:
		return errors.New("getty: RunEventLoop without a new-session callback")
	}
	if err := s.ep.begin(); err != nil {
		return err
	}
	addr, err := s.service.start(s, newSession)
	if err != nil {
		s.ep.beginClose()
		if err == ErrEndpointClosed { // before all of it had started: there may be a reason
			return s.closedError()
		}
		return fmt.Errorf("getty: %w", err)
	}
	s.setAddr(addr)
	s.setAdopter(newSession)
	if s.ep.isClosed() { // Close came before there was a listener to close
		s.service.stop()
		return s.closedError()
	}
	return nil
}

// fail closes the server for err, which Serve returns.
func (s *Server) fail(err error) {
	if s.setCause(err) {
		s.ep.log.Error("getty: server closed", "error", limitText(err))
	}
	s.Close()
}

// setCause notes why the server has closed itself, unless there was a reason before.
func (s *Server) setCause(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.cause == nil
	if first {
		s.cause = err
	}
	return first
}

// closedError is ErrEndpointClosed, with the reason if the server has closed itself.
func (s *Server) closedError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		return ErrEndpointClosed
	}
	return fmt.Errorf("%w: %w", ErrEndpointClosed, s.cause)
}

// Serve is RunEventLoop that blocks until ctx ends or the server is closed. When ctx ends, the
// sessions have DrainTimeout to drain; the result is nil if all did. A server that was closed
// returns [ErrEndpointClosed]; one that has closed itself, since somebody else closed its listener,
// says so too.
func (s *Server) Serve(ctx context.Context, newSession NewSessionCallback) error {
	if err := s.RunEventLoop(newSession); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-s.Done():
		return s.closedError()
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(s.opts.DrainTimeout, 0))
	defer cancel()
	_, err := s.Shutdown(drain)
	return err
}

func (s *Server) setAddr(a net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = a
}

// Addr returns where the server listens, nil before RunEventLoop has returned and if the Listener
// does not know.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Sessions implements [EndPoint].
func (s *Server) Sessions() iter.Seq[Session] { return s.ep.openSessions() }

// SessionByID implements [EndPoint].
func (s *Server) SessionByID(id uint64) (Session, bool) { return s.ep.sessionByID(id) }

// Stats implements [EndPoint].
func (s *Server) Stats() EndPointStats { return s.ep.statsSnapshot() }

// IsClosed implements [EndPoint].
func (s *Server) IsClosed() bool { return s.ep.isClosed() }

// Done implements [EndPoint].
func (s *Server) Done() <-chan struct{} { return s.ep.doneCh }

// Close implements [EndPoint].
func (s *Server) Close() {
	s.ep.beginClose()
	s.service.stop()
	for _, ss := range s.ep.snapshot() {
		ss.Close()
	}
}

// Shutdown implements [EndPoint].
func (s *Server) Shutdown(ctx context.Context) (Report, error) {
	s.ep.beginClose()
	s.service.stop()
	return s.ep.shutdown(ctx)
}

// streamService makes a session of every connection that is accepted.
type streamService struct {
	acceptor
	shakes *handshakes
}

func (v *streamService) start(s *Server, prepare NewSessionCallback) (net.Addr, error) {
	return v.acceptor.start(s, func(conn net.Conn) {
		v.shakes.admit(s, conn, func(conn net.Conn) { s.admit(conn, prepare) })
	})
}

func (v *streamService) stop() {
	v.acceptor.stop()
	v.shakes.stop()
}

// tune applies the socket options. Without any, a connection that has no socket will do.
func (s *Server) tune(conn net.Conn) error {
	o := withoutLinger(s.opts.Socket)
	if o == (netx.SocketOptions{}) {
		return nil
	}
	if err := o.Apply(conn); err != nil {
		return fmt.Errorf("getty: socket options: %w", err)
	}
	return nil
}
