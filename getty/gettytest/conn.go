// SPDX-License-Identifier: Apache-2.0

package gettytest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// connBuffer is how many bytes a connection in memory holds in each direction before a write waits.
const connBuffer = 64 << 10

// A Listener is a net.Listener whose connections live in memory. Make one with [Listen].
type Listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*Listener)(nil)

// Listen returns a Listener, for example as the Listener of a [getty.ServerOptions].
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial returns the client's end of a new connection once the server has accepted it. The error is
// net.ErrClosed when the listener is closed, the context's cause when ctx ends.
func (l *Listener) Dial(ctx context.Context) (*Conn, error) {
	client, server := Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept implements [net.Listener].
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements [net.Listener].
func (l *Listener) Addr() net.Addr { return addr{} }

type addr struct{}

func (addr) Network() string { return "memory" }
func (addr) String() string  { return "memory" }

// A Conn is one end of a connection in memory. Unlike that of net.Pipe it buffers 64 KiB in each
// direction, and its streams end one by one.
type Conn struct {
	in, out *stream
}

var _ net.Conn = (*Conn)(nil)

// Pipe returns the two ends of a connection in memory.
func Pipe() (a, b *Conn) {
	x, y := newStream(), newStream()
	return &Conn{in: x, out: y}, &Conn{in: y, out: x}
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements [net.Conn]. It waits while the buffer is full.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// CloseWrite ends the outgoing stream; the other direction goes on.
func (c *Conn) CloseWrite() error {
	c.out.end(io.EOF)
	return nil
}

// Close implements [net.Conn]: the peer reads what was written before, and its writes fail.
func (c *Conn) Close() error {
	c.out.end(io.EOF)
	c.in.leave()
	return nil
}

// Reset ends both directions at once with err, at both ends, and what was not read yet is lost.
func (c *Conn) Reset(err error) {
	c.in.reset(err)
	c.out.reset(err)
}

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return addr{} }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return addr{} }

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.deadline(&c.in.readBy, t)
	return nil
}

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.deadline(&c.out.writeBy, t)
	return nil
}

// A stream is one direction of a connection.
type stream struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte // guarded by mu
	ended   error  // guarded by mu: what a reader gets when buf is empty; nil while the writer may go on
	left    bool   // guarded by mu: the reader is gone
	lost    error  // guarded by mu: the connection was reset
	readBy  limit  // guarded by mu
	writeBy limit  // guarded by mu
}

// A limit is a deadline; its timer wakes whoever waits for it.
type limit struct {
	at    time.Time
	timer *time.Timer
}

func (l *limit) over() bool { return !l.at.IsZero() && !time.Now().Before(l.at) }

func newStream() *stream {
	s := &stream{}
	s.changed.L = &s.mu
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.lost != nil:
			return 0, s.lost
		case s.left:
			return 0, net.ErrClosed
		case s.readBy.over():
			return 0, os.ErrDeadlineExceeded
		case len(s.buf) > 0 || len(p) == 0:
			n := copy(p, s.buf)
			s.buf = s.buf[n:]
			s.changed.Broadcast()
			return n, nil
		case s.ended != nil:
			return 0, s.ended
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.lost != nil:
			return n, s.lost
		case s.ended != nil:
			return n, net.ErrClosed
		case s.left:
			return n, io.ErrClosedPipe
		case s.writeBy.over():
			return n, os.ErrDeadlineExceeded
		}
		if room := connBuffer - len(s.buf); room > 0 {
			m := min(room, len(p)-n)
			s.buf = append(s.buf, p[n:n+m]...)
			n += m
			s.changed.Broadcast()
		}
		if n == len(p) {
			return n, nil
		}
		s.changed.Wait()
	}
}

func (s *stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = err
	}
	s.changed.Broadcast()
}

func (s *stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
	s.buf = nil
	s.changed.Broadcast()
}

func (s *stream) reset(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = err
	s.buf = nil
	s.changed.Broadcast()
}

// deadline sets l, one of s's limits.
func (s *stream) deadline(l *limit, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	if l.at = t; !t.IsZero() {
		l.timer = time.AfterFunc(time.Until(t), func() {
			s.mu.Lock() // so that nobody is between looking at the time and waiting
			s.changed.Broadcast()
			s.mu.Unlock()
		})
	}
	s.changed.Broadcast()
}
