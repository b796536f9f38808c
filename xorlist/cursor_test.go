// SPDX-License-Identifier: Apache-2.0

package xorlist

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestChangesInvalidate lets everything that changes the order overtake a cursor, and everything
// that does not leave it alone.
func TestChangesInvalidate(t *testing.T) {
	var arena Arena[int]
	for name, change := range map[string]func(l, other *List[int]){
		"PushFront":     func(l, _ *List[int]) { l.PushFront(9) },
		"PushBack":      func(l, _ *List[int]) { l.PushBack(9) },
		"PopFront":      func(l, _ *List[int]) { l.PopFront() },
		"PopBack":       func(l, _ *List[int]) { l.PopBack() },
		"Remove":        func(l, _ *List[int]) { l.Remove(l.Back()) },
		"Reverse":       func(l, _ *List[int]) { l.Reverse() },
		"Clear":         func(l, _ *List[int]) { l.Clear() },
		"Concat":        func(l, other *List[int]) { l.Concat(other) },
		"Concat away":   func(l, other *List[int]) { other.Concat(l) },
		"PushBackList":  func(l, other *List[int]) { l.PushBackList(other) },
		"PushFrontList": func(l, other *List[int]) { l.PushFrontList(other) },
		"InsertBefore":  func(l, _ *List[int]) { c := l.Cursor(); c.InsertBefore(9) },
		"InsertAfter":   func(l, _ *List[int]) { c := l.Cursor(); c.InsertAfter(9) },
		"MoveToFront":   func(l, _ *List[int]) { c := l.Cursor(); c.Prev(); c.MoveToFront() },
		"MoveToBack":    func(l, _ *List[int]) { c := l.Cursor(); c.Next(); c.MoveToBack() },
		"MoveTo": func(l, other *List[int]) {
			c, to := l.Cursor(), other.Cursor()
			c.Next()
			c.MoveTo(&to)
		},
		"SpliceAfter": func(l, other *List[int]) { c := l.Cursor(); c.SpliceAfter(other) },
	} {
		l, other := arena.NewList(), arena.NewList()
		for i := range 4 {
			l.PushBack(i)
			other.PushBack(i)
		}
		c := l.Cursor()
		c.Next()
		c.Next()
		l.Set(c.Handle(), 7)
		l.Trim()
		v, ok := c.Value()
		require.True(t, ok)
		require.Equal(t, 7, v)
		change(l, other)
		require.False(t, c.Valid(), name)
		require.False(t, c.Next(), name)
	}
}
