// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"net"
	"sync"
	"syscall"
)

// State is what the kernel knows about the reading side of a connection: what the next Read would
// meet. The zero value is Unknown.
type State int

const (
	// Unknown comes with an error that says why nothing could be found out.
	Unknown State = iota
	// Open: nothing is waiting and the peer has not ended the stream. Read would block.
	Open
	// HasData: bytes (or a datagram, also an empty one) wait to be read. An end of stream or an
	// error behind them shows once they are read. On a TLS connection they may be a record that
	// carries no data for the application, such as a session ticket or close_notify.
	HasData
	// PeerClosed: the peer sent FIN, or closed its end of a Unix socket, and all before it has
	// been read. After a FIN alone, writing may still work. A reset whose error was already
	// received by another call is seen as PeerClosed too.
	PeerClosed
	// Broken: the connection failed (reset, timed out, unreachable) or, for connected UDP, an ICMP
	// error waits. The error itself stays on the socket for the next Read or Write to return.
	Broken
)

// String returns the name of s.
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Open:
		return "open"
	case HasData:
		return "has data"
	case PeerClosed:
		return "peer closed"
	case Broken:
		return "broken"
	}
	return "invalid state"
}

// Alive reports the state of conn with one system call (a second one once the stream has ended)
// that takes nothing away: no byte, no pending error, no deadline. It never waits, may run while
// other goroutines read and write, and works after a deadline has passed. It sees through
// wrappers that have NetConn() net.Conn, such as [crypto/tls.Conn]; bytes that a wrapper has already
// taken from the socket are not seen.
//
// The error is non-nil exactly when the state is Unknown: it matches [errors.ErrUnsupported] if
// conn has no file descriptor ([net.Pipe]) or the system has no such query, and [net.ErrClosed] if
// conn was closed on this side. A dead network shows only when TCP has given up: see
// SocketOptions.TCPUserTimeout.
//
// Alive allocates what [net.TCPConn.SyscallConn] allocates, 8 bytes; a [Checker] does not.
func Alive(conn net.Conn) (State, error) {
	rc, err := rawConn(conn)
	if err != nil {
		return Unknown, err
	}
	return query(rc)
}

// A Checker asks for the state of one connection again and again without allocating. Its zero
// value is not usable: see [NewChecker]. It may be used by several goroutines, holds no resource,
// and after the connection was closed it reports [net.ErrClosed].
type Checker struct{ rc syscall.RawConn }

// NewChecker finds the descriptor of conn as [Alive] does. The error matches
// [errors.ErrUnsupported] if there is none.
func NewChecker(conn net.Conn) (*Checker, error) {
	rc, err := rawConn(conn)
	if err != nil {
		return nil, err
	}
	return &Checker{rc}, nil
}

// State is [Alive] for the connection of c.
func (c *Checker) State() (State, error) { return query(c.rc) }

// aliveCall carries the result out of RawConn.Control. A closure would allocate at every call:
// it escapes through the interface. The method value fn is made once per pooled object instead.
type aliveCall struct {
	state State
	err   error
	fn    func(fd uintptr)
}

func (a *aliveCall) run(fd uintptr) { a.state, a.err = sys.alive(fd) }

var aliveCalls = sync.Pool{New: func() any {
	a := new(aliveCall)
	a.fn = a.run
	return a
}}

// query goes through Control, which only holds the descriptor open. RawConn.Read would wait for
// the read lock that a blocked reader holds, and fails after a read deadline.
func query(rc syscall.RawConn) (State, error) {
	a := aliveCalls.Get().(*aliveCall)
	a.state, a.err = Unknown, nil
	cerr := rc.Control(a.fn)
	state, err := a.state, a.err
	a.err = nil
	aliveCalls.Put(a)
	if cerr != nil {
		return Unknown, cerr
	}
	return state, err
}
