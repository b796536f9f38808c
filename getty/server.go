// SPDX-License-Identifier: Apache-2.0

package getty

import (
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

	// Addr is where to listen, "host:port"; port 0 takes a free one. Without it the server listens on
	// a free port of the loopback address.
	Addr string

	// Listener, if set, is used instead of Addr; the server closes it.
	Listener net.Listener

	// MaxSessions is how many sessions may be open or opening. One more connection is closed at once
	// and counted. 0: DefaultMaxSessions; negative: no limit.
	MaxSessions int

	// DrainTimeout is how long Serve lets sessions drain when its context has ended.
	// 0: DefaultDrainTimeout; negative: not at all.
	DrainTimeout time.Duration

	// HandshakeTimeout is how long a peer may take for what precedes a session: the TLS handshake of a
	// connection that comes from a Listener of the user's, the request of a WebSocket upgrade. For a UDP
	// endpoint it is how long RunEventLoop waits for OnOpen.
	// 0: DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// MultipathTCP accepts Multipath TCP (RFC 8684) where the system knows it. Go's own listeners do by
	// default; here it is a choice, since such a listener costs a little for every connection.
	MultipathTCP bool

	// Socket are options for every accepted connection.
	Socket netx.SocketOptions

	WebSocketServerOptions
	UDPServerOptions
}

// A ServerOption changes one of the options. The With functions are shorthands for common fields; any
// function of this type can set the others.
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

func (o *ServerOptions) fill() error {
	if o.MaxSessions == 0 {
		o.MaxSessions = DefaultMaxSessions
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if o.HandshakeTimeout < 0 {
		return errors.New("getty: HandshakeTimeout is negative")
	}
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	return o.SessionOptions.fill()
}

// A Server accepts connections and runs a session for each. Make one with [NewTCPServer],
// [NewWSServer] or [NewUDPEndPoint]. All its methods may be called from any goroutine.
//
// Its goroutines are one that accepts and one per session; Done tells when all have ended.
type Server struct {
	ep      *endpoint
	opts    ServerOptions
	err     error // from the options, reported by RunEventLoop
	service service

	mu   sync.Mutex
	addr net.Addr // guarded by mu
}

var _ EndPoint = (*Server)(nil)

// A service is what differs between servers: how connections come in.
type service interface {
	// start listens and begins to serve; it returns the address.
	start(s *Server, prepare NewSessionCallback) (net.Addr, error)
	// stop ends listening; open sessions stay.
	stop()
}

func newServer(opts []ServerOption, sv service, adjust func(*ServerOptions)) *Server {
	s := &Server{service: sv}
	for _, opt := range opts {
		if opt != nil {
			opt(&s.opts)
		}
	}
	if adjust != nil {
		adjust(&s.opts)
	}
	s.err = s.opts.fill()
	s.ep = newEndpoint(s, "server", &s.opts.SessionOptions)
	return s
}

// NewTCPServer returns a server of plain TCP sessions. What is wrong with the options is reported by
// RunEventLoop and Serve.
func NewTCPServer(opts ...ServerOption) *Server {
	return newServer(opts, &streamService{}, nil)
}

// ID implements [EndPoint].
func (s *Server) ID() uint64 { return s.ep.id }

// RunEventLoop listens and returns; sessions are served until Close or Shutdown. newSession prepares
// each of them.
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
		return fmt.Errorf("getty: %w", err)
	}
	s.setAddr(addr)
	if s.ep.isClosed() { // Close came before there was a listener to close
		s.service.stop()
		return ErrEndpointClosed
	}
	return nil
}

// Serve is RunEventLoop that blocks until ctx ends or the server is closed. When ctx ends, the sessions
// have DrainTimeout to drain; the result is nil if all did.
func (s *Server) Serve(ctx context.Context, newSession NewSessionCallback) error {
	if err := s.RunEventLoop(newSession); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-s.Done():
		return ErrEndpointClosed
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

// Addr returns where the server listens, nil before RunEventLoop has returned.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Sessions implements [EndPoint].
func (s *Server) Sessions() iter.Seq[Session] { return s.ep.openSessions() }

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

// streamService accepts byte streams.
type streamService struct {
	mu   sync.Mutex
	ln   net.Listener  // guarded by mu
	quit chan struct{} // closed by stop, to end a back-off

	shakes handshakes
}

func (v *streamService) start(s *Server, prepare NewSessionCallback) (net.Addr, error) {
	ln := s.opts.Listener
	if ln == nil {
		var err error
		if ln, err = s.listen(); err != nil {
			return nil, err
		}
	}
	v.mu.Lock()
	v.ln, v.quit = ln, make(chan struct{})
	v.shakes.init()
	v.mu.Unlock()
	if !s.ep.spawnUnlessClosing(func() { v.accept(s, ln, prepare) }) {
		v.stop()
		return nil, ErrEndpointClosed
	}
	return ln.Addr(), nil
}

// listen opens the TCP listener that the options describe.
func (s *Server) listen() (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(s.opts.MultipathTCP)
	return lc.Listen(context.Background(), "tcp", s.opts.Addr)
}

func (v *streamService) stop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ln != nil {
		_ = v.ln.Close()
		close(v.quit)
		v.shakes.stop()
		v.ln = nil
	}
}

// accept never runs user code, and survives whatever a single accept reports: out of descriptors, out of
// memory, a connection that was gone before it was taken.
func (v *streamService) accept(s *Server, ln net.Listener, prepare NewSessionCallback) {
	const first, most = 5 * time.Millisecond, time.Second
	delay := first
	for {
		conn, err := ln.Accept()
		if err == nil {
			delay = first
			s.ep.stats.accepts.Add(1)
			v.shakes.admit(s, conn, prepare)
			continue
		}
		if s.ep.isClosed() || errors.Is(err, net.ErrClosed) {
			return
		}
		s.ep.stats.retries.Add(1)
		s.ep.log.Warn("getty: accept failed, trying again", "error", limitText(err), "delay", delay)
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-v.quit:
			t.Stop()
			return
		}
		delay = min(2*delay, most)
	}
}

// admit makes a session of an accepted connection.
func (s *Server) admit(conn net.Conn, prepare NewSessionCallback) {
	if _, err := s.ep.open(newStream(conn), s.opts.MaxSessions, func(ss Session) error {
		if err := s.tune(conn); err != nil {
			return err
		}
		return prepare(ss)
	}); err != nil {
		s.ep.log.Warn("getty: connection refused", "peer", peerText(conn.RemoteAddr), "error", limitText(err))
		_ = conn.Close()
	}
}

// tune applies the socket options. Without any, a connection that has no socket will do.
func (s *Server) tune(conn net.Conn) error {
	if s.opts.Socket == (netx.SocketOptions{}) {
		return nil
	}
	if err := s.opts.Socket.Apply(conn); err != nil {
		return fmt.Errorf("getty: socket options: %w", err)
	}
	return nil
}
