// SPDX-License-Identifier: Apache-2.0

package wsframe

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/getty/internal/deflate"
)

// MaxFragments is how many frames a message may consist of.
const MaxFragments = 16 << 10

// A Message is a result of a Decoder: a whole text or binary message, or a control frame. With Op 0
// it is neither: a fragment was consumed.
type Message struct {
	Op      byte
	Payload []byte // unmasked and inflated; valid until the next call of the Decoder
}

// A Decoder decodes the messages of one direction of a connection. It holds no memory between two
// messages. The zero value decodes the input of a server, without compression.
type Decoder struct {
	Client  bool // decode the input of a client, whose frames are not masked
	Deflate bool // permessage-deflate was negotiated

	done int // bytes of the current frame's payload that are unmasked, and checked if they are text

	op         byte // of the message in progress, 0: there is none
	compressed bool // whether that message is
	frames     int  // how many of its frames have come
	text       validator
	held       []byte // payload of its earlier frames, from bytespool
	heldLen    int
	lent       []byte // bytespool memory of the last Message
}

// Open reports whether the first frame of a message has come and not the last one.
func (d *Decoder) Open() bool { return d.op != 0 }

// Free gives back all memory. The last Message is not valid any more.
func (d *Decoder) Free() {
	d.reclaim()
	bytespool.Put(d.held)
	d.held, d.heldLen = nil, 0
}

func (d *Decoder) reclaim() {
	if d.lent != nil {
		bytespool.Put(d.lent)
		d.lent = nil
	}
}

// Next decodes at most one frame of b, which begins with the first byte that was not used yet. used
// is the size of that frame. If it is 0 the frame is not complete; need is then its size, as far as
// that is known. Next unmasks b in place. limit is the largest message, before and after
// decompression. After an error, which is an *Error, the Decoder must not be used any more.
func (d *Decoder) Next(b []byte, limit int) (m Message, used, need int, err error) {
	d.reclaim()
	h, whole := parseHeader(b)
	if err = d.check(&h, len(b), whole, limit); err != nil || !whole {
		return m, 0, h.size, err
	}
	// check has bounded h.length by limit or MaxControl, except where limit is nearly as large as
	// an int.
	need = h.size + int(h.length)
	if need < 0 {
		return m, 0, 0, errTooBig
	}
	payload := b[h.size:min(len(b), need)]
	// A frame may come in many reads. Each byte is unmasked and checked once, when it comes, so
	// that bad text is refused without waiting for the end of a large frame.
	fresh := payload[d.done:]
	if h.masked {
		mask(fresh, h.key, d.done)
	}
	if !h.control() && d.isText(&h) && !d.text.write(fresh) {
		return m, 0, 0, &Error{CodeBadPayload, "text is not UTF-8"}
	}
	if d.done = len(payload); len(b) < need {
		return m, 0, need, nil
	}
	d.done = 0
	if h.control() {
		return Message{h.op(), payload}, need, 0, nil
	}
	m, err = d.data(&h, payload, limit)
	return m, need, 0, err
}

// isText reports whether the payload of h has to be UTF-8 as it is. Compressed text has to be UTF-8
// only when it is inflated.
func (d *Decoder) isText(h *header) bool {
	if h.op() == Continuation {
		return d.op == Text && !d.compressed
	}
	return h.op() == Text && h.first&bitRsv1 == 0
}

// check checks h, of which have bytes are there, and all if whole.
func (d *Decoder) check(h *header, have int, whole bool, limit int) error {
	// Each field as soon as its bytes are there: a peer may send only the first byte of a bad frame
	// and wait.
	if have == 0 {
		return nil
	}
	op := h.op()
	switch {
	case h.first&(bitRsv2|bitRsv3) != 0:
		return protocol("reserved bits are set")
	case h.first&bitRsv1 != 0 && (!d.Deflate || op != Text && op != Binary):
		return protocol("RSV1 is set where nothing is compressed")
	case op > Binary && op < Close || op > Pong:
		return protocol("unknown opcode")
	case h.control() && !h.fin():
		return protocol("fragmented control frame")
	case op == Continuation && d.op == 0:
		return protocol("continuation of nothing")
	case (op == Text || op == Binary) && d.op != 0:
		return protocol("new message inside a fragmented one")
	}
	if have < 2 {
		return nil
	}
	switch {
	case h.masked == d.Client:
		if d.Client {
			return protocol("masked frame from a server")
		}
		return protocol("unmasked frame from a client")
	case h.control() && h.size-d.maskSize() > 2: // its length needs more than 7 bits
		return protocol("long control frame")
	case !whole || h.control():
		return nil
	case h.length>>63 != 0:
		return protocol("length with the highest bit set")
	case h.size-d.maskSize() == 4 && h.length < len16, h.size-d.maskSize() == 10 &&
		h.length <= 0xffff:
		return protocol("length not in its shortest form")
	}
	// Before the payload is there, so that a header that claims too much costs no memory.
	most := limit
	if d.compressed || h.first&bitRsv1 != 0 {
		most = deflate.MaxSize(limit)
	}
	switch {
	case h.length > uint64(max(most-d.heldLen, 0)):
		return errTooBig
	case d.frames >= MaxFragments:
		return &Error{CodePolicy, "message of too many fragments"}
	}
	return nil
}

func (d *Decoder) maskSize() int {
	if d.Client {
		return 0
	}
	return 4
}

// data takes a whole data frame, and returns the message if it is the last frame of one.
func (d *Decoder) data(h *header, payload []byte, limit int) (m Message, err error) {
	if h.op() != Continuation {
		d.op, d.compressed = h.op(), h.first&bitRsv1 != 0
	}
	d.frames++
	if !h.fin() {
		d.hold(payload)
		return m, nil
	}
	// A message of one frame is not copied: it stays in the caller's buffer.
	if d.heldLen > 0 {
		d.hold(payload)
		payload = d.held[:d.heldLen]
	}
	d.lent, d.held, d.heldLen = d.held, nil, 0
	if d.compressed {
		if payload, err = d.inflate(payload, limit); err != nil {
			return m, err
		}
		if d.op == Text && !utf8.Valid(payload) {
			return m, &Error{CodeBadPayload, "text is not UTF-8"}
		}
	} else if d.op == Text && !d.text.complete() {
		return m, &Error{CodeBadPayload, "text ends inside a rune"}
	}
	m = Message{d.op, payload}
	d.op, d.compressed, d.frames, d.text = 0, false, 0, validator{}
	return m, nil
}

// hold appends a copy of p to the payload that is held.
func (d *Decoder) hold(p []byte) {
	// The memory grows with the bytes that have come, since no header tells the size of a
	// fragmented message.
	if n := d.heldLen + len(p); n > len(d.held) {
		bigger := bytespool.Get(max(n, min(2*len(d.held), n+n/2), 256))
		copy(bigger, d.held[:d.heldLen])
		bytespool.Put(d.held)
		d.held = bigger
	}
	d.heldLen += copy(d.held[d.heldLen:], p)
}

// inflate returns p decompressed, in memory that replaces d.lent.
func (d *Decoder) inflate(p []byte, limit int) ([]byte, error) {
	out, n, err := deflate.Inflate(p, limit)
	d.reclaim()
	d.lent = out
	switch {
	case err == deflate.ErrTooBig:
		err = errTooBig
	case err != nil:
		err = &Error{CodeBadPayload, "compressed data: " + err.Error()}
	}
	return out[:n], err
}

// ParseClose returns the code and the reason of a close frame. A frame without a code has CodeNone.
func ParseClose(p []byte) (code int, reason string, err error) {
	switch {
	case len(p) == 0:
		return CodeNone, "", nil
	case len(p) == 1:
		return 0, "", protocol("close frame of one byte")
	}
	code = int(binary.BigEndian.Uint16(p))
	switch {
	case !Sendable(code):
		return 0, "", protocol("close code that must not be sent")
	case !utf8.Valid(p[2:]):
		return 0, "", &Error{CodeBadPayload, "reason of a close frame is not UTF-8"}
	}
	return code, string(p[2:]), nil
}

// Sendable reports whether a close frame may carry code.
func Sendable(code int) bool {
	switch {
	case code >= 3000 && code <= 4999:
		return true
	case code >= CodeNormal && code <= CodeUnsupported, code >= CodeBadPayload &&
		code <= CodeBadGateway:
		return true
	}
	return false
}

// AppendClose appends the payload of a close frame: nothing for CodeNone.
func AppendClose(dst []byte, code int, reason string) []byte {
	if code == CodeNone {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	reason = reason[:min(len(reason), MaxControl-2)]
	for len(reason) > 0 && !utf8.ValidString(reason) {
		reason = reason[:len(reason)-1] // the cut may be inside a rune
	}
	return append(dst, reason...)
}
