// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/gostkit/kit/getty"
)

// A LengthField is a codec for packages that carry their length in a header:
//
//	| Offset bytes | length, Width bytes | payload ... |
//
// The zero value reads and writes a 4-byte big-endian length that counts the payload only. A
// LengthField is not changed once sessions use it, and may then be shared by any number of them.
type LengthField struct {
	// Width is the size of the length field: 1, 2, 3, 4 or 8 bytes. 0: 4.
	Width int

	// Order is the byte order of the length field. nil: binary.BigEndian.
	Order binary.ByteOrder

	// Offset is how many bytes precede the length field. They are part of the package: its bytes
	// are those before the length field, directly followed by those behind it.
	Offset int

	// Adjust is added to the length field to get the number of bytes that follow it: -Width if the
	// field counts itself too, -(Offset+Width) if it counts the whole header.
	Adjust int

	// MaxLen is the largest package, Offset bytes included. A frame that claims more ends the
	// session before anything is allocated for it. 0: only the session's MaxMsgLen limits it.
	MaxLen int
}

var (
	_ getty.ReadWriter   = (*LengthField)(nil)
	_ getty.AppendWriter = (*LengthField)(nil)
)

// plain reports whether c has the usual layout, for which Read and AppendPkg have a fast path.
func (c *LengthField) plain() bool {
	return c.Width&^4 == 0 && c.Offset|c.Adjust == 0 &&
		(c.Order == nil || c.Order == binary.BigEndian)
}

// slack is more than any sensible Adjust or Offset.
const slack = 1 << 20

// width returns the size of the length field in bytes, or the error of an impossible layout.
func (c *LengthField) width() (int, error) {
	if c.Offset < 0 || c.Offset > slack {
		return 0, fmt.Errorf("codec: LengthField.Offset is %d; want 0 to %d", c.Offset, slack)
	}
	switch c.Width {
	case 0:
		return 4, nil
	case 1, 2, 3, 4, 8:
	default:
		return 0, fmt.Errorf("codec: LengthField.Width is %d; want 1, 2, 3, 4 or 8", c.Width)
	}
	return c.Width, nil
}

// shift returns how far the i-th byte of a length field of the given width is shifted.
func (c *LengthField) shift(i, width int) int {
	if c.Order == nil || c.Order == binary.BigEndian {
		i = width - 1 - i
	}
	return 8 * i
}

// Read implements [getty.Reader]: it returns a *Frame of Offset bytes and payload.
func (c *LengthField) Read(s getty.Session, b []byte) (any, int, error) {
	header := 4
	var v uint64
	if c.plain() {
		if len(b) < header {
			return nil, header, nil
		}
		v = uint64(binary.BigEndian.Uint32(b))
	} else {
		width, err := c.width()
		if err != nil {
			return nil, 0, err
		}
		header = c.Offset + width
		if len(b) < header {
			return nil, header, nil
		}
		for i, x := range b[c.Offset:header] {
			v |= uint64(x) << c.shift(i, width)
		}
	}
	// The checks come before any arithmetic that could overflow, also where int has 32 bits.
	limit := uint64(maxInt - 2*slack)
	if c.MaxLen > 0 {
		limit = min(limit, uint64(c.MaxLen))
	}
	if v > limit+slack {
		return nil, 0, fmt.Errorf("codec: %w: the header says %d bytes", getty.ErrTooLong, v)
	}
	n := int64(v) + int64(c.Adjust)
	switch {
	case n < 0:
		return nil, 0, fmt.Errorf("codec: the header says %d bytes, which is less than itself",
			v)
	case uint64(n)+uint64(c.Offset) > limit:
		return nil, 0, fmt.Errorf("codec: %w: the header says %d bytes", getty.ErrTooLong, v)
	}
	total := header + int(n)
	if len(b) < total {
		return nil, total, nil
	}
	f := newFrame(c.Offset + int(n))
	if c.Offset > 0 {
		copy(f.b, b[:c.Offset])
	}
	copy(f.b[c.Offset:], b[header:total])
	return f, total, nil
}

const maxInt = int(^uint(0) >> 1)

// Write implements [getty.Writer]. The engine calls AppendPkg instead.
func (c *LengthField) Write(s getty.Session, pkg any) ([]byte, error) {
	return c.AppendPkg(nil, s, pkg)
}

// AppendPkg implements [getty.AppendWriter] for a *Frame, a []byte or a string. It fails where the
// length does not fit the field, or exceeds MaxLen.
func (c *LengthField) AppendPkg(dst []byte, s getty.Session, pkg any) ([]byte, error) {
	switch p := pkg.(type) {
	case *Frame:
		return appendFrame(c, dst, p.b)
	case []byte:
		return appendFrame(c, dst, p)
	case string:
		return appendFrame(c, dst, p)
	}
	return nil, cannotEncode(pkg)
}

func appendFrame[T []byte | string](c *LengthField, dst []byte, p T) ([]byte, error) {
	n := len(p)
	if c.MaxLen > 0 && n > c.MaxLen {
		return nil, fmt.Errorf("codec: %w: %d bytes", getty.ErrTooLong, n)
	}
	if c.plain() && uint64(n) <= math.MaxUint32 {
		return append(binary.BigEndian.AppendUint32(dst, uint32(n)), p...), nil
	}
	width, err := c.width()
	if err != nil {
		return nil, err
	}
	// Checked here, since a length that does not fit would be cut without an error, and the peer
	// would read the rest of the package as the next header.
	v := int64(n) - int64(c.Offset) - int64(c.Adjust)
	switch {
	case n < c.Offset:
		return nil, fmt.Errorf("codec: a package of %d bytes is shorter than the header's %d",
			n, c.Offset)
	case v < 0 || width < 8 && v >= 1<<(8*width):
		return nil, fmt.Errorf("codec: a length of %d does not fit %d bytes", v, width)
	}
	dst = append(dst, p[:c.Offset]...)
	for i := range width {
		dst = append(dst, byte(uint64(v)>>c.shift(i, width)))
	}
	return append(dst, p[c.Offset:]...), nil
}
