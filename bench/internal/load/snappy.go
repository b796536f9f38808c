// SPDX-License-Identifier: Apache-2.0

package load

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"

	"github.com/golang/snappy"
)

// A snappyConn speaks the framing format of Snappy in the least memory: what is written is one chunk
// for each call, of at most 64 KiB, and what is read lies in a buffer only until it was read. The
// reader and the writer of the library hold 144 KiB each.
type snappyConn struct {
	net.Conn
	begun bool
	rest  []byte // decoded and not read
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	snappyBegin = "\xff\x06\x00\x00sNaPpY"
	chunkHeader = 4
	chunkSum    = 4

	typeCompressed = 0x00
	typePlain      = 0x01
	typeBegin      = 0xff
)

func (c *snappyConn) Write(p []byte) (int, error) {
	var b []byte
	if !c.begun {
		c.begun = true
		b = append(b, snappyBegin...)
	}
	sum := crc32.Checksum(p, castagnoli)
	kind, body := byte(typeCompressed), snappy.Encode(nil, p)
	if len(body) >= len(p) {
		kind, body = typePlain, p
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(chunkSum+len(body))<<8|uint32(kind))
	b = binary.LittleEndian.AppendUint32(b, (sum>>15|sum<<17)+0xa282ead8)
	if _, err := c.Conn.Write(append(b, body...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *snappyConn) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if err := c.readChunk(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.rest = nil
	}
	return n, nil
}

func (c *snappyConn) readChunk() error {
	var head [chunkHeader]byte
	if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
		return err
	}
	word := binary.LittleEndian.Uint32(head[:])
	b := make([]byte, word>>8)
	if _, err := io.ReadFull(c.Conn, b); err != nil {
		return err
	}
	switch kind := byte(word); {
	case kind == typeBegin:
		return nil
	case kind > typePlain || len(b) < chunkSum:
		return errors.New("load: no chunk of Snappy")
	case kind == typePlain:
		c.rest = b[chunkSum:]
		return nil
	}
	var err error
	c.rest, err = snappy.Decode(nil, b[chunkSum:])
	return err
}
