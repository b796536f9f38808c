// SPDX-License-Identifier: Apache-2.0

package xorlist

import (
	"container/list"
	"slices"

	"github.com/stretchr/testify/require"
)

// place is a cursor that the model keeps, and where it has to be: on e; in the gap between prev
// and next, of which nil is the edge; or at the edge.
type place struct {
	c             Cursor[int]
	k             int // its list
	e, prev, next *list.Element
	gap           bool
	live          bool // has not been invalidated
	own           bool // what this step changed was changed through this cursor
	stays         bool // this step changed no order at all
}

// step does one operation and then looks at the kept cursors. Each of them must be where it was,
// or where it went by itself, or say that it is not valid; and a cursor of a list whose order
// has changed without it must say so.
func (m *model) step() bool {
	var before [4][]int
	for k, w := range m.want {
		before[k] = order(w)
	}
	more := m.change()
	for k, w := range m.want {
		m.filled[k] = m.filled[k] || w.Len() > 0
	}
	for i := range m.places {
		p := &m.places[i]
		changed := !slices.Equal(before[p.k], order(m.want[p.k]))
		switch c := p.c; {
		case !p.live:
			require.False(m.t, c.Valid(), "a dead cursor has come back")
		case p.own, p.stays:
			require.True(m.t, c.Valid())
			m.check(p)
		case changed:
			require.False(m.t, c.Valid())
			m.deadCursor(&c)
			p.live = false
		case c.Valid():
			m.check(p)
		default: // as after Reverse of one element: nothing can be seen
			m.deadCursor(&c)
			p.live = false
		}
		p.own, p.stays = false, false
	}
	return more
}

// order returns the values of a list.
func order(w *list.List) []int {
	var vs []int
	for e := w.Front(); e != nil; e = e.Next() {
		vs = append(vs, e.Value.(int))
	}
	return vs
}

// harmless notes that this step must leave all cursors valid.
func (m *model) harmless() {
	for i := range m.places {
		m.places[i].stays = true
	}
}

// check checks where a cursor is and where it leads to.
func (m *model) check(p *place) {
	c := p.c
	m.on(&c, p.e, p.e != nil)
	m.on(&c, p.after(m.want[p.k]), c.Next())
	c = p.c
	m.on(&c, p.before(m.want[p.k]), c.Prev())
}

// after returns the element that Next leads to, nil for the edge.
func (p *place) after(w *list.List) *list.Element {
	switch {
	case p.e != nil:
		return p.e.Next()
	case p.gap:
		return p.next
	}
	return w.Front()
}

// before returns the element that Prev leads to, nil for the edge.
func (p *place) before(w *list.List) *list.Element {
	switch {
	case p.e != nil:
		return p.e.Prev()
	case p.gap:
		return p.prev
	}
	return w.Back()
}

// leave notes that the element under the cursor goes and the cursor stays in the gap.
func (p *place) leave() {
	p.prev, p.next, p.gap, p.e = p.e.Prev(), p.e.Next(), true, nil
}

// usePlace moves a kept cursor or changes its list through it. If it is not valid it is put on
// list k.
func (m *model) usePlace(k, at int) {
	i := at % len(m.places)
	p := &m.places[i]
	p.own = true
	if !p.live || at >= 224 {
		*p = place{c: m.got[k].Cursor(), k: k, live: true, own: true}
		if n := m.want[k].Len(); n > 0 && at%3 != 0 {
			p.e, p.c = m.element(k, at%n)
		}
		return
	}
	w, e := m.want[p.k], p.e
	switch act := max(0, m.input()) % 13; act {
	case 0, 1:
		m.harmless()
		e = p.after(w)
		m.on(&p.c, e, p.c.Next())
		p.e, p.gap = e, false
	case 2, 3:
		m.harmless()
		e = p.before(w)
		m.on(&p.c, e, p.c.Prev())
		p.e, p.gap = e, false
	case 4, 5: // on an element, in a gap or at the edge
		mark := p.next
		if !p.gap {
			mark = e
		}
		m.insertBefore(&p.c, w, mark)
		if p.gap && mark == nil {
			p.prev = w.Back()
		} else if p.gap {
			p.prev = mark.Prev()
		}
	case 6:
		mark := p.prev
		if !p.gap {
			mark = e
		}
		m.insertAfter(&p.c, w, mark)
		if p.gap && mark == nil {
			p.next = w.Front()
		} else if p.gap {
			p.next = mark.Next()
		}
	case 7:
		v, ok := p.c.Remove()
		require.Equal(m.t, e != nil, ok)
		if ok {
			require.Equal(m.t, e.Value, v)
			p.leave()
			w.Remove(e)
			m.gone(m.got[p.k], v)
		}
	case 8:
		require.Equal(m.t, e != nil, p.c.MoveToFront())
		if e != nil && e != w.Front() {
			p.leave()
			w.MoveToFront(e)
		}
	case 9:
		require.Equal(m.t, e != nil, p.c.MoveToBack())
		if e != nil && e != w.Back() {
			p.leave()
			w.MoveToBack(e)
		}
	case 10:
		m.spliceAtPlace(p, at/len(m.places)%4, at >= 64)
	default:
		m.placeToPlace(p, &m.places[(i+1+act%3)%len(m.places)])
	}
}

// placeToPlace moves the element under one kept cursor to another one, if both are valid.
func (m *model) placeToPlace(p, to *place) {
	e := p.e
	if e == nil || !to.live || p == to {
		require.False(m.t, e != nil && !to.live && p.c.MoveTo(&to.c))
		return
	}
	to.own = true
	w, w2 := m.want[p.k], m.want[to.k]
	prev, next := to.before(w2), to.e
	if to.gap {
		next = to.next
	}
	require.True(m.t, p.c.MoveTo(&to.c))
	if e == prev || e == next {
		return
	}
	v := e.Value.(int)
	p.leave()
	w.Remove(e)
	if next == nil {
		e = w2.PushBack(v)
	} else {
		e = w2.InsertBefore(v, next)
	}
	if to.gap {
		to.prev = e
	}
	if !siblings(p.k, to.k) {
		m.moved(m.got[to.k])
	}
}

// spliceAtPlace moves all of list k2 to where a kept cursor is.
func (m *model) spliceAtPlace(p *place, k2 int, before bool) {
	l2, w, w2 := m.got[k2], m.want[p.k], m.want[k2]
	if p.k == k2 {
		require.False(m.t, p.c.SpliceBefore(l2))
		require.False(m.t, p.c.SpliceAfter(l2))
		return
	}
	values := order(w2)
	takesOver := p.k >= 2 && k2 >= 2 && !m.filled[p.k] && len(values) > 0
	mark := p.e
	if before {
		require.True(m.t, p.c.SpliceBefore(l2))
		if p.gap {
			mark = p.next
		}
		for _, v := range values {
			if mark == nil {
				p.prev = w.PushBack(v)
			} else {
				p.prev = w.InsertBefore(v, mark)
			}
		}
	} else {
		require.True(m.t, p.c.SpliceAfter(l2))
		if p.gap {
			mark = p.prev
		}
		slices.Reverse(values)
		for _, v := range values {
			if mark == nil {
				p.next = w.PushFront(v)
			} else {
				p.next = w.InsertAfter(v, mark)
			}
		}
	}
	w2.Init()
	if takesOver {
		m.filled[k2] = false
	} else if !siblings(p.k, k2) {
		m.moved(m.got[p.k])
	}
}
