// SPDX-License-Identifier: Apache-2.0

package xorlist

import (
	"container/list"
	"testing"
)

const million = 1_000_000

// BenchmarkPushBack adds to a list that is emptied by starting a new one at a million elements.
// One op is one element.
func BenchmarkPushBack(b *testing.B) {
	b.Run("list=xorlist", func(b *testing.B) {
		b.ReportAllocs()
		for done := 0; done < b.N; done += million {
			var l List[int64]
			for i := range min(million, b.N-done) {
				l.PushBack(int64(i))
			}
		}
	})
	b.Run("list=xorlist/memory=kept", func(b *testing.B) {
		b.ReportAllocs()
		var l List[int64]
		for done := 0; done < b.N; done += million {
			b.StopTimer()
			l.Clear()
			b.StartTimer()
			for i := range min(million, b.N-done) {
				l.PushBack(int64(i))
			}
		}
	})
	b.Run("list=container", func(b *testing.B) {
		b.ReportAllocs()
		for done := 0; done < b.N; done += million {
			var l list.List
			for i := range min(million, b.N-done) {
				l.PushBack(int64(i))
			}
		}
	})
}

// BenchmarkQueue adds at the back and takes from the front of a list of 1000 elements. One op is
// both.
func BenchmarkQueue(b *testing.B) {
	b.Run("list=xorlist", func(b *testing.B) {
		var l List[int64]
		for i := range 1000 {
			l.PushBack(int64(i))
		}
		b.ReportAllocs()
		for b.Loop() {
			v, _ := l.PopFront()
			l.PushBack(v)
		}
	})
	b.Run("list=container", func(b *testing.B) {
		l := list.New()
		for i := range 1000 {
			l.PushBack(int64(i))
		}
		b.ReportAllocs()
		for b.Loop() {
			l.PushBack(l.Remove(l.Front()).(int64) + 1000)
		}
	})
}

// BenchmarkIterate walks through a million elements. One op is the whole walk.
func BenchmarkIterate(b *testing.B) {
	var l List[int64]
	c := list.New()
	for i := range million {
		l.PushBack(int64(i))
		c.PushBack(int64(i))
	}
	b.Run("list=xorlist/by=All", func(b *testing.B) {
		for b.Loop() {
			sink = sumAll(&l)
		}
	})
	b.Run("list=xorlist/by=Cursor", func(b *testing.B) {
		for b.Loop() {
			sum := int64(0)
			for c := l.Cursor(); c.Next(); {
				v, _ := c.Value()
				sum += v
			}
			sink = sum
		}
	})
	b.Run("list=container", func(b *testing.B) {
		for b.Loop() {
			sum := int64(0)
			for e := c.Front(); e != nil; e = e.Next() {
				sum += e.Value.(int64)
			}
			sink = sum
		}
	})
}

var sink int64

// sumAll is a function of its own since b.Loop keeps the body of a loop over All from being
// inlined, which no user's loop would suffer from.
func sumAll(l *List[int64]) (sum int64) {
	for v := range l.All() {
		sum += v
	}
	return sum
}
