// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gostkit/kit/getty/internal/wire"
	"github.com/gostkit/kit/netx"
)

// A foreign wraps a connection that package net did not make: one of a user's listener or
// http.Server. The methods of such a connection are user code, and some run on goroutines whose
// panic would end the process or a whole server. Here a panic becomes an error and a log line, and
// an impossible result becomes an error. A Close that takes long delays only the end of its own
// session.
type foreign struct {
	conn net.Conn
	ep   *endpoint

	tell   sync.Once // the first panic is logged
	once   sync.Once // the first Close
	closed chan struct{}
}

var _ net.Conn = (*foreign)(nil)

// contain returns conn, wrapped in a foreign unless it is a connection of package net.
func (e *endpoint) contain(conn net.Conn) net.Conn {
	if wire.Socket(conn) != nil {
		return conn
	}
	switch conn.(type) {
	case *foreign, *wire.TLSConn: // hijacked, and accepted by our own loop before
		return conn
	}
	return &foreign{conn: conn, ep: e, closed: make(chan struct{})}
}

// original returns the connection as the user's listener made it.
func original(conn net.Conn) net.Conn {
	if f, ok := conn.(*foreign); ok {
		return f.conn
	}
	return conn
}

// caught is deferred around a call of a user's method. It turns a panic into *err.
func caught(where string, err *error) {
	if v := recover(); v != nil {
		*err = &PanicError{Where: where, Value: v, Stack: debug.Stack()}
	}
}

// guard calls a method of the user's connection, and turns a panic into an error.
func (c *foreign) guard(where string, method func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			p := &PanicError{Where: where, Value: v, Stack: debug.Stack()}
			c.tell.Do(func() {
				c.ep.log.Error("getty: a connection's method panicked",
					"where", where, "panic", v, "stack", string(p.Stack))
			})
			err = p
		}
	}()
	return method()
}

// maxEmptyReads is how many reads in a row may return nothing, as in package bufio.
const maxEmptyReads = 100

// Read implements [net.Conn]. It never returns zero bytes without an error.
func (c *foreign) Read(p []byte) (n int, err error) {
	// io.Reader allows that and calls it no event: a net.Pipe, for one, passes on the empty writes
	// of its other end. A connection that does nothing else must not keep the reader spinning.
	for range maxEmptyReads {
		err = c.guard("net.Conn.Read", func() (err error) {
			n, err = c.conn.Read(p)
			return err
		})
		// Callers slice the buffer with n, and would panic.
		if n < 0 || n > len(p) {
			return 0, fmt.Errorf("getty: %T.Read returned %d of %d bytes", c.conn, n, len(p))
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// Write implements [net.Conn].
func (c *foreign) Write(p []byte) (n int, err error) {
	err = c.guard("net.Conn.Write", func() (err error) {
		n, err = c.conn.Write(p)
		return err
	})
	switch {
	case n < 0 || n > len(p):
		return 0, fmt.Errorf("getty: %T.Write returned %d of %d bytes", c.conn, n, len(p))
	case n < len(p) && err == nil:
		err = io.ErrShortWrite // io.Writer asks for an error; without it bytes would be missing
	}
	return n, err
}

// CloseWrite ends the writing side. The error matches [errors.ErrUnsupported] where the connection
// can only be closed as a whole.
func (c *foreign) CloseWrite() error {
	w, ok := c.conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return c.guard("net.Conn.CloseWrite", w.CloseWrite)
}

// Close implements [net.Conn]. It does not wait; awaitClosed does.
func (c *foreign) Close() error {
	c.once.Do(func() {
		// On a goroutine of its own: crypto/tls, for one, first writes an alert, for up to five
		// seconds, and callers of Close must not wait for the peer.
		c.ep.spawn(func() {
			defer close(c.closed)
			if _, panicked := c.guard("net.Conn.Close", c.conn.Close).(*PanicError); panicked {
				// The connection may still be open, and a Read or Write in progress would never
				// return. Perhaps a deadline ends it.
				_ = c.SetDeadline(time.Unix(1, 0))
			}
		})
	})
	return nil
}

// SetDeadline implements [net.Conn].
func (c *foreign) SetDeadline(t time.Time) error {
	return c.guard("net.Conn.SetDeadline", func() error { return c.conn.SetDeadline(t) })
}

// SetReadDeadline implements [net.Conn].
func (c *foreign) SetReadDeadline(t time.Time) error {
	return c.guard("net.Conn.SetReadDeadline", func() error { return c.conn.SetReadDeadline(t) })
}

// SetWriteDeadline implements [net.Conn].
func (c *foreign) SetWriteDeadline(t time.Time) error {
	return c.guard("net.Conn.SetWriteDeadline", func() error { return c.conn.SetWriteDeadline(t) })
}

// LocalAddr implements [net.Conn].
func (c *foreign) LocalAddr() net.Addr { return c.addr("net.Conn.LocalAddr", c.conn.LocalAddr) }

// RemoteAddr implements [net.Conn].
func (c *foreign) RemoteAddr() net.Addr { return c.addr("net.Conn.RemoteAddr", c.conn.RemoteAddr) }

// addr returns a copy of an address as text, since the methods of the address are user code too.
func (c *foreign) addr(where string, method func() net.Addr) net.Addr {
	var text textAddr
	_ = c.guard(where, func() error {
		if a := method(); a != nil {
			text = textAddr{a.Network(), a.String()}
		}
		return nil
	})
	return text
}

// A textAddr is an address in text form. The zero value is no address.
type textAddr struct{ network, text string }

func (a textAddr) Network() string { return a.network }
func (a textAddr) String() string  { return a.text }

// sendQueue is netx.SendQueue, which calls methods of a user's connection to find its descriptor.
func sendQueue(conn net.Conn) (n int, err error) {
	defer caught("net.Conn.SyscallConn", &err)
	return netx.SendQueue(conn)
}

// alive is netx.Alive, with a guard like sendQueue's.
func alive(conn net.Conn) (state netx.State, err error) {
	defer caught("net.Conn.SyscallConn", &err)
	return netx.Alive(conn)
}

// NetConn returns the user's connection.
func (c *foreign) NetConn() net.Conn { return c.conn }

// awaitClosed waits until the Close of a user's connection has returned.
func (t *stream) awaitClosed() {
	if f, ok := wire.Below(t.conn).(*foreign); ok {
		<-f.closed
	}
}

// awaitClosed waits until the session's descriptor is free; closeHard was called.
func (s *session) awaitClosed() {
	if t, ok := s.proto.(interface{ awaitClosed() }); ok {
		t.awaitClosed()
	}
}
