// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"io"
	"sync"
	"sync/atomic"
)

// Allocator lends the chunks of a [Linked]. Get returns a slice of length n or more, with any
// content; Put takes it back. Get is called by the writer, Put by the reader and by the
// goroutine that releases a [View], so both must be safe for concurrent use. They must not
// panic: the Linked is of no use after that. A pool of byte slices in size classes fits.
type Allocator interface {
	Get(n int) []byte
	Put(b []byte)
}

// heap is the allocator if the config names none.
type heap struct{}

func (heap) Get(n int) []byte { return make([]byte, n) }
func (heap) Put([]byte)       {}

// chunk is a link of a Linked. The writer fills it from the front and sets end and next when it
// moves on; from then on the writer never touches it again. The reader follows next only, so it
// gives back only chunks that the writer has left.
type chunk struct {
	buf  []byte
	end  int // bytes in use; final once next is set
	next atomic.Pointer[chunk]
	refs atomic.Int32 // one for the list, one per View
	from Allocator
}

// chunks keeps the headers; the bytes go back to the allocator.
var chunks = sync.Pool{New: func() any { return new(chunk) }}

func newChunk(from Allocator, size int) *chunk {
	// A used header is as good as a new one: drop has cleared it, and the last reference is gone.
	c := chunks.Get().(*chunk)
	c.from, c.buf = from, from.Get(size)
	c.refs.Store(1)
	return c
}

// drop takes one reference back and frees the chunk with the last one.
func (c *chunk) drop() {
	if c.refs.Add(-1) > 0 {
		return
	}
	// The header goes back first, empty: nothing may lead to the bytes once they are lent again.
	from, buf := c.from, c.buf
	c.from, c.buf, c.end = nil, nil, 0
	c.next.Store(nil)
	chunks.Put(c)
	from.Put(buf)
}

// View is a run of bytes taken out of a [Linked] without copying. It keeps the chunks it lies
// in until Release, also after the buffer was closed and drained. It belongs to one goroutine
// at a time; nobody else writes to its bytes. The zero View is empty. A View must not be
// copied: both copies would give the same chunks back.
type View struct {
	parts  [][]byte
	chunks []*chunk
	n      int

	part  [2][]byte // room for the usual short views
	chunk [2]*chunk
}

// Len returns the number of bytes, zero after Release.
func (v *View) Len() int { return v.n }

// Parts returns the bytes as slices in order, of the shape of net.Buffers. They are valid until
// Release. The result is the view's own: net.Buffers.WriteTo takes out of it what it has
// written, and AppendTo and WriteTo find the rest only.
func (v *View) Parts() [][]byte { return v.parts }

// AppendTo appends a copy of the bytes to dst, which may be nil, and returns it.
func (v *View) AppendTo(dst []byte) []byte {
	for _, p := range v.parts {
		dst = append(dst, p...)
	}
	return dst
}

// WriteTo writes the bytes to w, part by part. It does not release the view.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	total := int64(0)
	for _, p := range v.parts {
		n, err := w.Write(p)
		total += int64(n)
		if err == nil && n < len(p) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// Release gives the chunks back. The view is empty afterwards; a second Release does nothing.
func (v *View) Release() {
	held := v.chunks // may be v.chunk itself, which is cleared last
	v.parts, v.chunks, v.n = nil, nil, 0
	v.part = [2][]byte{}
	for _, c := range held {
		c.drop()
	}
	v.chunk = [2]*chunk{}
}
