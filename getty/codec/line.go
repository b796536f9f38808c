// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/gostkit/kit/getty"
)

// A Line is a codec for lines of text that end with "\n". A "\r" before it is removed when reading.
// The zero value is ready for use. A Line is not changed once sessions use it, and may then be
// shared by any number of them.
type Line struct {
	// MaxLen is the longest line in bytes, without its end. A longer one ends the session.
	// 0: only the session's MaxMsgLen limits it.
	MaxLen int

	// CRLF ends written lines with "\r\n" instead of "\n".
	CRLF bool
}

var (
	_ getty.ReadWriter     = (*Line)(nil)
	_ getty.AppendWriter   = (*Line)(nil)
	_ getty.ResumingReader = (*Line)(nil)
)

// Read implements [getty.Reader]: it returns a *Frame of the line without its end.
func (c *Line) Read(s getty.Session, b []byte) (any, int, error) { return c.ReadResume(s, b, 0) }

// ReadResume implements [getty.ResumingReader]: bytes that held no end of line are not searched
// again.
func (c *Line) ReadResume(s getty.Session, b []byte, seen int) (any, int, error) {
	i := bytes.IndexByte(b[seen:], '\n')
	if i < 0 {
		// At once, and not with the end of the line: a peer that never sends one would fill the
		// session's buffer up to MaxMsgLen. +1: a trailing \r may belong to the end.
		if c.MaxLen > 0 && len(b) > c.MaxLen+1 {
			return nil, 0, fmt.Errorf("codec: %w: a line of more than %d bytes",
				getty.ErrTooLong, c.MaxLen)
		}
		return nil, 0, nil
	}
	end := seen + i
	line := bytes.TrimSuffix(b[:end], []byte{'\r'})
	if c.MaxLen > 0 && len(line) > c.MaxLen {
		return nil, 0, fmt.Errorf("codec: %w: a line of %d bytes", getty.ErrTooLong, len(line))
	}
	return copied(line), end + 1, nil
}

// Write implements [getty.Writer]. The engine calls AppendPkg instead.
func (c *Line) Write(s getty.Session, pkg any) ([]byte, error) { return c.AppendPkg(nil, s, pkg) }

var errNewline = errors.New("codec: a line must not contain a newline")

// AppendPkg implements [getty.AppendWriter] for a *Frame, a []byte or a string without a newline.
func (c *Line) AppendPkg(dst []byte, s getty.Session, pkg any) ([]byte, error) {
	start := len(dst)
	dst, err := appendPayload(dst, pkg)
	if err != nil {
		return nil, err
	}
	line := dst[start:]
	switch {
	case bytes.IndexByte(line, '\n') >= 0:
		return nil, errNewline
	case c.MaxLen > 0 && len(line) > c.MaxLen:
		return nil, fmt.Errorf("codec: %w: a line of %d bytes", getty.ErrTooLong, len(line))
	}
	if c.CRLF {
		dst = append(dst, '\r')
	}
	return append(dst, '\n'), nil
}
