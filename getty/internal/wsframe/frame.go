// SPDX-License-Identifier: Apache-2.0

// Package wsframe is the WebSocket protocol (RFC 6455) with permessage-deflate (RFC 7692) as
// functions of bytes and headers: frames, messages, compression and the two halves of the opening
// handshake. It does no input or output and knows neither sessions nor connections.
package wsframe

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

// Opcodes, RFC 6455, section 5.2.
const (
	Continuation byte = 0x0
	Text         byte = 0x1
	Binary       byte = 0x2
	Close        byte = 0x8
	Ping         byte = 0x9
	Pong         byte = 0xA
)

// MaxHeader is the size of the longest frame header.
const MaxHeader = 14

// MaxControl is the longest payload of a control frame.
const MaxControl = 125

const (
	bitFin  = 0x80
	bitRsv1 = 0x40
	bitRsv2 = 0x20
	bitRsv3 = 0x10
	bitMask = 0x80
	bitCtrl = 0x08 // in the opcode

	len16 = 126
	len64 = 127
)

// A header is the decoded header of one frame.
type header struct {
	first  byte // FIN, the reserved bits and the opcode
	masked bool
	key    uint32 // little endian
	size   int    // of the header
	length uint64 // of the payload
}

func (h *header) op() byte      { return h.first & 0x0f }
func (h *header) fin() bool     { return h.first&bitFin != 0 }
func (h *header) control() bool { return h.first&bitCtrl != 0 }

// parseHeader decodes the header that b begins with. ok is false if b does not hold all of it. Then
// the fields whose bytes are there are set, and h.size is how many bytes the header needs, as far
// as that is known.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < 2 {
		h.size = 2
		if len(b) == 1 {
			h.first = b[0] // check refuses a bad opcode before the rest has come
		}
		return h, false
	}
	h.first = b[0]
	h.masked = b[1]&bitMask != 0
	h.length = uint64(b[1] &^ bitMask)
	h.size = 2
	switch h.length {
	case len16:
		h.size = 4
	case len64:
		h.size = 10
	}
	at := h.size
	if h.masked {
		h.size += 4
	}
	if len(b) < h.size {
		return h, false
	}
	switch at {
	case 4:
		h.length = uint64(binary.BigEndian.Uint16(b[2:]))
	case 10:
		h.length = binary.BigEndian.Uint64(b[2:])
	}
	if h.masked {
		h.key = binary.LittleEndian.Uint32(b[at:])
	}
	return h, true
}

// HeaderSize returns the size of the header of a frame with a payload of n bytes.
func HeaderSize(n int, masked bool) int {
	size := 2
	switch {
	case n > math.MaxUint16:
		size = 10
	case n >= len16:
		size = 4
	}
	if masked {
		size += 4
	}
	return size
}

// A Frame describes a frame to be sent. All such frames are final.
type Frame struct {
	Op         byte
	Compressed bool // the message is: RSV1
	Masked     bool // as a client's frames are
}

// Append appends the frame with the payload to dst.
func (f Frame) Append(dst, payload []byte) []byte {
	at := len(dst)
	n := HeaderSize(len(payload), f.Masked)
	var room [MaxHeader]byte
	dst = append(append(dst, room[:n]...), payload...)
	f.put(dst[at:], n)
	return dst
}

// Seal turns p, room bytes for a header and the payload behind them, into a frame. If the header
// needs another size than room, the payload is moved. The frame begins where p does.
func (f Frame) Seal(p []byte, room int) []byte {
	payload := len(p) - room
	n := HeaderSize(payload, f.Masked)
	if n > room {
		var more [MaxHeader]byte
		p = append(p, more[:n-room]...)
	}
	if n != room {
		copy(p[n:], p[room:room+payload])
		p = p[:n+payload]
	}
	f.put(p, n)
	return p
}

// put writes the header, n bytes, into p and masks what follows it.
func (f Frame) put(p []byte, n int) {
	payload := p[n:]
	p[0] = bitFin | f.Op
	if f.Compressed {
		p[0] |= bitRsv1
	}
	at := 2
	switch size := len(payload); {
	case size > math.MaxUint16:
		p[1] = len64
		binary.BigEndian.PutUint64(p[2:], uint64(size))
		at = 10
	case size >= len16:
		p[1] = len16
		binary.BigEndian.PutUint16(p[2:], uint16(size))
		at = 4
	default:
		p[1] = byte(size)
	}
	if !f.Masked {
		return
	}
	p[1] |= bitMask
	key := rand.Uint32() // seeded by the system, as RFC 6455, section 5.3, wants it
	binary.LittleEndian.PutUint32(p[at:], key)
	mask(payload, key, 0)
}

// mask masks or unmasks b, which begins at offset at of the payload.
func mask(b []byte, key uint32, at int) {
	if shift := at % 4 * 8; shift != 0 {
		key = key>>shift | key<<(32-shift)
	}
	wide := uint64(key)<<32 | uint64(key)
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= byte(wide >> (8 * i))
	}
}
