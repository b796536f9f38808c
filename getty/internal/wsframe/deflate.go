// SPDX-License-Identifier: Apache-2.0

package wsframe

import (
	"bytes"
	"compress/flate"
	"io"
	"sync"

	"github.com/gostkit/kit/bytespool"
)

// Compression is without context takeover in both directions (RFC 7692, section 7.1.1): every
// message is compressed by itself. So compressors can be pooled, and an idle connection holds none.

// maxDeflated returns how large a compressed message can be if its content is within limit.
func maxDeflated(limit int) int {
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

// inflate decompresses p, the payload of one message, into n bytes of out, which is from bytespool.
func inflate(p []byte, limit int) (out []byte, n int, err error) {
	f := inflaters.Get().(*inflater)
	defer func() {
		f.src = source{}
		inflaters.Put(f)
	}()
	f.src = source{p, endTail}
	if err := f.r.(flate.Resetter).Reset(&f.src, nil); err != nil {
		return nil, 0, &Error{CodeBadPayload, err.Error()}
	}
	// The size is a guess from the compressed size, and then doubles: a few bytes can inflate to a
	// thousand times as many, and only those that really come may cost memory.
	out = bytespool.Get(min(max(4*len(p), 256), 32<<10))
	for {
		if n == len(out) {
			if n > limit {
				return out, 0, errTooBig
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
			return out, 0, errTooBig
		case err == io.EOF:
			return out, n, f.src.ended()
		case err != nil:
			return out, 0, &Error{CodeBadPayload, "compressed data: " + err.Error()}
		}
	}
}

// ended returns an error if bytes are left behind the end of the compressed data.
func (s *source) ended() error {
	// If the last block is marked as final, one zero byte may follow (section 7.2.3.4): the
	// beginning of an empty block, of which the tail is the rest.
	if len(s.b) > 1 || len(s.b) == 1 && s.b[0] != 0 {
		return &Error{CodeBadPayload, "compressed data: bytes behind the final block"}
	}
	return nil
}

// A deflater is a pooled compressor.
type deflater struct {
	dst sink
	w   *flate.Writer
}

// DefaultLevel is the compression level that costs least.
const DefaultLevel = flate.BestSpeed

// A sink is an io.Writer that appends.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// deflaters has a pool for each level, of which a process mostly uses one.
var deflaters [flate.BestCompression + 1]sync.Pool

// AppendDeflated appends p as the compressed payload of one message. level is 1 to 9.
func AppendDeflated(dst, p []byte, level int) []byte {
	f, _ := deflaters[level].Get().(*deflater)
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
	deflaters[level].Put(f)
	return dst
}
