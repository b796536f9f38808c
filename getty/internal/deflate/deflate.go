// SPDX-License-Identifier: Apache-2.0

// Package deflate compresses messages (RFC 1951), each by itself: so compressors can be pooled, and
// an idle connection holds none. The form is that of RFC 7692, section 7.2.1: a message ends behind
// a flush, whose marker is left out.
package deflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"

	"github.com/gostkit/kit/bytespool"
)

// Levels are 1 to 9, and these.
const (
	Huffman = flate.HuffmanOnly        // no search for repetitions
	Zip     = flate.DefaultCompression // 6
	Fastest = flate.BestSpeed          // costs least
	Best    = flate.BestCompression
)

// ErrTooBig is the error of a message beyond the limit.
var ErrTooBig = errors.New("message too big")

// MaxSize returns how large a compressed message can be if its content is within limit.
func MaxSize(limit int) int {
	// Bytes that do not compress are stored in blocks of some kilobytes, with a few bytes more for
	// each block.
	most := limit + limit>>10 + 64
	if most < limit {
		return limit
	}
	return most
}

// flushTail ends every compressed message and is not sent (section 7.2.1). endTail adds a final
// empty block, so that the decompressor sees an end.
const (
	flushTail = "\x00\x00\xff\xff"
	endTail   = flushTail + "\x01\x00\x00\xff\xff"
)

// A source is a compressed message followed by the tail that a decompressor needs. It is an
// io.ByteReader, so that the decompressor reads no further than to the end of the compressed data.
type source struct {
	b    []byte
	tail string
}

func (s *source) ReadByte() (c byte, err error) {
	switch {
	case len(s.b) > 0:
		c, s.b = s.b[0], s.b[1:]
	case s.tail != "":
		c, s.tail = s.tail[0], s.tail[1:]
	default:
		return 0, io.EOF
	}
	return c, nil
}

func (s *source) Read(p []byte) (n int, err error) {
	if len(s.b) > 0 {
		n = copy(p, s.b)
		s.b = s.b[n:]
		return n, nil
	}
	if s.tail == "" {
		return 0, io.EOF
	}
	n = copy(p, s.tail)
	s.tail = s.tail[n:]
	return n, nil
}

// An inflater is a pooled decompressor. It is Reset before each use, since it keeps an error for
// ever.
type inflater struct {
	src source
	r   io.ReadCloser
}

var inflaters = sync.Pool{New: func() any {
	f := new(inflater)
	f.r = flate.NewReader(&f.src)
	return f
}}

// Inflate decompresses p, one message, into n bytes of out, which is from bytespool and the
// caller's, also after an error. More than limit bytes are ErrTooBig.
func Inflate(p []byte, limit int) (out []byte, n int, err error) {
	f := inflaters.Get().(*inflater)
	defer func() {
		f.src = source{}
		inflaters.Put(f)
	}()
	f.src = source{p, endTail}
	if err := f.r.(flate.Resetter).Reset(&f.src, nil); err != nil {
		return nil, 0, err
	}
	// The size is a guess from the compressed size, and then doubles: a few bytes can inflate to a
	// thousand times as many, and only those that really come may cost memory.
	out = bytespool.Get(min(max(4*len(p), 256), 32<<10))
	for {
		if n == len(out) {
			if n > limit {
				return out, 0, ErrTooBig
			}
			// One byte beyond the limit, to see that there is more than that.
			more := 2 * n
			if limit < more {
				more = limit + 1
			}
			bigger := bytespool.Get(more)
			copy(bigger, out)
			bytespool.Put(out)
			out = bigger
		}
		m, err := f.r.Read(out[n:])
		n += m
		switch {
		case n > limit:
			return out, 0, ErrTooBig
		case err == io.EOF:
			return out, n, f.src.ended()
		case err != nil:
			return out, 0, err
		}
	}
}

// ended returns an error if bytes are left behind the end of the compressed data.
func (s *source) ended() error {
	// If the last block is marked as final, one zero byte may follow (section 7.2.3.4): the
	// beginning of an empty block, of which the tail is the rest.
	if len(s.b) > 1 || len(s.b) == 1 && s.b[0] != 0 {
		return errors.New("bytes behind the final block")
	}
	return nil
}

// A deflater is a pooled compressor.
type deflater struct {
	dst sink
	w   *flate.Writer
}

// A sink is an io.Writer that appends.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// deflaters has a pool for each level, of which a process mostly uses one.
var deflaters [Best - Huffman + 1]sync.Pool

// Append appends p as one compressed message.
func Append(dst, p []byte, level int) []byte {
	pool := &deflaters[level-Huffman]
	f, _ := pool.Get().(*deflater)
	if f == nil {
		f = new(deflater)
		f.w, _ = flate.NewWriter(&f.dst, level) // fails for an unknown level only
	}
	f.dst.b = dst
	f.w.Reset(&f.dst)
	_, _ = f.w.Write(p) // the sink takes everything
	_ = f.w.Flush()
	dst = bytes.TrimSuffix(f.dst.b, []byte(flushTail))
	f.dst.b = nil
	pool.Put(f)
	return dst
}
