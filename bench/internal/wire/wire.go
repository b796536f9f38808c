// SPDX-License-Identifier: Apache-2.0

// Package wire is the protocol of the network comparisons: a frame is a 4-byte big-endian length
// and that many bytes of payload. Payloads can be verified: they name their connection and their
// number, and the rest follows from these.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes in bytes.
const (
	// Header is the length prefix.
	Header = 4
	// MaxPayload is the longest payload a server takes.
	MaxPayload = 1 << 20
)

// ErrTooLong is returned for a length beyond MaxPayload.
var ErrTooLong = errors.New("frame too long")

// Size returns the length of the first frame of b with its header, zero when the header is not
// complete. The frame itself may not be complete.
func Size(b []byte) (int, error) {
	if len(b) < Header {
		return 0, nil
	}
	n := binary.BigEndian.Uint32(b)
	if n > MaxPayload {
		return 0, ErrTooLong
	}
	return Header + int(n), nil
}

// Append appends a frame with this payload to dst.
func Append(dst, payload []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload)))
	return append(dst, payload...)
}

// Echo parses all complete frames at the beginning of in, appends a frame with the same payload
// to out for each, and returns out and how many bytes of in it consumed. It is the handler of
// those peers that leave framing to their user.
func Echo(out, in []byte) ([]byte, int, error) {
	consumed := 0
	for {
		n, err := Size(in[consumed:])
		if err != nil {
			return out, consumed, err
		}
		if n == 0 || len(in)-consumed < n {
			return out, consumed, nil
		}
		out = Append(out, in[consumed+Header:consumed+n])
		consumed += n
	}
}

// Fill writes the payload with this number of this connection. Payloads are at least 16 bytes.
func Fill(payload []byte, conn, number uint64) {
	rest := identify(payload, conn, number)
	x := conn<<32 ^ number ^ 0x9e3779b97f4a7c15
	for len(rest) >= 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.BigEndian.PutUint64(rest, x)
		rest = rest[8:]
	}
	for i := range rest {
		rest[i] = byte(x >> (8 * i))
	}
}

// FillText is Fill with JSON behind the names, as compressible as that is.
func FillText(payload []byte, conn, number uint64) {
	rest := identify(payload, conn, number)
	text := make([]byte, 0, len(rest)+128)
	for i := conn + number; len(text) < len(rest); i++ {
		text = fmt.Appendf(text, `{"id":%d,"user":"user-%d","status":"active","score":%d.5,"tags":["a","b"]},`, i*7919, i%1000, i*31%997)
	}
	copy(rest, text)
}

// identify writes the names of the connection and the payload, and returns what is behind them.
func identify(payload []byte, conn, number uint64) (rest []byte) {
	binary.BigEndian.PutUint64(payload, conn)
	binary.BigEndian.PutUint64(payload[8:], number)
	return payload[16:]
}
