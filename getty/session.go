// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// A Session is one connection over TCP, UDP, WebSocket or any other transport. All methods may be
// called from any goroutine and from callbacks unless they say otherwise. Every method is exported,
// so that a handler can be tested with a fake. Sessions may be compared with == and used as map
// keys.
type Session interface {
	Connection
	Setup
	PkgWriter
	Attributes

	// EndPoint returns the server or client that the session belongs to.
	EndPoint() EndPoint

	// Close begins the end and returns at once. No further package is delivered or accepted. What
	// is queued is flushed for at most WaitTime. Then the stream is ended, and input is discarded
	// until the peer ends its stream too or WaitTime has passed. Done is closed after OnClose.
	// Further calls do nothing.
	Close()
	// CloseNow ends the session at once: nothing more is read or written, what is still queued is
	// counted as unsent, and the descriptor is free. Where a Reader or an inline callback of the
	// session is at work, it is waited for, but not by CloseNow: the connection is shut down, so
	// that the peer sees its end, and the descriptor is freed when that has returned. Callbacks may
	// call it. Further calls do nothing.
	CloseNow()
	// CloseWith is Close with a reason: Err returns it, OnError is called with it, and the peer is
	// told where the transport can do that. A WebSocket peer gets the code and the text of a
	// *[CloseError], which must be one that may be sent (1000, 1001, 1002, 1003, 1007 to 1014, 3000
	// to 4999; a text of more than 123 bytes is cut), and of any other error a code that fits it and
	// no text. With nil it is Close. A session that is closing already keeps its reason.
	CloseWith(reason error)
	// CloseWrite ends this side's stream when what is queued has left, and goes on reading: packages
	// are delivered until the peer ends its stream too, which ends the session with io.EOF. Writes
	// fail with [ErrWriteClosed]. WriteTimeout and IdleTimeout apply as before. It returns at once;
	// the error matches [errors.ErrUnsupported] over WebSocket, UDP and connections that can only be
	// closed as a whole, and is that of a write where the session accepts none any more.
	CloseWrite() error
	// IsClosed reports whether the session no longer accepts packages: it is closing or closed, or
	// CloseWrite was called.
	IsClosed() bool
	// Context returns a context for what is done on behalf of the session. It ends when the session
	// accepts no package any more, so that an answer could not be sent; [context.Cause] tells why,
	// as Err does, or [ErrSessionClosed] where there is no other reason. The peer's end of stream
	// alone does not end it: what was read before is still answered.
	Context() context.Context
	// OnEnd has f called once when the session is over, after OnClose and before Done is closed, in
	// the order of the calls. Any number may be added, by any goroutine; on a session that is over f
	// runs at once, on a goroutine of its own. A panic in f is logged and keeps no other from
	// running. remove takes f back, and reports whether it will not run.
	OnEnd(f func(Session)) (remove func() bool)
	// Done returns a channel that is closed after OnClose, and all of OnEnd, have returned.
	Done() <-chan struct{}
	// Err returns why the session ended. It is nil while the session is open, and after a Close
	// that drained: everything was sent, and the peer's kernel has acknowledged it where the system
	// can tell (Linux and macOS). It is ErrSessionClosed after CloseNow. It is io.EOF if the peer
	// ended the stream between two packages, io.ErrUnexpectedEOF if inside one. Else it is the
	// error that ended the session.
	Err() error
	// Stats returns the session's counters.
	Stats() SessionStats
	// Stat returns the counters as one line of text.
	Stat() string
}

// Connection is the part of a [Session] that tells about the connection itself.
type Connection interface {
	// ID is unique among all sessions of the process.
	ID() uint64
	// LocalAddr and RemoteAddr return the addresses as text.
	LocalAddr() string
	RemoteAddr() string
	// Conn returns the net.Conn that carries the session, to read addresses or set socket options.
	// Reading from it or writing to it breaks the session. It is nil where a session has none of
	// its own.
	Conn() net.Conn
	// ConnectionState tells what the TLS handshake agreed on: the name that a client asked for
	// (SNI), the application protocol (ALPN), certificates. ok is false without TLS.
	ConnectionState() (state tls.ConnectionState, ok bool)
	// GetActive returns when the peer last gave a sign of life, as IdleTimeout of [SessionOptions]
	// describes it.
	GetActive() time.Time
	// LastRead returns when bytes of the peer were last read, the zero time if none were: unlike
	// GetActive neither what the peer took nor UpdateActive changes it.
	LastRead() time.Time
	// UpdateActive makes now count as a sign of life of the peer.
	UpdateActive()
}

// Setup is the part of a [Session] that configures it. The setters of codec, listener and dispatch
// belong into the [NewSessionCallback] and return [ErrSessionStarted] later; the others may be
// called at any time and take effect at once. Zero and negative values mean the same as in
// [SessionOptions].
type Setup interface {
	// SetPkgHandler sets the codec; SetReader and SetWriter set one half of it.
	SetPkgHandler(ReadWriter) error
	SetReader(Reader) error
	SetWriter(Writer) error
	// SetEventListener sets the callbacks.
	SetEventListener(EventListener) error
	// SetDispatch overrides where OnMessage runs.
	SetDispatch(Dispatch) error
	// SetName names the session in logs and in Stat.
	SetName(string)
	SetMaxMsgLen(int)
	SetReadTimeout(time.Duration)
	SetIdleTimeout(time.Duration)
	SetWriteTimeout(time.Duration)
	SetWaitTime(time.Duration)
	SetCronPeriod(time.Duration)
	// MaxMsgLen returns the limit in force.
	MaxMsgLen() int
}

// PkgWriter is the part of a [Session] that writes.
//
// timeout decides when a call returns:
//
//   - With 0 it queues the package and returns at once with sent == total. Above the high mark it
//     fails with [ErrSessionBlocked].
//   - With timeout > 0 it returns when the kernel has taken the bytes. Above the high mark it waits
//     first.
//   - A negative timeout is the same with the session's WriteTimeout.
//
// Calls that wait above the high mark are served in the order in which they came. While there are
// any, timeout 0 fails as well, unless a callback of the session is running.
//
// When the time is over and no byte of the package has left, the package is withdrawn: sent is 0,
// the error is [ErrWriteTimeout] and the session lives. If a part has left, the session ends with
// that error. With a negative timeout it does not: the call goes on for as long as the peer keeps
// taking bytes. A timeout applies to its own call only.
//
// Over UDP nothing is queued: a datagram is sent in the call that writes it. While the send buffer
// of the socket is full, timeout 0 fails with [ErrSessionBlocked] and any other waits for room.
//
// Packages queued from within a callback leave together when the turn ends (a turn is all callbacks
// of one read, or of one batch of the mailbox), when 64 KiB wait, or about a millisecond after the
// first was queued. All others are offered to the kernel at once.
type PkgWriter interface {
	// WritePkg encodes and writes one package. total is its size on the wire. sent is how many
	// bytes the kernel has taken, or with timeout 0 how many were queued. An error of the Writer
	// leaves the session open.
	WritePkg(pkg any, timeout time.Duration) (total, sent int, err error)
	// WritePkgContext is WritePkg with a negative timeout that also ends when ctx does, with its
	// [context.Cause].
	WritePkgContext(ctx context.Context, pkg any) (total, sent int, err error)
	// WriteBytes queues encoded bytes as one package, without calling the Writer. They are copied.
	// The result is how many of the caller's bytes were accepted, without what the transport puts
	// around them. An empty b is an empty message over UDP and WebSocket, and nothing on a byte
	// stream.
	WriteBytes(b []byte) (int, error)
	// WriteBytesContext is WriteBytes that returns when the kernel has taken all of b. It waits as
	// WritePkgContext does: above the high mark in line, and until ctx ends, when b is withdrawn if
	// no byte of it has left. n is len(b), or 0 with an error.
	WriteBytesContext(ctx context.Context, b []byte) (n int, err error)
	// WriteBytesArray queues several encoded packages that leave together, with no other package
	// between them. It accepts all or nothing. Over UDP each is a datagram of its own, and the
	// result is how many bytes were sent before one failed.
	WriteBytesArray(pkgs ...[]byte) (int, error)
	// Flush offers everything queued to the kernel and returns when the kernel has taken it. On a
	// session that is closing or closed it fails with [ErrSessionClosed], since what was queued may
	// not be sent any more; see Stats.
	Flush(ctx context.Context) error
}

// Attributes is the part of a [Session] that stores the user's own values. See [Key] for typed
// ones.
type Attributes interface {
	// GetAttribute returns the value of key, nil if there is none.
	GetAttribute(key any) any
	SetAttribute(key, value any)
	RemoveAttribute(key any)
}

var _ Session = (*session)(nil)
