// SPDX-License-Identifier: Apache-2.0

// Package sendq is the send queue of a byte stream: packages that are encoded and that the kernel
// has not taken.
//
// A [Batch] is a list of segments in the order of the wire, and the memory that they lie in.
// Writers append packages to the session's current batch. A flush takes the whole batch away, and a
// new one begins with the next package, so that an idle session has none. A [Waiter] is a caller
// that waits for its package.
//
// A Batch is used by one goroutine at a time: while it is filled, by the one that holds the lock of
// its queue; then by the one that flushes it. Waiters are safe for concurrent use.
package sendq

import (
	"sync"

	"github.com/gostkit/kit/bytespool"
)

const (
	// LargeSize is the size from which a package gets a buffer of its own instead of a part of a
	// chunk.
	LargeSize = 4 << 10

	chunkSize   = 8 << 10 // small packages lie side by side in chunks of this size
	maxSegments = 64      // what Offer returns at most
)

// A segment is a run of bytes on the way out.
type segment struct {
	b     []byte  // the bytes that are not gone yet
	w     *Waiter // the caller that waits for exactly this segment, or nil
	whole []byte  // the bytespool buffer to give back, or nil
}

// A Batch is a list of packages to be sent. Make one with [New]; it is the Source of a wire.Link.
type Batch struct {
	segs []segment
	next int   // the first segment that is not gone
	hi   int   // past the last segment that is offered
	size int   // bytes ever added
	off  int   // bytes gone: taken or withdrawn
	ends []int // for each package the value of size after it
	gone int   // packages whose end lies at or before off

	calls, taken int // writes since the last Progress, and the bytes they took
	passed       int // off at the last Progress
	counted      int // packages in gone that Progress has reported, or that were withdrawn

	runs [][]byte // the memory of what Offer returns

	buf    []byte   // small packages: the used part of own, or of the latest of chunks
	chunks [][]byte // from bytespool, when own was not enough
	lent   []byte   // what Reserve returned
	large  []byte   // the buffer of its own that lent is the beginning of, or nil
	own    [chunkSize]byte
}

var batches = sync.Pool{New: func() any { return new(Batch) }}

// New returns an empty batch, which Free gives back.
func New() *Batch {
	b := batches.Get().(*Batch)
	b.buf = b.own[:0]
	return b
}

// Free gives the memory of b and of all its segments back. Nothing may be offered any more.
func (b *Batch) Free() {
	b.Cancel()
	for i := range b.segs {
		if w := b.segs[i].whole; w != nil {
			bytespool.Put(w)
		}
	}
	for _, c := range b.chunks {
		bytespool.Put(c)
	}
	if cap(b.segs) > 4*maxSegments || cap(b.ends) > 16<<10 {
		return // grown by an unusual burst: not worth keeping
	}
	// A pooled batch must not keep the sent packages alive, not even behind the length of a slice
	// that was longer before.
	clear(b.segs)
	clear(b.runs[:cap(b.runs)])
	clear(b.chunks)
	b.buf = nil
	b.segs, b.ends, b.chunks = b.segs[:0], b.ends[:0], b.chunks[:0]
	b.next, b.hi, b.size, b.off, b.gone = 0, 0, 0, 0, 0
	b.calls, b.taken, b.passed, b.counted = 0, 0, 0, 0
	batches.Put(b)
}

// Empty reports whether nothing was ever added.
func (b *Batch) Empty() bool { return len(b.segs) == 0 }

// Size returns how many bytes were ever added.
func (b *Batch) Size() int { return b.size }

// Left returns how many bytes are not gone.
func (b *Batch) Left() int { return b.size - b.off }

// Packages returns how many packages were ever added.
func (b *Batch) Packages() int { return len(b.ends) }

// Reserve returns an empty slice with room for a package of about n bytes, to be encoded in place
// by appending to it: a part of a chunk if n is small, else a buffer of its own. Add or Cancel
// follows.
func (b *Batch) Reserve(n int) []byte {
	if n >= LargeSize {
		b.large = bytespool.Get(n)
		b.lent = b.large[:0]
	} else {
		b.lent = b.tail(n)
	}
	return b.lent
}

// tail returns an empty slice in the latest chunk with room for more than n bytes, n < chunkSize.
func (b *Batch) tail(n int) []byte {
	if cap(b.buf)-len(b.buf) <= n {
		c := bytespool.Get(chunkSize)
		b.chunks = append(b.chunks, c)
		b.buf = c[:0]
	}
	return b.buf[len(b.buf):]
}

// Cancel gives back what Reserve returned.
func (b *Batch) Cancel() {
	if b.large != nil {
		bytespool.Put(b.large)
	}
	b.lent, b.large = nil, nil
}

// Add adds p as a package. p is the slice that Reserve returned, with the package appended to it;
// it may have outgrown that memory. w, if not nil, waits for the package. p is not empty.
func (b *Batch) Add(p []byte, w *Waiter) {
	inPlace := len(p) <= cap(b.lent) && &p[0] == &b.lent[:1][0]
	switch {
	case b.large == nil:
		if inPlace {
			b.buf = b.buf[:len(b.buf)+len(p)]
		} // else it outgrew the chunk and has memory of its own
		b.append(p, nil, w)
	case inPlace && len(p) >= LargeSize:
		b.append(p, b.large, w)
		b.large = nil
	case len(p) < LargeSize: // much smaller than expected: it would waste the buffer
		b.append(b.copied(p), nil, w)
	default:
		b.append(p, nil, w)
	}
	b.Cancel()
	b.ends = append(b.ends, b.size)
}

// copied returns a copy of small p in the latest chunk.
func (b *Batch) copied(p []byte) []byte {
	c := append(b.tail(len(p)), p...)
	b.buf = b.buf[:len(b.buf)+len(c)]
	return c
}

// AddCopy adds a copy of an encoded package. p is not empty.
func (b *Batch) AddCopy(p []byte, w *Waiter) { b.Add(append(b.Reserve(len(p)), p...), w) }

// AddCopies adds copies of packages, with no other package between them. Those without bytes are
// left out. It returns how many bytes were added.
func (b *Batch) AddCopies(pkgs [][]byte) int {
	total := 0
	for _, p := range pkgs {
		total += len(p)
	}
	if total == 0 {
		return 0
	}
	to := b.Reserve(total)
	for _, p := range pkgs {
		if to = append(to, p...); len(p) > 0 {
			b.ends = append(b.ends, b.size+len(to))
		}
	}
	b.ends = b.ends[:len(b.ends)-1] // Add notes the last one
	b.Add(to, nil)
	return total
}

// AddControl adds bytes that are no package. They are not copied.
func (b *Batch) AddControl(p []byte) { b.append(p, nil, nil) }

// AddMark makes w wait for everything before it.
func (b *Batch) AddMark(w *Waiter) { b.append(nil, nil, w) }

// append appends a segment.
func (b *Batch) append(p, whole []byte, w *Waiter) {
	b.size += len(p)
	// Neighbours in memory become one segment, unless a caller waits for one of them and may
	// withdraw it. So a chunk of small packages is one segment.
	if n := len(b.segs); n > b.next && w == nil && whole == nil && len(p) > 0 {
		if last := &b.segs[n-1]; last.w == nil && adjacent(last.b, p) {
			last.b = last.b[:len(last.b)+len(p)]
			return
		}
	}
	b.segs = append(b.segs, segment{b: p, w: w, whole: whole})
}

// adjacent reports whether q, which is not empty, begins in memory where p ends.
func adjacent(p, q []byte) bool {
	return len(p) > 0 && len(p)+len(q) <= cap(p) && &p[:len(p)+1][len(p)] == &q[0]
}

// Offer lends the bytes that are to be sent next, without packages that were withdrawn. It returns
// nothing when nothing is left. Until Took is called none of them can be withdrawn.
func (b *Batch) Offer() [][]byte {
	dst := b.runs[:0]
	b.hi = b.next
	for b.hi < len(b.segs) && len(dst) < maxSegments {
		s := &b.segs[b.hi]
		if s.w != nil && !s.w.offer() {
			// Withdrawn. Took counts from the first segment that is not gone and knows no holes,
			// so the offer ends before this one, and the next offer begins with it.
			if len(dst) > 0 {
				break
			}
			b.skip()
			b.hi = b.next
			continue
		}
		b.hi++
		if len(s.b) == 0 {
			// A mark. Its waiter is told when everything before it is gone, and not when it is only
			// offered.
			if len(dst) > 0 {
				break
			}
			b.complete()
			continue
		}
		// Segments that a waiter kept apart in the batch can still leave as one: fewer runs, and
		// one run alone saves a vectored write.
		if n := len(dst); n > 0 && adjacent(dst[n-1], s.b) {
			dst[n-1] = dst[n-1][:len(dst[n-1])+len(s.b)]
			continue
		}
		dst = append(dst, s.b)
	}
	b.runs = dst
	return dst
}

// Commit makes the first n bytes of what Offer returned impossible to withdraw, for a write that
// cannot be stopped halfway.
func (b *Batch) Commit(n int) {
	for i := b.next; i < b.hi && n > 0; i++ {
		s := &b.segs[i]
		if s.w != nil {
			s.w.partly(0)
		}
		n -= len(s.b)
	}
}

// Took notes that n bytes of what Offer returned are gone. The rest can be withdrawn again.
func (b *Batch) Took(n int) {
	if n > 0 {
		b.calls++
		b.taken += n
		b.off += n
	}
	for n > 0 {
		s := &b.segs[b.next]
		if n < len(s.b) {
			s.b = s.b[n:]
			if s.w != nil {
				// Before unoffer below, for which it is a no-op then: half a package cannot be
				// withdrawn.
				s.w.partly(n)
			}
			break
		}
		n -= len(s.b)
		b.complete()
	}
	// Also after a write that took nothing: a caller whose time is over spins in Withdraw until its
	// package is not offered any more.
	for i := b.next; i < b.hi; i++ {
		if w := b.segs[i].w; w != nil {
			w.unoffer()
		}
	}
	b.countGone()
}

// countGone moves gone to the last package that ends at or before off, and returns by how many.
func (b *Batch) countGone() (n int) {
	for b.gone < len(b.ends) && b.ends[b.gone] <= b.off {
		b.gone++
		n++
	}
	return n
}

// complete drops the first segment, whose bytes are all gone, and tells its waiter.
func (b *Batch) complete() {
	s := &b.segs[b.next]
	b.next++
	if s.w != nil {
		s.w.finish(nil)
		s.w = nil
	}
}

// skip passes over the first segment, which was withdrawn.
func (b *Batch) skip() {
	s := &b.segs[b.next]
	b.next++
	b.off += len(s.b)
	s.w = nil
	b.counted += b.countGone()
}

// A Progress is what happened to a batch since the previous call of Batch.Progress.
type Progress struct {
	Calls int // writes that took something
	Taken int // bytes that they took
	Pkgs  int // packages that they took the last byte of
	Gone  int // bytes that left the batch, taken or withdrawn
}

// Progress returns what has happened since the previous call.
func (b *Batch) Progress() Progress {
	p := Progress{Calls: b.calls, Taken: b.taken, Pkgs: b.gone - b.counted, Gone: b.off - b.passed}
	b.calls, b.taken = 0, 0
	b.counted, b.passed = b.gone, b.off
	return p
}

// Fail tells all waiters that the rest of the batch will not be sent, and returns how many packages
// and bytes that is, without those that were withdrawn.
func (b *Batch) Fail(err error) (pkgs, bytes int) {
	pkgs = len(b.ends) - b.gone
	for i := b.next; i < len(b.segs); i++ {
		s := &b.segs[i]
		if s.w != nil {
			told := s.w.Fail(err)
			s.w = nil
			if !told {
				// Withdrawn: the caller knows, and has counted the package. A mark is no package.
				if len(s.b) > 0 {
					pkgs--
				}
				continue
			}
		}
		bytes += len(s.b)
	}
	return pkgs, bytes
}
