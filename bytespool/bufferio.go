// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"errors"
	"io"
)

// minRead is the room that ReadFrom offers at least: less would cost a call of Read for a few
// bytes behind the end of a chunk.
const minRead = 128

// maxEmptyReads is how often in a row a Reader may return nothing and no error.
const maxEmptyReads = 100

var (
	errReadCount  = errors.New("bytespool: Read returned a count outside of its buffer")
	errWriteCount = errors.New("bytespool: Write returned a count outside of its buffer")
)

// ReadFrom appends what r yields until io.EOF, which is no error, or another error. Bytes that
// come with an error are kept. It returns io.ErrNoProgress if r yields nothing many times in a
// row.
func (b *Buffer) ReadFrom(r io.Reader) (int64, error) {
	b.settle()
	// A new chunk is linked once there is something in it, since only head may be empty. Until then
	// it is the spare, which goes back to the pool also if r panics.
	var spare *node
	defer func() {
		if spare != nil {
			c := spare.take()
			c.Release()
		}
	}()
	total := int64(0)
	for empty := 0; empty < maxEmptyReads; {
		into := b.tail
		if into == nil || len(into.free()) < minRead {
			if spare == nil {
				spare = b.newChunk(minRead)
			}
			into = spare
		}
		n, err := r.Read(into.free())
		// An io.Reader that breaks its contract must not make a Buffer hold bytes nobody wrote.
		if n < 0 || n > len(into.free()) {
			return total, errReadCount
		}
		if n > 0 {
			if into == spare {
				b.link(spare)
				spare = nil
			}
			b.wrote(n)
			total += int64(n)
			empty = 0
		} else {
			empty++
		}
		if err == io.EOF { // bytes that came with it are counted above
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, io.ErrNoProgress
}

// WriteTo moves what is buffered to w, one Write for each chunk, until the Buffer is empty or w
// fails. What w did not take stays. For a gathering write see Buffers.
func (b *Buffer) WriteTo(w io.Writer) (int64, error) {
	b.settle()
	total := int64(0)
	for b.len > 0 {
		p := b.head.Bytes()
		n, err := w.Write(p)
		// Before consume: more than p would remove bytes that w never saw.
		if n < 0 || n > len(p) {
			return total, errWriteCount
		}
		b.consume(n)
		b.settle()
		total += int64(n)
		if err != nil {
			return total, err
		}
		if n < len(p) { // without an error, against the contract; going on could spin
			return total, io.ErrShortWrite
		}
	}
	return total, nil
}
