// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"encoding/binary"
	"fmt"

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

	// Offset is how many bytes precede the length field. They are part of the package as read and
	// written: the payload of a frame begins with them, and the length field is not in it.
	Offset int

	// Adjust is added to the length field to get the number of bytes that follow it: -Width where the
	// field counts itself too, -(Offset+Width) where it counts the whole header.
	Adjust int

	// MaxLen is the largest payload, Offset bytes included. A frame that claims more ends the session
	// before anything is allocated for it. 0: only the session's MaxMsgLen limits it.
	MaxLen int
}

var (
	_ getty.ReadWriter   = (*LengthField)(nil)
	_ getty.AppendWriter = (*LengthField)(nil)
)

func (c *LengthField) width() (int, error) {
	switch c.Width {
	case 0:
		return 4, nil
	case 1, 2, 3, 4, 8:
	default:
		return 0, fmt.Errorf("codec: LengthField.Width is %d; want 1, 2, 3, 4 or 8", c.Width)
	}
	return c.Width, nil
}

func (c *LengthField) bigEndian() bool { return c.Order == nil || c.Order == binary.BigEndian }

// Read implements [getty.Reader]: it returns a *Frame of Offset bytes and payload.
func (c *LengthField) Read(s getty.Session, b []byte) (any, int, error) {
	width, err := c.width()
	if err != nil {
		return nil, 0, err
	}
	header := c.Offset + width
	if len(b) < header {
		return nil, header, nil
	}
	field := b[c.Offset:header]
	var v uint64
	if width == 4 && c.bigEndian() { // the usual case
		v = uint64(binary.BigEndian.Uint32(field))
	} else if c.bigEndian() {
		for _, x := range field {
			v = v<<8 | uint64(x)
		}
	} else {
		for i := width - 1; i >= 0; i-- {
			v = v<<8 | uint64(field[i])
		}
	}
	// The checks come before any arithmetic that could overflow, also where int has 32 bits.
	const slack = 1 << 20 // no sane Adjust or Offset is beyond this
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
		return nil, 0, fmt.Errorf("codec: the header says %d bytes, which is less than itself", v)
	case uint64(n)+uint64(c.Offset) > limit:
		return nil, 0, fmt.Errorf("codec: %w: the header says %d bytes", getty.ErrTooLong, v)
	}
	total := header + int(n)
	if len(b) < total {
		return nil, total, nil
	}
	return newFrame(b[:c.Offset], b[header:total]), total, nil
}

const maxInt = int(^uint(0) >> 1)

// Write implements [getty.Writer]. The engine calls AppendPkg instead.
func (c *LengthField) Write(s getty.Session, pkg any) ([]byte, error) {
	return c.AppendPkg(nil, s, pkg)
}

// AppendPkg implements [getty.AppendWriter] for a *Frame, a []byte or a string. It fails where the length
// does not fit the field, or exceeds MaxLen.
func (c *LengthField) AppendPkg(dst []byte, s getty.Session, pkg any) ([]byte, error) {
	width, err := c.width()
	if err != nil {
		return nil, err
	}
	str, isStr := pkg.(string)
	var p []byte
	n := len(str)
	if !isStr {
		if p, err = payload(pkg); err != nil {
			return nil, err
		}
		n = len(p)
	}
	switch {
	case n < c.Offset:
		return nil, fmt.Errorf("codec: a package of %d bytes is shorter than the header's %d", n, c.Offset)
	case c.MaxLen > 0 && n > c.MaxLen:
		return nil, fmt.Errorf("codec: %w: %d bytes", getty.ErrTooLong, n)
	}
	v := int64(n) - int64(c.Offset) - int64(c.Adjust)
	if v < 0 || width < 8 && v >= 1<<(8*width) {
		return nil, fmt.Errorf("codec: a length of %d does not fit %d bytes", v, width)
	}
	if isStr {
		dst = append(dst, str[:c.Offset]...)
	} else {
		dst = append(dst, p[:c.Offset]...)
	}
	if width == 4 && c.bigEndian() {
		dst = binary.BigEndian.AppendUint32(dst, uint32(v))
	} else if c.bigEndian() {
		for i := width - 1; i >= 0; i-- {
			dst = append(dst, byte(uint64(v)>>(8*i)))
		}
	} else {
		for i := range width {
			dst = append(dst, byte(uint64(v)>>(8*i)))
		}
	}
	if isStr {
		return append(dst, str[c.Offset:]...), nil
	}
	return append(dst, p[c.Offset:]...), nil
}
