// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"io"
	"sync/atomic"

	"golang.org/x/sys/cpu"
)

var (
	_ io.ReadWriteCloser = (*Bytes)(nil)
	_ io.ReaderFrom      = (*Bytes)(nil)
	_ io.WriterTo        = (*Bytes)(nil)
)

// Bytes is a byte ring of fixed size for one writer goroutine and one reader goroutine, without
// a lock. Layout and memory-order argument are those of [SPSC], with bytes for items: tail is
// what was written, head what was read, and their difference is never more than the capacity.
//
// The zero value has no room: TryWrite fails with [ErrFull], the forms that wait with
// [ErrTooLarge]. [NewBytes] makes one that is useful. To the writer belong Write, WriteContext,
// TryWrite, WriteSlices, Commit, WaitWritable and ReadFrom; to the reader Read, ReadContext,
// TryRead, ReadSlices, Advance, WaitReadable and WriteTo. Two goroutines on one side at the
// same time corrupt the content; the race detector sees it, and a build with the tag
// ringbufferdebug panics. Close, CloseWithError, Len and Cap are for everybody; Reset needs the
// ring for itself. A Bytes must not be copied.
type Bytes struct {
	_        cpu.CacheLinePad
	tail     atomic.Uint64 // written by the writer and by Close; bit 63: closed
	headSeen uint64        // the writer's: a past value of head
	lent     int           // the writer's: what WriteSlices returned, until the next publication
	writer   guard
	_        cpu.CacheLinePad
	head     atomic.Uint64 // written by the reader
	tailSeen uint64        // the reader's: a past value of tail
	reader   guard
	_        cpu.CacheLinePad
	buf      []byte
	cause    atomic.Pointer[error] // set once, before the closed bit; points to nil without a reason
	notEmpty gate                  // the reader sleeps here
	notFull  gate                  // the writer sleeps here
	_        cpu.CacheLinePad
}

// NewBytes returns a ring of size bytes, rounded up to a power of two. It panics if size is not
// positive or is larger than a quarter of the int range.
func NewBytes(size int) *Bytes {
	return &Bytes{buf: make([]byte, roundUp(size))} // zero gates: they do not spin
}

// Cap returns the size in bytes.
func (b *Bytes) Cap() int { return len(b.buf) }

// Len returns the number of unread bytes at some moment during the call: a lower bound for the
// reader, an upper one for the writer.
func (b *Bytes) Len() int { return length(&b.head, &b.tail) }

// Close ends the stream: writes fail with [ErrClosed] from now on, the reader gets what was
// written and then [io.EOF]. It wakes both sides. It may be called from any goroutine, also more
// than once, and always returns nil.
func (b *Bytes) Close() error { return b.CloseWithError(nil) }

// CloseWithError is Close with a reason: writes fail with err, and the reader gets it after the
// last byte. A nil err means what Close means. The first close wins; later ones change nothing. It
// always returns nil.
func (b *Bytes) CloseWithError(err error) error {
	// The cause first: a side that sees the bit finds it. The first close wins.
	b.cause.CompareAndSwap(nil, &err)
	b.tail.Or(closedBit)
	b.notEmpty.wakeAll()
	b.notFull.wakeAll()
	return nil
}

// writeError and readError turn the cause of a closed ring into the error of each side.
func writeError(cause *atomic.Pointer[error]) error {
	if err := cause.Load(); err != nil && *err != nil {
		return *err
	}
	return ErrClosed
}

func readError(cause *atomic.Pointer[error]) error {
	if err := cause.Load(); err != nil && *err != nil {
		return *err
	}
	return io.EOF
}

// Reset empties the ring and opens it again. Nobody else may use the ring meanwhile; a waiting
// goroutine is use.
func (b *Bytes) Reset() {
	b.headSeen, b.tailSeen, b.lent = 0, 0, 0
	b.head.Store(0)
	b.cause.Store(nil)
	b.tail.Store(0)
}

// WriteSlices returns the free space as two slices, the second of which continues the first and
// is often empty. The writer fills them in order and calls [Bytes.Commit]; until then the
// reader sees nothing of it. The slices are empty when the ring is full, and valid until the
// next call that writes. After Close the result is empty and the error is [ErrClosed] or the
// reason.
func (b *Bytes) WriteSlices() (first, second []byte, err error) {
	if debugging {
		b.writer.enter("writer")
		defer b.writer.leave()
	}
	t := b.tail.Load()
	if t&closedBit != 0 {
		return nil, nil, writeError(&b.cause)
	}
	b.headSeen = b.head.Load() // lend all there is, not only what is known
	b.lent = len(b.buf) - int(t-b.headSeen)
	first, second = b.window(t, b.lent)
	return first, second, nil
}

// Commit publishes the first n bytes of what WriteSlices returned. It panics if n is negative
// or larger than that, so also if something was written or committed since. After Close nothing
// is published, and the error is ErrClosed or the reason.
func (b *Bytes) Commit(n int) error {
	if debugging {
		b.writer.enter("writer")
		defer b.writer.leave()
	}
	t := b.tail.Load()
	if t&closedBit != 0 {
		return writeError(&b.cause)
	}
	if n < 0 || n > b.lent {
		panic("ringbuffer: Commit of more bytes than WriteSlices returned")
	}
	return b.publish(t, n)
}

// publish moves the tail by n. Close is the only other writer of it: a lost swap means closed.
func (b *Bytes) publish(t uint64, n int) error {
	b.lent = 0
	if !b.tail.CompareAndSwap(t, t+uint64(n)) {
		return writeError(&b.cause)
	}
	b.notEmpty.wake()
	return nil
}

// window returns the n bytes from position p on, which wrap around the end at most once.
func (b *Bytes) window(p uint64, n int) (first, second []byte) {
	if n == 0 {
		return nil, nil
	}
	// The capacities are limited, so that appending to a piece cannot run into foreign bytes.
	i := int(p & uint64(len(b.buf)-1))
	if i+n <= len(b.buf) {
		return b.buf[i : i+n : i+n], nil
	}
	n -= len(b.buf) - i
	return b.buf[i:], b.buf[:n:n]
}

// ReadSlices returns all unread bytes as two slices, the second of which continues the first
// and is often empty. [Bytes.Advance] gives their room back to the writer; the slices are valid
// until then. They are empty, with a nil error, when there is nothing to read now; after Close
// and the last byte the error is [io.EOF] or the reason.
func (b *Bytes) ReadSlices() (first, second []byte, err error) {
	if debugging {
		b.reader.enter("reader")
		defer b.reader.leave()
	}
	h := b.head.Load()
	t := b.tail.Load()
	b.tailSeen = t &^ closedBit
	if b.tailSeen == h && t&closedBit != 0 {
		return nil, nil, readError(&b.cause)
	}
	first, second = b.window(h, int(b.tailSeen-h))
	return first, second, nil
}

// Advance marks n bytes as read. It panics if n is negative or larger than what the last look
// at the ring (ReadSlices, a read, or a wait) has shown.
func (b *Bytes) Advance(n int) {
	if debugging {
		b.reader.enter("reader")
		defer b.reader.leave()
	}
	// Checked against what this side has seen, not what is there: a reader that advances over
	// bytes it never looked at has a mistake in its arithmetic.
	h := b.head.Load()
	if n < 0 || n > int(b.tailSeen-h) {
		panic("ringbuffer: Advance beyond the bytes that ReadSlices returned")
	}
	b.head.Store(h + uint64(n))
	b.notFull.wake()
}

// TryWrite copies as much of p as there is room for and returns how much that is. It never
// blocks. When that is less than len(p), the error is [ErrFull], or, after Close, [ErrClosed]
// or the reason.
func (b *Bytes) TryWrite(p []byte) (int, error) {
	if debugging {
		b.writer.enter("writer")
		defer b.writer.leave()
	}
	t := b.tail.Load()
	if t&closedBit != 0 {
		return 0, writeError(&b.cause)
	}
	room := len(b.buf) - int(t-b.headSeen)
	if room < len(p) {
		b.headSeen = b.head.Load()
		room = len(b.buf) - int(t-b.headSeen)
	}
	n := min(room, len(p))
	if n > 0 {
		put(b.buf, t, p[:n])
		if err := b.publish(t, n); err != nil {
			return 0, err // what was copied lies in free space and means nothing
		}
	}
	if n < len(p) {
		return n, ErrFull
	}
	return n, nil
}

// TryRead copies up to len(p) unread bytes into p and returns how many. It never blocks. The
// error is nil if that is at least one or p is empty; else [ErrEmpty], or, after Close, [io.EOF]
// or the reason.
func (b *Bytes) TryRead(p []byte) (int, error) {
	if debugging {
		b.reader.enter("reader")
		defer b.reader.leave()
	}
	if len(p) == 0 {
		return 0, nil
	}
	h := b.head.Load()
	if int(b.tailSeen-h) < len(p) {
		t := b.tail.Load()
		b.tailSeen = t &^ closedBit
		if b.tailSeen == h {
			if t&closedBit != 0 {
				return 0, readError(&b.cause)
			}
			return 0, ErrEmpty
		}
	}
	// Bytes hold no pointers, so what was read is not cleared.
	first, second := b.window(h, min(int(b.tailSeen-h), len(p)))
	n := copy(p, first)
	n += copy(p[n:], second)
	b.head.Store(h + uint64(n))
	b.notFull.wake()
	return n, nil
}

// WaitReadable waits until at least n bytes can be read; n below 1 means 1. It returns nil then,
// [io.EOF] or the reason if the ring is closed with fewer bytes in it, which can still be read;
// [ErrTooLarge] if n is larger than Cap; or the cause of ctx.
func (b *Bytes) WaitReadable(ctx context.Context, n int) error {
	n = max(n, 1)
	if n > len(b.buf) {
		return ErrTooLarge
	}
	var err error
	try := func() bool {
		t := b.tail.Load()
		b.tailSeen = t &^ closedBit
		if int(b.tailSeen-b.head.Load()) >= n {
			return true // before the bit: what was written before Close can be read
		}
		if t&closedBit != 0 {
			err = readError(&b.cause)
			return true
		}
		return false
	}
	if try() {
		return err
	}
	if werr := b.notEmpty.wait(ctx, try); werr != nil {
		return werr
	}
	return err
}

// WaitWritable waits until at least n bytes can be written; n below 1 means 1. It returns nil
// then, [ErrClosed] or the reason after Close, [ErrTooLarge] if n is larger than Cap, or the
// cause of ctx. A writer that waits for n bytes while the reader waits for more than is there
// waits for ever: let one of them take what there is.
func (b *Bytes) WaitWritable(ctx context.Context, n int) error {
	n = max(n, 1)
	if n > len(b.buf) {
		return ErrTooLarge
	}
	var err error
	try := func() bool {
		t := b.tail.Load()
		if t&closedBit != 0 {
			err = writeError(&b.cause)
			return true
		}
		b.headSeen = b.head.Load()
		return len(b.buf)-int(t-b.headSeen) >= n
	}
	if try() {
		return err
	}
	if werr := b.notFull.wait(ctx, try); werr != nil {
		return werr
	}
	return err
}
