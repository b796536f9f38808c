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
// the error of ctx. That part stays written. A write that needs no waiting does not look at ctx.
func (b *Bytes) WriteContext(ctx context.Context, p []byte) (int, error) {
	n, err := b.TryWrite(p)
	for err == ErrFull {
		if werr := b.WaitWritable(ctx, 1); werr != nil {
			return n, werr
		}
		var m int
		m, err = b.TryWrite(p[n:])
		n += m
	}
	return n, err
}

// Read reads up to len(p) bytes, waiting for the first one as long as needed. After Close it
// drains the ring and then returns [io.EOF] or the reason.
func (b *Bytes) Read(p []byte) (int, error) { return b.ReadContext(context.Background(), p) }

// ReadContext is Read with an end: it returns 0 and the error of ctx when that ends first. A
// read that needs no waiting does not look at ctx.
func (b *Bytes) ReadContext(ctx context.Context, p []byte) (int, error) {
	for {
		n, err := b.TryRead(p)
		if err != ErrEmpty {
			return n, err
		}
		if werr := b.WaitReadable(ctx, 1); werr != nil {
			return 0, werr
		}
	}
}

// ReadFrom reads from r straight into the ring until r reports [io.EOF], waiting for room as
// needed. It belongs to the writer. It does not close the ring. It returns how many bytes it moved,
// and the first error of r other than io.EOF or of the ring; bytes that r delivered to a ring that was closed
// meanwhile are lost and not counted.
func (b *Bytes) ReadFrom(r io.Reader) (int64, error) {
	total := int64(0)
	for empty := 0; ; {
		if err := b.WaitWritable(context.Background(), 1); err != nil {
			return total, err
		}
		p, _, err := b.WriteSlices()
		if err != nil {
			return total, err
		}
		n, rerr := r.Read(p)
		if n > 0 {
			if err := b.Commit(n); err != nil {
				return total, err
			}
			total += int64(n)
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
// bytes as needed. It belongs to the reader. It returns how many bytes w took, and the first error of w or
// the reason of the close, nil if there was none.
func (b *Bytes) WriteTo(w io.Writer) (int64, error) {
	total := int64(0)
	for {
		err := b.WaitReadable(context.Background(), 1)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		p, _, err := b.ReadSlices()
		if err != nil {
			return total, err
		}
		n, err := w.Write(p)
		if n < 0 || n > len(p) {
			panic("ringbuffer: a writer returned an impossible count")
		}
		b.Advance(n)
		total += int64(n)
		if err == nil && n < len(p) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
}
