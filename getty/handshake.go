// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
)

// A handshaker is a connection that has to agree with its peer before bytes can flow: one with our
// TLS, or a tls.Conn from the user's listener.
type handshaker interface {
	HandshakeContext(context.Context) error
}

// A greeting is what precedes a session. It returns the connection to go on with, or nil.
type greeting func(ctx context.Context) (net.Conn, error)

// greeting returns that of an accepted connection, nil if there is none. It may call user code.
func (s *Server) greeting(conn net.Conn) greeting {
	if s.opts.Handshake != nil {
		return func(ctx context.Context) (net.Conn, error) {
			c, err := s.opts.Handshake(ctx, original(conn))
			switch {
			case err != nil:
				return c, err
			case c == nil:
				return nil, errors.New("getty: Handshake returned neither a connection nor an error")
			}
			c = s.secured(s.ep.contain(c))
			if hs, ok := original(c).(handshaker); ok {
				err = hs.HandshakeContext(ctx)
			}
			return c, err
		}
	}
	conn = s.secured(conn)
	if hs, ok := original(conn).(handshaker); ok {
		return func(ctx context.Context) (net.Conn, error) { return conn, hs.HandshakeContext(ctx) }
	}
	return nil
}

// handshakes runs the greetings of accepted connections, each on a goroutine of its own, so that a
// silent peer does not hold up the accept loop. HandshakeTimeout ends them.
type handshakes struct {
	ctx  context.Context
	stop context.CancelFunc
}

func newHandshakes() *handshakes {
	h := new(handshakes)
	h.ctx, h.stop = context.WithCancel(context.Background())
	return h
}

// admit calls next with conn, after the greeting if conn has one.
func (h *handshakes) admit(s *Server, conn net.Conn, next func(net.Conn)) {
	greet := s.greeting(conn)
	if greet == nil {
		next(conn)
		return
	}
	// Greetings count as the sessions that they may become. Otherwise silent peers could hold any
	// number of connections.
	at, err := s.reserveGreeting(conn.RemoteAddr())
	if err != nil {
		s.decline(conn, err)
		return
	}
	if !s.ep.spawnUnlessClosing(func() { h.shake(s, greet, conn, at, next) }) {
		s.ep.places.release(at)
		_ = conn.Close()
	}
}

// reserveGreeting takes a place for a connection whose Handshake may yet tell another address.
func (s *Server) reserveGreeting(peer net.Addr) (place, error) {
	if s.opts.Handshake != nil {
		return s.ep.places.reserve(s.opts.MaxSessions, 0, nil)
	}
	return s.reserve(peer)
}

// shake runs one greeting, and next after it, which takes a place of its own.
func (h *handshakes) shake(
	s *Server, greet greeting, conn net.Conn, at place, next func(net.Conn),
) {
	var made net.Conn
	err := error(&PanicError{Where: "Handshake"}) // stays if a user's function calls Goexit
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Where: "Handshake", Value: v, Stack: debug.Stack()}
		}
		s.ep.places.release(at)
		if err != nil {
			s.decline(conn, tellPlainText(err))
			if made != nil && made != conn { // it may hold something of its own
				_ = s.ep.contain(made).Close()
			}
			return
		}
		next(made)
	}()
	ctx, cancel := context.WithTimeout(h.ctx, s.opts.HandshakeTimeout)
	defer cancel()
	// Not every connection looks at its context. A close ends every handshake.
	unwatch := context.AfterFunc(ctx, func() { _ = conn.Close() })
	made, err = greet(ctx)
	if !unwatch() { // the connection was closed, even if the handshake says that it succeeded
		err = fmt.Errorf("handshake: %w", context.Cause(ctx))
	}
}

// decline counts, logs and closes a connection that becomes no session.
func (s *Server) decline(conn net.Conn, err error) {
	s.turnAway(addrText(conn.RemoteAddr()), err)
	_ = conn.Close()
}
