// SPDX-License-Identifier: Apache-2.0

// Package ringbuffer compares queues between goroutines: this project's rings, the channel, and
// the queues and byte rings that Go programs use instead.
//
// Every subject moves the same items from producers to consumers, in queues of one
// capacity; one op is one item (or one chunk) that has arrived. Consumers add up what they get, and
// a wrong sum is a failure. Queues that only try are used as their authors' benchmarks do:
// a failed attempt yields the processor.
package ringbuffer

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/ringbuffer"
	"github.com/puzpuzpuz/xsync/v4"
)

// capacity of every bounded queue of items.
const capacity = 1024

// batch is the number of items moved at once by the bulk cases.
const batch = 16

const xsyncModule = "github.com/puzpuzpuz/xsync/v4"

// Family returns the comparison.
func Family() harness.Family {
	return harness.Family{
		Name: "ringbuffer",
		Doc:  "items of 8 bytes, or chunks of 512 bytes, from producers to consumers",
		Cases: []harness.Case{
			{Name: "spsc", Unit: "ns/op", Subjects: []harness.Subject{
				waiting("ours", 1, 1, func() queue { return ringbuffer.NewSPSC[uint64](capacity) }),
				trying("ours-try", 1, 1, func() queue { return ringbuffer.NewSPSC[uint64](capacity) }),
				channel(1),
				xsyncSPSC(),
			}},
			mpmc(1),
			mpmc(2),
			{Name: "mpsc/producers=2", Unit: "ns/op", Subjects: []harness.Subject{
				waiting("ours-unbounded", 2, 1, func() queue { return ringbuffer.NewMPSC[uint64](ringbuffer.Unbounded) }),
				waiting("ours-bounded", 2, 1, func() queue { return ringbuffer.NewMPSC[uint64](capacity) }),
				channelOf(2, 1),
				xsyncUMPSC(2),
			}},
			{Name: "bulk=16/spsc", Unit: "ns/op", Subjects: []harness.Subject{
				bulk("ours", 1, 1, func() queue { return ringbuffer.NewSPSC[uint64](capacity) }),
				channel(1),
			}},
			{Name: "bulk=16/mpmc/goroutines=2", Unit: "ns/op", Subjects: []harness.Subject{
				bulk("ours", 1, 1, func() queue { return ringbuffer.NewMPMC[uint64](capacity) }),
				channel(1),
			}},
			{Name: "bulk=16/mpmc/goroutines=4", Unit: "ns/op", Subjects: []harness.Subject{
				bulk("ours", 2, 2, func() queue { return ringbuffer.NewMPMC[uint64](capacity) }),
				channel(2),
			}},
			bytesCase(1024),
			bytesCase(16384),
			{Name: "mpsc/idle=100000", Unit: "B/queue", Subjects: []harness.Subject{
				idle("ours", false),
				idle("ours-used", true),
			}},
		},
	}
}

// mpmc has side producers and as many consumers.
func mpmc(side int) harness.Case {
	fresh := func() queue { return ringbuffer.NewMPMC[uint64](capacity) }
	return harness.Case{Name: fmt.Sprintf("mpmc/goroutines=%d", 2*side), Unit: "ns/op", Subjects: []harness.Subject{
		waiting("ours", side, side, fresh),
		trying("ours-try", side, side, fresh),
		channel(side),
		xsyncMPMC(side),
	}}
}

// queue is what our three have in common.
type queue interface {
	TryPush(uint64) error
	PushN([]uint64) (int, error)
	Push(context.Context, uint64) error
	TryPop() (uint64, error)
	PopN([]uint64) (int, error)
	Pop(context.Context) (uint64, error)
}

// transfer returns a subject with producers that send the numbers from, from+1, ... and consumers
// that return the sum of the n they received.
func transfer(name, module string, producers, consumers int,
	fresh func() (produce func(from uint64, n int), consume func(n int) uint64)) harness.Subject {
	return harness.Prepared(name, module, func() (func(int), func(), error) {
		produce, consume := fresh()
		return func(n int) {
			var wg sync.WaitGroup
			var sum atomic.Uint64
			from := 0
			for i := range producers {
				k := share(n, i, producers)
				start := uint64(from)
				wg.Go(func() { produce(start, k) })
				from += k
			}
			for i := range consumers {
				wg.Go(func() { sum.Add(consume(share(n, i, consumers))) })
			}
			wg.Wait()
			if want := uint64(n) * uint64(n-1) / 2; sum.Load() != want {
				panic(fmt.Sprintf("items got lost or came twice: sum %d, want %d", sum.Load(), want))
			}
		}, nil, nil
	})
}

// share divides n into parts and returns the size of part i.
func share(n, i, parts int) int { return n*(i+1)/parts - n*i/parts }

func waiting(name string, producers, consumers int, fresh func() queue) harness.Subject {
	return transfer(name, "", producers, consumers, func() (func(uint64, int), func(int) uint64) {
		q, ctx := fresh(), context.Background()
		return func(from uint64, n int) {
				for i := range uint64(n) {
					if err := q.Push(ctx, from+i); err != nil {
						panic(err)
					}
				}
			}, func(n int) (sum uint64) {
				for range n {
					v, err := q.Pop(ctx)
					if err != nil {
						panic(err)
					}
					sum += v
				}
				return sum
			}
	})
}

func trying(name string, producers, consumers int, fresh func() queue) harness.Subject {
	return transfer(name, "", producers, consumers, func() (func(uint64, int), func(int) uint64) {
		q := fresh()
		return func(from uint64, n int) {
				for i := range uint64(n) {
					for q.TryPush(from+i) != nil {
						runtime.Gosched()
					}
				}
			}, func(n int) (sum uint64) {
				for range n {
					v, err := q.TryPop()
					for err != nil {
						runtime.Gosched()
						v, err = q.TryPop()
					}
					sum += v
				}
				return sum
			}
	})
}

// bulk waits for the first item of a batch, and for the room for what did not fit, like waiting.
func bulk(name string, producers, consumers int, fresh func() queue) harness.Subject {
	return transfer(name, "", producers, consumers, func() (func(uint64, int), func(int) uint64) {
		q, ctx := fresh(), context.Background()
		return func(from uint64, n int) {
				var vs [batch]uint64
				for end := from + uint64(n); from < end; {
					k := min(batch, int(end-from))
					for i := range k {
						vs[i] = from + uint64(i)
					}
					done, err := q.PushN(vs[:k])
					if err != nil {
						if err = q.Push(ctx, vs[done]); err != nil {
							panic(err)
						}
						done++
					}
					from += uint64(done)
				}
			}, func(n int) (sum uint64) {
				var vs [batch]uint64
				for n > 0 {
					k, err := q.PopN(vs[:min(batch, n)])
					if err != nil {
						if vs[0], err = q.Pop(ctx); err != nil {
							panic(err)
						}
						k = 1
					}
					for _, v := range vs[:k] {
						sum += v
					}
					n -= k
				}
				return sum
			}
	})
}

func channel(side int) harness.Subject { return channelOf(side, side) }

func channelOf(producers, consumers int) harness.Subject {
	return transfer("channel", "", producers, consumers, func() (func(uint64, int), func(int) uint64) {
		c := make(chan uint64, capacity)
		return func(from uint64, n int) {
				for i := range uint64(n) {
					c <- from + i
				}
			}, func(n int) (sum uint64) {
				for range n {
					sum += <-c
				}
				return sum
			}
	})
}

func xsyncSPSC() harness.Subject {
	return transfer("xsync", xsyncModule, 1, 1, func() (func(uint64, int), func(int) uint64) {
		q := xsync.NewSPSCQueue[uint64](capacity)
		return func(from uint64, n int) {
				for i := range uint64(n) {
					for !q.TryEnqueue(from + i) {
						runtime.Gosched()
					}
				}
			}, func(n int) (sum uint64) {
				for range n {
					v, ok := q.TryDequeue()
					for !ok {
						runtime.Gosched()
						v, ok = q.TryDequeue()
					}
					sum += v
				}
				return sum
			}
	})
}

func xsyncMPMC(side int) harness.Subject {
	return transfer("xsync", xsyncModule, side, side, func() (func(uint64, int), func(int) uint64) {
		q := xsync.NewMPMCQueue[uint64](capacity)
		return func(from uint64, n int) {
				for i := range uint64(n) {
					for !q.TryEnqueue(from + i) {
						runtime.Gosched()
					}
				}
			}, func(n int) (sum uint64) {
				for range n {
					v, ok := q.TryDequeue()
					for !ok {
						runtime.Gosched()
						v, ok = q.TryDequeue()
					}
					sum += v
				}
				return sum
			}
	})
}

func xsyncUMPSC(producers int) harness.Subject {
	return transfer("xsync", xsyncModule, producers, 1, func() (func(uint64, int), func(int) uint64) {
		q := xsync.NewUMPSCQueue[uint64]()
		return func(from uint64, n int) {
				for i := range uint64(n) {
					q.Enqueue(from + i)
				}
			}, func(n int) (sum uint64) {
				for range n {
					sum += q.Dequeue()
				}
				return sum
			}
	})
}

// idle measures what a queue costs that holds nothing; used ones have passed one item on.
func idle(name string, used bool) harness.Subject {
	return harness.Number(name, "", "B/queue", func(*harness.Run) (float64, error) {
		const n = 100_000
		queues := make([]*ringbuffer.MPSC[uint64], n)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range queues {
			q := ringbuffer.NewMPSC[uint64](ringbuffer.Unbounded)
			if used {
				if err := q.TryPush(1); err != nil {
					return 0, err
				}
				if _, err := q.TryPop(); err != nil {
					return 0, err
				}
			}
			queues[i] = q
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		runtime.KeepAlive(queues)
		return float64(after.HeapAlloc-before.HeapAlloc) / n, nil
	})
}
