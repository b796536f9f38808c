// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"reflect"
	"sync/atomic"
)

// # Layout of a segment
//
// A segment is used once: its slots are claimed from first to last, taken from first to last,
// and then the garbage collector has it. That is why a producer may hold on to an old segment
// for as long as it likes and no reclamation scheme is needed.
//
//	word          written by          meaning
//	claims        producers, Close    bits 0-31: claims ever made, also those beyond the end;
//	                                  bit 63: closed, and then bits 32-62: claims that count
//	next          a producer, Close   the segment behind this one; set once, when this is full
//	block.ready   the slot's claimer  bit set: slot holds an item
//	block.taken   the consumer        slots of this block already taken
//
// A claim is one fetch-and-add, so producers never retry among each other. A claim beyond the
// end does no harm: the producer goes on to the next segment. Only a segment that is not full
// gets the closed bit, so the segment that has it is the last one.

const (
	blockSize = 16 // slots per block; the first segment is one block
	maxBlocks = 64 // blocks in the largest segment: 1024 slots
	claimMask = 1<<32 - 1
	sealShift = 32
	sealMask  = 1<<31 - 1
)

type block[T any] struct {
	ready atomic.Uint32
	taken atomic.Uint32
	slots [blockSize]T
}

type segment[T any] struct {
	base   uint64 // how many slots all segments before this one have
	claims atomic.Uint64
	next   atomic.Pointer[segment[T]]
	blocks []block[T]
}

// segmentBytes bounds the memory of a segment of more than one block. A queue that was emptied
// keeps its last segment, and large items should not make that a megabyte.
const segmentBytes = 64 << 10

// maxBlocksOf returns the number of blocks in the largest segment of T.
func maxBlocksOf[T any]() int {
	fit := segmentBytes / int(reflect.TypeFor[block[T]]().Size())
	return min(max(fit, 1), maxBlocks)
}

// newSegment returns a segment of n blocks behind base slots. A single block is allocated
// together with its header, which is what keeps 100,000 queues that hold little cheap.
func newSegment[T any](n int, base uint64) *segment[T] {
	if n == 1 {
		one := new(struct {
			segment[T]
			block [1]block[T]
		})
		one.base, one.blocks = base, one.block[:]
		return &one.segment
	}
	return &segment[T]{base: base, blocks: make([]block[T], n)}
}

// sealed returns the segment that ends a queue whose last segment was full when it was closed.
func sealed[T any](base uint64) *segment[T] {
	s := &segment[T]{base: base}
	s.claims.Store(closedBit)
	return s
}

func (s *segment[T]) size() uint64 { return uint64(len(s.blocks)) * blockSize }

// end returns how many slots there are up to the end of this segment.
func (s *segment[T]) end() uint64 { return s.base + s.size() }

// claimed returns how many slots were claimed for items.
func (s *segment[T]) claimed() uint64 {
	c := s.claims.Load()
	if c&closedBit != 0 {
		return c >> sealShift & sealMask
	}
	return min(c&claimMask, s.size())
}

// taken returns how many slots the consumer has taken.
func (s *segment[T]) taken() uint64 {
	n := uint64(0)
	for i := range s.blocks {
		k := s.blocks[i].taken.Load()
		n += uint64(k)
		if k < blockSize {
			break
		}
	}
	return n
}

// append gives the segment a successor, the given one unless another goroutine was faster, and
// returns it.
func (s *segment[T]) append(n *segment[T]) *segment[T] {
	if s.next.CompareAndSwap(nil, n) {
		return n
	}
	return s.next.Load()
}

// set publishes one item in slot i.
func (s *segment[T]) set(i uint64, v T) {
	b := &s.blocks[i/blockSize]
	b.slots[i%blockSize] = v
	b.ready.Add(1 << (i % blockSize))
}

// setN publishes items in the slots from i on, with one add per block.
func (s *segment[T]) setN(i uint64, vs []T) {
	for len(vs) > 0 {
		b := &s.blocks[i/blockSize]
		n := copy(b.slots[i%blockSize:], vs)
		b.ready.Add((1<<n - 1) << (i % blockSize))
		i, vs = i+uint64(n), vs[n:]
	}
}
