// SPDX-License-Identifier: Apache-2.0

package xorlist

import (
	"math/bits"
	"reflect"
	"sync/atomic"
)

// Elements are numbered through all chunks: the first chunk holds the numbers 8 to 15, the
// second 16 to 31, and so on, until chunks have 4096 elements each. So the position of the
// highest bit is the number of a small chunk, and the upper 20 bits are the number of a large
// one. The numbers below 8 are never used, and 0 means none.
//
// Chunks never move or grow, which keeps pointers into them good and makes growth free of
// copying. 4096 elements are a multiple of the runtime's page whatever the size of T, so that a
// large chunk is a whole number of pages and wastes nothing in the allocator. Where they would
// take more than chunkBytes, a chunk has fewer elements and the rest of its numbers is not used.
const (
	firstBits   = 3
	chunkBits   = 12
	chunkLen    = 1 << chunkBits
	chunkBytes  = 1 << 20
	smallChunks = chunkBits - firstBits
	// The very last chunk is left out, so that the number behind a chunk always exists.
	maxChunks = smallChunks + 1<<(32-chunkBits) - 2
)

// node is one element, live or free.
type node[T any] struct {
	// link is the XOR of both neighbours' numbers while the element is in a list, and the number
	// of the next free element while it is free.
	link uint32
	// gen counts births and deaths: odd while the element is live. It fills what would be
	// padding for most T, which is why a second link would cost as much as it takes.
	gen uint32
	val T
}

// retired is the generation of an element that died so often that counting on would wrap and
// revive old handles. It is never used again.
const retired = ^uint32(0) - 1

// lastArena numbers the arenas of the process, so that a handle tells whose it is without a
// pointer that the collector would follow. Zero is nobody's.
var lastArena atomic.Uint64

// lastLife numbers the lives of the lists of the process, see stamp.
var lastLife atomic.Uint64

// Arena is the memory of one or more lists. A list that was made by [Arena.NewList] shares it
// with all others made there: what one list frees the next one uses, and elements go from list
// to list in constant time.
//
// The zero value is ready to use. An Arena must not be copied after first use, and it must not
// be used by two goroutines at once, nor may two of its lists, except to read. An Arena that is
// overwritten begins anew; lists made before go on with the memory they have.
type Arena[T any] struct {
	_ noCopy

	slab *slab[T] // nil until the first list; a pointer, so that lists outlive the Arena
}

// slab is the memory of an Arena, or of a list that has its own.
type slab[T any] struct {
	id     uint64 // 0 until the first chunk
	free   uint32 // the free element that is used next, the head of a list; 0 for none
	shared bool   // not one list's own

	// The elements of the last chunk that were never used are not in the list of free ones, and
	// come after it. Taking one of them reads nothing from their memory: it only writes.
	unused  uint32 // the first of them, 0 for none
	end     uint32 // the number behind the last
	newborn uint32 // their generation when they are used

	small [16][]node[T] // smallChunks are used, and an index below 16 needs no check
	large [][]node[T]   // entry 0 would cover the small chunks and is nil
	made  int           // chunks up to the highest that was ever made
	slots int           // elements in the chunks that are there

	// After Trim some chunks are missing. When one is made again, its elements have to go on
	// counting where the highest of them stopped, or an old handle would find a newer element.
	missing int
	floor   []uint32 // by chunk, covers all that are missing
}

// noCopy makes go vet object to copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// NewList returns an empty list whose elements live in a.
func (a *Arena[T]) NewList() *List[T] {
	if a.slab == nil {
		a.slab = &slab[T]{shared: true}
	}
	l := new(List[T])
	l.adopt(a.slab)
	return l
}

// Cap returns how many elements the memory of a has room for, those in use included. A list that
// stays below it allocates nothing.
func (a *Arena[T]) Cap() int {
	if a.slab == nil {
		return 0
	}
	return a.slab.slots
}

// Trim gives memory back to the garbage collector: all chunks in which no element is in use.
// Elements in use stay where they are, and so do handles, cursors and pointers. It looks at
// every element that there is room for; call it after a list has shrunk a lot, not after every
// removal.
func (a *Arena[T]) Trim() {
	if a.slab != nil {
		a.slab.trim()
	}
}

// trim is Arena.Trim.
func (a *slab[T]) trim() {
	if a.id == 0 {
		return
	}
	// The free list is built anew without the elements of the chunks that go; from the back, so
	// that the lowest numbers are used first and the high chunks get a chance to become empty.
	a.free, a.unused = 0, 0
	inUse := false
	for c := a.made - 1; c >= 0; c-- {
		nodes := a.chunk(c)
		if nodes == nil {
			continue
		}
		// The list as it would be with this chunk's free elements; it counts if the chunk stays.
		start := chunkStart(c)
		head, live, highest := a.free, false, uint32(0)
		for off := len(nodes) - 1; off >= 0; off-- {
			n, i := &nodes[off], start+uint32(off)
			switch {
			case n.gen&1 != 0:
				live = true
			case n.gen != retired:
				n.link, head = head, i
			}
			highest = max(highest, n.gen)
		}
		if live {
			a.free, inUse = head, true
			continue
		}
		a.drop(c, highest)
	}
	if !inUse {
		// Nothing has to be remembered when old handles name another arena.
		*a = slab[T]{shared: a.shared}
	}
}

// chunk returns the elements of chunk c, nil if it is not there.
func (a *slab[T]) chunk(c int) []node[T] {
	if c < smallChunks {
		return a.small[c]
	}
	return a.large[c-smallChunks+1]
}

// capacity returns how many elements chunk c has, 0 if there is no such chunk for this T. A
// chunk takes no more memory than chunkBytes, unless a single element does: large elements leave
// out the small chunks that would be too large, and some numbers at the end of each large one.
func (a *slab[T]) capacity(c int) int {
	limit := max(1, chunkBytes/int(reflect.TypeFor[node[T]]().Size()))
	if c >= smallChunks {
		return min(chunkLen, limit)
	}
	if n := int(chunkStart(c)); n <= limit {
		return n
	}
	return 0
}

// chunkStart returns the number of the first element of chunk c. It is the chunk's length, too,
// while chunks are small.
func chunkStart(c int) uint32 {
	if c < smallChunks {
		return 1 << (firstBits + c)
	}
	return uint32(c-smallChunks+1) << chunkBits
}

// drop forgets the memory of chunk c, whose highest generation is known.
func (a *slab[T]) drop(c int, highest uint32) {
	a.slots -= len(a.chunk(c))
	for len(a.floor) <= c {
		a.floor = append(a.floor, 0)
	}
	a.floor[c] = highest
	if c < smallChunks {
		a.small[c] = nil
	} else {
		a.large[c-smallChunks+1] = nil
	}
	if highest < retired { // else it never comes back, and there is no hole to fill
		a.missing++
	}
}

// at returns element i, which must exist. It is small enough to be inlined.
func (a *slab[T]) at(i uint32) *node[T] {
	if c := i >> chunkBits; c != 0 {
		return &a.large[c][i%chunkLen]
	}
	return a.atSmall(i)
}

func (a *slab[T]) atSmall(i uint32) *node[T] {
	nodes := a.small[uint(bits.Len32(i)-1-firstBits)%16]
	return &nodes[int(i)&(len(nodes)-1)] // the highest bit of i is the chunk's length
}

// run returns the elements of the chunk that i is in, and the number of the first of them.
func (a *slab[T]) run(i uint32) (nodes []node[T], start uint32) {
	if c := i >> chunkBits; c != 0 {
		return a.large[c], c << chunkBits
	}
	nodes = a.small[uint(bits.Len32(i)-1-firstBits)%16]
	return nodes, uint32(len(nodes))
}

// alloc returns a live element that is in no list. Its value is zero. PushFront and PushBack
// have a copy of it.
func (a *slab[T]) alloc() (uint32, *node[T]) {
	if a.free|a.unused == 0 {
		a.grow()
	}
	// Used elements first: their memory is likely to be in the cache.
	i := a.free
	if i != 0 {
		n := a.at(i)
		a.free = n.link
		n.gen++
		return i, n
	}
	i = a.unused
	if a.unused++; a.unused == a.end {
		a.unused = 0
	}
	n := a.at(i)
	n.gen = a.newborn
	return i, n
}

// release frees element i, which is in no list any more.
func (a *slab[T]) release(i uint32, n *node[T]) {
	var zero T
	n.val = zero // or the collector would keep what it points to
	n.gen++      // handles of the element are stale from here on
	if n.gen != retired {
		n.link = a.free
		a.free = i
	}
}

// grow makes a chunk when no element is free: one that is missing, else the next one.
func (a *slab[T]) grow() {
	// Numbered with the first chunk: an arena without elements has issued no handles.
	if a.id == 0 {
		a.id = lastArena.Add(1)
	}
	c := a.vacancy()
	nodes := make([]node[T], a.capacity(c))
	if c < smallChunks {
		a.small[c] = nodes
	} else {
		a.large[c-smallChunks+1] = nodes
	}
	a.newborn = 1
	if c < len(a.floor) && a.floor[c] != 0 {
		for off := range nodes {
			nodes[off].gen = a.floor[c] // Trim looks at it
		}
		a.newborn = a.floor[c] + 1
	}
	a.slots += len(nodes)
	a.unused = chunkStart(c)
	a.end = a.unused + uint32(len(nodes))
}

// vacancy returns the number of the chunk to make.
func (a *slab[T]) vacancy() int {
	if a.missing > 0 { // as a rule nothing is, and there is nothing to look for
		for c := range a.made {
			if a.chunk(c) == nil && a.capacity(c) > 0 && a.floor[c] != retired {
				a.missing--
				return c
			}
		}
	}
	c := a.made
	for c < smallChunks && a.capacity(c) == 0 {
		c++
	}
	if c == maxChunks {
		panic("xorlist: more than 4294963192 elements in one arena")
	}
	if c >= smallChunks {
		a.large = append(a.large, make([][]node[T], c-smallChunks+2-len(a.large))...)
	}
	a.made = c + 1
	return c
}
