// SPDX-License-Identifier: Apache-2.0

// Package taskpool compares pools of worker goroutines.
package taskpool

import (
	"context"
	"fmt"
	"runtime"
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
	return harness.Family{Name: f.Name, Doc: f.Doc, Cases: append(f.Cases, batch(), batchSubmit(), burst())}
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
			op := func(total int) {
				for total > 0 {
					k := min(total, chunk)
					n.expect(k)
					produce(k, producers, func(i int) { t.submit(i, tasks[i%len(tasks)]) })
					n.await(kind != "noop")
					total -= k
				}
			}
			return op, t.close, nil
		}))
	}
	for _, p := range pools {
		add(p.name, p.module, p.open)
	}
	return c
}

// produce calls submit for 0..n-1 from that many goroutines; one producer is the caller itself.
func produce(n, producers int, submit func(i int)) {
	if producers == 1 {
		for i := range n {
			submit(i)
		}
		return
	}
	done := make(chan struct{}, producers)
	for p := range producers {
		go func() {
			for i := p * n / producers; i < (p+1)*n/producers; i++ {
				submit(i)
			}
			done <- struct{}{}
		}()
	}
	for range producers {
		<-done
	}
}

// batch compares sixteen tasks posted to a mailbox at once with sixteen submitted one by one. One op is sixteen tasks.
func batch() harness.Case {
	const size = 16
	open := func(post func(m *taskpool.Mailbox, ts []taskpool.Task)) func() (func(int), func(), error) {
		return func() (func(int), func(), error) {
			p := taskpool.NewOrdered(taskpool.Config{Workers: runtime.GOMAXPROCS(0)})
			m := p.NewMailbox(1024)
			n := new(counter)
			tasks := n.tasks(func() {})[:size]
			op := func(total int) {
				for total > 0 {
					k := min(total, chunk/size)
					n.expect(k * size)
					for range k {
						post(m, tasks)
					}
					n.await(false)
					total -= k
				}
			}
			return op, func() { p.Close() }, nil
		}
	}
	return harness.Case{Name: "batch=16", Unit: "ns/op", Subjects: []harness.Subject{
		harness.Prepared("ours", "", open(func(m *taskpool.Mailbox, ts []taskpool.Task) {
			for m.Post(ts...) == taskpool.ErrFull {
				runtime.Gosched()
			}
		})),
		harness.Prepared("ours-single", "", open(func(m *taskpool.Mailbox, ts []taskpool.Task) {
			for _, t := range ts {
				must(m.Submit(context.Background(), t))
			}
		})),
		harness.Prepared("ours-shared-single", "", func() (func(int), func(), error) {
			p := taskpool.NewShared(taskpool.Config{})
			n := new(counter)
			tasks := n.tasks(func() {})[:size]
			op := func(total int) {
				for total > 0 {
					k := min(total, chunk/size)
					n.expect(k * size)
					for range k {
						for _, t := range tasks {
							must(p.Submit(context.Background(), t))
						}
					}
					n.await(false)
					total -= k
				}
			}
			return op, func() { p.Close() }, nil
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
