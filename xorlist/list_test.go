// SPDX-License-Identifier: Apache-2.0

package xorlist

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"
)

// TestGarbageCollection does what kills a list whose links are addresses that the collector does
// not follow: only the list knows its elements, and the collector runs while others allocate.
func TestGarbageCollection(t *testing.T) {
	type payload struct {
		name string
		self *payload
	}
	var l List[*payload]
	const n = 20_000
	for i := range n {
		p := &payload{name: fmt.Sprint("element ", i)}
		p.self = p
		l.PushBack(p)
	}
	var garbage [][]byte
	check := func(kept int) {
		for range 3 {
			runtime.GC()
			for range 100 {
				garbage = append(garbage, make([]byte, 4096))
			}
		}
		garbage = nil
		i := n - kept
		for p := range l.All() {
			if p.self != p || p.name != fmt.Sprint("element ", i) {
				require.Fail(t, "element lost", "%d", i)
			}
			i++
		}
		require.Equal(t, n, i)
	}
	check(n)
	for range n / 2 {
		l.PopFront()
	}
	check(n / 2)
	l.Trim()
	check(n / 2)
}

// TestRemovedIsCollected checks that a free element does not hold what its value pointed to.
func TestRemovedIsCollected(t *testing.T) {
	var l List[*[64]byte]
	var all []weak.Pointer[[64]byte]
	push := func() {
		p := new([64]byte)
		all = append(all, weak.Make(p))
		l.PushBack(p)
	}
	remove := []func(){
		func() { l.PopFront() },
		func() { l.PopBack() },
		func() { c := l.Cursor(); c.Next(); c.Remove() },
		func() { l.Remove(l.Front()) },
		func() { l.Clear() },
		func() {
			for range l.Drain() {
			}
		},
	}
	for i, f := range remove {
		push()
		f()
		require.Zero(t, l.Len())
		runtime.GC()
		require.Nil(t, all[i].Value(), "removal %d", i)
	}
	runtime.KeepAlive(&l)
}

func TestSizes(t *testing.T) {
	require.EqualValues(t, 12, unsafe.Sizeof(node[uint32]{}))
	require.EqualValues(t, 16, unsafe.Sizeof(node[int64]{}))
	require.EqualValues(t, 16, unsafe.Sizeof(Handle{}))
	var l List[int64]
	for i := range 10 * chunkLen {
		l.PushBack(int64(i))
	}
	require.Less(t, l.arena.slots-l.Len(), chunkLen)
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	var l List[int64]
	for i := range 1000 {
		l.PushBack(int64(i))
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		for range 100 {
			v, _ := l.PopFront()
			l.PushBack(v)
			v, _ = l.PopBack()
			h := l.PushFront(v)
			l.Set(h, v+1)
		}
		sum := int64(0)
		for v := range l.All() {
			sum += v
		}
		for c := l.Cursor(); c.Next(); {
			if v, _ := c.Value(); v%7 == 0 {
				c.Remove()
				c.InsertBefore(v + 1)
			}
		}
		l.Reverse()
	}), "steady state")

	const n = 100_000
	perList := testing.AllocsPerRun(3, func() {
		var l List[int64]
		for i := range n {
			l.PushBack(int64(i))
		}
	})
	require.Less(t, perList, float64(n)/1000, "a list of %d", n)
}

func TestZeroValues(t *testing.T) {
	var l List[string]
	_, ok := l.PopFront()
	require.False(t, ok)
	_, ok = l.PopBack()
	require.False(t, ok)
	require.Zero(t, l.Front())
	require.Zero(t, l.Back())
	require.False(t, l.Valid(Handle{}))
	_, ok = l.Remove(Handle{})
	require.False(t, ok)
	l.Reverse()
	l.Clear()
	l.Trim()
	l.Concat(&l)
	l.PushBackList(&l)
	require.Empty(t, slices.Collect(l.All()))
	require.Empty(t, slices.Collect(l.Backward()))
	require.Empty(t, slices.Collect(l.Drain()))
	require.Nil(t, l.arena, "memory before the first insertion")

	l.PushBack("x")
	require.False(t, l.Valid(Handle{}))
	require.False(t, l.Set(Handle{}, "y"))

	var c Cursor[string]
	require.False(t, c.Valid())
	require.False(t, c.Next())
	require.False(t, c.Prev())
	require.False(t, c.MoveToFront())
	require.Zero(t, c.InsertAfter("z"))
	_, ok = c.Remove()
	require.False(t, ok)

	var a Arena[string]
	require.False(t, a.NewList().Valid(Handle{}), "no memory yet")
	a.Trim()
	require.Zero(t, a.Cap())
}

// TestForeignHandles uses handles with lists of other arenas, in which the same numbers live.
func TestForeignHandles(t *testing.T) {
	var a, b List[int]
	ha, hb := a.PushBack(1), b.PushBack(2)
	require.NotEqual(t, ha, hb)
	require.False(t, a.Valid(hb))
	require.False(t, b.Set(ha, 3))
	_, ok := a.Remove(hb)
	require.False(t, ok)

	var arena Arena[int]
	c, d := arena.NewList(), arena.NewList()
	hc := c.PushBack(1)
	d.PushBack(2)
	require.True(t, d.Valid(hc), "lists of one arena answer for each other")
	_, ok = d.Remove(hc)
	require.False(t, ok, "but they do not remove each other's elements")
	v, ok := c.Remove(hc)
	require.True(t, ok)
	require.Equal(t, 1, v)
}

// TestStaleAfterTrim gives memory back and makes it anew, and looks for old handles that revive.
func TestStaleAfterTrim(t *testing.T) {
	var l List[int]
	anchor := l.PushBack(-1) // keeps the first chunk, so that the arena stays the same one
	id := l.arena.id
	var stale []Handle
	for round := range 4 {
		for i := range 3 * chunkLen {
			stale = append(stale, l.PushBack(i))
		}
		for range round { // some elements count higher than others
			v, _ := l.PopBack()
			stale = append(stale, l.PushBack(v))
		}
		for l.Len() > 1 {
			l.PopBack()
		}
		l.Trim()
		require.Equal(t, 8, l.arena.slots)
		require.Equal(t, id, l.arena.id)
		for _, h := range stale[len(stale)-3*chunkLen:] { // their memory is gone
			_, found := l.Value(h)
			require.False(t, found)
		}
		for i := range 3 * chunkLen {
			l.PushBack(i)
		}
		for _, h := range stale {
			if l.Valid(h) {
				require.Fail(t, "a stale handle revived", "round %d: %v", round, h)
			}
		}
		for l.Len() > 1 {
			l.PopBack()
		}
		if round%2 == 0 {
			l.Trim()
		}
	}
	require.True(t, l.Valid(anchor))

	l.Clear()
	l.Trim()
	require.Zero(t, l.arena.slots)
	l.PushBack(1)
	require.False(t, l.Valid(anchor))
	require.NotEqual(t, id, l.arena.id)
}

// TestTrimKeepsPlaces leaves one element in one chunk and checks that it does not notice.
func TestTrimKeepsPlaces(t *testing.T) {
	var l List[int]
	handles := make([]Handle, 5*chunkLen)
	for i := range handles {
		handles[i] = l.PushBack(i)
	}
	kept := 2*chunkLen + 77
	p := l.Ptr(handles[kept])
	for c := l.Cursor(); c.Next(); {
		if v, _ := c.Value(); v != kept {
			c.Remove()
		}
	}
	c, ok := l.Locate(handles[kept])
	require.True(t, ok)
	l.Trim()
	require.Equal(t, chunkLen, l.arena.slots)
	require.True(t, c.Valid())
	require.Same(t, p, c.Ptr())
	require.Equal(t, handles[kept], l.Front())
	// The holes are filled before there is a new chunk.
	for i := range 5 * chunkLen {
		l.PushBack(i)
	}
	require.LessOrEqual(t, l.arena.slots, 6*chunkLen)
	require.Zero(t, l.arena.missing)
	require.Equal(t, 5*chunkLen+1, l.Len())
}

// TestRetired lets an element die for the last time: its handles must not revive, its chunk must
// not come back after Trim, and the list works on.
func TestRetired(t *testing.T) {
	var l List[int]
	h := l.PushBack(1)
	l.PopBack()
	l.arena.at(h.index).gen = retired - 2
	h = l.PushBack(2)
	require.Equal(t, retired-1, h.gen)
	l.PopBack()
	again := l.PushBack(3)
	require.NotEqual(t, h.index, again.index)
	l.Trim()
	for range 6 { // the rest of its chunk
		require.NotEqual(t, h.index, l.PushBack(4).index)
	}
	require.False(t, l.Valid(h))

	// With an element in another chunk its own chunk goes for good.
	other := l.PushBack(5)
	require.EqualValues(t, 16, other.index)
	for l.Len() > 1 {
		l.PopFront()
	}
	l.Trim()
	require.Equal(t, 16, l.arena.slots)
	for range 100 {
		require.GreaterOrEqual(t, l.PushBack(6).index, uint32(16))
	}
	require.Zero(t, l.arena.missing, "a chunk that never comes back is looked for")
	require.False(t, l.Valid(h))
	require.True(t, l.Valid(other))
	require.Equal(t, 101, l.Len())
}

func TestArenaIsFull(t *testing.T) {
	var l List[struct{}]
	l.PushBack(struct{}{})
	l.arena.free, l.arena.unused, l.arena.made = 0, 0, maxChunks
	require.PanicsWithValue(t, "xorlist: more than 4294963192 elements in one arena", func() {
		l.PushBack(struct{}{})
	})
	require.Equal(t, uint64(1<<32-1<<chunkBits), uint64(chunkStart(maxChunks-1))+chunkLen)
}

// TestConcatTakesOver moves between lists that do not share an arena.
func TestConcatTakesOver(t *testing.T) {
	var batch, queue List[int]
	h := queue.PushBack(1)
	p := queue.Ptr(h)
	memory := queue.arena
	batch.Concat(&queue)
	require.Same(t, memory, batch.arena)
	require.Same(t, p, batch.Ptr(h))
	require.False(t, queue.Valid(h))
	queue.PushBack(2)
	require.NotSame(t, batch.arena, queue.arena, "two users of one arena without their knowledge")

	var arena Arena[int]
	shared := arena.NewList()
	shared.PushBack(3)
	var own List[int]
	own.Concat(shared)
	require.NotSame(t, arena.slab, own.arena)
	require.Equal(t, []int{3}, slices.Collect(own.All()))
	require.Zero(t, shared.Len())

	arena.Trim() // to nothing: it is still not one list's own
	shared.PushBack(4)
	var another List[int]
	another.Concat(shared)
	require.NotSame(t, &arena, another.arena)
}

func TestIterators(t *testing.T) {
	var l List[int]
	for i := range 100 {
		l.PushBack(i)
	}
	var seen []int
	for v := range l.All() {
		if v == 3 {
			break
		}
		seen = append(seen, v)
	}
	require.Equal(t, []int{0, 1, 2}, seen)
	for v := range l.All() { // values may change, and a break forgives everything
		l.Set(l.Front(), 7)
		if v == 5 {
			l.PopFront()
			break
		}
	}
	for _, all := range []func(func(int) bool){l.All(), l.Backward()} {
		require.PanicsWithValue(t, "xorlist: the list was changed during All or Backward", func() {
			for range all {
				l.PopBack()
			}
		})
	}
	n := l.Len()
	require.Panics(t, func() {
		for range l.Drain() {
			panic("loop body")
		}
	})
	require.Equal(t, n-1, l.Len())
	added := false
	n = 0
	for range l.Drain() {
		if n++; !added {
			l.PushBack(1000)
			added = true
		}
	}
	require.Equal(t, 97, n)
	require.Zero(t, l.Len())
}

// TestOtherTypes runs through element types of other sizes and with pointers.
func TestOtherTypes(t *testing.T) {
	push(t, struct{}{})
	push(t, byte(1))
	push(t, "string")
	push[any](t, 1.5)
	push(t, []byte{1})
	push(t, [100]uint64{1})
	push(t, func() {})
}

func push[T any](t *testing.T, v T) {
	var l List[T]
	for range 10_000 {
		l.PushFront(v)
	}
	n := 0
	for range l.Backward() {
		n++
	}
	require.Equal(t, 10_000, n, "%T", v)
	l.Clear()
	l.Trim()
	require.Zero(t, l.arena.slots)
}
