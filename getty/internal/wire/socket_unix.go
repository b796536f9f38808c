// SPDX-License-Identifier: Apache-2.0

//go:build unix

package wire

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
)

// A socket link reads and writes a connection of package net through its descriptor, while Go's
// poller does the waiting.
//
// # Reading
//
// Run stays inside one RawConn.Read call, which works like this: it clears the poller's readiness
// once, at its start, and then calls step until that returns true; each time step returns false it
// waits for an edge. An edge that comes while step is at work is remembered. So no wake-up is lost
// as long as step returns false only when everything that came before is known to have been seen:
//
//   - A read that finds nothing (EAGAIN) has seen everything, but is a second system call in every turn.
//   - On Linux a read can tell how much is left (TCP_INQ). 0 means that nothing is queued and no FIN is
//     pending, which a short read alone does not say. It says nothing about a reset that arrived together
//     with the data, whose edge was the data's. But a write that succeeded after the read does, and so
//     does the socket's pending error (SO_ERROR), which costs less than a read.
//
// Across two RawConn.Read calls nothing is remembered, so step always reads before it waits.
//
// # Closing
//
// net.Conn.Close waits until RawConn.Read has returned. Below step, user code may be at work, for
// any time, and may be the one that calls Close: hence the two bits of state.
type socket struct {
	conn net.Conn
	rc   syscall.RawConn
	sys  *sysCalls
	inq  bool // reads tell what is still queued

	state atomic.Uint32 // stateBusy, stateClosed

	// Used by Run. They lie here so that step needs no closure.
	in     *Input
	h      Handler
	fd     uintptr
	held   bool // fd may be used, by the goroutine on which the Handler is at work
	sent   bool // a write succeeded since the latest read,
	failed bool // or one failed: it took the socket's error, which nobody else is told then
	runErr error
	stepFn func(fd uintptr) bool

	// Used by Write.
	src      Source
	wait     bool
	writeErr error
	writeFn  func(fd uintptr) bool
}

const (
	stateBusy   = 1 << iota // the Handler is at work, with the descriptor referenced
	stateClosed             // Close was called
)

// sysCalls are the system calls on the descriptor. They never wait, not even where the user has
// made the descriptor a blocking one. Tests count them and put others in their place.
type sysCalls struct {
	// recv reads into b. more is false if nothing is left to be read and no end of stream is
	// pending; it is true if that is not known.
	recv func(fd uintptr, b []byte, inq bool) (n int, more bool, err error)
	// pending returns the error that the socket has run into and no call has told. It is used only
	// where reads tell that nothing is left.
	pending func(fd uintptr) error
	// send writes runs in order and returns how many bytes were taken.
	send func(fd uintptr, runs [][]byte) (int, error)
}

func newSocket(conn net.Conn) Link {
	sc := Socket(conn)
	if sc == nil {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	l := &socket{conn: conn, rc: rc, sys: &systemCalls}
	if _, tcp := conn.(*net.TCPConn); tcp {
		_ = rc.Control(func(fd uintptr) { l.inq = enableInq(fd) })
	}
	l.stepFn, l.writeFn = l.step, l.tryWrite
	return l
}

func (l *socket) Conn() net.Conn    { return l.conn }
func (l *socket) CloseWrite() error { return closeWrite(l.conn) }

func (l *socket) Close() error {
	was := l.state.Or(stateClosed)
	switch {
	case was&stateBusy != 0:
		// Closing would wait for the Handler. After a shutdown the peer sees the end, Write fails,
		// and what is read next is the end of the stream.
		return l.rc.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
	default:
		return l.conn.Close() // further calls fail at once
	}
}

func (l *socket) Run(in *Input, h Handler) error {
	l.in, l.h, l.runErr = in, h, nil
	err := l.rc.Read(l.stepFn)
	l.in, l.h = nil, nil
	if err != nil {
		return err // the descriptor is closed
	}
	return l.runErr
}

// step reads until the socket is empty, and reports whether Run is over. It must stay small: what
// lies on the stack below the wait is memory of every idle connection.
func (l *socket) step(fd uintptr) bool {
	in := l.in
	for {
		if !l.h.MayRead() {
			return true
		}
		buf := in.lease()
		n, more, err := l.sys.recv(fd, buf[in.n:], l.inq)
		if n <= 0 {
			in.giveBack(buf)
			switch err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return !l.h.Idle()
			case nil:
				l.runErr = io.EOF
			default:
				l.runErr = os.NewSyscallError("read", err)
			}
			return true
		}
		in.accept(buf, n)
		if !l.received(fd, n) {
			return true
		}
		if more || l.failed {
			continue
		}
		if !l.sent {
			if err := l.sys.pending(fd); err != nil {
				l.runErr = os.NewSyscallError("read", err)
				return true
			}
		}
		in.Rest()
		return !l.h.Idle()
	}
}

// received runs the Handler, and reports whether Run goes on.
func (l *socket) received(fd uintptr, n int) bool {
	if l.state.Or(stateBusy)&stateClosed != 0 {
		l.state.And(^uint32(stateBusy))
		l.runErr = net.ErrClosed
		return false
	}
	defer l.done() // also if the Handler ends the goroutine with Goexit
	l.fd, l.held, l.sent, l.failed = fd, true, false, false
	return l.h.Received(n)
}

func (l *socket) done() {
	l.held = false
	l.state.And(^uint32(stateBusy))
}

func (l *socket) Write(src Source, how Mode) error {
	l.src, l.wait, l.writeErr = src, how == Wait, nil
	if how == Held && l.held {
		n, _ := l.push(l.fd)
		l.sent = l.sent || n > 0
		l.failed = l.writeErr != nil && l.writeErr != ErrWouldBlock
	} else if err := l.rc.Write(l.writeFn); err != nil {
		l.src = nil
		return err
	}
	l.src = nil
	return l.writeErr
}

func (l *socket) tryWrite(fd uintptr) bool {
	_, done := l.push(fd)
	return done
}

// push writes until the source is empty or the kernel takes no more. It returns how much was
// written, and whether Write is over.
func (l *socket) push(fd uintptr) (written int, done bool) {
	for {
		runs := l.src.Offer()
		if len(runs) == 0 {
			return written, true
		}
		n, err := l.sys.send(fd, runs)
		n = max(n, 0)
		l.src.Took(n)
		written += n
		switch {
		case n > 0, err == syscall.EINTR:
		case err == syscall.EAGAIN && l.wait:
			return written, false
		case err == syscall.EAGAIN:
			l.writeErr = ErrWouldBlock
			return written, true
		default:
			l.writeErr = os.NewSyscallError("write", err)
			return written, true
		}
	}
}
