// SPDX-License-Identifier: Apache-2.0

package xorlist

// Cursor is a place in a list from which everything nearby takes constant time: moving on,
// inserting, removing, moving elements. It stands on an element, or between two: at the edge,
// which lies behind the last and before the first element, or in the gap that an element left
// when it was removed or moved. The list is a ring to it, closed by the edge. So this visits
// every element once, and may remove each of them:
//
//	for c := l.Cursor(); c.Next(); {
//		if v, _ := c.Value(); v < 0 {
//			c.Remove()
//		}
//	}
//
// A cursor knows two neighbours, and nothing would tell it that another had been inserted
// between them. So a change of the list's order by anything but the cursor itself invalidates
// it: from then on its methods do nothing and return false or nothing, and [Cursor.Valid] tells.
// Changes of values, and Trim, leave it alone.
//
// The zero Cursor belongs to no list and is not valid. A copy of a cursor is a second cursor.
type Cursor[T any] struct {
	list *List[T]
	// On an element: cur, and prev before it. In a gap: prev and next around it, and cur is 0.
	// At the edge: cur is 0 and so is gap; prev and next mean nothing.
	prev, cur, next uint32
	gap             bool
	seen            stamp // of list, after the last change that is known
}

// Cursor returns a cursor at the edge: Next leads to the first element, Prev to the last one.
func (l *List[T]) Cursor() Cursor[T] {
	return Cursor[T]{list: l, seen: l.stamp}
}

// Locate returns a cursor on the element that h names, and false if that element is not in l. It
// walks from both ends at once until one of them has found it.
func (l *List[T]) Locate(h Handle) (Cursor[T], bool) {
	if l.find(h) == nil {
		return Cursor[T]{}, false
	}
	var front, back uint32 // where the walks have just been
	f, b := l.head, l.tail
	// Two walks that meet in the middle see every element.
	for range (l.len + 1) / 2 {
		if f == h.index {
			return Cursor[T]{list: l, prev: front, cur: f, seen: l.stamp}, true
		}
		before := l.arena.at(b).link ^ back
		if b == h.index {
			return Cursor[T]{list: l, prev: before, cur: b, seen: l.stamp}, true
		}
		front, f = f, l.arena.at(f).link^front
		back, b = b, before
	}
	return Cursor[T]{}, false // it is in another list of the arena
}

// Valid reports whether the list's order is as the cursor last saw it.
func (c *Cursor[T]) Valid() bool { return c.list != nil && c.seen == c.list.stamp }

// Next moves to the following element: from the edge to the first one, from the last one to the
// edge. It returns whether the cursor stands on an element.
func (c *Cursor[T]) Next() bool {
	if !c.Valid() {
		return false
	}
	switch {
	case c.cur != 0:
		c.prev, c.cur = c.cur, c.list.arena.at(c.cur).link^c.prev
	case c.gap:
		c.cur, c.gap = c.next, false
	default:
		c.prev, c.cur = 0, c.list.head
	}
	return c.cur != 0
}

// Prev moves to the preceding element: from the edge to the last one, from the first one to the
// edge. It returns whether the cursor stands on an element.
func (c *Cursor[T]) Prev() bool {
	if !c.Valid() {
		return false
	}
	// The element before the new place is found from the one behind it, which is the old place.
	next := c.cur
	switch {
	case c.cur != 0:
		c.cur = c.prev
	case c.gap:
		c.cur, next, c.gap = c.prev, c.next, false
	default:
		c.cur = c.list.tail
	}
	if c.cur == 0 {
		return false
	}
	c.prev = c.list.arena.at(c.cur).link ^ next
	return true
}

// Value returns the value of the element under the cursor, and false if there is none.
func (c *Cursor[T]) Value() (v T, ok bool) {
	if !c.on() {
		return v, false
	}
	return c.list.arena.at(c.cur).val, true
}

// Set replaces the value of the element under the cursor. It returns false if there is none.
func (c *Cursor[T]) Set(v T) bool {
	if !c.on() {
		return false
	}
	c.list.arena.at(c.cur).val = v
	return true
}

// Ptr returns a pointer to the value of the element under the cursor, nil if there is none. It
// is good for as long as one from [List.Ptr].
func (c *Cursor[T]) Ptr() *T {
	if !c.on() {
		return nil
	}
	return &c.list.arena.at(c.cur).val
}

// Handle returns a handle of the element under the cursor, the zero Handle if there is none.
func (c *Cursor[T]) Handle() Handle {
	if !c.on() {
		return Handle{}
	}
	return c.list.handle(c.cur)
}

// InsertBefore inserts v before the element under the cursor, which stays there: in a gap before
// the cursor, at the edge as the last element. It returns a handle of the new element, the zero
// Handle if the cursor is not valid.
func (c *Cursor[T]) InsertBefore(v T) Handle {
	if !c.Valid() {
		return Handle{}
	}
	// memory, since the cursor may be at the edge of a list that has none yet.
	i, n := c.list.memory().alloc()
	n.val = v
	c.linkBefore(i, n)
	return Handle{c.list.arena.id, i, n.gen}
}

// InsertAfter inserts v after the element under the cursor, which stays there: in a gap after
// the cursor, at the edge as the first element. It returns a handle of the new element, the zero
// Handle if the cursor is not valid.
func (c *Cursor[T]) InsertAfter(v T) Handle {
	if !c.Valid() {
		return Handle{}
	}
	l := c.list
	i, n := l.memory().alloc()
	n.val = v
	p, next := c.after()
	l.link(i, n, p, next)
	c.next = i // matters in a gap only
	c.seen = l.stamp
	return Handle{l.arena.id, i, n.gen}
}

// Remove removes the element under the cursor and returns its value, and false if there is none.
// The cursor then stands in the gap: Next leads to the element that followed, Prev to the one
// before.
func (c *Cursor[T]) Remove() (v T, ok bool) {
	if !c.on() {
		return v, false
	}
	// The element leaves the list before it is free: release puts another number into its link.
	i := c.cur
	n := c.list.arena.at(i)
	v = n.val
	c.unlink()
	c.list.arena.release(i, n)
	return v, true
}

// MoveToFront makes the element under the cursor the first one. The cursor stays behind in the
// gap. If it is the first one already, nothing changes, and the cursor stays on it. It returns
// false if there is no element under the cursor.
func (c *Cursor[T]) MoveToFront() bool {
	if !c.on() {
		return false
	}
	if c.prev == 0 {
		return true
	}
	l, i := c.list, c.cur
	c.unlink()
	l.link(i, l.arena.at(i), 0, l.head)
	c.seen = l.stamp
	return true
}

// MoveToBack makes the element under the cursor the last one. The cursor stays behind in the
// gap. If it is the last one already, nothing changes, and the cursor stays on it. It returns
// false if there is no element under the cursor.
func (c *Cursor[T]) MoveToBack() bool {
	if !c.on() {
		return false
	}
	l, i := c.list, c.cur
	if i == l.tail {
		return true
	}
	c.unlink()
	l.link(i, l.arena.at(i), l.tail, 0)
	c.seen = l.stamp
	return true
}

// MoveTo moves the element under the cursor to where to stands: before the element there, into
// the gap before the cursor, or at the edge to the back. Both cursors stay valid: to is where it
// was, and c stands in the gap. If the element is there already, nothing changes. to may belong
// to another list; if that has another arena, the value moves and handles of the element become
// stale. MoveTo returns false if there is no element under c or to is not valid.
func (c *Cursor[T]) MoveTo(to *Cursor[T]) bool {
	if !c.on() || !to.Valid() {
		return false
	}
	from, dst := c.list, to.list
	i := c.cur
	// Unlinking would move the very neighbours that to stands between.
	if p, n := to.before(); from == dst && (i == p || i == n) {
		return true
	}
	if from.arena != dst.arena {
		v, _ := c.Remove()
		to.InsertBefore(v)
		return true
	}
	c.unlink()
	to.linkBefore(i, dst.arena.at(i))
	c.seen = from.stamp // where both are one list, the link was a change that c has not seen
	return true
}

// on reports whether the cursor is valid and on an element.
func (c *Cursor[T]) on() bool { return c.Valid() && c.cur != 0 }

// before returns the two elements between which InsertBefore inserts.
func (c *Cursor[T]) before() (p, n uint32) {
	switch {
	case c.cur != 0:
		return c.prev, c.cur
	case c.gap:
		return c.prev, c.next
	}
	return c.list.tail, 0
}

// after returns the two elements between which InsertAfter inserts.
func (c *Cursor[T]) after() (p, n uint32) {
	switch {
	case c.cur != 0:
		return c.cur, c.list.arena.at(c.cur).link ^ c.prev
	case c.gap:
		return c.prev, c.next
	}
	return 0, c.list.head
}

// linkBefore inserts element i before the cursor.
func (c *Cursor[T]) linkBefore(i uint32, at *node[T]) {
	p, n := c.before()
	c.list.link(i, at, p, n)
	c.prev = i // means nothing at the edge
	c.seen = c.list.stamp
}

// unlink takes the element under the cursor out of the list and leaves the cursor in the gap.
func (c *Cursor[T]) unlink() {
	// Both neighbours are kept: a gap is known by them.
	i := c.cur
	c.next = c.list.arena.at(i).link ^ c.prev
	c.list.unlink(i, c.prev, c.next)
	c.cur, c.gap = 0, true
	c.seen = c.list.stamp
}
