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
	s := l.written.Load() // once: the count and the closed bit belong together
	n := int(s&countMask - l.read.Load())
	if s&closedBit == 0 {
		return n, nil
	}
	if n == 0 && !l.left {
		l.left = true
		l.dropJoined()
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
	// The caller has read written before: if there is no next chunk now, all n bytes are here.
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
	r := l.read.Load() + uint64(n)
	if l.joined.buf != nil && r >= l.joined.end() {
		l.dropJoined()
	}
	l.read.Store(r)
	l.notFull.wake()
}

// place is where a byte is: at off of chunk c. The place behind the last byte of a chunk may be
// off == c.end. A place stays good as long as there are unread bytes before it, since the reader
// gives a chunk back only when all of it is read.
type place struct {
	c   *chunk
	off int
}

// joined is a copy of unread bytes that lie in several chunks. It is kept until they are read,
// so that a Peek for more copies only what is new: a parser that peeks at a growing package
// after every arrival would otherwise copy all of it each time.
type joined struct {
	buf  []byte // from the allocator; nil if there is no copy
	n    int    // how much of buf is in use
	from uint64 // position of buf[0]
	next place  // of the first byte that is not copied
}

// end returns the position behind the copied bytes.
func (j *joined) end() uint64 { return j.from + uint64(j.n) }

func (l *Linked) dropJoined() {
	if l.joined.buf != nil {
		l.from.Put(l.joined.buf)
		l.joined = joined{}
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
		// Advancing after each chunk lets the writer go on while the rest is copied.
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
// they lie in several chunks. The piece is valid until the next call that reads, Peek included.
// If there are fewer, the error is [ErrShort], [ErrTooLarge] if n is larger than Cap, or, after
// Close, [io.EOF] or the reason; Peek(Len()) then returns the rest. It panics if n is negative.
func (l *Linked) Peek(n int) ([]byte, error) {
	if debugging {
		l.reader.enter("reader")
		defer l.reader.leave()
	}
	checkCount(n)
	if uint64(n) > l.max {
		return nil, ErrTooLarge
	}
	// Also for n == 0: the look is what lets the reader of a closed buffer leave.
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
	l.reserve(n)
	j := &l.joined
	skip := int(l.read.Load() - j.from)
	for j.n < skip+n {
		p, next := part(j.next.c, j.next.off, skip+n-j.n)
		k := copy(j.buf[j.n:], p)
		j.n += k
		j.next.off += k
		if j.n < skip+n {
			j.next = place{next, 0}
		}
	}
	return j.buf[skip : skip+n : skip+n]
}

// reserve makes room in the copy for the next n unread bytes.
func (l *Linked) reserve(n int) {
	j := &l.joined
	r := l.read.Load()
	if j.buf == nil {
		*j = joined{buf: l.from.Get(n), from: r, next: place{l.head, l.off}}
		return
	}
	skip := int(r - j.from)
	if skip+n <= len(j.buf) {
		return
	}
	// Moving the copy to the front costs at most n bytes. That is paid for by the n bytes that
	// were read since, or else the buffer grows to twice what is needed now.
	buf := j.buf
	if skip < n {
		buf = l.from.Get(max(n, 2*n)) // 2*n may overflow
	}
	j.n = copy(buf, j.buf[skip:j.n])
	j.from = r
	if skip < n {
		l.from.Put(j.buf)
		j.buf = buf
	}
}

// Until returns the bytes up to the first delim and it included, without consuming them;
// Discard of their number does. They are valid and copied as those of Peek. If there is no
// delim, the error is [ErrShort], [ErrTooLarge] if the buffer is full and so can never take
// one, or, after Close, [io.EOF] or the reason; Peek(Len()) then returns the rest. Bytes that
// were searched are not searched again for the same delim.
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
	// No delim can come any more when no byte can: waiting for it would be for ever.
	if end == nil && uint64(n) >= l.max {
		return nil, ErrTooLarge
	}
	return nil, ahead(n, n+1, end)
}

// index returns the place of the first delim among the next n > 0 bytes, or -1.
func (l *Linked) index(delim byte, n int) int {
	l.front(n) // before head is used
	r := l.read.Load()
	s := search{delim, r, place{l.head, l.off}}
	if l.searched.delim == delim && l.searched.pos > r {
		s = l.searched
	}
	for end := r + uint64(n); s.pos < end; {
		p, next := part(s.at.c, s.at.off, int(end-s.pos))
		i := bytes.IndexByte(p, delim)
		if i >= 0 {
			p = p[:i] // the next search starts at the delim again
		}
		s.pos += uint64(len(p))
		s.at.off += len(p)
		if i >= 0 {
			l.searched = s
			return int(s.pos - r)
		}
		if s.pos < end {
			s.at = place{next, 0}
		}
	}
	l.searched = s
	return -1
}

// search says that there is no delim between the front and the position pos, which is at.
type search struct {
	delim byte
	pos   uint64
	at    place
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
	// The usual view lies in one or two chunks and costs one allocation.
	v := &View{n: n}
	v.parts, v.chunks = v.part[:0], v.chunk[:0]
	for done := 0; done < n; {
		p := l.front(n - done)
		l.head.refs.Add(1) // before advance, which lets the reader drop its own reference
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
// [ErrTooLarge] if n is larger than Cap; or the cause of ctx.
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

// ReadContext is Read with an end: it returns 0 and the cause of ctx when that ends first. A
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
