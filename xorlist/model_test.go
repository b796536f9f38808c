// SPDX-License-Identifier: Apache-2.0

package xorlist

import (
	"container/list"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// model drives lists and container/list side by side. Two lists share an arena, two have their
// own. Every element has a unique value; handles holds all handles ever issued, by value.
type model struct {
	t       testing.TB
	arena   Arena[int]
	got     [4]*List[int]
	want    [4]*list.List
	handles map[int]Handle
	pointer map[int]*int // of live elements
	last    int
	input   func() int // a number below 256, -1 at the end
	dead    int        // where to look for stale handles
	filled  [4]bool    // lists that have held an element since they began, or began anew
	places  [4]place   // cursors that stay while all else happens, see places_test.go
}

func newModel(t testing.TB, input func() int) *model {
	m := &model{t: t, input: input, handles: map[int]Handle{}, pointer: map[int]*int{}}
	m.got = [4]*List[int]{m.arena.NewList(), m.arena.NewList(), new(List[int]), new(List[int])}
	for i := range m.want {
		m.want[i] = list.New()
	}
	return m
}

// next returns a value that was never used.
func (m *model) next() int { m.last++; return m.last }

// issued notes the handle of a new element.
func (m *model) issued(l *List[int], v int, h Handle) {
	require.True(m.t, l.Valid(h), "handle of %d", v)
	old, known := m.handles[v]
	require.False(m.t, known && old != h, "value %d twice", v)
	m.handles[v] = h
	m.pointer[v] = l.Ptr(h)
}

// element finds the i-th element in want and a cursor on its counterpart.
func (m *model) element(k, i int) (*list.Element, Cursor[int]) {
	e, c := m.want[k].Front(), m.got[k].Cursor()
	if i%2 == 0 { // half of the cursors come from the back, half from a handle
		for range i {
			e = e.Next()
		}
		for range m.want[k].Len() - i {
			require.True(m.t, c.Prev())
		}
	} else {
		for range i {
			e = e.Next()
		}
		var ok bool
		c, ok = m.got[k].Locate(m.handles[e.Value.(int)])
		require.True(m.t, ok)
	}
	v, ok := c.Value()
	require.True(m.t, ok)
	require.Equal(m.t, e.Value, v)
	require.Equal(m.t, m.handles[v], c.Handle())
	require.Same(m.t, m.pointer[v], c.Ptr(), "element %d has moved in memory", v)
	return e, c
}

// gone removes v from the books.
func (m *model) gone(l *List[int], v int) {
	h := m.handles[v]
	require.False(m.t, l.Valid(h), "handle of removed %d", v)
	require.Nil(m.t, l.Ptr(h))
	_, ok := l.Remove(h)
	require.False(m.t, ok)
	delete(m.pointer, v)
}

// moved notes new handles of values that went to another arena.
func (m *model) moved(l *List[int]) {
	for c := l.Cursor(); c.Next(); {
		v, _ := c.Value()
		if old := m.handles[v]; old != c.Handle() {
			for _, l := range m.got {
				require.False(m.t, l.Valid(old), "old handle of %d", v)
			}
		}
		m.handles[v], m.pointer[v] = c.Handle(), c.Ptr()
	}
}

// change does one operation on both sides and returns false at the end of the input.
func (m *model) change() bool {
	op := m.input()
	if op < 0 {
		return false
	}
	k := (op >> 5) % 4
	l, w := m.got[k], m.want[k]
	at := max(0, m.input())
	if op >= 160 { // often, since most of what else happens invalidates cursors
		m.usePlace(k, at)
		return true
	}
	if w.Len() == 0 && op%32 >= 8 && op%32 < 20 {
		op = op % 4
	}
	switch op %= 32; op {
	case 0, 1:
		v := m.next()
		m.issued(l, v, l.PushBack(v))
		w.PushBack(v)
	case 2, 3:
		v := m.next()
		m.issued(l, v, l.PushFront(v))
		w.PushFront(v)
	case 4, 5:
		v, ok := l.PopFront()
		require.Equal(m.t, w.Len() > 0, ok)
		if ok {
			require.Equal(m.t, w.Remove(w.Front()), v)
			m.gone(l, v)
		}
	case 6, 7:
		v, ok := l.PopBack()
		require.Equal(m.t, w.Len() > 0, ok)
		if ok {
			require.Equal(m.t, w.Remove(w.Back()), v)
			m.gone(l, v)
		}
	case 8, 9: // Remove by handle, also through a list that it is not in
		e, _ := m.element(k, at%w.Len())
		h := m.handles[e.Value.(int)]
		_, ok := m.got[(k+1)%4].Remove(h)
		require.False(m.t, ok)
		v, ok := l.Remove(h)
		require.True(m.t, ok)
		require.Equal(m.t, e.Value, v)
		w.Remove(e)
		m.gone(l, v)
	case 10, 11: // Remove by cursor, then use the gap
		e, c := m.element(k, at%w.Len())
		stale := c
		next, prev := e.Next(), e.Prev()
		v, ok := c.Remove()
		require.True(m.t, ok)
		w.Remove(e)
		m.gone(l, v)
		require.True(m.t, c.Valid())
		require.False(m.t, stale.Valid())
		m.deadCursor(&stale)
		_, ok = c.Value()
		require.False(m.t, ok)
		_, ok = c.Remove()
		require.False(m.t, ok)
		switch m.input() % 4 {
		case 0:
			m.on(&c, next, c.Next())
			m.on(&c, prev, c.Prev())
		case 1:
			m.on(&c, prev, c.Prev())
			m.on(&c, next, c.Next())
		case 2:
			m.insertBefore(&c, w, next)
			m.on(&c, next, c.Next())
		case 3:
			m.insertAfter(&c, w, prev)
			m.on(&c, prev, c.Prev())
		}
	case 12:
		e, c := m.element(k, at%w.Len())
		m.insertBefore(&c, w, e)
		m.on(&c, e, true)
		m.on(&c, e.Prev(), c.Prev())
	case 13:
		e, c := m.element(k, at%w.Len())
		m.insertAfter(&c, w, e)
		m.on(&c, e, true)
		m.on(&c, e.Next(), c.Next())
	case 14, 15:
		e, c := m.element(k, at%w.Len())
		next, prev := e.Next(), e.Prev()
		if op == 14 {
			require.True(m.t, c.MoveToFront())
			w.MoveToFront(e)
		} else {
			require.True(m.t, c.MoveToBack())
			w.MoveToBack(e)
		}
		m.afterMove(&c, next, prev, at)
	case 16, 17, 18, 19:
		m.moveTo(k, at)
	case 20:
		l.Reverse()
		r := list.New()
		for e := w.Back(); e != nil; e = e.Prev() {
			r.PushBack(e.Value)
		}
		m.want[k] = r
	case 21, 22:
		m.splice(k, at)
	case 23: // copies get new values, so that all values stay unique
		if w.Len() > 100 {
			break
		}
		other := m.got[at%4]
		before, copied := w.Len(), m.want[at%4].Len()
		if op := m.input(); op%2 == 0 {
			l.PushBackList(other)
			w.PushBackList(m.want[at%4])
			m.rename(k, before, copied)
		} else {
			l.PushFrontList(other)
			w.PushFrontList(m.want[at%4])
			m.rename(k, 0, copied)
		}
	case 24:
		if at%4 != 0 {
			break
		}
		for e := w.Front(); e != nil; e = e.Next() {
			delete(m.pointer, e.Value.(int))
		}
		l.Clear()
		w.Init()
	case 25, 26:
		l.Trim()
		m.harmless()
	case 27: // a cursor at the edge
		c := l.Cursor()
		if at%2 == 0 {
			m.insertBefore(&c, w, nil)
		} else {
			m.insertAfter(&c, w, nil)
		}
		m.on(&c, w.Front(), c.Next())
		m.on(&c, nil, c.Prev())
		m.on(&c, w.Back(), c.Prev())
	case 28: // drain a part
		n := at % 8
		for v := range l.Drain() {
			require.Equal(m.t, w.Remove(w.Front()), v)
			m.gone(l, v)
			if n--; n < 0 {
				break
			}
		}
	case 29: // remove while going, either way
		c := l.Cursor()
		move, e := c.Next, w.Front()
		if at%2 == 0 {
			move, e = c.Prev, w.Back()
		}
		for move() {
			next := e.Next()
			if at%2 == 0 {
				next = e.Prev()
			}
			v, _ := c.Value()
			require.Equal(m.t, e.Value, v)
			if (v+at)%3 == 0 {
				c.Remove()
				w.Remove(e)
				m.gone(l, v)
			}
			e = next
		}
		require.Nil(m.t, e)
	default: // fill, so that there are large lists
		for range at / 4 {
			v := m.next()
			m.issued(l, v, l.PushBack(v))
			w.PushBack(v)
		}
	}
	return true
}

// on checks that the cursor stands where e does; nil is the edge.
func (m *model) on(c *Cursor[int], e *list.Element, moved bool) {
	m.t.Helper()
	v, ok := c.Value()
	require.Equal(m.t, e != nil, ok)
	require.Equal(m.t, e != nil, moved)
	if ok {
		require.Equal(m.t, e.Value, v)
	}
}

// insertBefore inserts before the cursor, and before e in want; nil is the edge.
func (m *model) insertBefore(c *Cursor[int], w *list.List, e *list.Element) {
	v := m.next()
	m.issued(c.list, v, c.InsertBefore(v))
	if e == nil {
		w.PushBack(v)
	} else {
		w.InsertBefore(v, e)
	}
}

// insertAfter inserts after the cursor, and after e in want; nil is the edge.
func (m *model) insertAfter(c *Cursor[int], w *list.List, e *list.Element) {
	v := m.next()
	m.issued(c.list, v, c.InsertAfter(v))
	if e == nil {
		w.PushFront(v)
	} else {
		w.InsertAfter(v, e)
	}
}

// afterMove checks where a cursor is after its element, which had these neighbours, was moved: in
// the gap between them, or still on the element if that was there already.
func (m *model) afterMove(c *Cursor[int], next, prev *list.Element, choice int) {
	require.True(m.t, c.Valid())
	if choice%2 == 0 {
		m.on(c, next, c.Next())
	} else {
		m.on(c, prev, c.Prev())
	}
}

// moveTo moves an element of list k to a place in any list.
func (m *model) moveTo(k, at int) {
	e, c := m.element(k, at%m.want[k].Len())
	v, next, prev := e.Value.(int), e.Next(), e.Prev()
	k2 := max(0, m.input()) % 4
	w2 := m.want[k2]
	place := max(0, m.input()) % (w2.Len() + 1)
	to := m.got[k2].Cursor()
	var mark *list.Element
	if place < w2.Len() {
		mark, to = m.element(k2, place)
	}
	require.True(m.t, c.MoveTo(&to))
	switch {
	case mark == e:
	case k == k2 && mark == nil:
		w2.MoveToBack(e)
	case k == k2:
		w2.MoveBefore(e, mark)
	default:
		m.want[k].Remove(e)
		if mark == nil {
			w2.PushBack(v)
		} else {
			w2.InsertBefore(v, mark)
		}
		if !siblings(k, k2) {
			require.False(m.t, m.got[k].Valid(m.handles[v]))
			m.moved(m.got[k2])
		}
	}
	require.True(m.t, to.Valid())
	m.afterMove(&c, next, prev, at)
	if mark == nil {
		m.on(&to, w2.Back(), to.Prev())
	} else {
		m.on(&to, mark, true)
		m.on(&to, mark.Prev(), to.Prev())
	}
}

// splice moves all of another list into list k.
func (m *model) splice(k, at int) {
	k2 := at / 4 % 4
	l, w, l2, w2 := m.got[k], m.want[k], m.got[k2], m.want[k2]
	takesOver := k >= 2 && k2 >= 2 && !m.filled[k] && w2.Len() > 0
	together := siblings(k, k2) || takesOver
	place := max(0, m.input()) % (w.Len() + 1)
	c := l.Cursor()
	var mark *list.Element
	if place < w.Len() {
		mark, c = m.element(k, place)
	}
	if k == k2 {
		require.False(m.t, c.SpliceBefore(l2))
		require.False(m.t, c.SpliceAfter(l2))
		l.Concat(l)
		return
	}
	first, last := w2.Front(), w2.Back()
	switch at % 4 {
	case 0:
		l.Concat(l2)
		w.PushBackList(w2)
		require.Equal(m.t, w2.Len() == 0, c.Valid())
	case 1, 2:
		require.True(m.t, c.SpliceBefore(l2))
		for e := first; e != nil; e = e.Next() {
			if mark == nil {
				w.PushBack(e.Value)
			} else {
				w.InsertBefore(e.Value, mark)
			}
		}
		if last != nil {
			m.on(&c, last, c.Prev())
		}
	case 3:
		require.True(m.t, c.SpliceAfter(l2))
		for e := last; e != nil; e = e.Prev() {
			if mark == nil {
				w.PushFront(e.Value)
			} else {
				w.InsertAfter(e.Value, mark)
			}
		}
		if first != nil {
			m.on(&c, first, c.Next())
		}
	}
	w2.Init()
	if !together {
		m.moved(l)
	}
	if takesOver {
		m.filled[k2] = false
	}
}

// siblings reports whether two lists were made by the same arena, or are the same list.
func siblings(k, k2 int) bool { return k == k2 || k < 2 && k2 < 2 }

// rename gives n elements of list k from position at on new values.
func (m *model) rename(k, at, n int) {
	e, c := m.want[k].Front(), m.got[k].Cursor()
	c.Next()
	for range at {
		e = e.Next()
		c.Next()
	}
	for range n {
		v := m.next()
		e.Value = v
		require.True(m.t, c.Set(v))
		m.issued(m.got[k], v, c.Handle())
		e = e.Next()
		c.Next()
	}
}

// deadCursor checks that a cursor which was overtaken does nothing at all.
func (m *model) deadCursor(c *Cursor[int]) {
	before := c.list.Len()
	if live := c.list.Cursor(); live.Next() {
		require.False(m.t, live.MoveTo(c))
		require.True(m.t, live.Valid())
	}
	require.False(m.t, c.Next())
	require.False(m.t, c.Prev())
	require.False(m.t, c.Set(-1))
	require.False(m.t, c.MoveToFront())
	require.False(m.t, c.MoveToBack())
	require.False(m.t, c.MoveTo(c))
	require.Zero(m.t, c.Handle())
	require.Nil(m.t, c.Ptr())
	require.Zero(m.t, c.InsertBefore(-1))
	require.Zero(m.t, c.InsertAfter(-1))
	require.False(m.t, c.SpliceBefore(new(List[int])))
	require.False(m.t, c.SpliceAfter(new(List[int])))
	_, ok := c.Value()
	require.False(m.t, ok)
	_, ok = c.Remove()
	require.False(m.t, ok)
	require.Equal(m.t, before, c.list.Len())
}

// compare checks everything that can be seen from outside, of all lists.
func (m *model) compare() {
	for k, l := range m.got {
		w := m.want[k]
		require.Equal(m.t, w.Len(), l.Len())
		e, n := w.Front(), 0
		for v := range l.All() {
			if e == nil || e.Value != v {
				require.Fail(m.t, "All", "list %d: got %d at %d of %d", k, v, n, w.Len())
			}
			h, p := m.handles[v], m.pointer[v]
			if got, ok := l.Value(h); !ok || got != v || l.Ptr(h) != p || *p != v {
				require.Fail(m.t, "Value", "list %d: %d at %d", k, v, n)
			}
			e, n = e.Next(), n+1
		}
		require.Nil(m.t, e)
		e = w.Back()
		for v := range l.Backward() {
			if e == nil || e.Value != v {
				require.Fail(m.t, "Backward", "list %d: got %d", k, v)
			}
			e = e.Prev()
		}
		require.Nil(m.t, e)
		front, back := l.Front(), l.Back()
		if w.Len() == 0 {
			require.Zero(m.t, front)
			require.Zero(m.t, back)
			continue
		}
		require.Equal(m.t, m.handles[w.Front().Value.(int)], front)
		require.Equal(m.t, m.handles[w.Back().Value.(int)], back)
	}
	// A part of the handles that must be stale by now, in turn.
	for range min(100, m.last) {
		m.dead = m.dead%m.last + 1
		if _, live := m.pointer[m.dead]; live {
			continue
		}
		for _, l := range m.got {
			require.False(m.t, l.Valid(m.handles[m.dead]), "stale handle of %d", m.dead)
		}
	}
}

// TestModel does random operations on four lists and compares with container/list.
func TestModel(t *testing.T) {
	rounds := 30
	if long {
		rounds = 3000
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		m := newModel(t, func() int { return r.IntN(256) })
		for i := range 600 {
			m.step()
			if i%8 == 0 {
				m.compare()
			}
		}
		m.compare()
	}
}

// FuzzModel lets the fuzzing engine choose the operations.
func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 0, 2, 0, 16, 1, 0, 1, 20, 0, 25, 0})
	f.Add([]byte{31, 255, 31, 255, 24, 0, 25, 0, 63, 200, 54, 12, 3, 14, 1, 30, 99})
	f.Add([]byte{
		31, 60, 160, 0, 160, 1, 160, 2, 160, 0, 4, 160, 0, 2, 160, 1, 8, 25, 0, 160, 2, 1, 20, 0,
	})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 400 {
			return
		}
		m := newModel(t, func() int {
			if len(ops) == 0 {
				return -1
			}
			b := ops[0]
			ops = ops[1:]
			return int(b)
		})
		for m.step() {
		}
		m.compare()
	})
}
