// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"io"
	"net"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// A stream is the protocol of byte streams: TCP, Unix, whatever a listener brings. Its link moves
// the bytes, its input is what was read and not decoded. While nothing is to be read the session
// holds no buffer, or just the beginning of a package.
type stream struct {
	conn net.Conn
	link wire.Link
	in   wire.Input

	s      *session
	err    error // what ended it in a turn
	broken error // what reading failed with; the kernel tells it once
}

func newStream(conn net.Conn) *stream { return &stream{conn: conn, link: wire.New(conn)} }

func (t *stream) attach(s *session)    { t.s = s }
func (t *stream) queues() bool         { return true }
func (t *stream) netConn() net.Conn    { return original(t.conn) }
func (t *stream) localAddr() net.Addr  { return t.conn.LocalAddr() }
func (t *stream) remoteAddr() net.Addr { return t.conn.RemoteAddr() }
func (t *stream) close() error         { return t.link.Close() }
func (t *stream) farewell() []byte     { return nil }

// encode encodes pkg where it is to be sent from.
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

func (t *stream) encodeRaw(one []byte, more [][]byte) (int, error) {
	o := &t.s.outbox
	n := len(one)
	switch {
	case n > 0:
		o.batch().AddCopy(one, nil)
	case more != nil:
		n = o.batch().AddCopies(more)
	}
	if n > 0 { // else the caller's, for which no codec is to blame
		o.added(n)
	}
	return n, nil
}

func (t *stream) closeWrite() error {
	err := t.link.CloseWrite()
	switch {
	case err == nil || t.s.has(flagHard):
	case errors.Is(err, errors.ErrUnsupported):
		t.s.life.closeHard() // such a connection can only be closed as a whole
	default:
		return err
	}
	return nil
}

// A decoding is what a link reads for: a stream's own, or that of a protocol on top of it. What
// ended the input in a turn lies in stream.err.
type decoding interface {
	wire.Handler
	// within reports whether the input ends inside of a package if it ends now.
	within() bool
	// failed says why a session ends whose turn found err, and tells the peer if it can.
	failed(err error) error
}

func (t *stream) serve() error { return t.read(t) }

// read is serve for a decoding.
func (t *stream) read(d decoding) error {
	s := t.s
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
				return t.discard()
			}
		}
		switch err := t.link.Run(&t.in, d); {
		case t.err != nil, err == nil:
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
	if len(b) < t.in.Need {
		s.clock.touch() // else a turn does it
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
	return true
}

func (t *stream) within() bool           { return t.in.Len() > 0 }
func (t *stream) failed(err error) error { return err }

// readFailed makes an error of reading the session's cause at once, since what handlers then meet
// tells less. On a socket it is one of the connection: nothing can be written any more either.
func (t *stream) readFailed(err error) {
	s := t.s
	if err == io.EOF {
		return
	}
	t.broken = err
	if s.has(flagHard | flagExpired) {
		return
	}
	s.life.setCause(err)
	if wire.Socket(t.conn) != nil {
		s.setFlag(flagRefuse)
	}
}

// discard reads and forgets until the peer ends, so that a closing session does not destroy its own
// last bytes with a reset.
func (t *stream) discard() error {
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

func (t *stream) write(b *sendq.Batch, how wire.Mode) error {
	if how != wire.Wait {
		return t.link.Write(b, how)
	}
	done := false
	defer func() {
		if !done { // a user's Write has called runtime.Goexit: this goroutine ends, and must not keep the token
			t.s.outbox.writeFailed(b, &PanicError{Where: "net.Conn.Write"})
		}
	}()
	err := t.link.Write(&counted{b, t.s}, how)
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
