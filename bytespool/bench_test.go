// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"
)

var benchSizes = []int{64, 1000, 4096, 60000}

// One op is a Get and a Put on one goroutine. The rows named sync.Pool are one pool for the one
// size.
func BenchmarkGetPut(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("pool=default/size=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Put(Get(n))
			}
		})
		b.Run(fmt.Sprintf("pool=sync.Pool/size=%d", n), func(b *testing.B) {
			fixed := sync.Pool{New: func() any { p := make([]byte, n); return &p }}
			b.ReportAllocs()
			for b.Loop() {
				fixed.Put(fixed.Get())
			}
		})
	}
	for _, name := range []string{"limited", "zeroing", "counting", "histogram", "all"} {
		p := pools(b)[name]
		b.Run("pool="+name+"/size=1000", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Put(p.Get(1000))
			}
		})
	}
}

// One op is a Get and a Put, on as many goroutines as there are processors.
func BenchmarkGetPutParallel(b *testing.B) {
	for _, name := range []string{"zero", "limited", "counting"} {
		p := pools(b)[name]
		b.Run("pool="+name+"/size=1000", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p.Put(p.Get(1000))
				}
			})
		})
	}
}

// One op is a Get here and a Put on another goroutine, handed over 32 at a time.
func BenchmarkGetPutAcross(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("size=%d", n), func(b *testing.B) {
			belt := make(chan *[32][]byte, 4)
			done := make(chan struct{})
			go func() {
				defer close(done)
				for batch := range belt {
					for _, p := range batch {
						Put(p)
					}
				}
			}()
			b.ReportAllocs()
			var batches [8]*[32][]byte // more than are in flight, so that none is overwritten
			for i := range batches {
				batches[i] = new([32][]byte)
			}
			at := 0
			for b.Loop() {
				batch := batches[at/32%8]
				batch[at%32] = Get(n)
				if at++; at%32 == 0 {
					belt <- batch
				}
			}
			close(belt)
			<-done
			for _, p := range batches[at/32%8][:at%32] {
				Put(p)
			}
		})
	}
}

// One op writes messages of 64 B and moves all to a writer; one Buffer serves all ops.
func BenchmarkBuffer(b *testing.B) {
	message := make([]byte, 64)
	for _, count := range []int{1, 16, 1024} {
		name := fmt.Sprintf("messages=%d", count)
		b.Run("type=Buffer/"+name, func(b *testing.B) {
			var buf Buffer
			b.SetBytes(int64(count * len(message)))
			b.ReportAllocs()
			for b.Loop() {
				for range count {
					buf.Write(message)
				}
				buf.WriteTo(io.Discard)
			}
			buf.Release()
		})
		b.Run("type=bytes.Buffer/"+name, func(b *testing.B) {
			var buf bytes.Buffer
			b.SetBytes(int64(count * len(message)))
			b.ReportAllocs()
			for b.Loop() {
				for range count {
					buf.Write(message)
				}
				buf.WriteTo(io.Discard)
			}
		})
	}
}
