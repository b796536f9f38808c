// SPDX-License-Identifier: Apache-2.0

package xorlist_test

import (
	"fmt"
	"slices"

	"github.com/gostkit/kit/xorlist"
)

func ExampleList() {
	var l xorlist.List[string]
	l.PushBack("world")
	hello := l.PushFront("hello")
	l.Set(hello, "Hello")
	for v := range l.All() {
		fmt.Println(v)
	}
	l.PopFront()
	fmt.Println(l.Valid(hello), l.Len())
	// Output:
	// Hello
	// world
	// false 1
}

func ExampleCursor() {
	var l xorlist.List[int]
	for i := range 8 {
		l.PushBack(i)
	}
	for c := l.Cursor(); c.Next(); {
		switch v, _ := c.Value(); {
		case v%3 == 0:
			c.Remove()
		case v == 4:
			c.InsertAfter(40)
		case v == 7:
			c.MoveToFront()
		}
	}
	fmt.Println(slices.Collect(l.All()))
	// Output: [7 1 2 4 40 5]
}

func ExampleCursor_MoveTo() {
	var arena xorlist.Arena[string]
	todo, done := arena.NewList(), arena.NewList()
	todo.PushBack("read")
	todo.PushBack("write")

	from, to := todo.Cursor(), done.Cursor()
	from.Next()
	from.MoveTo(&to)
	fmt.Println(slices.Collect(todo.All()), slices.Collect(done.All()))
	// Output: [write] [read]
}

func ExampleArena() {
	// Lists of one arena hand over all their elements in constant time.
	var arena xorlist.Arena[int]
	queue, batch := arena.NewList(), arena.NewList()
	for i := range 5 {
		queue.PushBack(i)
	}
	batch.Concat(queue)
	batch.Reverse() // constant time, too
	fmt.Println(queue.Len(), slices.Collect(batch.All()))
	// Output: 0 [4 3 2 1 0]
}

func ExampleList_Drain() {
	var l xorlist.List[int]
	l.PushBack(3)
	for v := range l.Drain() {
		fmt.Println(v)
		if v > 0 {
			l.PushBack(v - 1)
		}
	}
	// Output:
	// 3
	// 2
	// 1
	// 0
}
