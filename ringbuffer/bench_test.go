// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"io"
	"sync"
	"testing"
)

// One op is one item of 8 bytes that has passed from a producer to a consumer, which both wait
// for each other. The channel is the alternative from the language.
func BenchmarkTransfer(b *testing.B) {
	ctx := context.Background()
	run := func(name string, side int, push func(v uint64), pop func() uint64) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var wg sync.WaitGroup
			for i := range side {
				n := b.N*(i+1)/side - b.N*i/side
				wg.Go(func() {
					for v := range uint64(n) {
						push(v)
					}
				})
				wg.Go(func() {
					for range n {
						pop()
					}
				})
			}
			wg.Wait()
		})
	}
	for _, k := range kinds {
		q := newQueue[uint64](k, 1024)
		run("queue="+k.name, 1,
			func(v uint64) { _ = q.Push(ctx, v) },
			func() uint64 { v, _ := q.Pop(ctx); return v })
	}
	q := NewMPMC[uint64](1024)
	run("queue=MPMC/goroutines=4", 2,
		func(v uint64) { _ = q.Push(ctx, v) },
		func() uint64 { v, _ := q.Pop(ctx); return v })
	c := make(chan uint64, 1024)
	run("queue=chan", 1, func(v uint64) { c <- v }, func() uint64 { return <-c })
	run("queue=chan/goroutines=4", 2, func(v uint64) { c <- v }, func() uint64 { return <-c })
}

// One op is one item pushed and popped by the same goroutine.
func BenchmarkPushPop(b *testing.B) {
	for _, k := range kinds {
		b.Run("queue="+k.name, func(b *testing.B) {
			b.ReportAllocs()
			q := newQueue[uint64](k, 1024)
			for b.Loop() {
				_ = q.TryPush(1)
				_, _ = q.TryPop()
			}
		})
	}
	b.Run("queue=chan", func(b *testing.B) {
		b.ReportAllocs()
		c := make(chan uint64, 1024)
		for b.Loop() {
			c <- 1
			<-c
		}
	})
}

// One op is a chunk of 512 bytes that has passed from a writer to a reader.
func BenchmarkStream(b *testing.B) {
	run := func(name string, w io.Writer, r io.Reader) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(512)
			var wg sync.WaitGroup
			wg.Go(func() {
				p := make([]byte, 512)
				for range b.N {
					_, _ = w.Write(p)
				}
			})
			p := make([]byte, 512)
			for range b.N {
				_, _ = io.ReadFull(r, p)
			}
			wg.Wait()
		})
	}
	ring := NewBytes(16384)
	run("buffer=Bytes", ring, ring)
	small := NewBytes(1024)
	run("buffer=Bytes/size=1024", small, small)
	l, _ := NewLinked(LinkedConfig{MaxBytes: 16384})
	run("buffer=Linked", l, l)
	r, w := io.Pipe()
	run("buffer=io.Pipe", w, r)
}
