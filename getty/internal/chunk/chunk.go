// SPDX-License-Identifier: Apache-2.0

// Package chunk cuts a stream into compressed chunks, each of which can be decompressed by itself:
// neither side keeps a window or a compressor between two of them. The form is the framing format
// of Snappy (github.com/google/snappy, framing_format.txt), with a second identifier for chunks
// that are compressed with DEFLATE.
package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/golang/snappy"
	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/getty/internal/deflate"
)

// A Code is how a stream is compressed: [Snappy], or a level of package deflate.
type Code int

// Snappy is the code that costs least.
const Snappy Code = 10

// MaxPlain is how many bytes one chunk holds at most.
const MaxPlain = 64 << 10

const (
	header   = 4 // one byte of type, three of length
	checksum = 4

	typeCompressed = 0x00
	typePlain      = 0x01
	typeReserved   = 0x02 // from here on chunks that nobody can read
	typeSkippable  = 0x80 // from here on chunks that may be skipped
	typeIdentifier = 0xff

	// minCompressed is the size below which compression is not tried: it never pays.
	minCompressed = 32

	// maxSkipped bounds the bytes of chunks without data that may follow each other, so that a peer
	// cannot keep the reader busy for ever with nothing.
	maxSkipped = 1 << 20
)

// The identifier is the first chunk of a stream.
const (
	snappyIdentifier  = "\xff\x06\x00\x00sNaPpY"
	deflateIdentifier = "\xff\x06\x00\x00dEfLaT"
)

// Identifier returns what a stream begins with.
func (c Code) Identifier() string {
	if c == Snappy {
		return snappyIdentifier
	}
	return deflateIdentifier
}

// String returns the name of the method.
func (c Code) String() string {
	if c == Snappy {
		return "Snappy"
	}
	return "DEFLATE"
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum is the masked CRC-32C of the format.
func sum(p []byte) uint32 {
	c := crc32.Checksum(p, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// Encode returns p, which has between one and MaxPlain bytes, as one chunk. The memory is from
// bytespool and the caller's.
func (c Code) Encode(p []byte) []byte {
	const front = header + checksum
	buf := bytespool.Get(front + max(snappy.MaxEncodedLen(len(p)), deflate.MaxSize(len(p))))
	kind, n := byte(typePlain), len(p)
	if len(p) >= minCompressed {
		body := buf[front:]
		if c == Snappy {
			n = len(snappy.Encode(body, p))
		} else {
			n = len(deflate.Append(body[:0], p, int(c)))
		}
		kind = typeCompressed
	}
	if kind == typePlain || n >= len(p)-len(p)/8 {
		kind, n = typePlain, copy(buf[front:], p)
	}
	binary.LittleEndian.PutUint32(buf, uint32(checksum+n)<<8|uint32(kind))
	binary.LittleEndian.PutUint32(buf[header:], sum(p))
	return buf[:front+n]
}

// ErrCorrupt is the error of a stream that is not what it should be.
var ErrCorrupt = errors.New("getty: compressed stream is corrupt")

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// ErrNotCompressed is the error of a stream that begins like no compressed one, or like one of the
// other method. It matches ErrCorrupt.
var ErrNotCompressed = fmt.Errorf(
	"%w: the peer compresses in another way, or not at all", ErrCorrupt)

// A Decoder reads a stream. Only Code is to be set.
type Decoder struct {
	Code Code

	begun   bool // the identifier was read
	skip    int  // bytes of the chunk in progress that are to be skipped
	skipped int  // bytes of chunks without data since the latest one with data
}

// Next decodes the chunk that b begins with. It returns how many bytes it took, and the data of the
// chunk, if it has some, in memory from bytespool that is the caller's. If the chunk is not whole,
// used is 0, and need is how many bytes it has, 0 if that is not known. After an error the stream
// is over.
func (d *Decoder) Next(b []byte) (data []byte, used, need int, err error) {
	if d.skip > 0 {
		used = min(d.skip, len(b))
		d.skip -= used
		return nil, used, 0, nil
	}
	if !d.begun {
		id := d.Code.Identifier()
		if n := min(len(b), len(id)); string(b[:n]) != id[:n] {
			return nil, 0, 0, ErrNotCompressed
		} else if n < len(id) {
			return nil, 0, len(id), nil
		}
		d.begun = true
		return nil, len(id), 0, nil
	}
	if len(b) < header {
		return nil, 0, 0, nil
	}
	kind, size := b[0], int(binary.LittleEndian.Uint32(b)>>8)
	switch {
	case kind < typeReserved:
		return d.data(kind, b, size)
	case kind < typeSkippable:
		return nil, 0, 0, corrupt("chunk of the unknown type %#x", kind)
	case kind == typeIdentifier && size != len(snappyIdentifier)-header:
		return nil, 0, 0, corrupt("identifier of %d bytes", size)
	case kind == typeIdentifier && len(b) < header+size:
		return nil, 0, header + size, nil
	case kind == typeIdentifier && string(b[:header+size]) != d.Code.Identifier():
		return nil, 0, 0, ErrNotCompressed
	}
	if d.skipped += header + size; d.skipped > maxSkipped {
		return nil, 0, 0, corrupt("%d bytes without data", d.skipped)
	}
	used = min(header+size, len(b))
	d.skip = header + size - used
	return nil, used, 0, nil
}

// data decodes a chunk of type kind, of size bytes behind its header.
func (d *Decoder) data(kind byte, b []byte, size int) (data []byte, used, need int, err error) {
	// Before the chunk is there, so that a header that claims too much costs no memory.
	most := MaxPlain
	if kind == typeCompressed {
		most = max(snappy.MaxEncodedLen(most), deflate.MaxSize(most))
	}
	switch {
	case size < checksum || size > checksum+most:
		return nil, 0, 0, corrupt("chunk of %d bytes", size)
	case len(b) < header+size:
		return nil, 0, header + size, nil
	}
	body := b[header+checksum : header+size]
	if kind == typePlain {
		data = bytespool.Get(len(body))
		copy(data, body)
	} else if data, err = d.decompress(body); err != nil {
		return nil, 0, 0, err
	}
	if sum(data) != binary.LittleEndian.Uint32(b[header:]) {
		bytespool.Put(data)
		return nil, 0, 0, corrupt("wrong checksum")
	}
	if len(data) > 0 {
		d.skipped = 0
	} else if d.skipped += header + size; d.skipped > maxSkipped {
		err = corrupt("%d bytes without data", d.skipped)
	}
	return data, header + size, 0, err
}

func (d *Decoder) decompress(body []byte) ([]byte, error) {
	if d.Code != Snappy {
		out, n, err := deflate.Inflate(body, MaxPlain)
		if err != nil {
			bytespool.Put(out)
			return nil, corrupt("%v", err)
		}
		return out[:n], nil
	}
	n, err := snappy.DecodedLen(body)
	if err != nil || n > MaxPlain {
		return nil, corrupt("chunk with %d bytes of data: %v", n, err)
	}
	buf := bytespool.Get(n)
	data, err := snappy.Decode(buf, body)
	if err != nil {
		bytespool.Put(buf)
		return nil, corrupt("%v", err)
	}
	return data, nil
}
