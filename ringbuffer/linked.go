// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sys/cpu"
)

var (
	_ io.ReadWriteCloser = (*Linked)(nil)
	_ io.ReaderFrom      = (*Linked)(nil)
	_ io.WriterTo        = (*Linked)(nil)
	_ io.WriterTo        = (*View)(nil)
)

// # Layout of Linked
//
//	word      written by        meaning
//	written   writer, Close     bytes ever published; bit 62: the writer is in its chunk;
//	                            bit 63: closed
//	tail, at  writer            the chunk being filled and the place in it
//	lent, spare  writer         how much WriteSlice lent, and the chunk it lies in if not in tail
//	readSeen  writer            a past value of read
//	read      reader            bytes ever consumed
//	head, off reader            the chunk being read and the place in it
//	first     writer            the first chunk ever
//
// The writer fills a chunk, links the next one if it needs one, and then publishes by moving
// written. The reader looks at written before it looks at a chunk's next: if next is nil then,
// every byte up to that value of written is in this chunk; if it is not, the chunk's end is final.
//
// Chunks go back to an allocator that will lend them again, so no side may write into one
// that was given back. The reader gives back what both sides have passed. The last chunk, and
// whatever the writer linked but could not publish because of Close, is given back by the side
// that leaves last. The reader leaves when it meets the end. The writer leaves inside the call
// that Close overtook; if Close found bit 62 clear, the writer is not in any call and will be
// refused at the door, so Close leaves in its name.

const (
	writingBit = 1 << 62
	countMask  = writingBit - 1
)

// DefaultChunkSize is the size of the chunks of a [Linked] that names none.
const DefaultChunkSize = 4096

// LinkedConfig describes a [Linked].
type LinkedConfig struct {
	// MaxBytes bounds the unread bytes: a writer finds the buffer full then. It must be
	// positive; [Unbounded] takes the limit away. The chunks take an eighth more at most, and
	// three chunks: one that is partly read, one that is partly written, and one that
	// WriteSlice lent. Each chunk has a header of 64 bytes beside, which shows if ChunkSize is
	// small. A copy that Peek or Until made takes at most twice its length. Chunks that only a
	// [View] holds do not count.
	MaxBytes int
	// ChunkSize is the size asked of the allocator for a chunk, in bytes. Zero means
	// DefaultChunkSize; negative is an error. A larger piece asked of WriteSlice gets a chunk
	// of its own size.
	ChunkSize int
	// Allocator lends the chunks. Nil means the Go heap.
	Allocator Allocator
}

// Linked is a byte buffer for one writer goroutine and one reader goroutine that grows by
// linking chunks and never moves bytes to grow. It holds no chunk before the first write, and
// at least one from then on until its reader has met the end.
//
// The zero value has no room: TryWrite fails with [ErrFull], WriteSlice and the forms that wait
// with [ErrTooLarge]. [NewLinked] makes one that is useful. To the writer belong Write,
// WriteContext, TryWrite, WriteSlice, Commit, WaitWritable and ReadFrom; to the reader Read,
// ReadContext, TryRead, Peek, Until, Discard, Slice, WaitReadable and WriteTo. Two goroutines on
// one side at the same time corrupt the content; the race detector sees it, and a build with the
// tag ringbufferdebug panics. Close, CloseWithError, Len and Cap are for everybody. After Close
// every method returns an error or what is left, and none panics but for a negative count. When
// the reader has drained a closed Linked and met the end, every chunk has been given back, unless
// the writer still holds a piece of WriteSlice. A Linked that is dropped before leaves its chunks
// to the garbage collector. It must not be copied.
type Linked struct {
	_        cpu.CacheLinePad
	written  atomic.Uint64
	readSeen uint64
	tail     *chunk
	at       int
	lent     int    // what WriteSlice returned, until the next publication
	spare    *chunk // in which that lies if it did not fit into tail
	first    *chunk
	writer   guard
	_        cpu.CacheLinePad
	read     atomic.Uint64
	head     *chunk
	off      int
	joined   joined // what Peek returned if it had to join chunks
	searched search // what Until has searched
	left     bool
	reader   guard
	_        cpu.CacheLinePad
	max      uint64
	size     int
	from     Allocator
	ends     atomic.Uint32 // sides that have left
	cause    atomic.Pointer[error]
	notEmpty gate // the reader sleeps here
	notFull  gate // the writer sleeps here
	_        cpu.CacheLinePad
}

// NewLinked returns a buffer described by c, or an error that names the field that is out of
// range.
func NewLinked(c LinkedConfig) (*Linked, error) {
	if c.MaxBytes <= 0 {
		return nil, fmt.Errorf("ringbuffer: LinkedConfig.MaxBytes %d is not positive", c.MaxBytes)
	}
	if c.ChunkSize < 0 || c.ChunkSize > maxCapacity {
		return nil, fmt.Errorf("ringbuffer: LinkedConfig.ChunkSize %d is not within 0 to %d",
			c.ChunkSize, maxCapacity)
	}
	if c.ChunkSize == 0 {
		c.ChunkSize = DefaultChunkSize
	}
	if c.Allocator == nil {
		c.Allocator = heap{}
	}
	return &Linked{max: uint64(c.MaxBytes), size: c.ChunkSize, from: c.Allocator}, nil
}

// Cap returns the bound in bytes.
func (l *Linked) Cap() int { return int(l.max) }

// Len returns the number of unread bytes at some moment during the call: a lower bound for the
// reader, an upper one for the writer.
func (l *Linked) Len() int { return length(&l.read, &l.written) }

// enter begins a call of the writer: from here to leave, Close knows that the writer may be
// inside its chunk. After WriteSlice the writer is inside already.
func (l *Linked) enter() (uint64, error) {
	for {
		s := l.written.Load()
		if s&closedBit != 0 {
			// Close overtook the writer between WriteSlice and this call, and so left the
			// chunks to it.
			if s&writingBit != 0 {
				l.abandon()
			}
			return 0, writeError(&l.cause)
		}
		if s&writingBit != 0 || l.written.CompareAndSwap(s, s|writingBit) {
			return s & countMask, nil
		}
	}
}

// publish ends a call of the writer: n bytes behind w become readable.
func (l *Linked) publish(w uint64, n int) error {
	l.lent = 0
	l.dropSpare()
	if !l.written.CompareAndSwap(w|writingBit, w+uint64(n)) {
		l.abandon()
		return writeError(&l.cause)
	}
	if n > 0 {
		l.notEmpty.wake()
	}
	return nil
}

// abandon ends a call of the writer that Close has overtaken.
func (l *Linked) abandon() {
	l.dropSpare()
	l.written.And(^uint64(writingBit))
	l.leave()
}

// leave counts a side out; the last one gives back the chunks that are left.
func (l *Linked) leave() {
	if l.ends.Add(1) < 2 {
		return // the other side may still be in a chunk
	}
	c := l.head
	if c == nil {
		c = l.first // the reader never read
	}
	l.head, l.tail, l.first = nil, nil, nil
	for c != nil {
		next := c.next.Load()
		c.drop()
		c = next
	}
}

// Close ends the stream: writes fail with [ErrClosed] from now on, the reader gets what was
// written and then [io.EOF]. It wakes both sides. It may be called from any goroutine, also more
// than once, and always returns nil.
func (l *Linked) Close() error { return l.CloseWithError(nil) }

// CloseWithError is Close with a reason: writes fail with err, and the reader gets it after the
// last byte. A nil err means what Close means. The first close wins; later ones change nothing. It
// always returns nil.
func (l *Linked) CloseWithError(err error) error {
	// One instruction sets the bit and finds out whether the writer is in its chunk: neither can
	// change without the other being seen.
	l.cause.CompareAndSwap(nil, &err)
	if l.written.Or(closedBit)&(closedBit|writingBit) == 0 {
		l.leave() // for the writer, which is outside and stays outside
	}
	l.notEmpty.wakeAll()
	l.notFull.wakeAll()
	return nil
}

// room returns how many bytes the bound allows, looking at the reader only if the known room is
// less than want.
func (l *Linked) room(w uint64, want int) int {
	room := l.max - (w - l.readSeen)
	// The reader's line is fetched only when what is known does not do.
	if room < uint64(max(want, 1)) {
		l.readSeen = l.read.Load()
		room = l.max - (w - l.readSeen)
	}
	return int(room)
}

// space returns the free part of the tail chunk, linking a new chunk if there is none.
func (l *Linked) space() []byte {
	if l.tail == nil || l.at == len(l.tail.buf) {
		l.link(newChunk(l.from, l.size))
	}
	return l.tail.buf[l.at:]
}

// link makes next the tail.
func (l *Linked) link(next *chunk) {
	if l.tail == nil {
		l.first = next
	} else {
		// end before next: to the reader, next says that end is final.
		l.tail.end = l.at
		l.tail.next.Store(next)
	}
	l.tail, l.at = next, 0
}

// settle puts the n bytes in the spare chunk behind those in the tail.
//
// A tail that is left with room is memory that holds nothing, and MaxBytes must bound memory
// too: a writer that asks for 4096 bytes and fills one would waste a chunk for each byte. So the
// room is filled by copying, unless it is less than an eighth of n, which would copy much to
// save little. Each byte is copied at most once.
func (l *Linked) settle(n int) {
	c := l.spare
	if l.tail != nil && len(l.tail.buf)-l.at >= n/8 {
		k := copy(l.tail.buf[l.at:], c.buf[:n])
		l.at += k
		n = copy(c.buf, c.buf[k:n])
	}
	if n > 0 {
		l.spare = nil
		l.link(c)
		l.at = n
	}
}

func (l *Linked) dropSpare() {
	if l.spare != nil {
		l.spare.drop()
		l.spare = nil
	}
}

// TryWrite copies as much of p as the bound allows and returns how much that is. It never
// blocks. When that is less than len(p), the error is [ErrFull], or, after Close, [ErrClosed] or
// the reason.
func (l *Linked) TryWrite(p []byte) (int, error) {
	if debugging {
		l.writer.enter("writer")
		defer l.writer.leave()
	}
	w, err := l.enter()
	if err != nil {
		return 0, err
	}
	// Filled chunk by chunk and published once, so that the reader is woken once.
	n := min(l.room(w, len(p)), len(p))
	for rest := p[:n]; len(rest) > 0; {
		k := copy(l.space(), rest)
		l.at += k
		rest = rest[k:]
	}
	if err := l.publish(w, n); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, ErrFull
	}
	return n, nil
}

// WriteSlice returns a contiguous piece of at least n bytes (n below 1 means 1) to fill in
// place; [Linked.Commit] publishes what was filled. The piece is valid until the next call that
// writes. There must be one, also after Close and if nothing was filled (Commit(0) then): as
// long as the writer may be in its chunk, nobody gives the chunk back. When the bound leaves
// less room than n the error is [ErrFull], or [ErrTooLarge] if it never can; after Close
// [ErrClosed] or the reason. The piece is never larger than the room.
func (l *Linked) WriteSlice(n int) ([]byte, error) {
	if debugging {
		l.writer.enter("writer")
		defer l.writer.leave()
	}
	n = max(n, 1)
	w, err := l.enter()
	if err != nil {
		return nil, err
	}
	room := l.room(w, n)
	if room < n {
		// Leaving the chunk again is publishing nothing.
		err := ErrFull
		if uint64(n) > l.max {
			err = ErrTooLarge
		}
		if cerr := l.publish(w, 0); cerr != nil {
			err = cerr // closed meanwhile: no use in waiting for room
		}
		return nil, err
	}
	l.dropSpare() // of a WriteSlice without a Commit
	var p []byte
	if l.tail != nil && len(l.tail.buf)-l.at >= n {
		p = l.tail.buf[l.at:]
	} else {
		l.spare = newChunk(l.from, max(n, l.size))
		p = l.spare.buf
	}
	l.lent = min(len(p), room)
	return p[:l.lent:l.lent], nil
}

// Commit publishes the first n bytes of the piece that WriteSlice returned. It panics if n is
// negative or larger than the piece. After Close nothing is published and the error is
// [ErrClosed] or the reason.
func (l *Linked) Commit(n int) error {
	if debugging {
		l.writer.enter("writer")
		defer l.writer.leave()
	}
	w, err := l.enter()
	if err != nil {
		return err
	}
	if n < 0 || n > l.lent {
		_ = l.publish(w, 0) // else the writer would stay in its chunk for ever
		panic("ringbuffer: Commit of more bytes than WriteSlice returned")
	}
	if l.spare != nil {
		l.settle(n)
	} else {
		l.at += n
	}
	return l.publish(w, n)
}

// WaitWritable waits until at least n bytes can be written; n below 1 means 1. It returns nil
// then, [ErrClosed] or the reason after Close, [ErrTooLarge] if n is larger than Cap, or the
// cause of ctx. A writer that waits for n bytes while the reader waits for more than is there
// waits for ever: let one of them take what there is.
func (l *Linked) WaitWritable(ctx context.Context, n int) error {
	n = max(n, 1)
	if uint64(n) > l.max {
		return ErrTooLarge
	}
	var err error
	try := func() bool {
		s := l.written.Load()
		if s&closedBit != 0 {
			err = writeError(&l.cause)
			return true
		}
		return l.room(s&countMask, n) >= n
	}
	if try() {
		return err
	}
	if werr := l.notFull.wait(ctx, try); werr != nil {
		return werr
	}
	return err
}

// Write writes all of p, waiting for the bound as long as needed. It returns how much it wrote;
// less than len(p) only with an error: [ErrClosed] or the reason after Close.
func (l *Linked) Write(p []byte) (int, error) { return l.WriteContext(context.Background(), p) }

// WriteContext is Write with an end: when ctx ends while it waits, it returns how much it wrote
// and the cause of ctx. That part stays written. A write that needs no waiting does not look at
// ctx.
func (l *Linked) WriteContext(ctx context.Context, p []byte) (int, error) {
	n, err := l.TryWrite(p)
	if err == ErrFull {
		return writeRest(ctx, l, p, n)
	}
	return n, err
}

// ReadFrom reads from r straight into chunks until r reports [io.EOF], waiting for the bound as
// needed. It belongs to the writer. It does not close the buffer. While the buffer is full it
// reads up to 512 bytes ahead, to see the end of r without waiting for room. It returns how many
// bytes it moved, and the first error of r other than io.EOF or of the buffer, or
// [io.ErrNoProgress] if r delivers nothing 100 times in a row. Bytes that r delivered to a buffer
// that was closed meanwhile are lost and not counted.
func (l *Linked) ReadFrom(r io.Reader) (int64, error) {
	defer l.Commit(0) // a reader that panics must not leave the writer in its chunk
	return readFrom(r, func() ([]byte, error) {
		p, err := l.WriteSlice(1)
		if err == ErrFull {
			err = nil
		}
		return p, err
	}, l.Commit, l.Write)
}
