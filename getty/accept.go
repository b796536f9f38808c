// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// An acceptor listens and accepts, for every kind of server. There is only this accept loop, so
// that every kind of server survives the same errors.
type acceptor struct {
	mu   sync.Mutex
	s    *Server
	ln   net.Listener  // guarded by mu; nil before start and after stop
	quit chan struct{} // closed by stop, to end a back-off
}

// start listens and gives every accepted connection to handle, which must not block.
func (a *acceptor) start(s *Server, handle func(net.Conn)) (net.Addr, error) {
	ln := s.opts.Listener
	if ln == nil {
		var err error
		if ln, err = s.listen(); err != nil {
			return nil, fmt.Errorf("Addr: %w", err)
		}
	}
	quit := make(chan struct{})
	a.mu.Lock()
	a.s, a.ln, a.quit = s, ln, quit
	a.mu.Unlock()
	if !s.ep.spawnUnlessClosing(func() { a.loop(ln, quit, handle) }) {
		a.stop()
		return nil, ErrEndpointClosed
	}
	return listenerAddr(ln), nil
}

// listen opens the listener that the options describe.
func (s *Server) listen() (net.Listener, error) {
	if s.kind == unixServer {
		return s.opts.Unix.listen(s.opts.Addr)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(s.opts.MultipathTCP)
	return lc.Listen(context.Background(), "tcp", s.opts.Addr)
}

// stop closes the listener and ends the loop.
func (a *acceptor) stop() {
	a.mu.Lock()
	ln := a.ln
	a.ln = nil
	if ln != nil {
		close(a.quit)
	}
	a.mu.Unlock()
	if ln == nil {
		return
	}
	// On a goroutine of its own: if somebody has made the descriptor a blocking one, Close waits for
	// an Accept that waits in the kernel. Mostly it returns at once, and the port is free.
	closed := make(chan struct{})
	a.s.ep.spawn(func() {
		defer close(closed)
		if err := closeListener(ln); err != nil && !errors.Is(err, net.ErrClosed) {
			a.s.ep.log.Warn("getty: closing the listener", "error", limitText(err))
		}
	})
	t := time.NewTimer(listenerPatience)
	defer t.Stop()
	select {
	case <-closed:
	case <-t.C:
	}
}

// listenerPatience is how long a Close or Shutdown waits for the listener's Close.
const listenerPatience = 100 * time.Millisecond

// loop accepts until the listener is closed. It survives every error that a single Accept reports:
// no descriptors or memory left, a connection that ended before it was accepted, a panic. The
// listener's methods are the only user code that it runs.
func (a *acceptor) loop(ln net.Listener, quit <-chan struct{}, handle func(net.Conn)) {
	ep := a.s.ep
	returned := false
	var asked net.Conn // Admit is at work on it
	defer func() {
		switch {
		case returned:
		case asked != nil: // Admit has called runtime.Goexit, which costs one connection
			a.s.decline(asked, fmt.Errorf("%w: %w", errNotAdmitted, &PanicError{Where: "Admit"}))
			ep.spawn(func() { a.loop(ln, quit, handle) })
		default: // Accept has
			a.s.fail(&PanicError{Where: "net.Listener.Accept"})
		}
	}()
	const first, most = 5 * time.Millisecond, time.Second
	delay := first
	for {
		conn, err := acceptFrom(ln)
		if err == nil {
			delay = first
			ep.stats.accepts.Add(1)
			conn = ep.contain(conn)
			ep.traceAccepted(conn.RemoteAddr())
			asked = conn
			err = a.s.admitted(conn)
			asked = nil
			if err != nil {
				a.s.decline(conn, err)
				continue
			}
			handle(conn)
			continue
		}
		if ep.isClosed() {
			break
		}
		// With any other error it is tried again, whether the error calls itself temporary or not:
		// a server that stops listening because of one is worse than a loop that tries in vain.
		if errors.Is(err, net.ErrClosed) {
			a.s.fail(fmt.Errorf("getty: the listener was closed by its owner: %w", err))
			break
		}
		ep.stats.retries.Add(1)
		ep.log.Warn("getty: accept failed, trying again", "error", limitText(err), "delay", delay)
		t := time.NewTimer(delay)
		select {
		case <-t.C:
		case <-quit:
		}
		t.Stop()
		delay = min(2*delay, most)
	}
	returned = true
}

// acceptFrom is Accept of a listener that may be a user's.
func acceptFrom(ln net.Listener) (conn net.Conn, err error) {
	defer caught("net.Listener.Accept", &err)
	conn, err = ln.Accept()
	if err == nil && conn == nil {
		err = fmt.Errorf("getty: %T.Accept returned neither a connection nor an error", ln)
	}
	return conn, err
}

// admitted asks the user's hook about a connection that was accepted.
func (s *Server) admitted(conn net.Conn) (err error) {
	if s.opts.Admit == nil {
		return nil
	}
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Where: "Admit", Value: v, Stack: debug.Stack()}
			s.ep.log.Error("getty: callback panicked", "peer", addrText(conn.RemoteAddr()),
				"where", "Admit", "panic", limitString(fmt.Sprint(v)))
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", errNotAdmitted, err)
		}
	}()
	return s.opts.Admit(conn.RemoteAddr())
}

// reserve takes a place for a connection of peer.
func (s *Server) reserve(peer net.Addr) (place, error) {
	return s.ep.places.reserve(s.opts.MaxSessions, s.opts.MaxSessionsPerAddr, peer)
}

func closeListener(ln net.Listener) (err error) {
	defer caught("net.Listener.Close", &err)
	return ln.Close()
}

// listenerAddr returns a listener's address, nil if it has none.
func listenerAddr(ln net.Listener) (addr net.Addr) {
	defer func() { _ = recover() }()
	return ln.Addr()
}

// admit makes a session of an accepted connection.
func (s *Server) admit(conn net.Conn, prepare NewSessionCallback) {
	at, err := s.reserve(conn.RemoteAddr())
	if err != nil {
		s.decline(conn, err)
		return
	}
	proto := newStream(conn, s.opts.Compress)
	if _, err := s.ep.openReserved(proto, at, s.prepareOn(conn, prepare)); err != nil {
		s.refused(addrText(conn.RemoteAddr()), err)
		_ = conn.Close()
	}
}

// prepareOn returns prepare, preceded by setting the socket options of conn. So the accept loop
// need not wait for that, and an option that fails refuses only its own session.
func (s *Server) prepareOn(conn net.Conn, prepare NewSessionCallback) NewSessionCallback {
	return func(ss Session) error {
		if err := s.tune(original(conn)); err != nil {
			return err
		}
		return prepare(ss)
	}
}

// turnAway counts and logs a connection for which no session was begun.
func (s *Server) turnAway(peer string, err error) {
	s.ep.stats.refused.Add(1)
	s.ep.stats.refusals.count(err)
	s.ep.traceRefused(peer, err)
	s.refused(peer, err)
}

// refused logs a connection that did not become a session.
func (s *Server) refused(peer string, err error) {
	s.ep.log.Warn("getty: connection refused", "peer", peer, "error", limitText(err))
}
