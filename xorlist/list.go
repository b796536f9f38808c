// SPDX-License-Identifier: Apache-2.0

package xorlist

// List is a doubly linked list of values of type T. The zero value is an empty list with an
// arena of its own; [Arena.NewList] makes one that shares its memory with others. A List must
// not be copied after first use. Methods that change it must not run together with any other.
type List[T any] struct {
	_ noCopy

	arena      *slab[T] // nil until needed
	head, tail uint32
	len        int
	stamp      stamp
}

// stamp tells states of a list's order apart, so that cursors notice a change. Two equal values
// of one list stand for the same order. Counting changes alone would not do: a list that was
// overwritten by an empty one counts from zero again, and would come to a number that a cursor
// of its former life knows.
type stamp struct {
	life    uint64 // a number that no other list of the process has; 0 before the first element
	changes uint64
}

// Handle names one element for as long as it lives; after that it names nothing, whatever takes
// the element's place in memory. Handles can be compared and used as keys of a map; they hold
// neither the element nor the list in memory. The zero Handle names nothing.
//
// Any list of an arena answers for the handles of all lists of that arena, except that
// [List.Remove] and [List.Locate] look in their own list only.
type Handle struct {
	arena      uint64
	index, gen uint32
}

// Len returns the number of elements. It takes constant time.
func (l *List[T]) Len() int { return l.len }

// PushFront inserts v at the front and returns a handle of the new element.
func (l *List[T]) PushFront(v T) Handle {
	a := l.arena
	if a == nil || a.free|a.unused == 0 {
		a = l.room()
	}
	i := a.free // from here on as in slab.alloc
	if i == 0 {
		i = a.unused
	}
	nodes, start := a.run(i)
	n := &nodes[i-start]
	gen := a.newborn
	if i == a.free {
		a.free = n.link
		gen = n.gen + 1
	} else if a.unused++; a.unused == a.end {
		a.unused = 0
	}
	n.gen = gen
	n.val = v
	old := l.head
	n.link = old
	if off := old - start; off < uint32(len(nodes)) { // mostly in the same chunk; never if old is 0
		nodes[off].link ^= i
	} else if old != 0 {
		a.at(old).link ^= i
	} else {
		l.tail = i
	}
	l.head = i
	l.len++
	l.stamp.changes++
	return Handle{a.id, i, gen}
}

// PushBack inserts v at the back and returns a handle of the new element.
func (l *List[T]) PushBack(v T) Handle {
	a := l.arena
	if a == nil || a.free|a.unused == 0 {
		a = l.room()
	}
	i := a.free // from here on as in slab.alloc
	if i == 0 {
		i = a.unused
	}
	nodes, start := a.run(i)
	n := &nodes[i-start]
	gen := a.newborn
	if i == a.free {
		a.free = n.link
		gen = n.gen + 1
	} else if a.unused++; a.unused == a.end {
		a.unused = 0
	}
	n.gen = gen
	n.val = v
	old := l.tail
	n.link = old
	if off := old - start; off < uint32(len(nodes)) { // mostly in the same chunk; never if old is 0
		nodes[off].link ^= i
	} else if old != 0 {
		a.at(old).link ^= i
	} else {
		l.head = i
	}
	l.tail = i
	l.len++
	l.stamp.changes++
	return Handle{a.id, i, gen}
}

// PopFront removes the first element and returns its value. It returns false if the list is
// empty.
func (l *List[T]) PopFront() (v T, ok bool) {
	i := l.head
	if i == 0 {
		return v, false
	}
	nodes, start := l.arena.run(i)
	n := &nodes[i-start]
	v = n.val
	// The front has one neighbour, so its link is that one's number, and taking the front out of
	// the neighbour's link is one XOR more.
	l.head = n.link
	if off := l.head - start; off < uint32(len(nodes)) {
		nodes[off].link ^= i
	} else if l.head != 0 {
		l.arena.at(l.head).link ^= i
	} else {
		l.tail = 0
	}
	l.len--
	l.stamp.changes++
	l.arena.release(i, n)
	return v, true
}

// PopBack removes the last element and returns its value. It returns false if the list is empty.
func (l *List[T]) PopBack() (v T, ok bool) {
	i := l.tail
	if i == 0 {
		return v, false
	}
	nodes, start := l.arena.run(i)
	n := &nodes[i-start]
	v = n.val
	l.tail = n.link
	if off := l.tail - start; off < uint32(len(nodes)) {
		nodes[off].link ^= i
	} else if l.tail != 0 {
		l.arena.at(l.tail).link ^= i
	} else {
		l.head = 0
	}
	l.len--
	l.stamp.changes++
	l.arena.release(i, n)
	return v, true
}

// Front returns a handle of the first element, the zero Handle if the list is empty.
func (l *List[T]) Front() Handle { return l.handle(l.head) }

// Back returns a handle of the last element, the zero Handle if the list is empty.
func (l *List[T]) Back() Handle { return l.handle(l.tail) }

// Value returns the value of the element that h names, and false if there is none. It takes
// constant time, as do [List.Set], [List.Ptr] and [List.Valid].
func (l *List[T]) Value(h Handle) (v T, ok bool) {
	n := l.find(h)
	if n == nil {
		return v, false
	}
	return n.val, true
}

// Set replaces the value of the element that h names. It returns false if there is none.
func (l *List[T]) Set(h Handle, v T) bool {
	n := l.find(h)
	if n == nil {
		return false
	}
	n.val = v
	return true
}

// Ptr returns a pointer to the value of the element that h names, nil if there is none. The
// pointer is good while the element is in a list. Afterwards the memory may belong to another
// element, or to none; it stays readable, but what is written there may be lost or show up in
// that other element.
func (l *List[T]) Ptr(h Handle) *T {
	n := l.find(h)
	if n == nil {
		return nil
	}
	return &n.val
}

// Valid reports whether h names an element that is in a list of the arena of l.
func (l *List[T]) Valid(h Handle) bool { return l.find(h) != nil }

// Remove removes the element that h names and returns its value; it returns false if that
// element is not in l. It is not a constant-time operation: the element's neighbours have to be
// found, which takes as many steps as the element is away from the nearer end. Near an end, or
// for a short list, this does not matter; else remove with a [Cursor].
func (l *List[T]) Remove(h Handle) (v T, ok bool) {
	c, ok := l.Locate(h)
	if !ok {
		return v, false
	}
	return c.Remove()
}

// Reverse turns the order of the elements around. It takes constant time: a link does not know
// which of its two neighbours comes first.
func (l *List[T]) Reverse() {
	// No element changes: a link is the same in both directions.
	l.head, l.tail = l.tail, l.head
	l.stamp.changes++
}

// Clear removes all elements. It visits each of them, so that their handles become stale and
// their values can be collected. The memory stays for new elements until [List.Trim].
func (l *List[T]) Clear() {
	prev, cur := uint32(0), l.head
	for cur != 0 {
		n := l.arena.at(cur)
		next := n.link ^ prev // before release, which puts another number into link
		l.arena.release(cur, n)
		prev, cur = cur, next
	}
	l.forget()
}

// Trim gives back memory that no element uses, as [Arena.Trim] does for the arena of l.
func (l *List[T]) Trim() {
	if l.arena != nil {
		l.arena.trim()
	}
}

// memory returns the arena, which exists from the first insertion on.
func (l *List[T]) memory() *slab[T] {
	if l.arena == nil {
		l.adopt(new(slab[T]))
	}
	return l.arena
}

// adopt gives l, which has no arena and so no elements, the arena a.
func (l *List[T]) adopt(a *slab[T]) {
	l.arena = a
	l.stamp.life = lastLife.Add(1)
}

// room returns the arena when it has a free element.
func (l *List[T]) room() *slab[T] {
	a := l.memory()
	if a.free|a.unused == 0 {
		a.grow()
	}
	return a
}

// handle returns a handle of element i of this list, the zero Handle for none.
func (l *List[T]) handle(i uint32) Handle {
	if i == 0 {
		return Handle{}
	}
	return Handle{l.arena.id, i, l.arena.at(i).gen}
}

// find returns the element that h names, nil if there is none.
func (l *List[T]) find(h Handle) *node[T] {
	a := l.arena
	if a == nil || h.arena != a.id || h.gen == 0 {
		return nil
	}
	// The arena has issued h, so the number was good once; its chunk may have been trimmed.
	if c := h.index >> chunkBits; c != 0 && a.large[c] == nil {
		return nil
	}
	nodes, start := a.run(h.index)
	if nodes == nil {
		return nil
	}
	n := &nodes[h.index-start]
	if n.gen != h.gen {
		return nil
	}
	return n
}

// link puts element i between the neighbours p and n; 0 stands for none.
func (l *List[T]) link(i uint32, at *node[T], p, n uint32) {
	// A neighbour's link loses one number and gains another by XOR with both.
	at.link = p ^ n
	if p != 0 {
		l.arena.at(p).link ^= n ^ i
	} else {
		l.head = i
	}
	if n != 0 {
		l.arena.at(n).link ^= p ^ i
	} else {
		l.tail = i
	}
	l.len++
	l.stamp.changes++
}

// unlink takes element i from between its neighbours p and n.
func (l *List[T]) unlink(i, p, n uint32) {
	if p != 0 {
		l.arena.at(p).link ^= i ^ n
	} else {
		l.head = n
	}
	if n != 0 {
		l.arena.at(n).link ^= i ^ p
	} else {
		l.tail = p
	}
	l.len--
	l.stamp.changes++
}

// forget makes the list empty without freeing its elements.
func (l *List[T]) forget() {
	l.head, l.tail, l.len = 0, 0, 0
	l.stamp.changes++
}
