// SPDX-License-Identifier: Apache-2.0

package xorlist

// Concat moves all elements of other to the back of l and leaves other empty.
//
// It takes constant time if both lists share an arena: then handles, used with l from now on,
// and pointers stay good. The same holds if neither list was made by [Arena.NewList] and l has
// never held an element: then l takes over the memory of other, and other starts anew. Otherwise
// the values move one by one, and handles of other's elements become stale.
//
// A list cannot be moved into itself: then nothing happens.
func (l *List[T]) Concat(other *List[T]) {
	// A new cursor is at the edge, and before the edge is the back.
	c := l.Cursor()
	c.SpliceBefore(other)
}

// PushBackList inserts a copy of another list at the back of l. The lists may be the same.
func (l *List[T]) PushBackList(other *List[T]) {
	// The list may grow while it is read: what was there at the beginning is copied.
	prev, cur := uint32(0), other.head
	for range other.len {
		n := other.arena.at(cur)
		l.PushBack(n.val)
		prev, cur = cur, n.link^prev
	}
}

// PushFrontList inserts a copy of another list at the front of l. The lists may be the same.
func (l *List[T]) PushFrontList(other *List[T]) {
	prev, cur := uint32(0), other.tail
	for range other.len {
		n := other.arena.at(cur)
		l.PushFront(n.val)
		prev, cur = cur, n.link^prev
	}
}

// SpliceBefore moves all elements of other to where InsertBefore would insert, in their order,
// and leaves other empty: before the element under the cursor, in a gap before the cursor, at
// the edge to the back. Time and handles are as for [List.Concat]. It returns false and does
// nothing if the cursor is not valid or other is its own list.
func (c *Cursor[T]) SpliceBefore(other *List[T]) bool {
	if !c.Valid() || c.list == other {
		return false
	}
	p, n := c.before()
	_, last := c.splice(other, p, n)
	if last != 0 {
		c.prev = last // means nothing at the edge
	}
	return true
}

// SpliceAfter moves all elements of other to where InsertAfter would insert, in their order, and
// leaves other empty: after the element under the cursor, in a gap after the cursor, at the edge
// to the front. Time and handles are as for [List.Concat]. It returns false and does nothing if
// the cursor is not valid or other is its own list.
func (c *Cursor[T]) SpliceAfter(other *List[T]) bool {
	if !c.Valid() || c.list == other {
		return false
	}
	p, n := c.after()
	first, _ := c.splice(other, p, n)
	if first != 0 {
		c.next = first // matters in a gap only
	}
	return true
}

// splice moves the elements of other between the neighbours p and n, and returns the first and
// the last of them, 0 if there are none.
func (c *Cursor[T]) splice(other *List[T], p, n uint32) (first, last uint32) {
	if other.len == 0 {
		return 0, 0
	}
	l := c.list
	if l.arena == nil && !other.arena.shared {
		// Both using one arena from now on would be a trap: a list that is filled from another
		// under a lock is then used without it.
		l.adopt(other.arena)
		other.arena = nil
	} else if a := l.memory(); a != other.arena {
		// Different memory: the values move one by one.
		for v := range other.Drain() {
			i, at := a.alloc()
			at.val = v
			l.link(i, at, p, n)
			p, last = i, i
			if first == 0 {
				first = i
			}
		}
		c.seen = l.stamp
		return first, last
	}
	// The ends of other have one neighbour each, and get a second one. All other links stay as
	// they are, and so do handles and pointers.
	first, last = other.head, other.tail
	l.arena.at(first).link ^= p
	l.arena.at(last).link ^= n
	if p != 0 {
		l.arena.at(p).link ^= n ^ first
	} else {
		l.head = first
	}
	if n != 0 {
		l.arena.at(n).link ^= p ^ last
	} else {
		l.tail = last
	}
	l.len += other.len
	l.stamp.changes++
	other.forget()
	c.seen = l.stamp
	return first, last
}
