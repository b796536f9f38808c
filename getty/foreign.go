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

// A foreign is a connection that package net did not make: one of a user's listener or http.Server.
// Its methods may do anything, and some of them run on goroutines whose panic would end the process
// or a whole server. Here a panic becomes an error and a log line, an impossible result becomes an
// error, and a Close that takes its time delays nobody but the end of its own session.
type foreign struct {
	conn net.Conn
	ep   *endpoint

	tell   sync.Once // the first panic is logged
	once   sync.Once // the first Close
	closed chan struct{}
}

var _ net.Conn = (*foreign)(nil)

// contain returns conn, behind a foreign unless it is a connection of package net.
func (e *endpoint) contain(conn net.Conn) net.Conn {
	if wire.Socket(conn) != nil {
		return conn
	}
	if f, ok := conn.(*foreign); ok { // a hijacked connection that our own accept loop took
		return f
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

// caught is deferred around a call of the user's method: it turns a panic into *err.
func caught(where string, err *error) {
	if v := recover(); v != nil {
		*err = &PanicError{Where: where, Value: v, Stack: debug.Stack()}
	}
}

// guard calls the user's method under a recover.
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

// maxEmptyReads is how many reads in a row may bring nothing, as in package bufio.
const maxEmptyReads = 100

// Read implements [net.Conn]. It never returns zero bytes without an error. [io.Reader] allows that and
// says that nothing has happened then: a [net.Pipe] passes on the empty writes of its other end.
func (c *foreign) Read(p []byte) (n int, err error) {
	for range maxEmptyReads {
		err = c.guard("net.Conn.Read", func() (err error) {
			n, err = c.conn.Read(p)
			return err
		})
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
		err = io.ErrShortWrite
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

// Close implements [net.Conn]. It does not wait: crypto/tls, for one, writes an alert first, for as
// long as five seconds. awaitClosed waits.
func (c *foreign) Close() error {
	c.once.Do(func() {
		c.ep.spawn(func() {
			defer close(c.closed)
			if _, panicked := c.guard("net.Conn.Close", c.conn.Close).(*PanicError); panicked {
				// A read that is under way may go on for ever; perhaps a deadline ends it.
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

// addr returns what an address says at this moment, since its own methods are the user's too.
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

// A textAddr is an address that says what another one said; the zero value is no address.
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

// awaitClosed waits until the Close of a user's connection has returned.
func (t *stream) awaitClosed() {
	if f, ok := t.conn.(*foreign); ok {
		<-f.closed
	}
}

// awaitClosed waits until the session's descriptor is free; closeHard was called.
func (s *session) awaitClosed() {
	if t, ok := s.proto.(interface{ awaitClosed() }); ok {
		t.awaitClosed()
	}
}
