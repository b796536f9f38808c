// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/getty/internal/wsframe"
	"github.com/gostkit/kit/taskpool"
)

// A TypedWriter is a [Writer] that decides for each package whether it goes out as a text or a
// binary WebSocket message. Packages of other Writers have the type that the endpoint's options
// say.
type TypedWriter interface {
	// IsText reports whether pkg goes out as a text message.
	IsText(pkg any) bool
}

// A TypedReader is a [Reader] that is told the type of a WebSocket message. It is called instead of
// Read.
type TypedReader interface {
	// ReadTyped decodes one whole message.
	ReadTyped(s Session, b []byte, text bool) (pkg any, err error)
}

// A CloseError is the cause of a session that a WebSocket peer closed with a code other than 1000
// and 1001 (RFC 6455, section 7.4), which are clean ends.
type CloseError struct {
	Code   int
	Reason string
}

// Error names the code and the reason.
func (e *CloseError) Error() string {
	return fmt.Sprintf("getty: the WebSocket peer closed with code %d %q", e.Code, e.Reason)
}

// A webSocket is the transport of WebSocket sessions: a stream whose packages are messages, cut out
// of it by package wsframe. What one read brought is one turn, as on a stream.
//
// Control frames (RFC 6455, section 5.5) do not pass through the encoder. They are queued beside
// the packages, so that neither a ping nor a pong nor a close waits for an encoder.
type webSocket struct {
	*stream
	client   bool
	compress bool // permessage-deflate was negotiated
	text     bool // messages go out as text unless the Writer says otherwise
	pings    time.Duration

	code   atomic.Int32 // of our close frame, 0: not decided yet
	gotEnd atomic.Bool  // nothing is to be awaited from the peer but the end of the stream

	// of the session's goroutine
	dec      wsframe.Decoder
	used     int   // bytes of the input that are done with
	end      error // of the messages: the peer's close frame or a violation
	late     bool  // the session was closing when the latest read ended: that is skipped
	at       int   // bytes in front of the input not used by a package: control frames and fragments
	messages int   // how many were completed
	size     int   // of the latest
	pongs    int   // bytes of pongs queued and not flushed
	early    bool  // bytes of stream.buf came with the handshake

	room int // guarded by encMu: the header of recent messages
}

// newWebSocket returns the transport that follows a handshake. early is what the peer sent with it
// already.
func newWebSocket(st *stream, client, compress bool, early []byte) *webSocket {
	t := &webSocket{stream: st, client: client, compress: compress}
	t.dec.Client, t.dec.Deflate = client, compress
	if len(early) > 0 {
		t.buf = bytespool.Get(max(len(early), minReadRoom))
		t.kept = copy(t.buf, early)
		t.early = true
	}
	return t
}

// A violation is an error of the input with the close code that answers it.
type violation struct {
	code int
	err  error
}

func (v *violation) Error() string { return v.err.Error() }
func (v *violation) Unwrap() error { return v.err }

// errPeerClosed ends the input at the peer's close frame.
var errPeerClosed = errors.New("getty: close frame")

// serve reads messages until the peer's close frame or the end of input.
func (t *webSocket) serve(s *session) error {
	defer t.stream.drop()
	defer t.dec.Free()
	need := 0
	for {
		if s.has(flagDrain | flagBlocked | flagClosing) {
			s.endRead()
			if s.holds() {
				if t.kept == 0 {
					t.drop()
				}
				s.awaitWhile(s.holds)
			}
		}
		n, err := t.fill(s, need)
		t.late = s.has(flagClosing)
		if n > 0 {
			s.tallyRead(n)
			s.clock.touch()
			b := t.buf[:t.kept+n]
			before := t.messages
			more, perr := t.input(s, b)
			if perr != nil {
				return t.failed(s, perr)
			}
			need = more
			t.keep(b, t.used)
			within := t.kept > 0 || t.dec.Open()
			if !within || t.messages != before {
				s.clock.complete()
			}
			if within {
				s.clock.arrived(n)
			}
		}
		switch {
		case err == nil:
		case err == io.EOF && !s.has(flagClosing):
			return io.ErrUnexpectedEOF // the stream ended without a close frame
		default:
			t.readFailed(s, err)
			return err
		}
	}
}

// fill waits for input and reads it behind what is kept. What came with the handshake is the first.
func (t *webSocket) fill(s *session, need int) (n int, err error) {
	if t.early {
		t.early = false
		n, t.kept = t.kept, 0
	} else {
		n, err = t.stream.read(s, need)
	}
	t.last = n
	return n, err
}

// input delivers the messages that b holds. t.used tells how many bytes are done with; the rest needs
// so many in all, 0 if that is unknown.
func (t *webSocket) input(s *session, b []byte) (need int, err error) {
	t.used, t.at = 0, 0
	switch {
	case t.late:
	case s.box == nil:
		_, need, err = s.turnsInline(b, 0)
	default:
		_, need, err = s.turnMailbox(b, 0)
	}
	if err == nil && t.end == nil && s.has(flagClosing) {
		// What is left is skipped, up to the peer's close frame.
		t.late = true
		_, need, err = t.decode(s, b[t.used-t.at:])
	}
	if t.end != nil {
		err = t.end // also where a turn has no use for it, since the session is closing
	}
	need = max(need-t.at, 0)
	t.at = 0
	return need, err
}

// decode implements framing.
func (t *webSocket) decode(s *session, b []byte) (pkg any, n int, err error) {
	pkg, n, err = t.next(s, b)
	if t.pongs > 0 { // before the handler is called, which may take long
		t.pongs = 0
		s.flush()
	}
	return pkg, n, err
}

// next decodes the next message of b. Control frames and fragments before it are consumed, which
// t.at remembers until a package comes.
func (t *webSocket) next(s *session, b []byte) (pkg any, n int, err error) {
	for {
		m, used, need, err := t.dec.Next(b[t.at:], s.MaxMsgLen())
		if err != nil {
			t.end = t.broken(s, err)
			return nil, 0, t.end
		}
		if used == 0 {
			return nil, t.at + need, nil
		}
		t.at += used
		t.used += used
		switch m.Op {
		case wsframe.Ping:
			t.control(s, wsframe.Pong, m.Payload)
			if t.pongs += len(m.Payload) + 2; t.pongs >= maxControl/2 {
				t.pongs = 0
				s.flush()
			}
		case wsframe.Close:
			t.end = t.peerClosed(s, m.Payload)
			return nil, 0, t.end
		case wsframe.Text, wsframe.Binary:
			t.messages++
			if t.late {
				continue
			}
			if pkg, err = t.parse(s, m.Payload, m.Op == wsframe.Text); err != nil {
				return nil, 0, err
			}
			n, t.at = t.at, 0
			t.size = len(m.Payload)
			return pkg, n, nil
		}
	}
}

// weigh implements framing: fragments and compression make a message larger than what its last
// frame shows.
func (t *webSocket) weigh(n int) int { return max(n, t.size) }

// parse makes a package of one message.
func (t *webSocket) parse(s *session, b []byte, text bool) (pkg any, err error) {
	n := 0
	if tr, ok := s.reader.(TypedReader); ok {
		if pkg, err = tr.ReadTyped(s, b, text); pkg != nil {
			n = len(b)
		}
	} else {
		pkg, n, err = s.reader.Read(s, b)
	}
	if err == nil {
		err = checkMessage("message", b, pkg, n)
	}
	switch {
	case errors.Is(err, ErrTooLong):
		return nil, &violation{wsframe.CodeTooBig, err}
	case err != nil:
		return nil, &violation{wsframe.CodePolicy, readerError(err)}
	}
	return pkg, nil
}

// broken translates what the decoder says.
func (t *webSocket) broken(s *session, err error) error {
	if wsframe.TooBig(err) {
		err = fmt.Errorf("%w: a message of more than %d bytes", ErrTooLong, s.MaxMsgLen())
		return &violation{wsframe.CodeTooBig, err}
	}
	code := wsframe.CodeProtocol
	if e := (*wsframe.Error)(nil); errors.As(err, &e) {
		code = e.Code
	}
	return &violation{code, fmt.Errorf("%w: %w", ErrProtocol, err)}
}

// peerClosed takes the peer's close frame.
func (t *webSocket) peerClosed(s *session, payload []byte) error {
	code, reason, err := wsframe.ParseClose(payload)
	if err != nil {
		return t.broken(s, err)
	}
	t.code.CompareAndSwap(0, int32(code)) // the answer carries the same
	if code != wsframe.CodeNormal && code != wsframe.CodeGoingAway &&
		code != wsframe.CodeNone && !s.has(flagClosing) {
		return &peerEnd{&CloseError{code, reason}}
	}
	return errPeerClosed
}

// A peerEnd is errPeerClosed with a cause.
type peerEnd struct{ *CloseError }

func (e *peerEnd) Is(target error) bool { return target == errPeerClosed }

// failed ends the input for err, which turned up in it or in a callback. The result is that of serve.
func (t *webSocket) failed(s *session, err error) error {
	var v *violation
	var e *peerEnd
	closing := s.has(flagClosing)
	switch {
	case errors.Is(err, errPeerClosed):
		t.peerEnded(s)
		if closing || !errors.As(err, &e) {
			return io.EOF
		}
		return e.CloseError
	case s.has(flagHard | flagRefuse): // the failure of a callback, which has sent its close frame
		if errors.As(err, &v) {
			t.peerEnded(s)
			return v.err
		}
		return err
	case errors.As(err, &v):
		t.code.CompareAndSwap(0, int32(v.code))
		err = v.err
	default:
		t.code.CompareAndSwap(0, wsframe.CodeInternal)
	}
	t.peerEnded(s) // there is nothing to wait for but the end of the stream
	return err
}

// giveLast ends our stream though the peer has sent no close frame.
func (t *webSocket) giveLast(s *session) {
	t.peerEnded(s)
	t.stream.giveLast(s)
}

// peerEnded notes that no further frame of the peer counts, and ends our stream if our close frame
// has left.
func (t *webSocket) peerEnded(s *session) {
	t.gotEnd.Store(true)
	s.qMu.Lock()
	sent := s.finSent
	s.qMu.Unlock()
	if sent {
		_ = t.stream.closeWrite(s)
	}
}

// failureWait is how long a session that fails waits for its peer to take the close frame.
const failureWait = 500 * time.Millisecond

// failing implements failer.
func (t *webSocket) failing(s *session, err error) bool {
	code := failureCode(err)
	return code != 0 && t.tell(s, code)
}

// dismiss implements failer.
func (t *webSocket) dismiss(s *session, err error) {
	if t.tell(s, cmp.Or(failureCode(err), wsframe.CodeInternal)) {
		_ = t.discard(s)
	}
}

// failureCode returns the close code for a session that fails with err, 0 if the peer cannot be
// told.
func failureCode(err error) int {
	var p *PanicError
	switch {
	case errors.As(err, &p), errors.Is(err, taskpool.ErrClosed):
		return wsframe.CodeInternal
	case errors.Is(err, ErrIdleTimeout):
		return wsframe.CodeGoingAway
	case errors.Is(err, ErrReadTimeout):
		return wsframe.CodePolicy
	case errors.Is(err, ErrTooLong):
		return wsframe.CodeTooBig
	case errors.Is(err, ErrTooManySessions):
		return wsframe.CodeTryLater
	}
	return 0
}

// tell ends the session with a close frame, behind what is queued, and the end of the stream. It
// reports whether it could: not if another end has begun. The reader discards what the peer still
// sends, since a descriptor that is closed over unread input destroys the close frame; the clock
// limits that.
func (t *webSocket) tell(s *session, code int) bool {
	if s.has(flagHard) {
		return false
	}
	if s.has(flagRefuse) {
		return t.gotEnd.Load() // such an end sends a close frame too, and is limited
	}
	wait := min(time.Duration(s.waitTime.Load()), failureWait)
	s.waitTime.Store(int64(wait))
	t.code.CompareAndSwap(0, int32(code))
	t.gotEnd.Store(true)
	s.shut()
	return true
}

// control queues a control frame. A flush has to follow.
func (t *webSocket) control(s *session, op byte, payload []byte) {
	f := wsframe.Frame{Op: op, Masked: t.client}
	var room [wsframe.MaxHeader + wsframe.MaxControl]byte
	s.queueControl(f.Append(room[:0], payload), op == wsframe.Pong)
}

func (t *webSocket) pingEvery() time.Duration { return t.pings }

func (t *webSocket) ping(s *session) {
	t.control(s, wsframe.Ping, nil)
	s.flush()
}

// farewell is the close frame of a session that ends.
func (t *webSocket) farewell(s *session) []byte {
	code := int(t.code.Load())
	if code == 0 {
		code = wsframe.CodeNormal
		if s.ep.isClosed() && !t.client {
			code = wsframe.CodeGoingAway
		}
	}
	f := wsframe.Frame{Op: wsframe.Close, Masked: t.client}
	return f.Append(nil, wsframe.AppendClose(nil, code, ""))
}

// closeWrite follows the close frame. Only when both were exchanged may the TCP connection end;
// serve waits for the peer's, and WaitTime limits that.
func (t *webSocket) closeWrite(s *session) error {
	if !t.gotEnd.Load() {
		return nil
	}
	return t.stream.closeWrite(s)
}

// frame is the frame of a message.
func (t *webSocket) frame(text bool) wsframe.Frame {
	f := wsframe.Frame{Op: wsframe.Binary, Compressed: t.compress, Masked: t.client}
	if text {
		f.Op = wsframe.Text
	}
	return f
}

// encode encodes pkg and frames it as one message. encMu is held.
func (t *webSocket) encode(s *session, pkg any, w *waiter) (int, error) {
	text := t.text
	if tw, ok := s.writer.(TypedWriter); ok {
		text = tw.IsText(pkg)
	}
	switch {
	case s.appender == nil:
		p, err := s.marshal(nil, pkg)
		if err != nil {
			return 0, err
		}
		return t.message(s, p, text, w)
	case t.compress:
		buf := bytespool.Get(s.hint)
		defer bytespool.Put(buf)
		p, err := s.appender.AppendPkg(buf[:0], s, pkg)
		if err != nil {
			return 0, err
		}
		s.sized(len(p))
		return t.message(s, p, text, w)
	}
	return t.encodeInPlace(s, pkg, t.frame(text), w)
}

// encodeInPlace encodes pkg behind the room for a header, where it is to be sent from.
func (t *webSocket) encodeInPlace(s *session, pkg any, f wsframe.Frame, w *waiter) (int, error) {
	o := t.area(s, s.hint+wsframe.MaxHeader)
	// The header has mostly the size that it had before.
	room := max(t.room, wsframe.HeaderSize(0, t.client))
	p, err := s.appender.AppendPkg(o.tail[:room], s, pkg)
	if err == nil && len(p) < room {
		err = fmt.Errorf("%w: AppendPkg returned less than it was given", ErrBadReader)
	}
	if err != nil {
		bytespool.Put(o.whole)
		return 0, err
	}
	n := len(p) - room
	s.sized(n)
	t.room = wsframe.HeaderSize(n, t.client)
	return o.publish(s, f.Seal(p, room), w), nil
}

// encodeRaw frames each package as one message.
func (t *webSocket) encodeRaw(s *session, one []byte, more [][]byte) (int, error) {
	return oneByOne(one, more, func(p []byte) (int, error) { return t.message(s, p, t.text, nil) })
}

// message frames p as one message and queues it.
func (t *webSocket) message(s *session, p []byte, text bool, w *waiter) (int, error) {
	f := t.frame(text)
	if !f.Compressed {
		o := t.area(s, len(p)+wsframe.MaxHeader)
		return o.publish(s, f.Append(o.tail, p), w), nil
	}
	o := t.area(s, len(p)+len(p)>>10+64) // also for bytes that do not compress
	room := wsframe.HeaderSize(len(p), t.client)
	return o.publish(s, f.Seal(wsframe.AppendDeflated(o.tail[:room], p), room), w), nil
}

// An area is where a message is put together: the tail of the batch's memory, or for a large one
// whole, which is memory of its own.
type area struct{ tail, whole []byte }

func (t *webSocket) area(s *session, size int) area {
	b := s.batch()
	if size < largeSize {
		return area{tail: b.tail(size)}
	}
	whole := bytespool.Get(size)
	return area{whole[:0], whole}
}

// publish queues p, which was appended to o.tail, in place unless it outgrew that. It returns p's
// size.
func (o area) publish(s *session, p []byte, w *waiter) int {
	b := s.batch()
	switch {
	case o.whole == nil:
		b.claim(o.tail, p)
	case len(p) < largeSize: // not worth so much memory
		tail := b.tail(len(p))
		small := append(tail, p...)
		b.claim(tail, small)
		bytespool.Put(o.whole)
		p, o.whole = small, nil
	case &p[0] != &o.whole[0]:
		bytespool.Put(o.whole)
		o.whole = nil
	}
	s.publish(p, o.whole, w, nil)
	return len(p)
}
