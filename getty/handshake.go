// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"
)

// A handshaker is a connection that has to agree with its peer before bytes can flow: one with our
// TLS, or a tls.Conn from the user's listener.
type handshaker interface {
	HandshakeContext(context.Context) error
}

// handshakes runs the handshakes of accepted connections, each on a goroutine of its own, so that a
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

// admit calls next with conn, after the handshake if conn has one.
func (h *handshakes) admit(s *Server, conn net.Conn, next func(net.Conn)) {
	hs, ok := original(conn).(handshaker)
	if !ok {
		next(conn)
		return
	}
	// Handshakes count as the sessions that they may become. Otherwise silent peers could hold any
	// number of connections.
	at, err := s.reserve(conn.RemoteAddr())
	if err != nil {
		s.decline(conn, err)
		return
	}
	if !s.ep.spawnUnlessClosing(func() { h.shake(s, hs, conn, at, next) }) {
		s.ep.places.release(at)
		_ = conn.Close()
	}
}

// shake runs one handshake, and next after it, which takes a place of its own.
func (h *handshakes) shake(
	s *Server, hs handshaker, conn net.Conn, at place, next func(net.Conn),
) {
	err := error(&PanicError{Where: "HandshakeContext"}) // stays if a user's method calls Goexit
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Where: "HandshakeContext", Value: v, Stack: debug.Stack()}
		}
		s.ep.places.release(at)
		if err != nil {
			s.decline(conn, tellPlainText(err))
			return
		}
		next(conn)
	}()
	ctx, cancel := context.WithTimeout(h.ctx, s.opts.HandshakeTimeout)
	defer cancel()
	// Not every connection looks at its context. A close ends every handshake.
	unwatch := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = hs.HandshakeContext(ctx)
	if !unwatch() { // the connection was closed, even if the handshake says that it succeeded
		err = fmt.Errorf("handshake: %w", context.Cause(ctx))
	}
}

// decline counts, logs and closes a connection that becomes no session.
func (s *Server) decline(conn net.Conn, err error) {
	s.turnAway(addrText(conn.RemoteAddr()), err)
	_ = conn.Close()
}
