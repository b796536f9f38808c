// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"fmt"
	"io"
)

// A tlsCoder makes a [layer] of a TLSConn that has shaken hands.
type tlsCoder struct {
	*TLSConn
	more bool // crypto/tls may have bytes that it has not handed out
}

// newTLSLink returns the link of c, which has shaken hands.
func newTLSLink(c *TLSConn) Link {
	c.linked = true
	c.in.compact()
	// Bytes may have come with the handshake.
	return &layer{coder: &tlsCoder{c, true}, below: New(c.raw), conn: c, out: &c.out}
}

func (c *tlsCoder) input() *Input { return &c.in.Input }
func (c *tlsCoder) ready() bool   { return c.more || c.in.ready() }
func (c *tlsCoder) compact()      { c.in.compact() }

func (c *tlsCoder) drop() {
	c.in.off, c.in.pos = 0, 0
	c.in.Drop()
}

// decode decrypts as many records as fit into the Input.
func (c *tlsCoder) decode(plain *Input) (n int, err error) {
	buf := plain.lease()
	room := buf[plain.n:]
	for n < len(room) && c.ready() {
		var k int
		k, err = c.readRecord(room[n:])
		// A record that did not fit is not asked for below, since crypto/tls has all of it.
		n, c.more = n+k, k > 0 && k == len(room[n:])
		if err != nil {
			break
		}
	}
	if err == errNoRecord { // records without data, such as session tickets
		err = nil
	}
	if n > 0 {
		plain.accept(buf, n)
	} else {
		plain.giveBack(buf)
	}
	return n, err
}

// readRecord is Read of crypto/tls, which may call user code: a cache of sessions.
func (c *tlsCoder) readRecord(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("wire: panic below tls.Conn.Read: %v", v)
		}
	}()
	return c.tls.Read(p)
}

func (c *tlsCoder) ended(err error) error {
	if err == io.EOF {
		// No close_notify came. Whoever can cut the connection could shorten the stream.
		return io.ErrUnexpectedEOF
	}
	return err
}

// pieceSize is what one record holds at most.
func (c *tlsCoder) pieceSize() int { return 16 << 10 }

func (c *tlsCoder) encode(p []byte) error {
	_, err := c.tls.Write(p)
	return err
}

// goodbye appends close_notify.
func (c *tlsCoder) goodbye() {
	// Only the first call says it. It fails only after an alert, behind which nothing may follow.
	_ = c.tls.CloseWrite()
}
