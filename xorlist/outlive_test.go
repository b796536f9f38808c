// SPDX-License-Identifier: Apache-2.0

package xorlist

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// places returns cursors of every kind.
func places(t *testing.T, l *List[int]) map[string]Cursor[int] {
	gap := l.Cursor()
	require.True(t, gap.Next())
	require.True(t, gap.Next())
	_, ok := gap.Remove()
	require.True(t, ok)
	all := map[string]Cursor[int]{"gap": gap, "edge": l.Cursor()}
	for name, h := range map[string]Handle{"first": l.Front(), "last": l.Back()} {
		c, ok := l.Locate(h)
		require.True(t, ok)
		all[name] = c
	}
	return all
}

// TestCursorOutlivesItsList: a list that was overwritten by an empty one has no cursors, however
// many changes are made to it afterwards. Before, its count of changes came to the number that
// an old cursor knew, which led the cursor out of the new, smaller memory.
//
// case: 11
func TestCursorOutlivesItsList(t *testing.T) {
	for _, changes := range []int{0, 1, 2, 3, 50, 100, 101, 102, 103} {
		t.Run(fmt.Sprint(changes), func(t *testing.T) {
			var l, other List[int]
			for i := range 100 {
				l.PushBack(i)
			}
			old := places(t, &l)
			handle := l.Back()
			l = List[int]{}
			for l.stamp.changes < uint64(changes) {
				l.PushBack(1)
				if l.Len() > 2 && l.stamp.changes < uint64(changes) {
					l.PopFront()
				}
			}
			n := l.Len()
			other.PushBack(7)
			for name, c := range old {
				require.False(t, c.Valid(), name)
				require.False(t, c.Next(), name)
				require.False(t, c.Prev(), name)
				require.False(t, c.Set(5), name)
				require.Nil(t, c.Ptr(), name)
				require.Zero(t, c.Handle(), name)
				require.Zero(t, c.InsertBefore(1), name)
				require.Zero(t, c.InsertAfter(1), name)
				require.False(t, c.MoveToFront(), name)
				require.False(t, c.MoveToBack(), name)
				require.False(t, c.SpliceBefore(&other), name)
				require.False(t, c.SpliceAfter(&other), name)
				_, ok := c.Value()
				require.False(t, ok, name)
				_, ok = c.Remove()
				require.False(t, ok, name)
				to := other.Cursor()
				require.False(t, c.MoveTo(&to), name)
				from := other.Cursor()
				from.Next()
				require.False(t, from.MoveTo(&c), name)
			}
			require.Equal(t, n, l.Len())
			require.False(t, l.Valid(handle), "handle")
			_, ok := l.Locate(handle)
			require.False(t, ok, "handle")
		})
	}
}

// TestLoopOutlivesItsList: the loops over values notice that their list was replaced.
//
// case: 11
func TestLoopOutlivesItsList(t *testing.T) {
	arena := new(Arena[int])
	for name, replace := range map[string]func(l *List[int]){
		"by an empty one":     func(l *List[int]) { *l = List[int]{} },
		"by one of an arena":  func(l *List[int]) { *l = *arena.NewList() },
		"and what it had was": func(l *List[int]) { new(List[int]).Concat(l) },
	} {
		for _, backward := range []bool{false, true} {
			var l List[int]
			for i := range 5000 {
				l.PushBack(i)
			}
			changes := l.stamp.changes
			seq := l.All()
			if backward {
				seq = l.Backward()
			}
			const message = "xorlist: the list was changed during All or Backward"
			require.PanicsWithValue(t, message, func() {
				rounds := 0
				for range seq {
					if rounds++; rounds > 9 {
						return // else a walk that notices nothing may never end
					}
					replace(&l)
					for l.stamp.changes < changes {
						l.PushBack(1)
						l.PopFront()
					}
				}
			}, "%s, backward %v", name, backward)
		}
	}
}

// TestListOutlivesItsArena: lists, handles and cursors go on when their Arena is overwritten, and
// have nothing to do with the lists that it makes from then on.
//
// case: 11
func TestListOutlivesItsArena(t *testing.T) {
	var arena Arena[int]
	require.Zero(t, arena.Cap())
	arena.Trim()
	a, b := arena.NewList(), arena.NewList()
	h := a.PushBack(1)
	b.PushBack(2)
	c, _ := a.Locate(h)
	arena = Arena[int]{}
	fresh := arena.NewList()
	other := fresh.PushBack(3)
	require.False(t, a.Valid(other) || fresh.Valid(h), "memory of another arena")
	v, ok := c.Value()
	require.True(t, ok)
	require.Equal(t, 1, v)
	a.Concat(b)
	fresh.Concat(a)
	require.Equal(t, []int{3, 1, 2}, slices.Collect(fresh.All()))
	arena.Trim()
	a.Trim()
	require.Equal(t, 3, fresh.Len())
	require.Zero(t, a.Len())
}

// TestCursorOfAnEmptyList: the edge of a list without memory is the edge of one with memory.
func TestCursorOfAnEmptyList(t *testing.T) {
	var l List[int]
	c := l.Cursor()
	c.InsertAfter(1)
	require.True(t, c.Valid(), "the first element is the cursor's own change")
	var to, from List[int]
	from.PushBack(2)
	edge, element := to.Cursor(), from.Cursor()
	element.Next()
	require.True(t, element.MoveTo(&edge))
	require.True(t, edge.Valid() && element.Valid(), "moved into a list without memory")
	require.Equal(t, 1, to.Len())
}

// large is a list of elements of one size.
func large[T any](t *testing.T, first, second T, same func(a, b T) bool) {
	var zero T
	t.Run(fmt.Sprintf("%T", zero), func(t *testing.T) {
		var l List[T]
		h := l.PushBack(second)
		l.PushFront(first)
		v, ok := l.Value(h)
		require.True(t, ok && same(v, second))
		v, ok = l.PopFront()
		require.True(t, ok && same(v, first))
		require.LessOrEqual(t, l.arena.slots, 2, "room for elements that nobody asked for")
		l.Trim()
		require.True(t, l.Valid(h))
		l.PopFront()
		l.Trim()
		require.Zero(t, l.arena.slots)
		require.False(t, l.Valid(h))
	})
}

// TestLargeElements: every size of T compiles on every architecture, and a chunk takes no more
// memory than a mebibyte or one element.
//
// case: 11
func TestLargeElements(t *testing.T) {
	type half [512 << 10]byte
	type four [4 << 20]byte
	large(t, half{1}, half{512<<10 - 1: 2}, func(a, b half) bool { return a == b })
	large(t, four{1}, four{4<<20 - 1: 2}, func(a, b four) bool { return a == b })
}

// TestMiddlingElements: elements of which a chunk holds more than one and fewer than usual go
// through the model test of memory: fill, empty, trim, fill again.
//
// case: 11
func TestMiddlingElements(t *testing.T) {
	type elem struct {
		n int
		_ [30 << 10]byte
	}
	var l List[elem]
	const n = 200 // 6 MiB
	for range 3 {
		var handles []Handle
		for i := range n {
			handles = append(handles, l.PushBack(elem{n: i}))
		}
		for c := range l.arena.made {
			bytes := len(l.arena.chunk(c)) * (30 << 10)
			require.LessOrEqual(t, bytes, chunkBytes, "chunk %d", c)
		}
		i := 0
		for v := range l.All() {
			require.Equal(t, i, v.n)
			i++
		}
		require.Equal(t, n, i)
		for i, h := range handles {
			if i%10 != 0 {
				_, ok := l.Remove(h)
				require.True(t, ok)
			}
		}
		l.Trim()
		for i, h := range handles {
			require.Equal(t, i%10 == 0, l.Valid(h))
		}
		for range n {
			l.PushFront(elem{n: -1})
		}
		for range n {
			v, _ := l.PopFront()
			require.Equal(t, -1, v.n)
		}
		l.Clear()
		l.Trim()
		require.Zero(t, l.arena.slots)
	}
}
