// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"io"
)

// Write writes all of p, waiting for room as long as needed. It returns how much it wrote; less
// than len(p) only with an error: [ErrClosed] or the reason after Close.
func (b *Bytes) Write(p []byte) (int, error) { return b.WriteContext(context.Background(), p) }

// WriteContext is Write with an end: when ctx ends while it waits, it returns how much it wrote and
// the cause of ctx. That part stays written. A write that needs no waiting does not look at ctx.
func (b *Bytes) WriteContext(ctx context.Context, p []byte) (int, error) {
	n, err := b.TryWrite(p)
	if err == ErrFull {
		return writeRest(ctx, b, p, n)
	}
	return n, err
}

// Read reads up to len(p) bytes, waiting for the first one as long as needed. After Close it
// drains the ring and then returns [io.EOF] or the reason.
func (b *Bytes) Read(p []byte) (int, error) { return b.ReadContext(context.Background(), p) }

// ReadContext is Read with an end: it returns 0 and the cause of ctx when that ends first. A
// read that needs no waiting does not look at ctx.
func (b *Bytes) ReadContext(ctx context.Context, p []byte) (int, error) {
	n, err := b.TryRead(p)
	if err == ErrEmpty {
		return readMore(ctx, b, p)
	}
	return n, err
}

// tryWriter and tryReader are the two sides that Bytes and Linked have in common.
type tryWriter interface {
	TryWrite(p []byte) (int, error)
	WaitWritable(ctx context.Context, n int) error
}

type tryReader interface {
	TryRead(p []byte) (int, error)
	WaitReadable(ctx context.Context, n int) error
}

// writeRest goes on with p[n:], which found the buffer full. It waits for one byte of room, not
// for all it needs: a reader that waits for more than is there would wait for ever.
func writeRest(ctx context.Context, w tryWriter, p []byte, n int) (int, error) {
	for {
		if err := w.WaitWritable(ctx, 1); err != nil {
			return n, err
		}
		m, err := w.TryWrite(p[n:])
		n += m
		if err != ErrFull {
			return n, err
		}
	}
}

// readMore waits for the first byte and reads.
func readMore(ctx context.Context, r tryReader, p []byte) (int, error) {
	for {
		if err := r.WaitReadable(ctx, 1); err != nil {
			return 0, err
		}
		if n, err := r.TryRead(p); err != ErrEmpty {
			return n, err
		}
	}
}

// ReadFrom reads from r straight into the ring until r reports [io.EOF], waiting for room as
// needed. It belongs to the writer. It does not close the ring. While the ring is full it reads
// up to 512 bytes ahead, to see the end of r without waiting for room. It returns how many bytes
// it moved, and the first error of r other than io.EOF or of the ring, or [io.ErrNoProgress] if r
// delivers nothing 100 times in a row. Bytes that r delivered to a ring that was closed meanwhile
// are lost and not counted.
func (b *Bytes) ReadFrom(r io.Reader) (int64, error) {
	return readFrom(r, func() ([]byte, error) {
		if b.Cap() == 0 {
			return nil, ErrTooLarge
		}
		p, _, err := b.WriteSlices()
		return p, err
	}, b.Commit, b.Write)
}

// aheadBytes is how much ReadFrom reads while there is no room.
const aheadBytes = 512

// readFrom is ReadFrom of a buffer that lends the room it has and takes what was filled. When it
// lends nothing it is full. To wait for room then would be wrong: r may have reached its end,
// and the reader of the buffer may be waiting for ReadFrom to return. So the next bytes are read
// aside, and written with a wait.
func readFrom(
	r io.Reader,
	lend func() ([]byte, error), commit func(int) error, write func([]byte) (int, error),
) (int64, error) {
	total := int64(0)
	var aside []byte
	for empty := 0; ; {
		p, err := lend()
		if err != nil {
			return total, err
		}
		full := len(p) == 0
		if full {
			if aside == nil {
				aside = make([]byte, aheadBytes)
			}
			p = aside
		}
		n, rerr := r.Read(p)
		// Committing such a count would publish bytes that nobody wrote.
		if n < 0 || n > len(p) {
			panic("ringbuffer: a reader returned an impossible count")
		}
		if full {
			var k int
			k, err = write(p[:n])
			total += int64(k)
		} else if err = commit(n); err == nil {
			total += int64(n)
		}
		if err != nil {
			return total, err
		}
		if n > 0 {
			empty = 0
		} else if empty++; rerr == nil && empty == maxEmptyReads {
			return total, io.ErrNoProgress
		}
		if rerr == io.EOF {
			return total, nil
		}
		if rerr != nil {
			return total, rerr
		}
	}
}

// maxEmptyReads bounds how often a reader may deliver nothing and no error in a row; bufio uses
// the same number.
const maxEmptyReads = 100

// WriteTo writes to w straight from the ring until the ring is closed and drained, waiting for
// bytes as needed. It belongs to the reader. It returns how many bytes w took, and the first
// error of w or the reason of the close, nil if there was none.
func (b *Bytes) WriteTo(w io.Writer) (int64, error) {
	return writeTo(w, func() ([]byte, error) {
		if err := b.WaitReadable(context.Background(), 1); err != nil {
			return nil, err
		}
		p, _, err := b.ReadSlices()
		return p, err
	}, b.Advance)
}

// writeTo is WriteTo of a buffer that lends what is there and is told what was taken.
func writeTo(w io.Writer, lend func() ([]byte, error), advance func(int)) (int64, error) {
	total := int64(0)
	for {
		p, err := lend()
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(p)
		if n < 0 || n > len(p) {
			panic("ringbuffer: a writer returned an impossible count")
		}
		advance(n) // also with an error: what w took must not be written again
		total += int64(n)
		if err == nil && n < len(p) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
}
