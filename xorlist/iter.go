// SPDX-License-Identifier: Apache-2.0

package xorlist

import "iter"

// All returns an iterator over the values from front to back. The loop may change values, and it
// may break after any change; but going on after the order of the list was changed panics, since
// the place in the list is lost then. Use a [Cursor] to change the list on the way, or
// [List.Drain] to empty it.
func (l *List[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) { l.walk(l.head, yield) }
}

// Backward returns an iterator over the values from back to front. What [List.All] says about
// changes holds here, too.
func (l *List[T]) Backward() iter.Seq[T] {
	return func(yield func(T) bool) { l.walk(l.tail, yield) }
}

// Drain returns an iterator that removes each element from the front before it yields its value.
// What the loop adds at the back is drained, too; after a break the rest is still there.
func (l *List[T]) Drain() iter.Seq[T] {
	return func(yield func(T) bool) {
		for {
			v, ok := l.PopFront()
			if !ok || !yield(v) {
				return
			}
		}
	}
}

// walk yields the values from the end that begins with element cur.
func (l *List[T]) walk(cur uint32, yield func(T) bool) {
	version, prev := l.version, uint32(0)
	for cur != 0 {
		// Within a chunk the next element is found without going through the tables again.
		nodes, start := l.arena.run(cur)
		for off := cur - start; off < uint32(len(nodes)); off = cur - start {
			n := &nodes[off]
			if !yield(n.val) {
				return
			}
			if l.version != version {
				panic("xorlist: the list was changed during All or Backward")
			}
			prev, cur = cur, n.link^prev
		}
	}
}
