// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"runtime"
	"sync"
	"time"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/linechart"
	"github.com/gostkit/kit/taskpool"
)

// Curves measures the charts of the documentation, by file name.
func Curves() (map[string]linechart.Chart, error) {
	cost, err := costCurve()
	if err != nil {
		return nil, err
	}
	return map[string]linechart.Chart{
		"taskpool-elastic.svg": elasticCurve(),
		"taskpool-cost.svg":    cost,
	}, nil
}

// elasticCurve is two bursts of sleepers on an Elastic pool, until its last worker has retired.
func elasticCurve() linechart.Chart {
	const first, second = 2000, 1000
	p := taskpool.NewElastic(taskpool.Config{IdleTimeout: 200 * time.Millisecond})
	defer p.Close()
	burst := func(n int) {
		for range n {
			must(p.Submit(bg, func() { time.Sleep(50 * time.Millisecond) }))
		}
	}
	workers, idle := linechart.Line{Name: "workers"}, linechart.Line{Name: "idle workers"}
	start := time.Now()
	var again sync.Once
	go burst(first)
	for {
		time.Sleep(2 * time.Millisecond)
		at, s := time.Since(start), p.Stats()
		ms := float64(at.Microseconds()) / 1000
		workers.Points = append(workers.Points, linechart.Point{X: ms, Y: float64(s.Workers)})
		idle.Points = append(idle.Points, linechart.Point{X: ms, Y: float64(s.Idle)})
		if at > 150*time.Millisecond {
			again.Do(func() { go burst(second) })
		}
		if at > 200*time.Millisecond && s.Workers == 0 {
			break
		}
	}
	return linechart.Chart{
		Title: "Elastic: 2000 tasks of 50 ms, after 150 ms 1000 more; IdleTimeout 200 ms",
		X:     "ms", Y: "workers", Lines: []linechart.Line{workers, idle},
	}
}

// costCurve is the processor time of an empty task as the number of keys or the length of the queue grows.
func costCurve() (linechart.Chart, error) {
	c := linechart.Chart{
		Title: "Empty task, submitted and run, as keys or queue grow",
		X:     "number of keys, or tasks in the queue", Y: "processor time per task, ns", LogX: true,
	}
	for _, way := range []struct {
		name string
		most int // keys: a million goroutines with channels need 3 GB
		open func(int) target
	}{
		{"Ordered, keys", 1e6, byKey[0].open},
		{"Ordered, mailboxes", 1e6, byOwner[0].open},
		{"goroutine per key", 1e5, byOwner[1].open},
	} {
		l := linechart.Line{Name: way.name}
		for n := 1; n <= way.most; n *= 10 {
			ns, err := fastest(func() (float64, error) {
				s, err := measureKeys(way.open, n, 100*time.Millisecond)
				if err != nil {
					return 0, err
				}
				return s.Metrics()[0].Value, nil
			})
			if err != nil {
				return c, err
			}
			l.Points = append(l.Points, linechart.Point{X: float64(n), Y: ns})
		}
		c.Lines = append(c.Lines, l)
	}
	for _, way := range []struct {
		name string
		open func(n int) target
	}{
		{"Shared, queue", func(int) target {
			p := taskpool.NewShared(taskpool.Config{Workers: runtime.GOMAXPROCS(0), QueueLen: -1})
			return target{func(_ int, t taskpool.Task) { must(p.Submit(bg, t)) }, func() { p.Close() }}
		}},
		{"channel, queue", func(n int) target {
			queue := make(chan taskpool.Task, n)
			for range runtime.GOMAXPROCS(0) {
				go func() {
					for t := range queue {
						t()
					}
				}()
			}
			return target{func(_ int, t taskpool.Task) { queue <- t }, func() { close(queue) }}
		}},
	} {
		l := linechart.Line{Name: way.name}
		for n := 1; n <= 1e6; n *= 10 {
			ns, err := fastest(func() (float64, error) { return queued(way.open(n), n) })
			if err != nil {
				return c, err
			}
			l.Points = append(l.Points, linechart.Point{X: float64(n), Y: ns})
		}
		c.Lines = append(c.Lines, l)
	}
	return c, nil
}

// fastest is the smallest of three measurements: other work on the machine only adds.
func fastest(measure func() (float64, error)) (best float64, err error) {
	for i := range 3 {
		ns, err := measure()
		if err != nil {
			return 0, err
		}
		if i == 0 || ns < best {
			best = ns
		}
	}
	return best, nil
}

// queued submits n tasks while the workers are held, lets them run, and returns the processor time of
// both per task.
func queued(t target, n int) (float64, error) {
	defer t.close()
	count := new(counter)
	tasks := count.tasks(func() {})
	took, ops := time.Duration(0), 0
	for took < 20*time.Millisecond {
		var held sync.WaitGroup
		free := make(chan struct{})
		for i := range runtime.GOMAXPROCS(0) {
			held.Add(1)
			t.submit(i, func() { held.Done(); <-free })
		}
		held.Wait()
		count.expect(n)
		before, err := harness.CPUTime()
		if err != nil {
			return 0, err
		}
		for i := range n {
			t.submit(i, tasks[i%len(tasks)])
		}
		close(free)
		count.await(false)
		after, err := harness.CPUTime()
		if err != nil {
			return 0, err
		}
		took += after - before
		ops += n
	}
	return float64(took.Nanoseconds()) / float64(ops), nil
}
