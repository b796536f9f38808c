// SPDX-License-Identifier: Apache-2.0

//go:build unix

package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// A socket link reads and writes a connection of package net through its descriptor, while Go's
// poller does the waiting.
//
// # Reading
//
// Run stays inside one RawConn.Read call. RawConn.Read clears the readiness of Go's poller once, at
// its start, and then calls step until that returns true. Each time step returns false it waits for
// an edge of the poller. An edge that comes while step is at work is remembered. So no wake-up is
// lost as long as step returns false only when it has seen everything that arrived before. Two ways
// to know that:
//
//   - A read that finds nothing (EAGAIN). It is a second system call for every message.
//   - TCP_INQ on Linux: a read tells how much is left. 0 means that nothing is queued and no FIN is
//     pending. A short read alone does not mean that: a FIN that arrived before it gives no further
//     edge.
//
// With TCP_INQ one event can still be missed: a reset that arrived together with the data, in the
// same edge. A write that succeeded after the read proves that there was none. Otherwise the
// socket's pending error (SO_ERROR) is asked for, which costs less than a read.
//
// # Closing
//
// net.Conn.Close waits until RawConn.Read has returned. User code may be at work below step, for
// any time, and may be the caller of Close, which would wait for itself. The two bits of state tell
// Close whether to shut the connection down instead.
type socket struct {
	conn net.Conn
	rc   syscall.RawConn
	sys  *sysCalls
	inq  bool // reads tell how much is still queued (TCP_INQ)

	state       atomic.Uint32 // stateBusy, stateClosed
	interrupted atomic.Bool   // a read deadline is set, for Interrupt

	// Used by Run. They lie here so that step needs no closure.
	in     *Input
	h      Handler
	fd     uintptr
	held   bool // fd may be used, by the goroutine on which the Handler is at work
	sent   bool // a write succeeded since the latest read
	failed bool // a write failed since the latest read
	peek   bool // Run was interrupted: look before a read
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
	// pending returns and clears the error of the socket that no call has returned yet. It is used
	// only where reads tell that nothing is left.
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

func (l *socket) Conn() net.Conn        { return l.conn }
func (l *socket) CloseWrite(Mode) error { return closeWrite(l.conn) }
func (l *socket) LastWords() int        { return 0 }

func (l *socket) Close() error {
	was := l.state.Or(stateClosed)
	switch {
	case was&stateBusy != 0:
		// Closing would wait for the Handler, which may be the caller. After a shutdown the peer
		// sees the end, Write fails, and the next read finds the end of the stream.
		return l.rc.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
	default:
		return l.conn.Close() // further calls fail at once
	}
}

func (l *socket) Run(in *Input, h Handler) error {
	l.in, l.h, l.runErr = in, h, nil
	err := l.rc.Read(l.stepFn)
	l.in, l.h = nil, nil
	if err == nil {
		return l.runErr
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && l.interrupted.Load() {
		_ = l.conn.SetReadDeadline(time.Time{})
		// Afterwards, so that no new deadline is set before this one is gone.
		l.interrupted.Store(false)
		l.peek = true
		return ErrInterrupted
	}
	return err // the descriptor is closed
}

// Interrupt implements [Interrupter]. A deadline that is over ends a wait of RawConn.Read, and
// nothing else: the read before it has found the socket empty, or is the first of the next Run.
func (l *socket) Interrupt() {
	if !l.interrupted.Swap(true) {
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// step reads until the socket is empty, and reports whether Run is over. Its frame must stay small:
// while RawConn.Read waits, the stack of the goroutine is memory of an idle connection.
func (l *socket) step(fd uintptr) bool {
	in := l.in
	// It always begins with a read, and not with a wait: across two RawConn.Read calls no edge is
	// remembered, so that what arrived between them would be missed.
	for {
		if !l.h.MayRead() {
			return true
		}
		if l.peek {
			// Mostly there is nothing. A read would make the stack of a fresh goroutine grow.
			l.peek = false
			if empty(fd) {
				return !l.h.Idle()
			}
		}
		// A buffer is taken only now that there is something to read, or may be: while it waits, an
		// idle connection has none.
		buf := in.lease()
		n, more, err := l.sys.recv(fd, buf[in.n:], l.inq)
		if n <= 0 {
			in.giveBack(buf)
			switch err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				// Idle comes after the read that found nothing. Had it come before, the session
				// would be called idle with bytes in the socket, and Shutdown would lose them.
				return !l.h.Idle()
			case nil: // 0 bytes without an error
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
		// A failed write has taken the socket's pending error. Only a read tells what came before
		// it: perhaps data, then the end of the stream.
		if more || l.failed {
			continue
		}
		// Nothing is left, and so the empty read is saved. A reset would give no further edge: with
		// neither of the two proofs Run could wait for ever.
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
	// One atomic operation: a Close that comes before it closes the connection and waits for Run to
	// return; one that comes after it only shuts the connection down.
	if l.state.Or(stateBusy)&stateClosed != 0 {
		l.state.And(^uint32(stateBusy))
		l.runErr = net.ErrClosed
		return false
	}
	defer l.done() // also if the Handler ends the goroutine with Goexit
	l.fd, l.held, l.sent, l.failed = fd, true, false, false
	return l.h.Received(n)
}

// done ends the time in which the Handler may use the descriptor.
func (l *socket) done() {
	l.held = false
	l.state.And(^uint32(stateBusy))
}

func (l *socket) Write(src Source, how Mode) error {
	l.src, l.wait, l.writeErr = src, how == Wait, nil
	if how == Held && l.held {
		// Not through RawConn.Write, which would take the descriptor's write lock and a reference.
		// There is no other Write in progress, and RawConn.Read holds a reference.
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
		// Also with 0: the packages that were offered can be withdrawn again, and a caller whose
		// time is over waits for that.
		l.src.Took(n)
		written += n
		switch {
		case n > 0, err == syscall.EINTR:
			// After a short write the next one finds out whether the socket is full.
		case err == syscall.EAGAIN && l.wait:
			return written, false // RawConn.Write waits until the socket is writable
		case err == syscall.EAGAIN:
			l.writeErr = ErrWouldBlock
			return written, true
		default:
			l.writeErr = os.NewSyscallError("write", err)
			return written, true
		}
	}
}
