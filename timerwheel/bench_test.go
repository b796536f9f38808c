// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// One op is a timer made for a second from now and stopped, while n others are pending for
// hours; of Reset, one move of a pending timer. bench/ compares with other packages.

var pendingCounts = []int{1_000, 100_000, 1_000_000}

func fill(w *Wheel, n int) {
	for i := range n {
		w.AfterFunc(time.Hour+time.Duration(i%10_000)*time.Millisecond, func() {})
	}
}

func BenchmarkAfterFuncStop(b *testing.B) {
	for _, n := range pendingCounts {
		w := New(Config{})
		fill(w, n)
		b.Run(fmt.Sprintf("kit/pending=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.AfterFunc(time.Second, func() {}).Stop()
			}
		})
		b.Run(fmt.Sprintf("kit/pending=%d/parallel", n), func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					w.AfterFunc(time.Second, func() {}).Stop()
				}
			})
		})
		w.Close()
		w = nil
		std := make([]*time.Timer, n)
		for i := range std {
			std[i] = time.AfterFunc(time.Hour+time.Duration(i%10_000)*time.Millisecond, func() {})
		}
		b.Run(fmt.Sprintf("std/pending=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				time.AfterFunc(time.Second, func() {}).Stop()
			}
		})
		b.Run(fmt.Sprintf("std/pending=%d/parallel", n), func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					time.AfterFunc(time.Second, func() {}).Stop()
				}
			})
		})
		for _, t := range std {
			t.Stop()
		}
	}
}

func BenchmarkReset(b *testing.B) {
	w := New(Config{})
	defer w.Close()
	fill(w, 100_000)
	b.Run("kit/later", func(b *testing.B) {
		t := w.AfterFunc(time.Hour, func() {})
		for b.Loop() {
			t.Reset(time.Hour)
		}
	})
	b.Run("kit/earlier", func(b *testing.B) {
		t := w.AfterFunc(1000*time.Hour, func() {})
		d := 1000 * time.Hour
		for b.Loop() {
			d -= time.Millisecond
			t.Reset(d)
		}
	})
	b.Run("kit/alternating", func(b *testing.B) {
		t := w.AfterFunc(1000*time.Hour, func() {})
		for i := 0; b.Loop(); i++ {
			t.Reset(time.Hour + time.Duration(i&1)*time.Hour)
		}
	})
	b.Run("kit/at", func(b *testing.B) {
		t := w.AfterFunc(time.Hour, func() {})
		at := w.Elapsed() + time.Hour
		for b.Loop() {
			at++
			t.ResetAt(at)
		}
	})
	b.Run("clock", func(b *testing.B) {
		for b.Loop() {
			w.Elapsed()
		}
	})
	b.Run("std/later", func(b *testing.B) {
		t := time.AfterFunc(time.Hour, func() {})
		for b.Loop() {
			t.Reset(time.Hour)
		}
	})
	b.Run("std/earlier", func(b *testing.B) {
		t := time.AfterFunc(1000*time.Hour, func() {})
		d := 1000 * time.Hour
		for b.Loop() {
			d -= time.Millisecond
			t.Reset(d)
		}
	})
	b.Run("std/alternating", func(b *testing.B) {
		t := time.AfterFunc(1000*time.Hour, func() {})
		for i := 0; b.Loop(); i++ {
			t.Reset(time.Hour + time.Duration(i&1)*time.Hour)
		}
	})
}

// BenchmarkLateness reports how late timers fire on the real clock, of a Wheel and of package
// time: dense, 4000 of them within a second, and sparse, one every 7.3 ms, for which the process
// has to be woken each time. The order of the deadlines is that of the slice of lateness.
func BenchmarkLateness(b *testing.B) {
	kit := func(b *testing.B) (func(time.Duration, func()), func()) {
		w := New(Config{Executor: Inline})
		return func(d time.Duration, f func()) { w.AfterFunc(d, f) }, w.Close
	}
	std := func(*testing.B) (func(time.Duration, func()), func()) {
		return func(d time.Duration, f func()) { time.AfterFunc(d, f) }, func() {}
	}
	for _, load := range []struct {
		name string
		n    int
		gap  time.Duration
	}{{"dense", 4000, 250 * time.Microsecond}, {"sparse", 137, 7300 * time.Microsecond}} {
		b.Run("kit/"+load.name, func(b *testing.B) { lateness(b, kit, load.n, load.gap) })
		b.Run("std/"+load.name, func(b *testing.B) { lateness(b, std, load.n, load.gap) })
	}
}

func lateness(
	b *testing.B, open func(*testing.B) (after func(time.Duration, func()), end func()),
	n int, gap time.Duration,
) {
	after, end := open(b)
	defer end()
	var all []time.Duration
	for b.Loop() {
		late := make([]time.Duration, n)
		var group sync.WaitGroup
		group.Add(n)
		for i := range n {
			d := time.Duration(i+1) * gap
			due := time.Now().Add(d)
			after(d, func() {
				late[i] = time.Since(due)
				group.Done()
			})
		}
		group.Wait()
		all = append(all, late...)
	}
	slices.Sort(all)
	for _, q := range []struct {
		name string
		at   int
	}{
		{"p1-us", len(all) / 100}, {"p50-us", len(all) / 2}, {"p90-us", len(all) * 9 / 10},
		{"p99-us", len(all) * 99 / 100}, {"max-us", len(all) - 1},
	} {
		b.ReportMetric(float64(all[q.at].Nanoseconds())/1000, q.name)
	}
	b.ReportMetric(0, "ns/op") // a round takes its second
}
