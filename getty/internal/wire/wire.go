// SPDX-License-Identifier: Apache-2.0

// Package wire moves the bytes of one connection. It knows neither packages nor sessions: a [Link]
// reads into an [Input] and writes the bytes that a [Source] lends it.
//
// At most two goroutines use a Link at a time: one is in Run, one in Write. Close may be called by
// any goroutine.
package wire

import (
	"errors"
	"net"
)

// ErrWouldBlock is returned by Write when the kernel takes no more and the mode is not [Wait].
var ErrWouldBlock = errors.New("wire: write would block")

// A Link is one connection.
type Link interface {
	// Run reads until the input ends or h stops it, and calls h after every read. It returns nil if
	// h stopped it, io.EOF at the end of the stream, else the error. It may be called again, by any
	// goroutine, when the previous call has returned.
	Run(in *Input, h Handler) error

	// Write hands the bytes of src to the kernel until src is empty. Only one call may be in
	// progress. Any error but ErrWouldBlock means that the connection is broken. The caller has to
	// close the link then, since Run may not notice.
	Write(src Source, how Mode) error

	// CloseWrite ends the outgoing stream, where the connection can do that; it returns
	// errors.ErrUnsupported where it cannot. What was written before has been taken. A link that
	// has last words of its own returns ErrWouldBlock if the kernel does not take them; it is
	// called again with Wait then.
	CloseWrite(how Mode) error

	// LastWords returns how many bytes of its own CloseWrite has sent before the end of the stream.
	LastWords() int

	// Close frees the descriptor and ends Run and Write. Further calls do nothing.
	//
	// While h is at work below Run, Close only shuts the connection down and returns at once:
	// nothing is read or written any more, but the descriptor stays referenced until h returns.
	// Close cannot wait for that, since h may be its caller. Therefore the caller of Run has to
	// call Close when Run has returned, in any case.
	Close() error

	// Conn returns the connection, to ask for addresses and to set options.
	Conn() net.Conn
}

// ErrInterrupted is returned by Run after Interrupt.
var ErrInterrupted = errors.New("wire: interrupted")

// An Interrupter is a Link whose Run can be made to return while it waits for input.
type Interrupter interface {
	// Interrupt makes Run return ErrInterrupted when it next waits. It does not block. No input is
	// lost, and Run may be called again, by any goroutine.
	Interrupt()
}

// A Handler is called by a Link before and after each read.
type Handler interface {
	// MayRead is asked before each read that cannot wait; false ends Run.
	MayRead() bool
	// Received is called when n more bytes lie in the Input; false ends Run. The goroutine that
	// runs it may Write with [Held].
	Received(n int) bool
	// Idle is called before Run waits for input, with nothing left to be done; false ends Run.
	// Where a connection cannot be asked not to wait, it is called before every read, and MayRead
	// is not.
	Idle() bool
}

// A Source is a queue of bytes to be written.
type Source interface {
	// Offer lends the bytes that are to be written next, none if there are no more. They stay as
	// they are until Took.
	Offer() [][]byte
	// Commit is called before a write that cannot be stopped halfway: the first n bytes of what was
	// offered may not be withdrawn any more.
	Commit(n int)
	// Took reports that the connection took n bytes of what was offered last. n may be 0. One offer
	// may be taken in several parts.
	Took(n int)
}

// A Mode says how Write behaves.
type Mode int

const (
	// Try does not wait: it returns ErrWouldBlock when the kernel takes no more.
	Try Mode = iota
	// Held is Try, but only for the goroutine that calls Run. Below Received it is cheaper, since
	// the descriptor is referenced already; outside of Run it is the same as Try.
	Held
	// Wait waits until everything is written.
	Wait
)

// New returns the link for conn. Connections of package net are read and written through their
// descriptor where the system allows it, a [TLSConn] through the link of what it is made of, all
// others through their methods.
func New(conn net.Conn) Link {
	if c, ok := conn.(*TLSConn); ok {
		return newTLSLink(c)
	}
	if l := newSocket(conn); l != nil {
		return l
	}
	return &plain{conn: conn}
}

// closeWrite is CloseWrite for any connection.
func closeWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}
