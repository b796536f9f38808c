// SPDX-License-Identifier: Apache-2.0

// Package bytespool compares pools of byte buffers.
package bytespool

import (
	"fmt"
	"math/bits"
	"sync"

	"github.com/bytedance/gopkg/lang/mcache"
	gxbytes "github.com/dubbogo/gost/bytes"
	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bytespool"
	"github.com/valyala/bytebufferpool"
)

// sizes are the lengths in bytes that are asked for.
var sizes = []int{64, 1000, 4096, 60000}

// Family returns the comparison. One op is one Get of a buffer of the size, a write to its first
// and its last byte, and one Put; in the cases named cross another goroutine does the Put.
func Family() harness.Family {
	f := harness.Family{
		Name: "bytespool",
		Doc:  "Get, touch and Put of one buffer; cross: Get and Put on different goroutines, handed over 32 at a time",
	}
	for _, size := range sizes {
		f.Cases = append(f.Cases, same(size))
	}
	for _, size := range sizes {
		f.Cases = append(f.Cases, across(size))
	}
	f.Cases = append(f.Cases, waste())
	return f
}

// touch makes sure that b is what was asked for and uses it.
func touch(b []byte, size int) {
	if len(b) != size {
		panic("a buffer of another length")
	}
	b[0], b[size-1] = 1, 1
}

// same does Get and Put on one goroutine, with the calls written out so that they are inlined
// where their authors arranged for it.
func same(size int) harness.Case {
	fixed := newFixed(size)
	var buffers bytebufferpool.Pool // one pool for each use, so that it calibrates to this size
	return harness.Case{
		Name: fmt.Sprintf("same/size=%d", size),
		Unit: "ns/op",
		Subjects: []harness.Subject{
			harness.Op("ours", "", func(n int) {
				for range n {
					b := bytespool.Get(size)
					touch(b, size)
					bytespool.Put(b)
				}
			}),
			harness.Op("mcache", "github.com/bytedance/gopkg", func(n int) {
				for range n {
					b := mcache.Malloc(size)
					touch(b, size)
					mcache.Free(b)
				}
			}),
			harness.Op("bytebufferpool", "github.com/valyala/bytebufferpool", func(n int) {
				for range n {
					b := buffers.Get()
					resize(b, size)
					touch(b.B, size)
					buffers.Put(b)
				}
			}),
			harness.Op("gost", "github.com/dubbogo/gost", func(n int) {
				for range n {
					b := gxbytes.AcquireBytes(size)
					touch(*b, size)
					gxbytes.ReleaseBytes(b)
				}
			}),
			harness.Op("sync.Pool-fixed", "", func(n int) {
				for range n {
					b := fixed.Get().(*[]byte)
					touch(*b, size)
					fixed.Put(b)
				}
			}),
		},
	}
}

// across does Get on one goroutine and Put on another.
func across(size int) harness.Case {
	fixed := newFixed(size)
	var buffers bytebufferpool.Pool
	return harness.Case{
		Name: fmt.Sprintf("cross/size=%d", size),
		Unit: "ns/op",
		Subjects: []harness.Subject{
			belt("ours", "",
				func() []byte {
					b := bytespool.Get(size)
					touch(b, size)
					return b
				},
				func(b []byte) { bytespool.Put(b) }),
			belt("mcache", "github.com/bytedance/gopkg",
				func() []byte {
					b := mcache.Malloc(size)
					touch(b, size)
					return b
				},
				func(b []byte) { mcache.Free(b) }),
			belt("bytebufferpool", "github.com/valyala/bytebufferpool",
				func() *bytebufferpool.ByteBuffer {
					b := buffers.Get()
					resize(b, size)
					touch(b.B, size)
					return b
				},
				func(b *bytebufferpool.ByteBuffer) { buffers.Put(b) }),
			belt("gost", "github.com/dubbogo/gost",
				func() *[]byte {
					b := gxbytes.AcquireBytes(size)
					touch(*b, size)
					return b
				},
				func(b *[]byte) { gxbytes.ReleaseBytes(b) }),
			belt("sync.Pool-fixed", "",
				func() *[]byte {
					b := fixed.Get().(*[]byte)
					touch(*b, size)
					return b
				},
				func(b *[]byte) { fixed.Put(b) }),
		},
	}
}

// newFixed is what the standard library offers: one pool for one size.
func newFixed(size int) *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, size)
		return &b
	}}
}

// resize makes b hold size bytes of any content. Its authors advise to write to B directly.
func resize(b *bytebufferpool.ByteBuffer, size int) {
	if cap(b.B) < size {
		b.B = make([]byte, size)
	}
	b.B = b.B[:size]
}

const (
	batchSize = 32 // large enough that the channel is a small part of the cost
	batches   = 4  // in flight, so that both sides have something to do
)

// belt returns a subject that gets on the calling goroutine and puts on another one.
func belt[T any](name, module string, get func() T, put func(T)) harness.Subject {
	return harness.Prepared(name, module, func() (func(int), func(), error) {
		full, empty := make(chan []T, batches), make(chan []T, batches)
		for range batches {
			empty <- make([]T, 0, batchSize)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for batch := range full {
				for _, b := range batch {
					put(b)
				}
				clear(batch)
				empty <- batch[:0]
			}
		}()
		op := func(n int) {
			for n > 0 {
				batch := <-empty
				for range min(n, batchSize) {
					batch = append(batch, get())
				}
				n -= len(batch)
				full <- batch
			}
			// Complete is what has been put back.
			var back [batches][]T
			for i := range back {
				back[i] = <-empty
			}
			for _, batch := range back {
				empty <- batch
			}
		}
		return op, func() { close(full); <-done }, nil
	})
}

// waste measures how much of a buffer is unused, in percent of its capacity, over all sizes from
// 64 B to 1 MiB.
func waste() harness.Case {
	measure := func(capacity func(n int) int) func(*harness.Run) (harness.Sample, error) {
		return func(*harness.Run) (harness.Sample, error) {
			worst, sum, count := 0.0, 0.0, 0
			for n := 64; n <= 1<<20; n++ {
				w := 100 * (1 - float64(n)/float64(capacity(n)))
				worst = max(worst, w)
				sum += w
				count++
			}
			return harness.Sample{}.Add("worst-%", worst).Add("mean-%", sum/float64(count)), nil
		}
	}
	return harness.Case{
		Name: "waste",
		Unit: "worst-%",
		Subjects: []harness.Subject{
			{Name: "ours", Measure: measure(func(n int) int {
				b := bytespool.Get(n)
				defer bytespool.Put(b)
				return cap(b)
			})},
			// Asking mcache for each size costs the same memory; its classes are powers of two.
			{Name: "mcache", Module: "github.com/bytedance/gopkg", Measure: measure(func(n int) int {
				return 1 << bits.Len(uint(n-1))
			})},
		},
	}
}
