// SPDX-License-Identifier: Apache-2.0

// Package taskpool compares pools of worker goroutines.
package taskpool

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/taskpool"
)

// Family returns the comparison. One op is one task, from submission to completion.
func Family() harness.Family {
	f := harness.Family{
		Name: "taskpool",
		Doc: "submit a task and await its end; GOMAXPROCS workers (sleepers: 10 000), queues of 1024; " +
			"at most 8192 tasks in flight; the subject floor calls the task without any pool",
	}
	procs := runtime.GOMAXPROCS(0)
	for _, kind := range []string{"noop", "cpu=1us", "cpu=10us", "sleep=10ms"} {
		for _, producers := range []int{1, procs, 1000} {
			f.Cases = append(f.Cases, load(kind, producers))
		}
	}
	return harness.Family{Name: f.Name, Doc: f.Doc, Cases: append(f.Cases,
		batch(), batchSubmit(), burst(), manyKeys("keys", byKey), manyKeys("mailboxes", byOwner),
		latency(50), latency(80), latency(95))}
}

// chunk bounds the tasks in flight, so that pools without a limit do not hold millions.
const chunk = 8192

// load is the case of one kind of task and a number of producers.
func load(kind string, producers int) harness.Case {
	workers := runtime.GOMAXPROCS(0)
	work := func() {}
	switch kind {
	case "cpu=1us":
		work = func() { spin(time.Microsecond) }
	case "cpu=10us":
		work = func() { spin(10 * time.Microsecond) }
	case "sleep=10ms":
		work = func() { time.Sleep(10 * time.Millisecond) }
		workers = 10000
	}
	name := fmt.Sprint(producers)
	if producers == runtime.GOMAXPROCS(0) {
		name = "procs"
	}
	c := harness.Case{Name: fmt.Sprintf("%s/producers=%s", kind, name), Unit: "ns/op", Sample: 150 * time.Millisecond}
	add := func(name, module string, open func(workers int) target) {
		c.Subjects = append(c.Subjects, harness.Prepared(name, module, func() (func(int), func(), error) {
			t := open(workers)
			n := new(counter)
			tasks := n.tasks(work)
			crowd := gather(producers, func(i int) { t.submit(i, tasks[i%len(tasks)]) })
			op := func(total int) {
				for total > 0 {
					k := min(total, chunk)
					n.expect(k)
					crowd.produce(k)
					n.await(kind != "noop")
					total -= k
				}
			}
			return op, func() { crowd.leave(); t.close() }, nil
		}))
	}
	for _, p := range pools {
		add(p.name, p.module, p.open)
	}
	return c
}

// crowd is the goroutines that submit. They stay for all rounds, so that starting them is not part of the measurement;
// one producer is the caller itself.
type crowd struct {
	submit func(i int)
	start  []chan int
	done   chan struct{}
}

func gather(producers int, submit func(i int)) *crowd {
	c := &crowd{submit: submit, done: make(chan struct{}, producers)}
	if producers == 1 {
		return c
	}
	for p := range producers {
		start := make(chan int, 1)
		c.start = append(c.start, start)
		go func() {
			for n := range start {
				for i := p * n / producers; i < (p+1)*n/producers; i++ {
					submit(i)
				}
				c.done <- struct{}{}
			}
		}()
	}
	return c
}

// produce calls submit for 0..n-1.
func (c *crowd) produce(n int) {
	if len(c.start) == 0 {
		for i := range n {
			c.submit(i)
		}
	}
	for _, start := range c.start {
		start <- n
	}
	for range c.start {
		<-c.done
	}
}

func (c *crowd) leave() {
	for _, start := range c.start {
		close(start)
	}
}

// batch compares sixteen tasks posted to a mailbox at once with sixteen submitted one by one. One op is sixteen tasks.
// The tasks of a mailbox run one at a time, so they count in a plain word, and the last of sixteen publishes it: the
// cheapest way to count, for both. The subject floor calls the same tasks without any pool.
func batch() harness.Case {
	const size = 16
	subject := func(name string, open func() (post func(ts []taskpool.Task), done func())) harness.Subject {
		return harness.Prepared(name, "", func() (func(int), func(), error) {
			post, done := open()
			n, want := 0, 0
			var published atomic.Int64
			tasks := make([]taskpool.Task, size)
			for i := range tasks {
				tasks[i] = func() { n++ }
			}
			tasks[size-1] = func() { n++; published.Store(int64(n)) }
			op := func(total int) {
				for total > 0 {
					k := min(total, chunk/size)
					want += k * size
					for range k {
						post(tasks)
					}
					for published.Load() != int64(want) {
						runtime.Gosched()
					}
					total -= k
				}
			}
			return op, done, nil
		})
	}
	mailbox := func(post func(m *taskpool.Mailbox, ts []taskpool.Task)) func() (func([]taskpool.Task), func()) {
		return func() (func([]taskpool.Task), func()) {
			p := taskpool.NewOrdered(taskpool.Config{Workers: runtime.GOMAXPROCS(0)})
			m := p.NewMailbox(chunk)
			return func(ts []taskpool.Task) { post(m, ts) }, func() { p.Close() }
		}
	}
	return harness.Case{Name: "batch=16", Unit: "ns/op", Subjects: []harness.Subject{
		subject("ours", mailbox(func(m *taskpool.Mailbox, ts []taskpool.Task) { must(m.Post(ts...)) })),
		subject("ours-single", mailbox(func(m *taskpool.Mailbox, ts []taskpool.Task) {
			for _, t := range ts {
				must(m.Submit(context.Background(), t))
			}
		})),
		subject("floor", func() (func([]taskpool.Task), func()) {
			return func(ts []taskpool.Task) {
				for _, t := range ts {
					t()
				}
			}, func() {}
		}),
	}}
}

// batchSubmit is what the producer alone pays for the sixteen tasks of batch: the mailbox is held up by a task of its own
// while the clock runs, and drained while it does not.
func batchSubmit() harness.Case {
	const size, rounds = 16, 512
	measure := func(post func(m *taskpool.Mailbox, ts []taskpool.Task)) func(*harness.Run) (harness.Sample, error) {
		return func(*harness.Run) (harness.Sample, error) {
			p := taskpool.NewOrdered(taskpool.Config{Workers: 1})
			defer p.Close()
			m := p.NewMailbox(-1)
			n := new(counter)
			tasks := n.tasks(func() {})[:size]
			var took time.Duration
			ops := 0
			for took < 30*time.Millisecond {
				held, free := make(chan struct{}), make(chan struct{})
				must(m.Post(func() { close(held); <-free }))
				<-held
				n.expect(rounds * size)
				start := time.Now()
				for range rounds {
					post(m, tasks)
				}
				took += time.Since(start)
				ops += rounds
				close(free)
				n.await(false)
			}
			return harness.Sample{}.Add("ns/op", float64(took.Nanoseconds())/float64(ops)), nil
		}
	}
	return harness.Case{Name: "batch=16/submit", Unit: "ns/op", Subjects: []harness.Subject{
		{Name: "ours", Measure: measure(func(m *taskpool.Mailbox, ts []taskpool.Task) { must(m.Post(ts...)) })},
		{Name: "ours-single", Measure: measure(func(m *taskpool.Mailbox, ts []taskpool.Task) {
			for _, t := range ts {
				must(m.Submit(context.Background(), t))
			}
		})},
	}}
}

// burst is 100 000 tasks that sleep 10 ms, twice: the second time a pool has its workers.
func burst() harness.Case {
	const size = 100_000
	measure := func(open func(int) target) func(*harness.Run) (harness.Sample, error) {
		return func(*harness.Run) (harness.Sample, error) {
			t := open(size)
			defer t.close()
			n := new(counter)
			tasks := n.tasks(func() { time.Sleep(10 * time.Millisecond) })
			var took [2]float64
			var bytes [2]float64
			peak := 0
			runtime.GC()
			for i := range took {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				n.expect(size)
				for j := range size {
					t.submit(j, tasks[j%len(tasks)])
				}
				peak = max(peak, runtime.NumGoroutine())
				n.await(true)
				took[i] = float64(time.Since(start).Microseconds()) / 1000
				runtime.ReadMemStats(&after)
				bytes[i] = float64(after.TotalAlloc-before.TotalAlloc) / 1024
			}
			return harness.Sample{}.Add("ms", took[0]).Add("second-ms", took[1]).Add("KiB", bytes[0]).
				Add("second-KiB", bytes[1]).Add("goroutines", float64(peak)), nil
		}
	}
	c := harness.Case{Name: "burst=100000", Unit: "ms", Brief: true}
	for _, p := range pools {
		switch p.name {
		case "ours-elastic", "go", "ants", "pond", "gopool":
			c.Subjects = append(c.Subjects, harness.Subject{Name: p.name, Module: p.module, Measure: measure(p.open)})
		}
	}
	return c
}
