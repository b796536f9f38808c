// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"fmt"
	"slices"
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

// BenchmarkLateness reports how late exact timers fire on the real clock, spread over
// a second: the deadline is rounded up by half a tick on average.
func BenchmarkLateness(b *testing.B) {
	w := New(Config{Executor: Inline})
	defer w.Close()
	const n = 4000
	late := make([]time.Duration, 0, n)
	done := make(chan struct{})
	for b.Loop() {
		late = late[:0]
		for i := range n {
			d := time.Duration(i) * 250 * time.Microsecond
			due := w.Elapsed() + d
			w.AfterFunc(d, func() {
				if late = append(late, w.Elapsed()-due); len(late) == n {
					done <- struct{}{}
				}
			})
		}
		<-done
	}
	slices.Sort(late)
	for _, q := range []struct {
		name string
		at   int
	}{{"p50-us", n / 2}, {"p99-us", n * 99 / 100}, {"max-us", n - 1}} {
		b.ReportMetric(float64(late[q.at].Microseconds()), q.name)
	}
}
