// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"sync"

	"github.com/gostkit/kit/bytespool"
)

// The send queue of a byte stream is a batch: a list of segments in the order of the wire, and the memory
// that small packages are encoded into. Encoders append to the batch that hangs on the session; a flush
// takes the whole batch away and a new one begins with the next package. An idle session has none.

const (
	chunkSize   = 8 << 10  // small packages are encoded side by side into chunks of this size
	flushSize   = 64 << 10 // so many queued bytes are offered to the kernel before the turn ends
	largeSize   = 4 << 10  // a package from here on gets memory of its own instead of a chunk's tail
	maxSegments = 64       // segments offered to the kernel in one call
)

// A segment is a run of bytes on the way out.
type segment struct {
	b     []byte  // what the kernel has not taken yet
	w     *waiter // the caller that waits for exactly this segment, or nil
	whole []byte  // the bytespool buffer to give back, or nil
}

// A batch is a list of segments. While it hangs on the session it is guarded by encMu; then it belongs to
// the flush token's holder.
type batch struct {
	segs []segment
	next int   // the first segment that is not gone
	hi   int   // past the last segment that is with the kernel
	size int   // bytes ever appended
	off  int   // bytes gone: taken by the kernel or withdrawn
	ends []int // for each package the value of size after it
	gone int   // packages whose end lies at or before off

	calls, taken int // system calls since the last progress, and the bytes they took
	passed       int // off at the last progress
	counted      int // the packages in gone that progress has reported, or never will: those withdrawn

	runs [][]byte // scratch: what is offered
	iov  iovecs   // scratch of the platform's vectored write

	buf    []byte   // small packages: the used part of own, or of the latest of chunks
	chunks [][]byte // from bytespool, when own was not enough
	own    [chunkSize]byte
}

var batches = sync.Pool{New: func() any { return new(batch) }}

func newBatch() *batch {
	b := batches.Get().(*batch)
	b.buf = b.own[:0]
	return b
}

// free gives the memory of all segments back. No segment may be with the kernel.
func (b *batch) free() {
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
	// A pooled batch must not keep what it sent, nor what lies behind the length of a slice that was
	// longer before.
	clear(b.segs)
	clear(b.runs[:cap(b.runs)])
	clear(b.chunks)
	b.buf = nil
	b.segs, b.ends, b.chunks = b.segs[:0], b.ends[:0], b.chunks[:0]
	b.next, b.hi, b.size, b.off, b.gone = 0, 0, 0, 0, 0
	b.calls, b.taken, b.passed, b.counted = 0, 0, 0, 0
	batches.Put(b)
}

// tail returns an empty slice in the batch's memory with room for more than n bytes, n < chunkSize.
func (b *batch) tail(n int) []byte {
	if cap(b.buf)-len(b.buf) <= n {
		c := bytespool.Get(chunkSize)
		b.chunks = append(b.chunks, c)
		b.buf = c[:0]
	}
	return b.buf[len(b.buf):]
}

// claim keeps p if it was appended to tail in place, and reports whether it was.
func (b *batch) claim(tail, p []byte) bool {
	if len(p) > cap(tail) || &p[0] != &tail[:1][0] {
		return false
	}
	b.buf = b.buf[:len(b.buf)+len(p)]
	return true
}

// append appends bytes for w to wait for; whole, if not nil, is given back to bytespool. Neighbours in
// memory that nobody waits for become one segment.
func (b *batch) append(p, whole []byte, w *waiter) {
	b.size += len(p)
	if n := len(b.segs); n > 0 && w == nil && whole == nil && len(p) > 0 {
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

// offer marks the next run of segments as being with the kernel and returns their bytes, passing over
// withdrawn ones. The result is empty when nothing is left.
func (b *batch) offer() [][]byte {
	dst := b.runs[:0]
	b.hi = b.next
	for b.hi < len(b.segs) && len(dst) < maxSegments {
		s := &b.segs[b.hi]
		if s.w != nil && !s.w.offer() {
			if len(dst) > 0 {
				break // a run has no holes; the next one begins by skipping this segment
			}
			b.skip()
			b.hi = b.next
			continue
		}
		b.hi++
		if len(s.b) == 0 { // a flush mark: reached when nothing is before it
			if len(dst) > 0 {
				break
			}
			b.complete()
			continue
		}
		if n := len(dst); n > 0 && adjacent(dst[n-1], s.b) {
			dst[n-1] = dst[n-1][:len(dst[n-1])+len(s.b)]
			continue
		}
		dst = append(dst, s.b)
	}
	b.runs = dst
	return dst
}

// commit makes the first n bytes of what offer returned impossible to withdraw, for a write that cannot be
// stopped halfway.
func (b *batch) commit(n int) {
	for i := b.next; i < b.hi && n > 0; i++ {
		s := &b.segs[i]
		if s.w != nil {
			s.w.partly(0)
		}
		n -= len(s.b)
	}
}

// took accounts n bytes that the kernel took of what offer returned, and lets the rest be withdrawn again.
func (b *batch) took(n int) {
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
				s.w.partly(n)
			}
			break
		}
		n -= len(s.b)
		b.complete()
	}
	for i := b.next; i < b.hi; i++ {
		if w := b.segs[i].w; w != nil {
			w.unoffer()
		}
	}
	b.countGone()
}

// countGone moves gone to the last package that ends at or before off, and returns by how many.
func (b *batch) countGone() (n int) {
	for b.gone < len(b.ends) && b.ends[b.gone] <= b.off {
		b.gone++
		n++
	}
	return n
}

// complete drops the first segment, whose bytes are all gone, and tells who waits for it.
func (b *batch) complete() {
	s := &b.segs[b.next]
	b.next++
	if s.w != nil {
		s.w.finish(nil)
		s.w = nil
	}
}

// skip passes over the first segment, which was withdrawn.
func (b *batch) skip() {
	s := &b.segs[b.next]
	b.next++
	b.off += len(s.b)
	s.w = nil
	b.counted += b.countGone()
}

// progress returns what has happened since it was last called: system calls, the bytes and whole packages
// that they took, and the bytes that left the batch in one way or another.
func (b *batch) progress() (calls, taken, pkgs, gone int) {
	calls, taken = b.calls, b.taken
	pkgs, gone = b.gone-b.counted, b.off-b.passed
	b.calls, b.taken = 0, 0
	b.counted, b.passed = b.gone, b.off
	return calls, taken, pkgs, gone
}

// fail tells all who wait that the rest of the batch will not be sent, and returns what that is.
func (b *batch) fail(err error) (pkgs, bytes int) {
	pkgs = len(b.ends) - b.gone
	for i := b.next; i < len(b.segs); i++ {
		s := &b.segs[i]
		if s.w != nil {
			told := s.w.fail(err)
			s.w = nil
			if !told { // withdrawn: its caller knows and has counted it
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
