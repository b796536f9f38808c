// SPDX-License-Identifier: Apache-2.0

package getty

import "net/netip"

// A NewSessionCallback prepares a session: it sets the codec and the listener, and every setting
// that differs from the endpoint's options. It runs on the session's own goroutine, before any
// other callback. An error closes the connection; no further callback runs.
type NewSessionCallback func(Session) error

// An EventListener receives the events of a session. Unless the dispatch is [Unordered], the
// callbacks of one session never run at the same time and follow one order: OnOpen, then OnMessage
// in the order of the wire with OnCron between them, then OnError at most once, then OnClose
// exactly once.
//
// A panic in a callback ends that session with a [PanicError]; the process lives.
//
// A callback that is at work when its session ends is waited for: OnClose comes after it. With
// [Inline] dispatch the descriptor, too, may be free only then; CloseNow and limits of time shut
// the connection down meanwhile. With [Ordered] and [Unordered] the descriptor does not wait for
// OnMessage.
type EventListener interface {
	// OnOpen is called once, before anything is read. An error closes the connection and no further
	// callback runs.
	OnOpen(Session) error
	// OnMessage delivers one package, as the Reader returned it. How long it may be kept is told at
	// [Reader].
	OnMessage(s Session, pkg any)
	// OnCron is called about every CronPeriod, if that is set. Ticks that could not be served in
	// time merge into one.
	OnCron(Session)
	// OnError is called at most once, before OnClose, when the session does not end clean. err is
	// what [Session.Err] returns. Clean ends are: a Close of the session that drained, a CloseNow
	// with nothing left unsent, and the peer's end of stream between two packages.
	OnError(s Session, err error)
	// OnClose is the last callback. The descriptor is free by then. [Session.Err] returns the
	// cause, [Session.Stats] the final counts.
	OnClose(Session)
}

// A WritableListener is an EventListener that is told when the queue of a session, which had
// reached the high mark, has fallen to the low mark again.
type WritableListener interface {
	// OnWritable follows the same rules as OnCron: it never overlaps another callback of the
	// session.
	OnWritable(Session)
}

// A ReadEndListener is an EventListener that goes on writing after the peer has ended its stream,
// as a proxy does. With any other listener the session then flushes what is queued, and closes.
type ReadEndListener interface {
	// OnReadEnd is called once, after OnMessage of the last package has returned, if the peer ended
	// its stream between two packages (WebSocket: with a regular close frame). The session stays
	// open for writing, by any goroutine, until Close or CloseNow, or for the HalfClose of
	// [SessionOptions]. After Close, Err is nil if everything was sent; when HalfClose is over the
	// session closes with io.EOF. ReadTimeout and IdleTimeout do not apply meanwhile; OnCron goes
	// on. If the peer has closed its connection altogether, the next writes fail.
	OnReadEnd(Session)
}

// A Reader decodes packages from the bytes of the wire. Its four answers are:
//
//	(nil, 0, err)  the stream is broken; the session ends with err
//	(nil, 0, nil)  b does not hold a whole package and its size is not known yet
//	(nil, n, nil)  the package needs n bytes in all; Read is called again when b has that many
//	(pkg, n, nil)  pkg was made of the first n bytes
//
// On message transports (UDP, WebSocket) b is one whole message and n must be len(b).
//
// The engine owns b. With [Inline] dispatch a package may alias b until OnMessage returns. With
// [Ordered] and [Unordered] it may not: OnMessage runs later, so Read copies what it keeps, or
// returns a pooled package with a Release method (see [Releaser]), as the codecs in getty/codec do.
//
// A Reader at work, like an inline callback, is waited for before the descriptor is free; see
// CloseNow of [Session].
//
// Read is called on one goroutine per session. n < 0, n larger than len(b) together with a package,
// a package with n == 0 and an n that does not grow end the session with [ErrBadReader]; a package
// beyond MaxMsgLen ends it with [ErrTooLong].
type Reader interface {
	Read(s Session, b []byte) (pkg any, n int, err error)
}

// A ResumingReader is a Reader that need not look twice at bytes which could not complete a
// package. ReadResume is called instead of Read. seen is the number of leading bytes of b that the
// previous call was given already, 0 for a new package.
type ResumingReader interface {
	ReadResume(s Session, b []byte, seen int) (pkg any, n int, err error)
}

// A Writer encodes one package. The engine copies the result before WritePkg returns, so that a
// Writer may reuse its buffer. Calls of one session are serial, in the order of the wire. A Writer
// must not write to or flush a session; where that would deadlock, the call returns [ErrBadReader].
// OnClose is called only after a running Writer has returned.
type Writer interface {
	Write(s Session, pkg any) ([]byte, error)
}

// An AppendWriter is a Writer that encodes straight into the send buffer: it appends the wire form
// of pkg to dst and returns the extended slice, as append does. AppendPkg is called instead of
// Write, and nothing is allocated or copied.
type AppendWriter interface {
	AppendPkg(dst []byte, s Session, pkg any) ([]byte, error)
}

// A ReadWriter is both halves of a codec.
type ReadWriter interface {
	Reader
	Writer
}

// A Releaser is a package whose memory goes back to a pool. The engine calls Release once, after
// OnMessage has returned or when the package is dropped at close. A handler that keeps the package
// longer takes a reference of its own first, as the package's type describes.
type Releaser interface {
	Release()
}

// A UDPContext is the package of an unconnected UDP endpoint: the content of one datagram, and the
// peer that it came from or goes to. The engine never changes a UDPContext that it was given.
type UDPContext struct {
	// Pkg is the package that the Reader decoded, or that the Writer is to encode.
	Pkg any

	// PeerAddr is the address that the datagram came from, or goes to.
	PeerAddr netip.AddrPort

	// LocalAddr is the address of this host that the datagram was sent to, or is to be sent from;
	// the zero Addr leaves the choice to the kernel. An endpoint on a wildcard address has to
	// answer from the address that the peer sent to, since a connected peer receives from no other;
	// Reply does so. The engine sets LocalAddr where the system can tell: on Linux, but not for
	// multicast over IPv6. On other systems a write with a LocalAddr fails.
	LocalAddr netip.Addr
}

// Reply returns pkg as the answer to c: to the peer that c came from, from the address that it was
// sent to.
func (c UDPContext) Reply(pkg any) UDPContext {
	c.Pkg = pkg
	return c
}

// Release releases Pkg if it is a [Releaser]: the engine does so after OnMessage.
func (c UDPContext) Release() { release(c.Pkg) }

// String names the peer.
func (c UDPContext) String() string { return c.PeerAddr.String() }
