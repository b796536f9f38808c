// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"io"
	"net"
)

const (
	// minChunk is the smallest chunk that a Buffer takes: a message or two.
	minChunk = 512

	// maxChunk is the largest chunk that a Buffer takes by itself. Larger ones would save few
	// entries in a writev and leave more room unused behind the last byte.
	maxChunk = 64 << 10

	// keepChunk is the largest chunk that an empty Buffer holds on to.
	keepChunk = 4 << 10
)

var (
	_ io.Reader       = (*Buffer)(nil)
	_ io.Writer       = (*Buffer)(nil)
	_ io.ReaderFrom   = (*Buffer)(nil)
	_ io.WriterTo     = (*Buffer)(nil)
	_ io.ByteReader   = (*Buffer)(nil)
	_ io.ByteWriter   = (*Buffer)(nil)
	_ io.StringWriter = (*Buffer)(nil)
)

// Buffer is a queue of bytes in a chain of pooled chunks: writing appends and never moves what is
// there, reading gives the chunks back as they are used up. The zero Buffer is empty and ready.
//
// Use it between a producer and a consumer of bytes whose sizes differ: it gathers small writes
// into one writev, or collects reads until a frame is whole.
//
// Chunks have 512 B to 64 KiB, growing with what is buffered; Peek, Next and AddChunk may bring
// larger ones. An empty Buffer keeps at most one chunk of at most 4 KiB, and until the next call
// the bytes that Next returned; after Release it keeps nothing.
//
// Slices that Peek, Next, Bytes and Buffers return are valid until the next call of a method
// other than Len. A Buffer is for one goroutine at a time and must not be copied after first use.
type Buffer struct {
	// Pool is where chunks come from. Nil means the Pool that the package shares.
	Pool *Pool

	_ noCopy

	// head to tail is the list of chunks, both nil if there is none. Only head may be a chunk without
	// content: after Next has used it up, or when the Buffer was empty and kept it; see settle.
	head, tail *node
	len        int
}

// noCopy makes vet report copies of the struct that it is part of.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// Len returns the number of bytes that are buffered.
func (b *Buffer) Len() int { return b.len }

// Write appends p. It never fails.
func (b *Buffer) Write(p []byte) (int, error) { return write(b, p) }

// WriteString appends s. It never fails.
func (b *Buffer) WriteString(s string) (int, error) { return write(b, s) }

// WriteByte appends c. It never fails.
func (b *Buffer) WriteByte(c byte) error {
	b.settle()
	b.room(1)[0] = c
	b.wrote(1)
	return nil
}

// Read moves up to len(p) bytes to p. It returns io.EOF if the Buffer is empty and p is not.
func (b *Buffer) Read(p []byte) (int, error) {
	b.settle()
	if b.len == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	// To the end of p, also across chunks: a caller must not see where they end.
	n := 0
	for n < len(p) && b.len > 0 {
		k := copy(p[n:], b.head.Bytes())
		b.consume(k)
		b.settle()
		n += k
	}
	return n, nil
}

// ReadByte removes and returns the first byte, or io.EOF if there is none.
func (b *Buffer) ReadByte() (byte, error) {
	b.settle()
	if b.len == 0 {
		return 0, io.EOF
	}
	c := b.head.buf[b.head.r]
	b.consume(1)
	b.settle()
	return c, nil
}

// Peek returns the first n bytes in one piece and leaves them. If fewer are buffered it returns
// those and io.EOF. Bytes that are spread over several chunks are copied together, once: they
// stay in one chunk. Peek panics if n is negative.
func (b *Buffer) Peek(n int) ([]byte, error) {
	if n < 0 {
		panic("bytespool: Buffer.Peek of a negative size")
	}
	b.settle()
	var err error
	if n > b.len { // as bufio.Reader.Peek: what there is, with the reason why it is less
		n, err = b.len, io.EOF
	}
	return b.front(n), err
}

// Next removes the first n bytes, or all if there are fewer, and returns them in one piece, which
// may need a copy as with Peek. Next panics if n is negative.
func (b *Buffer) Next(n int) []byte {
	if n < 0 {
		panic("bytespool: Buffer.Next of a negative size")
	}
	b.settle()
	p := b.front(min(n, b.len))
	// Not settled here: a chunk that is used up now is what p points into. The next call does it.
	b.consume(len(p))
	return p
}

// Discard removes the first n bytes. If fewer are buffered it removes those and returns their
// number and io.EOF. Discard panics if n is negative.
func (b *Buffer) Discard(n int) (int, error) {
	if n < 0 {
		panic("bytespool: Buffer.Discard of a negative size")
	}
	b.settle()
	var err error
	if n > b.len {
		n, err = b.len, io.EOF
	}
	// Chunk by chunk, so that each goes back to the pool as soon as it is passed.
	for rest := n; rest > 0; {
		k := min(rest, b.head.w-b.head.r)
		b.consume(k)
		b.settle()
		rest -= k
	}
	return n, err
}

// Bytes returns what is buffered and true if it lies in one chunk, else nil and false. It does not
// copy; Peek(b.Len()) does if it must.
func (b *Buffer) Bytes() ([]byte, bool) {
	b.settle()
	switch {
	case b.len == 0:
		return nil, true
	case b.head != b.tail:
		return nil, false
	}
	return b.head.Bytes(), true
}

// Buffers returns what is buffered without copying and without removing it, one element for each
// chunk, for a gathering write. Discard what was written:
//
//	v := b.Buffers()
//	n, err := v.WriteTo(conn)
//	b.Discard(int(n))
func (b *Buffer) Buffers() net.Buffers {
	count := 0 // so that there is one allocation
	for n := b.head; n != nil; n = n.next {
		count++
	}
	return b.AppendBuffers(make(net.Buffers, 0, count))
}

// AppendBuffers appends the elements of Buffers to dst, so that the slice can be used again.
func (b *Buffer) AppendBuffers(dst net.Buffers) net.Buffers {
	b.settle()
	if b.len == 0 { // the chunk that an empty Buffer keeps is no element
		return dst
	}
	for n := b.head; n != nil; n = n.next {
		dst = append(dst, n.Bytes())
	}
	return dst
}

// TakeChunk removes the first chunk and hands it over without a copy: the caller releases it or
// adds it to another Buffer. It returns the zero Chunk if the Buffer is empty.
func (b *Buffer) TakeChunk() Chunk {
	b.settle()
	if b.len == 0 {
		return Chunk{}
	}
	b.len -= b.head.w - b.head.r
	return b.unlinkHead().take()
}

// AddChunk appends c without a copy and takes it over. Later writes may use the room behind it.
func (b *Buffer) AddChunk(c Chunk) {
	b.settle()
	if c.r == c.w { // only head may be empty
		c.Release()
		return
	}
	b.link(newNode(c))
	b.len += c.w - c.r
}

// Release drops what is buffered and gives all chunks back. The Buffer is empty and can be used
// again.
func (b *Buffer) Release() {
	for b.head != nil {
		c := b.unlinkHead().take()
		c.Release()
	}
	b.len = 0
}
