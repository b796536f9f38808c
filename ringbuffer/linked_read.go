// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"bytes"
	"context"
	"io"
)

// look returns how many bytes can be read, and the error that says why there will be no more:
// nil while the buffer is open. A reader that meets the end leaves.
func (l *Linked) look() (int, error) {
	s := l.written.Load()
	n := int(s&countMask - l.read.Load())
	if s&closedBit == 0 {
		return n, nil
	}
	if n == 0 && !l.left {
		l.left = true
		l.dropScratch()
		l.leave()
	}
	return n, readError(&l.cause)
}

// ahead returns the error of a call that needs more than the n bytes there are.
func ahead(n, want int, end error) error {
	switch {
	case n >= want:
		return nil
	case end != nil:
		return end
	}
	return ErrShort
}

// front returns the readable part of the head chunk, given that n > 0 bytes are readable.
func (l *Linked) front(n int) []byte {
	if l.head == nil {
		l.head = l.first
	}
	for {
		p, next := part(l.head, l.off, n)
		if len(p) > 0 {
			return p
		}
		// Everything here is read and the writer has moved on.
		l.head.drop()
		l.head, l.off = next, 0
	}
}

// part returns what of the next n readable bytes is in chunk c from off on, and the chunk behind.
func part(c *chunk, off, n int) ([]byte, *chunk) {
	next := c.next.Load()
	end := off + n
	if next != nil {
		end = min(end, c.end)
	}
	return c.buf[off:end:end], next
}

// advance consumes n bytes of the head chunk.
func (l *Linked) advance(n int) {
	l.off += n
	l.dropScratch()
	l.read.Store(l.read.Load() + uint64(n))
	l.notFull.wake()
}

func (l *Linked) dropScratch() {
	if l.scratch != nil {
		l.from.Put(l.scratch)
		l.scratch = nil
	}
}

// TryRead copies up to len(p) unread bytes into p and returns how many. It never blocks. The
// error is nil if that is at least one or p is empty; else [ErrEmpty], or, after Close, [io.EOF]
// or the reason.
func (l *Linked) TryRead(p []byte) (int, error) {
	if debugging {
		l.reader.enter("reader")
		defer l.reader.leave()
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, end := l.look()
	if n == 0 {
		if end != nil {
			return 0, end
		}
		return 0, ErrEmpty
	}
	n = min(n, len(p))
	for done := 0; done < n; {
		k := copy(p[done:n], l.front(n-done))
		l.advance(k)
		done += k
	}
	if end != nil {
		_, _ = l.look() // the last byte of a closed buffer frees it
	}
	return n, nil
}

// Peek returns the next n bytes in one piece without consuming them. They are copied only if
// they lie in several chunks. The piece is valid until the next call that reads, Peek included. If there are
// fewer, the error is [ErrShort], [ErrTooLarge] if n is larger than Cap, or, after Close,
// [io.EOF] or the reason; Peek(Len()) then returns the rest. It panics if n is negative.
func (l *Linked) Peek(n int) ([]byte, error) {
	if debugging {
		l.reader.enter("reader")
		defer l.reader.leave()
	}
	checkCount(n)
	if uint64(n) > l.max {
		return nil, ErrTooLarge
	}
	have, end := l.look()
	if n == 0 {
		return nil, nil
	}
	if err := ahead(have, n, end); err != nil {
		return nil, err
	}
	return l.peek(n), nil
}

func checkCount(n int) {
	if n < 0 {
		panic("ringbuffer: negative count")
	}
}

// peek returns the next n > 0 bytes, which are there.
func (l *Linked) peek(n int) []byte {
	p := l.front(n)
	if len(p) == n {
		return p
	}
	if len(l.scratch) < n {
		l.dropScratch()
		l.scratch = l.from.Get(n)
	}
	c, off := l.head, l.off
	for done := 0; done < n; {
		p, next := part(c, off, n-done)
		done += copy(l.scratch[done:n], p)
		c, off = next, 0
	}
	return l.scratch[:n:n]
}

// Until returns the bytes up to the first delim and it included, without consuming them; Discard of their
// number does. They are valid and copied as those of Peek. If there is no delim, the error is
// [ErrShort], [ErrTooLarge] if the buffer is full and so can never take one, or, after Close,
// [io.EOF] or the reason; Peek(Len()) then returns the rest. Bytes that were searched are not searched again.
func (l *Linked) Until(delim byte) ([]byte, error) {
	if debugging {
		l.reader.enter("reader")
		defer l.reader.leave()
	}
	n, end := l.look()
	if n > 0 {
		if k := l.index(delim, n); k >= 0 {
			return l.peek(k + 1), nil
		}
	}
	if end == nil && uint64(n) >= l.max {
		return nil, ErrTooLarge
	}
	return nil, ahead(n, n+1, end)
}

// index returns the place of the first delim among the next n > 0 bytes, or -1.
func (l *Linked) index(delim byte, n int) int {
	r := l.read.Load()
	skip := 0
	if l.delim == delim && l.searched > r {
		skip = int(l.searched - r)
	}
	l.front(n)
	c, off := l.head, l.off
	for done := 0; done < n; {
		p, next := part(c, off, n-done)
		if from := min(max(skip-done, 0), len(p)); from < len(p) {
			if i := bytes.IndexByte(p[from:], delim); i >= 0 {
				// Found: the next search starts here again.
				l.delim, l.searched = delim, r+uint64(done+from+i)
				return done + from + i
			}
		}
		done += len(p)
		c, off = next, 0
	}
	l.delim, l.searched = delim, r+uint64(n)
	return -1
}

// Discard consumes n bytes and returns how many there were: fewer than n only with an error,
// [ErrShort], or, after Close, [io.EOF] or the reason. It panics if n is negative.
func (l *Linked) Discard(n int) (int, error) {
	if debugging {
		l.reader.enter("reader")
		defer l.reader.leave()
	}
	checkCount(n)
	have, end := l.look()
	k := min(n, have)
	for done := 0; done < k; {
		m := len(l.front(k - done))
		l.advance(m)
		done += m
	}
	if end != nil && k > 0 {
		_, _ = l.look() // the last byte of a closed buffer frees it
	}
	return k, ahead(have, n, end)
}

// Slice takes n bytes out without copying. The [View] that holds them must be released. The
// errors are those of Peek; nothing is taken out then. It panics if n is negative.
func (l *Linked) Slice(n int) (*View, error) {
	if debugging {
		l.reader.enter("reader")
		defer l.reader.leave()
	}
	checkCount(n)
	if uint64(n) > l.max {
		return nil, ErrTooLarge
	}
	have, end := l.look()
	if n == 0 {
		return new(View), nil
	}
	if err := ahead(have, n, end); err != nil {
		return nil, err
	}
	v := &View{n: n}
	v.parts, v.chunks = v.part[:0], v.chunk[:0]
	for done := 0; done < n; {
		p := l.front(n - done)
		l.head.refs.Add(1)
		v.parts, v.chunks = append(v.parts, p), append(v.chunks, l.head)
		l.advance(len(p))
		done += len(p)
	}
	if end != nil {
		_, _ = l.look() // the last byte of a closed buffer frees it
	}
	return v, nil
}

// WaitReadable waits until at least n bytes can be read; n below 1 means 1. It returns nil then,
// [io.EOF] or the reason if the buffer is closed with fewer bytes in it, which can still be read;
// [ErrTooLarge] if n is larger than Cap; or the error of ctx.
func (l *Linked) WaitReadable(ctx context.Context, n int) error {
	n = max(n, 1)
	if uint64(n) > l.max {
		return ErrTooLarge
	}
	var err error
	try := func() bool {
		have, end := l.look()
		err = ahead(have, n, end)
		return have >= n || end != nil // the reason of a close may be ErrShort, too
	}
	if try() {
		return err
	}
	if werr := l.notEmpty.wait(ctx, try); werr != nil {
		return werr
	}
	return err
}

// Read reads up to len(p) bytes, waiting for the first one as long as needed. After Close it
// drains the buffer and then returns [io.EOF] or the reason.
func (l *Linked) Read(p []byte) (int, error) { return l.ReadContext(context.Background(), p) }

// ReadContext is Read with an end: it returns 0 and the error of ctx when that ends first. A
// read that needs no waiting does not look at ctx.
func (l *Linked) ReadContext(ctx context.Context, p []byte) (int, error) {
	n, err := l.TryRead(p)
	if err == ErrEmpty {
		return readMore(ctx, l, p)
	}
	return n, err
}

// WriteTo writes to w straight from the chunks until the buffer is closed and drained, waiting
// for bytes as needed. It belongs to the reader. It returns how many bytes w took, and the first
// error of w or the reason of the close, nil if there was none.
func (l *Linked) WriteTo(w io.Writer) (int64, error) {
	return writeTo(w, func() ([]byte, error) {
		if err := l.WaitReadable(context.Background(), 1); err != nil {
			return nil, err
		}
		n, _ := l.look()
		return l.front(n), nil
	}, func(n int) { _, _ = l.Discard(n) })
}
