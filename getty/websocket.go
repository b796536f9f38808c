// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/getty/internal/deflate"
	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
	"github.com/gostkit/kit/getty/internal/wsframe"
	"github.com/gostkit/kit/taskpool"
)

// A TypedWriter is a [Writer] that decides for each package whether it goes out as a text or a
// binary WebSocket message. For other Writers the endpoint's options decide.
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
// and 1001 (RFC 6455, section 7.4). With those two the session ends clean. As the reason of
// CloseWith it says what the peer is told.
type CloseError struct {
	Code   int
	Reason string
}

// Error names the code and the reason.
func (e *CloseError) Error() string {
	return fmt.Sprintf("getty: WebSocket closed with code %d %q", e.Code, e.Reason)
}

// A webSocket is the protocol of WebSocket sessions: a stream whose packages are messages, which
// package wsframe decodes. The messages of one read are one turn, as on a stream.
//
// Control frames (RFC 6455, section 5.5) do not pass through the encoder. They are queued beside
// the packages, so that no ping, pong or close waits for a Writer.
type webSocket struct {
	*stream
	client    bool
	compress  bool // permessage-deflate was negotiated
	text      bool // messages go out as text unless the Writer is a TypedWriter
	level     int  // of compression
	threshold int  // the size from which messages are compressed
	pings     time.Duration

	subprotocol string
	request     atomic.Pointer[http.Request] // of a server's session that has not opened yet
	pingedAt    atomic.Int64                 // when the ping left that waits for its pong, 0: none
	roundTrip   atomic.Int64                 // of the latest ping that was answered, 0: none

	code   atomic.Int32               // of our close frame, 0: not decided yet
	words  atomic.Pointer[CloseError] // the reason of CloseWith
	gotEnd atomic.Bool                // the peer sends no frame any more that counts

	// Used by the goroutine that reads.
	dec      wsframe.Decoder
	used     int   // bytes of the input that were decoded
	end      error // why no message follows: the peer's close frame, or a violation
	late     bool  // messages are skipped: the session was closing when the latest read ended
	at       int   // decoded bytes since the latest message: control frames and fragments
	messages int   // messages completed
	size     int   // of the latest message
	pongs    int   // bytes of pongs queued and not flushed

	room int // guarded by encMu: the header size of recent messages
}

// newWebSocket returns the protocol that follows a handshake. early are bytes that the peer sent
// behind its part of the handshake.
func newWebSocket(
	st *stream, client bool, agreed wsframe.Agreement, early []byte,
) *webSocket {
	t := &webSocket{stream: st, client: client, compress: agreed.Deflate}
	t.subprotocol = agreed.Protocol
	t.dec.Client, t.dec.Deflate = client, agreed.Deflate
	t.in.Add(early)
	return t
}

// A violation is an error in the input, with the close code to answer it with.
type violation struct {
	code int
	err  error
}

func (v *violation) Error() string { return v.err.Error() }
func (v *violation) Unwrap() error { return v.err }

// errPeerClosed ends the input at the peer's close frame.
var errPeerClosed = errors.New("getty: close frame")

// serve reads messages until the peer's close frame or the end of input.
func (t *webSocket) serve() error {
	t.request.Store(nil) // the session has opened
	err := t.stream.read(t)
	if err != wire.ErrInterrupted {
		t.dec.Free()
	}
	return err
}

// MayRead implements wire.Handler. Unlike a stream, a closing session reads on, up to the peer's
// close frame.
func (t *webSocket) MayRead() bool { return t.s.beginRead() }

// Idle implements wire.Handler.
func (t *webSocket) Idle() bool { return t.s.idle() }

// Received implements wire.Handler.
func (t *webSocket) Received(n int) bool {
	s := t.s
	t.late = !s.readBegun()
	s.count.read(n)
	s.traceRead(n)
	s.grown()
	s.clock.heard()
	before := t.messages
	t.in.Need, t.err = t.input(t.in.Bytes())
	if t.err != nil {
		return false
	}
	t.in.Consume(t.used)
	within := t.within()
	if !within || t.messages != before {
		s.clock.complete()
	}
	if within {
		s.clock.arrived(n)
	}
	t.noteHeld()
	s.pace(n)
	return true
}

// within implements decoding.
func (t *webSocket) within() bool { return t.in.Len() > 0 || t.dec.Open() }

// input delivers the messages that b holds, and sets t.used to the bytes that were decoded. need is
// how many bytes the rest needs in all, 0 if that is unknown.
func (t *webSocket) input(b []byte) (need int, err error) {
	s := t.s
	t.used, t.at = 0, 0
	if !t.late {
		_, need, err = s.input(b, 0)
	}
	if err == nil && t.end == nil && s.has(flagClosing) {
		// The rest is decoded and skipped: the peer's close frame may be in it.
		t.late = true
		_, need, err = t.decode(b[t.used-t.at:])
	}
	if t.end != nil {
		err = t.end // a turn of a closing session does not return it
	}
	need = max(need-t.at, 0)
	t.at = 0
	return need, err
}

// decode implements framing.
func (t *webSocket) decode(b []byte) (pkg any, n int, err error) {
	pkg, n, err = t.next(b)
	if t.pongs > 0 {
		// Now and not with the end of the turn: OnMessage may take long, and the peer might take a
		// missing pong for our end.
		t.pongs = 0
		t.s.outbox.flush(wire.Try)
	}
	return pkg, n, err
}

// next decodes the next message of b. Control frames and fragments before it are decoded at once;
// t.at counts them, since the session learns of them only with the package that follows.
func (t *webSocket) next(b []byte) (pkg any, n int, err error) {
	s := t.s
	for {
		m, used, need, err := t.dec.Next(b[t.at:], s.MaxMsgLen())
		if err != nil {
			t.end = t.broken(err)
			return nil, 0, t.end
		}
		if used == 0 {
			return nil, t.at + need, nil
		}
		t.at += used
		t.used += used
		switch m.Op {
		case wsframe.Ping:
			// Flushed before the queue has no room: else answers would be dropped that a peer
			// which reads could have got.
			t.control(wsframe.Pong, m.Payload)
			if t.pongs += len(m.Payload) + 2; t.pongs >= maxControl/2 {
				t.pongs = 0
				s.outbox.flush(wire.Try)
			}
		case wsframe.Pong:
			if at := t.pingedAt.Swap(0); at != 0 {
				t.roundTrip.Store(max(now()-at, 1))
			}
		case wsframe.Close:
			t.end = t.peerClosed(m.Payload)
			return nil, 0, t.end
		case wsframe.Text, wsframe.Binary:
			t.messages++
			if t.late {
				continue
			}
			if pkg, err = t.parse(m.Payload, m.Op == wsframe.Text); err != nil {
				return nil, 0, err
			}
			n, t.at = t.at, 0
			t.size = len(m.Payload)
			return pkg, n, nil
		}
	}
}

// weigh implements framing. With fragments or compression a message is larger than its last frame.
func (t *webSocket) weigh(n int) int { return max(n, t.size) }

// parse decodes the package of one message.
func (t *webSocket) parse(b []byte, text bool) (pkg any, err error) {
	pkg, err = t.s.codec.whole("message", b, text)
	switch {
	case err == nil:
		return pkg, nil
	case errors.Is(err, ErrTooLong):
		return nil, &violation{wsframe.CodeTooBig, err}
	}
	return nil, &violation{wsframe.CodePolicy, err}
}

// broken turns an error of the decoder into a violation.
func (t *webSocket) broken(err error) error {
	if wsframe.TooBig(err) {
		err = fmt.Errorf("%w: a message of more than %d bytes", ErrTooLong, t.s.MaxMsgLen())
		return &violation{wsframe.CodeTooBig, err}
	}
	code := wsframe.CodeProtocol
	if e := (*wsframe.Error)(nil); errors.As(err, &e) {
		code = e.Code
	}
	return &violation{code, fmt.Errorf("%w: %w", ErrProtocol, err)}
}

// peerClosed takes the peer's close frame.
func (t *webSocket) peerClosed(payload []byte) error {
	code, reason, err := wsframe.ParseClose(payload)
	if err != nil {
		return t.broken(err)
	}
	t.code.CompareAndSwap(0, int32(code)) // the answer carries the same
	if code != wsframe.CodeNormal && code != wsframe.CodeGoingAway &&
		code != wsframe.CodeNone && !t.s.has(flagClosing) {
		return &peerEnd{&CloseError{code, reason}}
	}
	return errPeerClosed
}

// A peerEnd is errPeerClosed for a close frame whose code becomes the session's cause.
type peerEnd struct{ *CloseError }

func (e *peerEnd) Is(target error) bool { return target == errPeerClosed }

// failed implements decoding. err is from the input or from a callback.
func (t *webSocket) failed(err error) error {
	s := t.s
	var v *violation
	var e *peerEnd
	closing := s.has(flagClosing)
	switch {
	case errors.Is(err, errPeerClosed):
		t.peerEnded()
		if closing || !errors.As(err, &e) {
			return io.EOF
		}
		return e.CloseError
	case s.has(flagHard | flagRefuse):
		// The session is ending already, and its close frame is queued: no other code can be sent.
		if errors.As(err, &v) {
			t.peerEnded()
			return v.err
		}
		return err
	case errors.As(err, &v):
		t.code.CompareAndSwap(0, int32(v.code))
		err = v.err
	default:
		t.code.CompareAndSwap(0, wsframe.CodeInternal)
	}
	t.peerEnded() // after a failure no close frame of the peer is awaited
	return err
}

// giveLast ends our stream even though the peer has sent no close frame.
func (t *webSocket) giveLast() {
	t.peerEnded()
	t.stream.giveLast()
}

// peerEnded notes that no further frame of the peer counts, and ends our stream if our close frame
// has left.
func (t *webSocket) peerEnded() {
	// First the store, then the look. closeWrite comes after finSent is set and then looks at
	// gotEnd, so that one of the two ends the stream.
	t.gotEnd.Store(true)
	if t.s.outbox.hasSentEnd() {
		_ = t.stream.closeWrite()
	}
}

// failureWait is how long a session that fails waits for its peer to take the close frame.
const failureWait = 500 * time.Millisecond

// failing implements failer.
func (t *webSocket) failing(err error) bool {
	code := failureCode(err)
	return code != 0 && t.tell(code)
}

// dismiss implements failer.
func (t *webSocket) dismiss(err error) {
	if t.tell(cmp.Or(failureCode(err), wsframe.CodeInternal)) {
		_ = t.discard()
	}
}

// reason implements reasoner.
func (t *webSocket) reason(err error) {
	e := &CloseError{Code: cmp.Or(failureCode(err), wsframe.CodeInternal)}
	var own *CloseError
	if errors.As(err, &own) && wsframe.Sendable(own.Code) {
		e = own
	}
	t.words.Store(e)
	t.code.CompareAndSwap(0, int32(e.Code))
}

// failureCode returns the close code for a session that fails with err, 0 if it ends without one.
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

// tell ends the session gracefully: with the queued packages, a close frame with code, and the end
// of the stream. It reports false if the session has to be closed hard, because another end has
// begun.
func (t *webSocket) tell(code int) bool {
	s := t.s
	if s.has(flagHard) {
		return false
	}
	if s.has(flagRefuse) {
		// The other end sends a close frame too. With gotEnd it does not wait for the peer's, and
		// may go on.
		return t.gotEnd.Load()
	}
	// The reader discards what the peer still sends, since a close over unread input would destroy
	// the close frame. A session that fails does not get all of WaitTime for that.
	wait := min(time.Duration(s.life.waitTime.Load()), failureWait)
	s.life.waitTime.Store(int64(wait))
	t.code.CompareAndSwap(0, int32(code))
	t.gotEnd.Store(true)
	s.life.shut()
	return true
}

// control queues a control frame. A flush has to follow.
func (t *webSocket) control(op byte, payload []byte) {
	f := wsframe.Frame{Op: op, Masked: t.client}
	var room [wsframe.MaxHeader + wsframe.MaxControl]byte
	t.s.outbox.queueControl(f.Append(room[:0], payload), op == wsframe.Pong)
}

func (t *webSocket) pingEvery() time.Duration { return t.pings }

func (t *webSocket) ping() {
	t.pingedAt.CompareAndSwap(0, now()) // else one is not answered yet, and its answer counts
	t.control(wsframe.Ping, nil)
	t.s.outbox.flush(wire.Try)
}

// farewell implements protocol: it returns the close frame.
func (t *webSocket) farewell() []byte {
	code := int(t.code.Load())
	if code == 0 {
		code = wsframe.CodeNormal
		if t.s.ep.isClosed() && !t.client {
			code = wsframe.CodeGoingAway
		}
	}
	text := ""
	if e := t.words.Load(); e != nil && e.Code == code {
		text = e.Reason
	}
	f := wsframe.Frame{Op: wsframe.Close, Masked: t.client}
	return f.Append(nil, wsframe.AppendClose(nil, code, text))
}

// closeWrite implements protocol. It is called when the close frame has left.
func (t *webSocket) closeWrite() error {
	// RFC 6455, section 5.5.1: the TCP connection ends when both close frames were exchanged. serve
	// waits for the peer's, which calls peerEnded; WaitTime limits that.
	if !t.gotEnd.Load() {
		return nil
	}
	return t.stream.closeWrite()
}

// A CompressingWriter is a [Writer] that decides for each package whether its WebSocket message is
// compressed, where that was agreed on. For other Writers the size decides, as the endpoint's
// CompressionThreshold says.
type CompressingWriter interface {
	// Compresses reports whether pkg is worth it: images and what is encrypted are not.
	Compresses(pkg any) bool
}

// frame returns the frame for a message.
func (t *webSocket) frame(text bool) wsframe.Frame {
	f := wsframe.Frame{Op: wsframe.Binary, Masked: t.client}
	if text {
		f.Op = wsframe.Text
	}
	return f
}

// encode encodes pkg and frames it as one message. encMu is held.
func (t *webSocket) encode(pkg any, w *sendq.Waiter) (int, error) {
	o, c := &t.s.outbox, &t.s.codec
	text := t.text
	if tw, ok := c.writer.(TypedWriter); ok {
		text = tw.IsText(pkg)
	}
	least := t.leastCompressed(pkg)
	switch {
	case c.appender == nil: // the Writer's own memory: it has to be copied
		p, _, err := c.marshal(nil, pkg)
		if err != nil {
			return 0, err
		}
		return t.message(p, text, least, w)
	case least >= 0: // the compressor reads from scratch memory and writes into the batch
		buf := bytespool.Get(o.hint)
		defer bytespool.Put(buf)
		p, err := c.appender.AppendPkg(buf[:0], t.s, pkg)
		if err != nil {
			return 0, err
		}
		o.sized(len(p))
		return t.message(p, text, least, w)
	}
	return t.encodeInPlace(pkg, t.frame(text), w)
}

// leastCompressed returns the size from which pkg is compressed, -1 for never.
func (t *webSocket) leastCompressed(pkg any) int {
	if !t.compress {
		return -1
	}
	if cw, ok := t.s.codec.writer.(CompressingWriter); ok {
		if cw.Compresses(pkg) {
			return 0
		}
		return -1
	}
	return max(t.threshold, 0)
}

// encodeInPlace encodes pkg into the batch, behind the room for a header.
func (t *webSocket) encodeInPlace(pkg any, f wsframe.Frame, w *sendq.Waiter) (int, error) {
	o := &t.s.outbox
	b := o.batch()
	// The size of the header depends on that of the package, which is not known yet. Mostly it is
	// the size that it had before; else Seal moves the package.
	room := max(t.room, wsframe.HeaderSize(0, t.client))
	p, err := t.s.codec.appender.AppendPkg(b.Reserve(o.hint + wsframe.MaxHeader)[:room], t.s, pkg)
	if err == nil && len(p) < room {
		err = fmt.Errorf("%w: AppendPkg returned less than it was given", ErrBadReader)
	}
	if err != nil {
		b.Cancel()
		return 0, err
	}
	n := len(p) - room
	o.sized(n)
	t.room = wsframe.HeaderSize(n, t.client)
	return o.queue(f.Seal(p, room), w), nil
}

// encodeRaw frames each package as one message.
func (t *webSocket) encodeRaw(one []byte, more [][]byte, w *sendq.Waiter) (int, error) {
	least := -1
	if t.compress {
		least = max(t.threshold, 0)
	}
	return oneByOne(one, more, func(p []byte) (int, error) {
		return t.message(p, t.text, least, w)
	})
}

// message frames p as one message and queues it. It is compressed if it has least bytes or more,
// and least is not negative.
func (t *webSocket) message(p []byte, text bool, least int, w *sendq.Waiter) (int, error) {
	o, f := &t.s.outbox, t.frame(text)
	f.Compressed = least >= 0 && len(p) >= least
	if !f.Compressed {
		return o.queue(f.Append(o.batch().Reserve(len(p)+wsframe.MaxHeader), p), w), nil
	}
	dst := o.batch().Reserve(len(p) + len(p)>>10 + 64) // enough for bytes that do not compress
	room := wsframe.HeaderSize(len(p), t.client)
	return o.queue(f.Seal(deflate.Append(dst[:room], p, t.level), room), w), nil
}
