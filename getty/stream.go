// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// A stream is the protocol of byte streams: TCP, Unix, or any other that a listener accepts. Its
// link moves the bytes; its input holds the bytes that were read and not decoded. While there is
// nothing to read, the session holds no buffer, or just the beginning of a package.
type stream struct {
	conn net.Conn
	link wire.Link
	in   wire.Input

	s      *session
	err    error        // the error of a turn, which ended the input
	broken error        // the error of a read, kept because the kernel reports it only once
	ended  atomic.Bool  // our stream has been ended
	lost   atomic.Bool  // that found the connection broken
	noted  atomic.Int64 // bytes of the input that the endpoint's budget knows of
}

func newStream(conn net.Conn, compress CompressType) *stream {
	return &stream{conn: conn, link: compress.link(wire.New(conn))}
}

func (t *stream) attach(s *session)    { t.s = s }
func (t *stream) queues() bool         { return true }
func (t *stream) netConn() net.Conn    { return original(t.conn) }
func (t *stream) localAddr() net.Addr  { return t.conn.LocalAddr() }
func (t *stream) remoteAddr() net.Addr { return t.conn.RemoteAddr() }
func (t *stream) close() error         { return t.link.Close() }
func (t *stream) farewell() []byte     { return nil }
func (t *stream) lastWords() int       { return t.link.LastWords() }
func (t *stream) broke() bool          { return t.lost.Load() }

// encode encodes pkg into the batch, where it is sent from.
func (t *stream) encode(pkg any, w *sendq.Waiter) (int, error) {
	o := &t.s.outbox
	b := o.batch()
	p, appended, err := t.s.codec.marshal(b.Reserve(o.hint), pkg)
	switch {
	case err != nil:
		b.Cancel()
		return 0, err
	case len(p) == 0:
		b.Cancel()
		return 0, errNoBytes
	case !appended:
		b.Cancel()
		p = append(b.Reserve(len(p)), p...)
	}
	o.sized(len(p))
	return o.queue(p, w), nil
}

func (t *stream) encodeRaw(one []byte, more [][]byte, w *sendq.Waiter) (int, error) {
	o := &t.s.outbox
	n := len(one)
	switch {
	case n > 0:
		o.batch().AddCopy(one, w)
	case more != nil:
		n = o.batch().AddCopies(more)
	}
	// No bytes are no error here, unlike in encode: they come from the caller and not from a codec,
	// and on a stream they are nothing.
	if n > 0 {
		o.added(n)
	}
	return n, nil
}

// closeWrite implements protocol. Only the first call does anything: the peer may answer it at once
// and be gone, and a second shutdown of such a connection fails.
func (t *stream) closeWrite() error {
	if t.ended.Swap(true) {
		return nil
	}
	err := t.link.CloseWrite(wire.Try)
	if err == wire.ErrWouldBlock {
		t.s.spawn(func() {
			if err := t.closed(t.link.CloseWrite(wire.Wait)); err != nil {
				t.s.life.fail(err)
			}
		})
		return nil
	}
	return t.closed(err)
}

// closed does what is left to be done after the link has answered CloseWrite with err, and returns
// what the session fails with.
func (t *stream) closed(err error) error {
	switch {
	case err == nil || t.s.has(flagHard):
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ECONNRESET):
		// The peer has broken the connection. The reader meets the error that tells how, if the
		// last words of TLS have not met it.
		t.lost.Store(true)
	case errors.Is(err, errors.ErrUnsupported):
		// Such a connection can only be closed as a whole. Without that the peer would never learn
		// of the end, and this session would wait for the peer's.
		t.s.life.closeHard()
	default:
		return err
	}
	return nil
}

// A decoding is the handler of a link that decodes what was read: the stream itself, or a protocol
// on top of it. The error of a turn, which ends the input, lies in stream.err.
type decoding interface {
	wire.Handler
	// within reports whether an input that ends now ends inside a package.
	within() bool
	// failed tells the peer, if it can, that a turn has failed with err, and returns the cause of
	// the session.
	failed(err error) error
}

func (t *stream) serve() error { return t.read(t) }

// read is serve for a decoding.
func (t *stream) read(d decoding) error {
	s := t.s
	defer t.drop()
	if n := t.in.Len(); n > 0 && s.beginRead() { // these bytes came with the handshake
		d.Received(n)
	}
	for t.err == nil {
		if s.has(flagDrain|flagBlocked|flagClosing|flagPaced) || s.ep.budget.exceeded() {
			// Outside of Run, since the wait may be long: in Run the descriptor stays referenced
			// and no Close could free it.
			s.endRead()
			if s.holds() {
				t.in.Rest()
				s.awaitWhile(s.holds)
			}
			// Other decodings read on to the peer's own farewell.
			if s.has(flagClosing) && d == decoding(t) {
				return t.discard()
			}
		}
		switch err := t.link.Run(&t.in, d); {
		case t.err != nil, err == nil: // a turn failed, or the handler stopped Run
		case err == wire.ErrInterrupted && d.within():
			// Not inside a package: what came with it would be taken for new by the next call.
		case err == wire.ErrInterrupted:
			return err
		case err == io.EOF && d.within() && !s.has(flagClosing):
			return io.ErrUnexpectedEOF
		default:
			t.readFailed(err)
			return err
		}
	}
	return d.failed(t.err)
}

// MayRead implements wire.Handler.
func (t *stream) MayRead() bool { return t.s.beginRead() && !t.s.has(flagClosing) }

// Idle implements wire.Handler.
func (t *stream) Idle() bool { return t.s.idle() && !t.s.has(flagClosing) }

// Received implements wire.Handler: it decodes and delivers what has come. A package may begin in
// one read and end in another.
func (t *stream) Received(n int) bool {
	s := t.s
	if !s.readBegun() {
		// As if it had come after the Close: discarded.
		s.count.BytesRead.Add(uint64(n))
		t.in.Drop()
		return false
	}
	s.count.read(n)
	s.traceRead(n)
	s.grown()
	b, used := t.in.Bytes(), 0
	if len(b) < t.in.Need {
		// The Reader need not be asked again yet. A turn would have noted the sign of life.
		s.clock.heard()
	} else {
		var need int
		if used, need, t.err = s.input(b, t.in.Seen); t.err != nil {
			return false
		}
		t.in.Need, t.in.Seen = need, len(b)-used
	}
	t.in.Consume(used)
	if t.in.Len() == 0 || used > 0 {
		s.clock.complete()
	}
	if t.in.Len() > 0 {
		s.clock.arrived(n)
	}
	t.noteHeld()
	s.pace(n)
	return true
}

// noteHeld tells the endpoint's budget what the input holds.
func (t *stream) noteHeld() {
	if b := t.s.ep.budget; b != nil {
		held := 0
		if t.in.Len() > 0 { // an empty input gives its memory back before it waits
			held = t.in.Held()
		}
		b.add(held - int(t.noted.Swap(int64(held))))
	}
}

// drop empties the input.
func (t *stream) drop() {
	t.in.Drop()
	t.noteHeld()
}

func (t *stream) within() bool           { return t.in.Len() > 0 }
func (t *stream) failed(err error) error { return err }

// readFailed notes an error of reading.
func (t *stream) readFailed(err error) {
	s := t.s
	if err == io.EOF || err == io.ErrUnexpectedEOF && s.has(flagClosing) {
		return // after an own Close any end of the peer's will do
	}
	t.broken = err
	// With these flags the descriptor was closed, or emptied, by ourselves.
	if s.has(flagHard | flagExpired) {
		return
	}
	// At once, and not after the handlers of conclude: an error of writing that they meet tells
	// less than this one.
	s.life.setCause(err)
	// A socket that fails to read is broken in both directions. Other connections may not be, nor is
	// one where only the goodbye of TLS is missing, or that brings what is no compressed stream.
	if wire.Socket(wire.Below(t.conn)) != nil && err != io.ErrUnexpectedEOF &&
		!errors.Is(err, ErrCompression) {
		s.setFlag(flagRefuse)
		s.life.endContext()
	}
}

// discard reads and forgets until the peer ends its stream: a descriptor that is closed over unread
// input sends a reset, which destroys the last bytes that were sent.
func (t *stream) discard() error {
	t.in.Drop()
	for t.broken == nil {
		err := t.link.Run(&t.in, discarding{t})
		t.in.Drop()
		switch err {
		case io.EOF:
			return err
		case wire.ErrInterrupted: // the session was idle a moment ago
		default:
			t.broken = err
		}
	}
	return t.broken
}

// discarding is the Handler of a stream that is closing.
type discarding struct{ *stream }

func (t discarding) MayRead() bool { return true }
func (t discarding) Idle() bool    { return true }

func (t discarding) Received(n int) bool {
	t.s.count.BytesRead.Add(uint64(n))
	t.in.Drop()
	return true
}

func (t *stream) write(b *sendq.Batch, how wire.Mode) error {
	if how != wire.Wait {
		return t.link.Write(b, how)
	}
	done := false
	defer func() {
		if !done {
			// A user's Write has called runtime.Goexit. This goroutine ends, and must not keep the
			// flush token.
			t.s.outbox.writeFailed(b, &PanicError{Where: "net.Conn.Write"})
		}
	}()
	err := t.link.Write(&counted{b, t.s}, how)
	done = true
	return err
}

// counted is a batch whose progress is accounted after every write and not only at the end: a slow
// peer may take it for a long time, while writers wait for room and the clock looks for progress.
type counted struct {
	*sendq.Batch
	s *session
}

func (c *counted) Took(n int) {
	c.Batch.Took(n)
	if n > 0 {
		c.s.outbox.account(c.Batch)
	}
}
