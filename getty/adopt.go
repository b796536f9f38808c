// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/gostkit/kit/getty/internal/wire"
)

// NewConnServer returns a server that listens nowhere: its sessions are made of connections that
// are given to Adopt. RunEventLoop starts it as any other.
func NewConnServer(opts ...ServerOption) *Server {
	return newServer(opts, mountedService{}, connServer)
}

// Adopt makes a session of conn, which may be any [net.Conn]: one end of a net.Pipe, a connection
// through a proxy or a tunnel, one of a listener of the user's own. A conn that is no socket of
// package net is used through its methods; where it has no CloseWrite, the end of one direction is
// the end of both. newSession prepares the session; nil stands for the callback of RunEventLoop,
// which must have been called.
//
// conn belongs to the server from here on, and is closed if there is an error. The session counts
// for MaxSessions and ends with the server; its OnOpen may run after Adopt has returned. With TLS
// the server's part of the handshake comes first, for which Adopt waits within HandshakeTimeout.
// Only servers of byte streams adopt: those of TCP, of Unix sockets, and of NewConnServer.
func (s *Server) Adopt(conn net.Conn, newSession NewSessionCallback) (Session, error) {
	if conn == nil || isNilPointer(conn) {
		return nil, errors.New("getty: Adopt without a connection")
	}
	conn = s.ep.contain(conn)
	ss, err := s.adopt(conn, newSession)
	if err != nil {
		s.ep.stats.refused.Add(1)
		s.ep.stats.refusals.count(err)
		_ = conn.Close()
		return nil, err
	}
	return ss, nil
}

// setAdopter notes that the server runs, with the callback for connections that bring none.
func (s *Server) setAdopter(newSession NewSessionCallback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prepare = newSession
}

func (s *Server) adopt(conn net.Conn, prepare NewSessionCallback) (*session, error) {
	s.mu.Lock()
	own := s.prepare
	s.mu.Unlock()
	switch {
	case s.kind&streams == 0:
		return nil, fmt.Errorf("getty: a server of %v does not adopt connections", s.kind)
	case s.ep.isClosed():
		return nil, s.closedError()
	case own == nil:
		return nil, errors.New("getty: Adopt before RunEventLoop")
	case prepare == nil:
		prepare = own
	}
	s.ep.stats.accepts.Add(1)
	at, err := s.reserve(conn.RemoteAddr())
	if err != nil {
		return nil, err
	}
	conn = s.secured(conn)
	if c, ok := conn.(*wire.TLSConn); ok {
		ctx, cancel := context.WithTimeout(context.Background(), s.opts.HandshakeTimeout)
		defer cancel()
		if err := shakeHandsTLS(ctx, c); err != nil {
			s.ep.places.release(at)
			return nil, fmt.Errorf("getty: TLS handshake: %w", tellPlainText(err))
		}
	}
	return s.ep.openReserved(newStream(conn, s.opts.Compress), at, s.prepareOn(conn, prepare))
}
