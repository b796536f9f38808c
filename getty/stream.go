// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"io"
	"net"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// A stream is the transport of byte streams: TCP, Unix, whatever a listener brings. Its link moves the
// bytes, its input is what was read and not decoded. While nothing is to be read the session holds no
// buffer, or just the beginning of a package.
type stream struct {
	conn net.Conn
	link wire.Link
	in   wire.Input

	s      *session // of the serve in progress
	err    error    // what ended it in a turn
	broken error    // what reading failed with; the kernel tells it once
}

func newStream(conn net.Conn) *stream { return &stream{conn: conn, link: wire.New(conn)} }

func (t *stream) queues() bool         { return true }
func (t *stream) netConn() net.Conn    { return original(t.conn) }
func (t *stream) localAddr() net.Addr  { return t.conn.LocalAddr() }
func (t *stream) remoteAddr() net.Addr { return t.conn.RemoteAddr() }
func (t *stream) close() error         { return t.link.Close() }

func (t *stream) farewell(*session) []byte { return nil }

func (t *stream) encode(s *session, pkg any, w *sendq.Waiter) (int, error) {
	return s.outbox.encodeStream(pkg, w)
}

func (t *stream) encodeRaw(s *session, one []byte, more [][]byte) (int, error) {
	n, err := s.outbox.queueRaw(one, more, nil)
	if err == errNoBytes { // the caller's, for which no codec is to blame
		err = nil
	}
	return n, err
}

func (t *stream) closeWrite(s *session) error {
	err := t.link.CloseWrite()
	switch {
	case err == nil || s.has(flagHard):
	case errors.Is(err, errors.ErrUnsupported):
		s.closeHard() // such a connection can only be closed as a whole
	default:
		return err
	}
	return nil
}

// A decoding is what a link reads for: a stream's own, or that of a protocol on top of it. What ended the input in
// a turn lies in stream.err.
type decoding interface {
	wire.Handler
	// within reports whether the input ends inside of a package if it ends now.
	within() bool
	// failed says why a session ends whose turn found err, and tells the peer if it can.
	failed(s *session, err error) error
}

// serve reads until the input ends.
func (t *stream) serve(s *session) error { return t.read(s, t) }

// read is serve with a decoding on top.
func (t *stream) read(s *session, d decoding) error {
	t.s = s
	defer t.in.Drop()
	if n := t.in.Len(); n > 0 && s.beginRead() { // came with the handshake
		d.Received(n)
	}
	for t.err == nil {
		if s.has(flagDrain | flagBlocked | flagClosing) {
			s.endRead()
			if s.holds() {
				t.in.Rest()
				s.awaitWhile(s.holds)
			}
			if s.has(flagClosing) && d == decoding(t) {
				return t.discard(s)
			}
		}
		switch err := t.link.Run(&t.in, d); {
		case t.err != nil, err == nil:
		case err == io.EOF && d.within() && !s.has(flagClosing):
			return io.ErrUnexpectedEOF
		default:
			t.readFailed(s, err)
			return err
		}
	}
	return d.failed(s, t.err)
}

// MayRead implements wire.Handler.
func (t *stream) MayRead() bool { return t.s.beginRead() && !t.s.has(flagClosing) }

// Idle implements wire.Handler.
func (t *stream) Idle() bool { return t.s.idle() && !t.s.has(flagClosing) }

// Received decodes and delivers what has come. A package may begin in one read and end in another.
func (t *stream) Received(n int) bool {
	s := t.s
	if !s.readBegun() {
		s.count.BytesRead.Add(uint64(n))
		t.in.Drop()
		return false
	}
	s.count.read(n)
	b, used := t.in.Bytes(), 0
	if len(b) < t.in.Need || s.box != nil {
		s.clock.touch() // else the turn's end does it
	}
	if len(b) >= t.in.Need {
		var need int
		if s.box == nil {
			used, need, t.err = s.turnsInline(b, t.in.Seen)
		} else {
			used, need, t.err = s.turnMailbox(b, t.in.Seen)
		}
		if t.err != nil {
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
	return true
}

func (t *stream) within() bool                       { return t.in.Len() > 0 }
func (t *stream) failed(_ *session, err error) error { return err }

// beginRead sets flagReading before it looks whether it may read, and Shutdown sets flagDrain before it looks
// whether a read is in progress, so that one of them sees the other.
func (s *session) beginRead() bool {
	if !s.has(flagReading) {
		s.setFlag(flagReading)
	}
	return !s.holds()
}

// readBegun reports whether what was just read counts. What comes beside a Close is as if it came after. So is,
// beside a Shutdown, what was read without a beginRead, by a connection that cannot be asked not to wait.
func (s *session) readBegun() bool {
	f := s.flags.Load()
	return f&flagClosing == 0 && (f&flagReading != 0 || s.flags.Or(flagReading)&flagDrain == 0)
}

// idle tells a Shutdown that all that was read is handled. If it has left the end to the reader, that is false.
func (s *session) idle() bool {
	if s.has(flagReading) {
		s.clearFlag(flagReading)
	}
	return !s.holds()
}

// readFailed makes an error of reading the session's cause at once, since what handlers then meet
// tells less. On a socket it is one of the connection: nothing can be written any more either.
func (t *stream) readFailed(s *session, err error) {
	if err == io.EOF {
		return
	}
	t.broken = err
	if s.has(flagHard | flagExpired) {
		return
	}
	s.setCause(err)
	if wire.Socket(t.conn) != nil {
		s.setFlag(flagRefuse)
	}
}

// endRead is the end of a read and all that it brought. A Shutdown that came meanwhile has waited
// for this.
func (s *session) endRead() {
	if s.flags.And(^flagReading)&(flagDrain|flagClosing) == flagDrain {
		s.drained()
	}
}

// paused reports whether the queue is above the high mark, so that nothing may be read. A full socket of datagrams,
// which has no queue, stops no reading.
func (s *session) paused() bool {
	return s.outbox.queues && s.flags.Load()&(flagBlocked|flagClosing) == flagBlocked && !s.opts.ReadWhileBlocked
}

// holds reports whether nothing may be read now: paused, or a Shutdown waits until what was read is handled, which a
// peer that never stops would put off for ever.
func (s *session) holds() bool {
	return s.paused() || s.flags.Load()&(flagDrain|flagClosing) == flagDrain
}

// awaitWhile waits while held, which is paused or holds.
func (s *session) awaitWhile(held func() bool) {
	if !held() {
		return
	}
	begun := now()
	s.outbox.waitWhile(held)
	s.clock.shift(now() - begun)
}

// discard reads and forgets until the peer ends, so that a closing session does not destroy its own last
// bytes with a reset.
func (t *stream) discard(s *session) error {
	t.s = s
	t.in.Drop()
	for t.broken == nil {
		err := t.link.Run(&t.in, discarding{t})
		t.in.Drop()
		if err == io.EOF {
			return err
		}
		t.broken = err
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

func (t *stream) write(s *session, b *sendq.Batch, how wire.Mode) error {
	if how != wire.Wait {
		return t.link.Write(b, how)
	}
	done := false
	defer func() {
		if !done { // a user's Write has called runtime.Goexit: this goroutine ends, and must not keep the token
			s.outbox.writeFailed(b, &PanicError{Where: "net.Conn.Write"})
		}
	}()
	err := t.link.Write(&counted{b, s}, how)
	done = true
	return err
}

// counted is a batch that is accounted for as it goes, while a slow peer takes it.
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
