// SPDX-License-Identifier: Apache-2.0

// Package xorlist compares doubly linked lists.
package xorlist

import (
	stdlist "container/list"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"

	genericlist "github.com/bahlo/generic-list-go"
	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/xorlist"
)

const (
	million = 1_000_000
	steady  = 1000 // elements of the queue that is pushed to and popped from
	generic = "github.com/bahlo/generic-list-go"
)

// Family returns the comparison. All lists hold int64; container/list boxes them, as it would
// for its users.
func Family() harness.Family {
	return harness.Family{
		Name:  "xorlist",
		Doc:   "doubly linked lists of int64: PushBack of one element, PopFront and PushBack, a walk over a million, memory and GC with 1 and 10 million live",
		Cases: []harness.Case{pushBack(), queue(), iterate(), alive("live/n=1e6", million), alive("live/n=1e7", 10*million)},
	}
}

// pushBack adds elements one by one; every million a new list is begun and the old one is
// garbage. One op is one element.
func pushBack() harness.Case {
	return harness.Case{
		Name: "pushback/n=1e6",
		Unit: "ns/op",
		Subjects: []harness.Subject{
			harness.Op("ours", "", func(n int) {
				for ; n > 0; n -= million {
					var l xorlist.List[int64]
					for i := range min(n, million) {
						l.PushBack(int64(i))
					}
					check(l.Len(), min(n, million))
				}
			}),
			harness.Op("container", "", func(n int) {
				for ; n > 0; n -= million {
					l := stdlist.New()
					for i := range min(n, million) {
						l.PushBack(int64(i))
					}
					check(l.Len(), min(n, million))
				}
			}),
			harness.Op("generic", generic, func(n int) {
				for ; n > 0; n -= million {
					l := genericlist.New[int64]()
					for i := range min(n, million) {
						l.PushBack(int64(i))
					}
					check(l.Len(), min(n, million))
				}
			}),
		},
	}
}

// queue takes the first element and adds one at the back. One op is both.
func queue() harness.Case {
	return harness.Case{
		Name: "queue/n=1000",
		Unit: "ns/op",
		Subjects: []harness.Subject{
			harness.Prepared("ours", "", func() (func(int), func(), error) {
				var l xorlist.List[int64]
				for i := range steady {
					l.PushBack(int64(i))
				}
				return func(n int) {
					for range n {
						v, _ := l.PopFront()
						l.PushBack(v + steady)
					}
				}, func() { check(l.Len(), steady) }, nil
			}),
			harness.Prepared("container", "", func() (func(int), func(), error) {
				l := stdlist.New()
				for i := range steady {
					l.PushBack(int64(i))
				}
				return func(n int) {
					for range n {
						l.PushBack(l.Remove(l.Front()).(int64) + steady)
					}
				}, func() { check(l.Len(), steady) }, nil
			}),
			harness.Prepared("generic", generic, func() (func(int), func(), error) {
				l := genericlist.New[int64]()
				for i := range steady {
					l.PushBack(int64(i))
				}
				return func(n int) {
					for range n {
						l.PushBack(l.Remove(l.Front()) + steady)
					}
				}, func() { check(l.Len(), steady) }, nil
			}),
		},
	}
}

// iterate sums up a million elements. One op is the whole walk.
func iterate() harness.Case {
	const sum = int64(million) * (million - 1) / 2
	return harness.Case{
		Name: "iterate/n=1e6",
		Unit: "ns/op",
		Subjects: []harness.Subject{
			harness.Prepared("ours", "", func() (func(int), func(), error) {
				var l xorlist.List[int64]
				for i := range million {
					l.PushBack(int64(i))
				}
				return func(n int) {
					for range n {
						check(walkOurs(&l), sum)
					}
				}, nil, nil
			}),
			harness.Prepared("ours-cursor", "", func() (func(int), func(), error) {
				var l xorlist.List[int64]
				for i := range million {
					l.PushBack(int64(i))
				}
				return func(n int) {
					for range n {
						got := int64(0)
						for c := l.Cursor(); c.Next(); {
							v, _ := c.Value()
							got += v
						}
						check(got, sum)
					}
				}, nil, nil
			}),
			harness.Prepared("container", "", func() (func(int), func(), error) {
				l := stdlist.New()
				for i := range million {
					l.PushBack(int64(i))
				}
				return func(n int) {
					for range n {
						got := int64(0)
						for e := l.Front(); e != nil; e = e.Next() {
							got += e.Value.(int64)
						}
						check(got, sum)
					}
				}, nil, nil
			}),
			harness.Prepared("generic", generic, func() (func(int), func(), error) {
				l := genericlist.New[int64]()
				for i := range million {
					l.PushBack(int64(i))
				}
				return func(n int) {
					for range n {
						got := int64(0)
						for e := l.Front(); e != nil; e = e.Next() {
							got += e.Value
						}
						check(got, sum)
					}
				}, nil, nil
			}),
		},
	}
}

func walkOurs(l *xorlist.List[int64]) (sum int64) {
	for v := range l.All() {
		sum += v
	}
	return sum
}

// alive fills a list with n elements and measures what they cost while they live: bytes of heap
// for each, tables and what is not in use yet included, to a hundredth, and how long a garbage
// collection takes.
func alive(name string, n int) harness.Case {
	return harness.Case{
		Name:   name,
		Unit:   "gc-ms",
		Sample: time.Second,
		Subjects: []harness.Subject{
			{Name: "ours", Measure: measure(n, func() any {
				l := new(xorlist.List[int64])
				for i := range n {
					l.PushBack(int64(i))
				}
				return l
			})},
			{Name: "container", Measure: measure(n, func() any {
				l := stdlist.New()
				for i := range n {
					l.PushBack(int64(i))
				}
				return l
			})},
			{Name: "generic", Module: generic, Measure: measure(n, func() any {
				l := genericlist.New[int64]()
				for i := range n {
					l.PushBack(int64(i))
				}
				return l
			})},
		},
	}
}

// measure returns the costs of the n elements that fill returns.
func measure(n int, fill func() any) func(*harness.Run) (harness.Sample, error) {
	return func(*harness.Run) (harness.Sample, error) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		list := fill()
		runtime.GC()
		runtime.ReadMemStats(&after)
		var took []float64
		for range 3 {
			start := time.Now()
			runtime.GC()
			took = append(took, float64(time.Since(start).Microseconds())/1000)
		}
		runtime.KeepAlive(list)
		slices.Sort(took)
		perElement := float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
		return harness.Sample{}.Add("gc-ms", took[1]).Add("B/element", math.Round(perElement*100)/100), nil
	}
}

// check panics if a list did not do its work; the harness reports that as its own failure.
func check[N int | int64](got, want N) {
	if got != want {
		panic(fmt.Sprintf("got %d, want %d", got, want))
	}
}
