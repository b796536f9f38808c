// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// A TypedWriter is a [Writer] that decides for each package whether it goes out as a text or a binary
// WebSocket message. Packages of other Writers have the type that the endpoint's options say.
type TypedWriter interface {
	// IsText reports whether pkg goes out as a text message.
	IsText(pkg any) bool
}

// A TypedReader is a [Reader] that is told the type of a WebSocket message. It is called instead of Read.
type TypedReader interface {
	// ReadTyped decodes one whole message.
	ReadTyped(s Session, b []byte, text bool) (pkg any, err error)
}

// A webSocket is the transport of WebSocket sessions. gorilla/websocket parses and frames; it reads from
// and writes to an engine-owned net.Conn, the webSocket itself: reads are served from the leased buffer of
// the stream below, writes are appended to the session's queue. The stream alone touches the socket.
//
// Control frames (RFC 6455, section 5.5) do not pass through gorilla's writer. They are built here and
// queued between messages, so that neither a ping nor a pong nor a close waits for an encoder, and
// gorilla's rule of one writer is kept by the session's encoder lock alone.
type webSocket struct {
	*stream
	ws     *websocket.Conn
	client bool
	pings  time.Duration
	text   bool // messages go out as text unless the Writer says otherwise

	greeting int // of clients: how many bytes the server may still say before the session

	live atomic.Bool // the handshake is over: Read and Write serve gorilla's session

	// of the session's goroutine
	s       *session
	buf     []byte
	kept    int
	at      int   // bytes of stream.buf that gorilla has read
	readErr error // what the stream's read ended with
	within  bool  // a message has begun and is not complete
	late    bool  // the session was closing when the latest read ended: that is not counted
	turn    int   // packages of the inline turn in progress
	stage   *mailQueue
	staged  int // bytes in stage
	where   string
	gotEnd  atomic.Bool // the peer's close frame was read
	code    atomic.Int32

	// guarded by the session's encMu
	dst  []byte // where gorilla's writes go
	left int    // bytes of the current frame that are still to be written
	drop bool   // the current frame is a control frame
}

var _ net.Conn = (*webSocket)(nil)

// Close codes, RFC 6455, section 7.4.1.
const (
	closeNormal   = websocket.CloseNormalClosure
	closeLeaving  = websocket.CloseGoingAway
	closeProtocol = websocket.CloseProtocolError
	closeBadUTF8  = websocket.CloseInvalidFramePayloadData
	closeRefused  = websocket.ClosePolicyViolation
	closeTooBig   = websocket.CloseMessageTooBig
	closeNone     = websocket.CloseNoStatusReceived
)

// begin takes over after the handshake.
func (t *webSocket) begin(ws *websocket.Conn) {
	t.ws = ws
	ws.SetReadLimit(0)
	ws.SetPingHandler(func(data string) error {
		if !t.s.has(flagBlocked) { // a peer that pings and never reads gets no more answers than fit
			t.control(t.s, websocket.PongMessage, []byte(data))
		}
		return nil
	})
	ws.SetPongHandler(func(string) error { return nil })
	ws.SetCloseHandler(func(int, string) error { return nil })
	t.live.Store(true)
}

// Read implements net.Conn for gorilla. Between two reads of the socket lies the end of a turn: what the
// packages of one read answered leaves before the session waits again.
func (t *webSocket) Read(p []byte) (int, error) {
	if !t.live.Load() {
		return t.readHandshake(p)
	}
	for t.at == t.kept {
		if err := t.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, t.buf[t.at:t.kept])
	if t.at += n; t.at == t.kept {
		t.at, t.kept = 0, 0
		bytespool.Put(t.buf)
		t.buf = nil
	}
	return n, nil
}

// readHandshake reads what precedes the session. A client's peer may say so much and no more; on a server the
// http.Server has its own limit.
func (t *webSocket) readHandshake(p []byte) (int, error) {
	if t.client {
		if t.greeting <= 0 {
			return 0, errLongAnswer
		}
		p = p[:min(len(p), t.greeting)]
	}
	n, err := t.conn.Read(p)
	t.greeting -= n
	return n, err
}

// fill ends the turn and waits for more input.
func (t *webSocket) fill() error {
	s := t.s
	t.endTurn()
	s.endRead()
	s.awaitWhile(s.holds)
	if t.within {
		s.clock.begun()
	}
	t.buf = bytespool.Get(4096)
	n, err := t.conn.Read(t.buf)
	s.setFlag(flagReading)
	t.late = s.has(flagClosing)
	if n > 0 {
		s.tallyRead(n)
		s.clock.touch()
		if t.within {
			s.clock.arrived(n)
		}
		t.kept, t.at = n, 0
	}
	if err != nil {
		t.readErr = err
		t.readFailed(s, err)
	}
	return err
}

// Write implements net.Conn for gorilla: a data frame is appended to dst, a control frame is dropped, since
// serve sends its own. gorilla writes a frame in one or two pieces under its write lock.
func (t *webSocket) Write(p []byte) (int, error) {
	if !t.live.Load() {
		return t.conn.Write(p)
	}
	if t.left == 0 {
		size, err := frameSize(p)
		if err != nil {
			return 0, err
		}
		t.left = size
		t.drop = p[0]&0x08 != 0
	}
	t.left -= len(p)
	if !t.drop {
		t.dst = append(t.dst, p...)
	}
	return len(p), nil
}

// frameSize returns the size of the frame that p begins with its whole header.
func frameSize(p []byte) (int, error) {
	if len(p) < 2 {
		return 0, io.ErrShortWrite
	}
	head, n := 2, int(p[1]&0x7f)
	switch {
	case n == 126 && len(p) >= 4:
		head, n = 4, int(binary.BigEndian.Uint16(p[2:]))
	case n == 127 && len(p) >= 10:
		head, n = 10, int(binary.BigEndian.Uint64(p[2:]))
	case n >= 126:
		return 0, io.ErrShortWrite
	}
	if p[1]&0x80 != 0 {
		head += 4
	}
	return head + n, nil
}

// Deadlines belong to the handshake. Afterwards the session's clock keeps all limits, since gorilla never
// recovers from an expired one.

func (t *webSocket) SetDeadline(d time.Time) error     { return t.handshake(t.conn.SetDeadline, d) }
func (t *webSocket) SetReadDeadline(d time.Time) error { return t.handshake(t.conn.SetReadDeadline, d) }
func (t *webSocket) SetWriteDeadline(d time.Time) error {
	return t.handshake(t.conn.SetWriteDeadline, d)
}

func (t *webSocket) handshake(set func(time.Time) error, d time.Time) error {
	if t.live.Load() {
		return nil
	}
	return set(d)
}

func (t *webSocket) Close() error         { return t.conn.Close() }
func (t *webSocket) LocalAddr() net.Addr  { return t.conn.LocalAddr() }
func (t *webSocket) RemoteAddr() net.Addr { return t.conn.RemoteAddr() }

// appendControl appends a control frame, masked if a client sends it.
func appendControl(dst []byte, op int, payload []byte, mask bool) []byte {
	payload = payload[:min(len(payload), 125)]
	dst = append(dst, byte(op)|0x80, byte(len(payload)))
	if !mask {
		return append(dst, payload...)
	}
	dst[len(dst)-1] |= 0x80
	var key [4]byte
	binary.LittleEndian.PutUint32(key[:], rand.Uint32())
	dst = append(dst, key[:]...)
	for i, b := range payload {
		dst = append(dst, b^key[i%4])
	}
	return dst
}

// control queues a control frame and offers it to the kernel.
func (t *webSocket) control(s *session, op int, payload []byte) {
	s.queueControl(appendControl(nil, op, payload, t.client))
	s.flush() // also during a turn, which may be a long one
}

func (t *webSocket) pingEvery() time.Duration { return t.pings }

func (t *webSocket) ping(s *session) { t.control(s, websocket.PingMessage, nil) }

// farewell is the close frame of a session that ends.
func (t *webSocket) farewell(s *session) []byte {
	code := int(t.code.Load())
	if code == 0 {
		code = closeNormal
		if s.ep.isClosed() && !t.client {
			code = closeLeaving
		}
	}
	if code == closeNone {
		return appendControl(nil, websocket.CloseMessage, nil, t.client)
	}
	return appendControl(nil, websocket.CloseMessage, binary.BigEndian.AppendUint16(nil, uint16(code)), t.client)
}

// closeWrite follows the close frame. Only when both were exchanged may the TCP connection end; serve waits
// for the peer's, and WaitTime limits that.
func (t *webSocket) closeWrite(s *session) error {
	if !t.gotEnd.Load() {
		return nil
	}
	return t.stream.closeWrite(s)
}

// encode encodes pkg and frames it as one message. encMu is held.
func (t *webSocket) encode(s *session, pkg any, w *sendq.Waiter) (int, error) {
	text := t.text
	if tw, ok := s.writer.(TypedWriter); ok {
		text = tw.IsText(pkg)
	}
	buf := bytespool.Get(s.hint)
	defer bytespool.Put(buf)
	p, _, err := s.marshal(buf[:0], pkg)
	if err != nil {
		return 0, err
	}
	return t.message(s, p, text, w)
}

// encodeRaw frames each package as one message.
func (t *webSocket) encodeRaw(s *session, one []byte, more [][]byte) (int, error) {
	return oneByOne(one, more, func(p []byte) (int, error) { return t.message(s, p, t.text, nil) })
}

// message frames p as one message and queues it.
func (t *webSocket) message(s *session, p []byte, text bool, w *sendq.Waiter) (int, error) {
	kind := websocket.BinaryMessage
	if text {
		kind = websocket.TextMessage
	}
	s.sized(len(p))
	b := s.batch()
	t.dst = b.Reserve(len(p) + 16 + 16*(len(p)/wsClientBuffer+1))
	err := t.ws.WriteMessage(kind, p)
	out := t.dst
	t.dst = nil
	if err != nil {
		b.Cancel()
		return 0, err
	}
	b.Add(out, w)
	s.added(len(out))
	return len(out), nil
}

// serve reads messages until the peer's close frame or the end of input.
func (t *webSocket) serve(s *session) (err error) {
	t.s = s
	done := false
	defer func() {
		if !done {
			where := t.where
			err = s.panicked(where, recover())
			if where != "Reader" && where != "WebSocket" {
				t.countRest()
			}
		}
		t.leave()
		if t.stage != nil {
			s.forgo(t.stage)
		}
	}()
	err = t.messages()
	done = true
	return err
}

// countRest counts what was read and, after a panic in a callback, will not be delivered.
func (t *webSocket) countRest() {
	done := false
	defer func() {
		if !done {
			t.s.panicked(t.where, recover())
		}
	}()
	_ = t.messages() // each is counted as undelivered, and the next read fails
	done = true
}

// messages is serve without its safety net.
func (t *webSocket) messages() error {
	s := t.s
	for {
		if s.box == nil && s.paused() { // between two messages of one read, as on a stream
			t.leave()
			s.awaitWhile(s.paused)
		}
		t.where = "WebSocket"
		kind, r, err := t.ws.NextReader()
		if err != nil {
			return t.inputEnded(err)
		}
		if t.late {
			continue // the message is skipped, up to the peer's close frame
		}
		t.within = true
		b, err := t.readMessage(r)
		t.within = false
		s.clock.complete()
		if err == nil && t.late {
			bytespool.Put(b)
			continue
		}
		if err == nil && kind == websocket.TextMessage && !utf8.Valid(b) {
			err = t.violation(closeBadUTF8, errors.New("getty: text message is not UTF-8"))
		} else if err != nil && err != ErrTooLong {
			bytespool.Put(b)
			return t.inputEnded(err)
		} else if err != nil {
			err = t.violation(closeTooBig, fmt.Errorf("%w: a message of more than %d bytes", ErrTooLong, s.MaxMsgLen()))
		} else {
			err = t.received(b, kind == websocket.TextMessage)
		}
		bytespool.Put(b)
		if err != nil {
			return err
		}
	}
}

// readMessage reads a message into pooled memory, which grows with what has arrived.
func (t *webSocket) readMessage(r io.Reader) ([]byte, error) {
	limit := t.s.MaxMsgLen()
	b := bytespool.Get(1024)
	n := 0
	for {
		if n == len(b) {
			if n > limit {
				return b, ErrTooLong
			}
			size := 2 * n
			if limit-n < n { // else limit+1 may be more than an int holds
				size = limit + 1
			}
			bigger := bytespool.Get(size)
			copy(bigger, b)
			bytespool.Put(b)
			b = bigger
		}
		m, err := r.Read(b[n:])
		n += m
		switch {
		case n > limit:
			return b, ErrTooLong
		case err == io.EOF:
			return b[:n], nil
		case err != nil:
			return b, err
		}
	}
}

// received decodes one message and delivers or stages it. An error ends the session.
func (t *webSocket) received(b []byte, text bool) error {
	s := t.s
	t.where = "Reader"
	var pkg any
	var err error
	n := len(b)
	if tr, ok := s.reader.(TypedReader); ok {
		pkg, err = tr.ReadTyped(s, b, text)
	} else {
		pkg, n, err = s.reader.Read(s, b)
	}
	switch {
	case err != nil:
	case pkg == nil:
		err = fmt.Errorf("%w: a message of %d bytes holds no whole package", io.ErrUnexpectedEOF, len(b))
	case n != len(b):
		release(pkg)
		err = fmt.Errorf("%w: Read took %d bytes of a message of %d", ErrBadReader, n, len(b))
	}
	switch {
	case err != nil && s.has(flagClosing):
		return nil // nobody would have seen it
	case err != nil:
		return t.violation(closeRefused, err)
	}
	if s.box != nil {
		t.post(pkg, len(b))
		return nil
	}
	if t.turn == 0 {
		s.beginTurn()
		s.setFlag(flagMessage)
	}
	t.turn++
	if s.has(flagsAttended) {
		if s.has(flagClosing) {
			s.tally(&s.count.Undelivered, 1)
			release(pkg)
			return nil
		}
		s.servePending(&t.where)
	}
	t.where = "OnMessage"
	s.listener.OnMessage(s, pkg)
	t.where = "Release"
	release(pkg)
	return nil
}

// post stages a package for the mailbox; the stage is posted when the input is exhausted or the mailbox
// has no more room for it.
func (t *webSocket) post(pkg any, size int) {
	s := t.s
	if t.stage == nil {
		t.stage = mailQueues.Get().(*mailQueue)
	}
	t.stage.items = append(t.stage.items, mail{pkg, size})
	t.staged += size
	if s.box.fits(len(t.stage.items)+1, t.staged) && t.staged < wire.ReadSize {
		return
	}
	t.endTurn()
	s.box.room() // waits while the mailbox is full
}

// endTurn posts what is staged, or ends the inline turn.
func (t *webSocket) endTurn() {
	if t.stage != nil && len(t.stage.items) > 0 {
		stage := t.stage
		t.stage, t.staged = nil, 0
		t.s.tally(&t.s.count.PkgsRead, len(stage.items))
		t.s.postMails(stage.items)
		stage.free()
		return
	}
	t.leave()
}

func (t *webSocket) leave() {
	if pkgs := t.turn; pkgs > 0 {
		t.turn = 0
		t.s.endTurn(pkgs, true, wire.Held)
	}
}

// violation ends the session because of what the peer sent, and tells the peer so with a close frame before
// the descriptor is closed. What it sent before is delivered.
func (t *webSocket) violation(code int, err error) error {
	s := t.s
	t.endTurn()
	if !s.has(flagClosing) {
		t.code.Store(int32(code))
	}
	t.peerEnded() // there is nothing to wait for but the end of the stream
	return err
}

// giveLast ends our stream though the peer has sent no close frame.
func (t *webSocket) giveLast(s *session) {
	t.peerEnded()
	t.stream.giveLast(s)
}

// peerEnded notes that no further frame of the peer counts, and ends our stream if our close frame
// has left.
func (t *webSocket) peerEnded() {
	s := t.s
	t.gotEnd.Store(true)
	s.qMu.Lock()
	sent := s.finSent
	s.qMu.Unlock()
	if sent {
		_ = t.stream.closeWrite(s)
	}
}

// inputEnded maps what gorilla says at the end to the cause of the session's end.
func (t *webSocket) inputEnded(err error) error {
	s := t.s
	t.endTurn()
	var closed *websocket.CloseError
	switch {
	case t.readErr == io.EOF && !s.has(flagClosing):
		return io.ErrUnexpectedEOF // the stream ended without a close frame
	case t.readErr != nil:
		return t.readErr
	case errors.As(err, &closed):
		closing := s.has(flagClosing)
		t.peerEnded()
		if closing {
			return io.EOF // the answer to ours
		}
		t.code.Store(int32(closed.Code))
		if closed.Code == closeNormal || closed.Code == closeLeaving || closed.Code == closeNone {
			return io.EOF
		}
		return closed
	default:
		return t.violation(closeProtocol, fmt.Errorf("getty: %w", err))
	}
}
