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
	// error behind them shows once they are read. Beside TLS and WebSocket see [Alive].
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
// other goroutines read and write, and works after a deadline has passed.
//
// It asks the socket and nothing above it. A wrapper with a method NetConn() net.Conn, such as
// [crypto/tls.Conn], is looked through; for a WebSocket connection pass what its NetConn returns.
// Beside TLS and WebSocket, PeerClosed and Broken are as certain as on plain TCP. The other two say
// less there:
//
//   - HasData: bytes wait, but they may carry nothing for the application: a session ticket, a
//     close_notify, a ping, a close frame. Only reading can tell.
//   - Open: no byte waits in the socket, but the layer above may hold bytes that it has read and
//     not yet handed out: the rest of a record, the next record, the next frame. And a layer that
//     has seen a close_notify or a close frame is at its end while the socket is still Open.
//
// The error is non-nil exactly when the state is Unknown: it matches [errors.ErrUnsupported] if
// conn has no file descriptor ([net.Pipe]) or the system has no such query, and [net.ErrClosed] if
// conn was closed on this side. A dead network shows only when TCP has given up: see
// SocketOptions.TCPUserTimeout. A peer whose process hangs is Open: only a heartbeat finds it.
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

// aliveCall carries the result out of RawConn.Control. A closure would allocate at every call,
// since it escapes through the interface. The method value fn is made once per pooled object.
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

func query(rc syscall.RawConn) (State, error) {
	a := aliveCalls.Get().(*aliveCall)
	// Control does not call fn on a closed descriptor: a.state must not be that of another socket.
	a.state, a.err = Unknown, errNotRun
	// Control only keeps the descriptor open. Read would wait for the lock that a blocked reader
	// holds, and fail after a read deadline.
	cerr := rc.Control(a.fn)
	state, err := a.state, a.err
	a.err = nil // the pool must not keep it alive
	aliveCalls.Put(a)
	if cerr != nil {
		return Unknown, cerr
	}
	return state, err
}
