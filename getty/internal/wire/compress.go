// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"io"

	"github.com/gostkit/kit/getty/internal/chunk"
)

// A compressor is the coder of a link whose bytes are compressed. Between two chunks it holds
// nothing.
type compressor struct {
	in   Input
	off  int  // bytes of in that are decoded
	few  bool // the bytes behind them are no whole chunk
	need int  // the size of that chunk, 0 if it is not known
	dec  chunk.Decoder

	out   sealed
	begun bool // the identifier is in out, or gone
}

// A compressed is a link over a link, whose goodbye is that of the one below.
type compressed struct{ *layer }

// Compress returns a link over l whose bytes are compressed on the way. Its peer must do the same.
func Compress(l Link, code chunk.Code) Link {
	c := &compressor{dec: chunk.Decoder{Code: code}}
	return compressed{&layer{coder: c, below: l, conn: l.Conn(), out: &c.out}}
}

// SaidGoodbye is that of the link below, where it has one.
func (l compressed) SaidGoodbye() bool {
	below, ok := l.below.(interface{ SaidGoodbye() bool })
	return !ok || below.SaidGoodbye()
}

func (c *compressor) input() *Input { return &c.in }
func (c *compressor) ready() bool   { return c.in.Len() > c.off && !c.few }

func (c *compressor) compact() {
	c.in.Consume(c.off)
	c.off = 0
	c.in.Need = c.need
	c.need, c.few = 0, false
}

func (c *compressor) drop() {
	c.off = 0
	c.in.Drop()
}

// decode decompresses one chunk.
func (c *compressor) decode(plain *Input) (n int, err error) {
	data, used, need, err := c.dec.Next(c.in.Bytes()[c.off:])
	if err != nil {
		return 0, err
	}
	c.off += used
	c.need, c.few = need, used == 0
	if n = len(data); n > 0 {
		plain.Give(data)
	}
	return n, nil
}

func (c *compressor) ended(err error) error {
	if err == io.EOF && c.in.Len() > 0 {
		return io.ErrUnexpectedEOF // inside a chunk
	}
	return err
}

func (c *compressor) pieceSize() int { return chunk.MaxPlain }

func (c *compressor) encode(p []byte) error {
	if !c.begun {
		c.begun = true
		c.out.append([]byte(c.dec.Code.Identifier()))
	}
	c.out.adopt(c.dec.Code.Encode(p))
	return nil
}

func (c *compressor) goodbye() {}
