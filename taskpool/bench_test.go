// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gostkit/kit/taskpool"
)

// meter counts completions the way the pools are built: in a cell per stack of tasks would cost a
// search; here one counter is enough, because a batch is awaited as a whole and all rows pay for it
// alike.
type meter struct {
	done atomic.Int64
	task taskpool.Task
}

func newMeter() *meter {
	m := new(meter)
	m.task = func() { m.done.Add(1) }
	return m
}

func (m *meter) await(n int64) {
	for m.done.Load() != n {
		runtime.Gosched()
	}
}

// BenchmarkSubmit: one op is one empty task, from submission to its end; std=channel and std=go are
// the rivals.
func BenchmarkSubmit(b *testing.B) {
	run := func(name string, open func(workers int) (submit func(i int, t taskpool.Task), end func())) {
		for _, workers := range []int{1, runtime.GOMAXPROCS(0)} {
			b.Run(fmt.Sprintf("%s/workers=%d", name, workers), func(b *testing.B) {
				b.ReportAllocs()
				submit, end := open(workers)
				defer end()
				m := newMeter()
				n := int64(0)
				for b.Loop() {
					submit(int(n), m.task)
					n++
				}
				m.await(n)
			})
		}
	}
	bg := context.Background()
	for _, k := range kinds {
		run(k.name, func(workers int) (func(int, taskpool.Task), func()) {
			p := k.make(taskpool.Config{Workers: workers})
			return func(_ int, t taskpool.Task) { _ = p.Submit(bg, t) }, func() { _ = p.Close() }
		})
	}
	run("ordered-1000keys", func(workers int) (func(int, taskpool.Task), func()) {
		p := taskpool.NewOrdered(taskpool.Config{Workers: workers})
		return func(i int, t taskpool.Task) { _ = p.SubmitKey(bg, taskpool.Key(i%1000), t) }, func() { _ = p.Close() }
	})
	run("mailbox-1000", func(workers int) (func(int, taskpool.Task), func()) {
		p := taskpool.NewOrdered(taskpool.Config{Workers: workers})
		boxes := make([]*taskpool.Mailbox, 1000)
		for i := range boxes {
			boxes[i] = p.NewMailbox(0)
		}
		return func(i int, t taskpool.Task) { _ = boxes[i%1000].Submit(bg, t) }, func() { _ = p.Close() }
	})
	run("std=channel", func(workers int) (func(int, taskpool.Task), func()) {
		tasks := make(chan taskpool.Task, 1024)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for t := range tasks {
					t()
				}
			})
		}
		return func(_ int, t taskpool.Task) { tasks <- t }, func() { close(tasks); wg.Wait() }
	})
	run("std=go", func(int) (func(int, taskpool.Task), func()) {
		return func(_ int, t taskpool.Task) { go t() }, func() {}
	})
}

// BenchmarkPost: sixteen empty tasks for one mailbox, in one Post or in sixteen calls. rows
// "submit" measure what the producer pays, with the worker held up; rows "end to end" await the
// tasks, whose own cost is then part of both.
func BenchmarkPost(b *testing.B) {
	const size = 16
	bg := context.Background()
	ways := []struct {
		name string
		post func(m *taskpool.Mailbox, ts []taskpool.Task)
	}{
		{"one-post", func(m *taskpool.Mailbox, ts []taskpool.Task) { _ = m.Post(ts...) }},
		{"sixteen-submits", func(m *taskpool.Mailbox, ts []taskpool.Task) {
			for _, t := range ts {
				_ = m.Submit(bg, t)
			}
		}},
	}
	for _, way := range ways {
		b.Run("end-to-end/"+way.name, func(b *testing.B) {
			b.ReportAllocs()
			p := taskpool.NewOrdered(taskpool.Config{Workers: 1})
			defer p.Close()
			box := p.NewMailbox(-1)
			m := newMeter()
			ts := make([]taskpool.Task, size)
			for i := range ts {
				ts[i] = m.task
			}
			n := int64(0)
			for b.Loop() {
				way.post(box, ts)
				if n += size; n%(512*size) == 0 {
					m.await(n)
				}
			}
			m.await(n)
		})
		b.Run("submit/"+way.name, func(b *testing.B) {
			b.ReportAllocs()
			p := taskpool.NewOrdered(taskpool.Config{Workers: 1})
			defer p.Close()
			m := newMeter()
			ts := make([]taskpool.Task, size)
			for i := range ts {
				ts[i] = m.task
			}
			// The mailbox is held up by a task of its own, and let go now and then.
			box := p.NewMailbox(-1)
			free := make(chan struct{})
			hold := func() { <-free }
			const rounds = 512
			n, k := int64(0), 0
			_ = box.Post(hold)
			for b.Loop() {
				way.post(box, ts)
				n += size
				if k++; k == rounds {
					k = 0
					b.StopTimer()
					free <- struct{}{}
					m.await(n)
					_ = box.Post(hold)
					b.StartTimer()
				}
			}
			free <- struct{}{}
			m.await(n)
		})
	}
}

// BenchmarkStrand: one op is a wake and the run that follows it, awaited; Mailbox.Submit and a
// channel do the same.
func BenchmarkStrand(b *testing.B) {
	b.Run("wake", func(b *testing.B) {
		b.ReportAllocs()
		p := taskpool.NewOrdered(taskpool.Config{Workers: 1})
		defer p.Close()
		m := newMeter()
		var s taskpool.Strand
		s.Init(p, func() bool { m.task(); return false })
		n := int64(0)
		for b.Loop() {
			_ = s.TryWake()
			n++
			m.await(n)
		}
	})
	b.Run("std=channel", func(b *testing.B) {
		b.ReportAllocs()
		wake := make(chan struct{}, 1)
		defer close(wake)
		m := newMeter()
		go func() {
			for range wake {
				m.task()
			}
		}()
		n := int64(0)
		for b.Loop() {
			wake <- struct{}{}
			n++
			m.await(n)
		}
	})
}
