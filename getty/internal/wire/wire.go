// SPDX-License-Identifier: Apache-2.0

// Package wire moves the bytes of one connection. It knows neither packages nor sessions: a [Link]
// reads into an [Input] and writes what a [Source] lends it.
//
// A Link uses two goroutines at most: the one that is in Run, and the one that is in Write. Close
// may be called from any.
package wire

import (
	"errors"
	"net"
)

// ErrWouldBlock is what Write returns when the kernel takes no more and the caller will not wait.
var ErrWouldBlock = errors.New("wire: write would block")

// A Link is one connection.
type Link interface {
	// Run reads until the input ends, or until h says to stop, and tells h of every read. It
	// returns nil when h stopped it, io.EOF at the end of the stream, else what went wrong. It may
	// be called again, from any goroutine, while no other call is in progress.
	Run(in *Input, h Handler) error

	// Write hands src to the kernel until it is empty. One call at a time. Any error but
	// ErrWouldBlock means that the connection is broken; who gets it closes the link, since Run may
	// not be told.
	Write(src Source, how Mode) error

	// CloseWrite ends the outgoing stream, where the connection can do that; it returns
	// errors.ErrUnsupported where it cannot.
	CloseWrite() error

	// Close frees the descriptor and ends Run and Write. While h is at work below Run, it shuts the
	// connection down instead, so that nothing is read or written any more, and returns at once:
	// the descriptor is referenced until h returns, and waiting for that could be waiting for
	// oneself. So whoever called Run calls Close afterwards, in any case. Further calls do nothing.
	Close() error

	// Conn returns the connection, to ask for addresses and to set options.
	Conn() net.Conn
}

// A Handler is told what a Link reads.
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
	// Offer lends what is to be written next; it is empty when there is nothing more. The bytes
	// stay as they are until Took.
	Offer() [][]byte
	// Commit is called before a write that cannot be stopped halfway: the first n bytes of what was
	// offered may not be withdrawn any more.
	Commit(n int)
	// Took reports that the connection took n bytes, which may be 0, of what was offered last.
	Took(n int)
}

// A Mode says how Write behaves.
type Mode int

const (
	// Try does not wait: it returns ErrWouldBlock when the kernel takes no more.
	Try Mode = iota
	// Held is Try for the goroutine that runs Received or, outside of Run, that would. It saves
	// taking the descriptor again.
	Held
	// Wait waits until everything is written.
	Wait
)

// New returns the link for conn. Connections of package net are read and written through their
// descriptor where the system allows it, all others through their methods.
func New(conn net.Conn) Link {
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
