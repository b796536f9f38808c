// SPDX-License-Identifier: Apache-2.0

// Package xorlist is a doubly linked list that needs one 4-byte link per element and costs the
// garbage collector next to nothing.
//
// A list element usually keeps two pointers. Here the elements lie in slabs and have numbers,
// and an element keeps one word: the number of its predecessor XOR the number of its successor.
// A walk that comes from one neighbour finds the other. There is no unsafe code: the collector sees
// typed memory, and where T has no pointers it sees nothing that it would have to scan.
//
//	var l xorlist.List[string] // ready to use
//	l.PushBack("b")
//	l.PushFront("a")
//	for v := range l.All() {
//		fmt.Println(v)
//	}
//
// Use it for queues, stacks, and sequences that are edited while they are walked through, when
// there are many elements or many changes. Do not use it where an element is removed or moved
// knowing nothing but its handle, as in an LRU cache: one link word cannot tell the neighbours
// of an element, so that [List.Remove] and [List.Locate] have to look for it. Use container/list
// there. What is close to a [Cursor] is removed, inserted or moved in constant time.
//
// A [Handle] names an element and knows when that element is gone. A pointer from [List.Ptr]
// stays good for as long as the element is in a list. Lists that share an [Arena] exchange
// elements without copying.
//
// Nothing here may be changed by two goroutines at once; lists of one arena count as one. Calls
// that only read may run together. The package starts no goroutines and has no state but a
// counter of arenas.
//
// Adding and removing at the ends, everything on a Cursor, Reverse, and within one arena Concat
// and Splice take constant time. Memory is allocated in chunks that double up to 4096 elements
// or a mebibyte, so that a PushBack allocates nothing in the amortised sense, and nothing at all
// while the list stays below its former length. Memory of removed elements is kept for others
// until [List.Trim].
package xorlist
