// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/taskpool"
)

// Latency is measured with tasks that sleep, because on two processors tasks that compute would
// measure the machine's scheduler. One task in a hundred is ten times as long as the others. Tasks
// are due at random moments, the same ones for every pool, whether or not the pool has kept up; a
// task's wait is the time from when it was due to its start, so a pool that holds up its producer
// is charged for it.
const (
	latencyWorkers = 16
	latencyKeys    = 1000
	shortTask      = 2 * time.Millisecond
	slowTask       = 20 * time.Millisecond
	slowShare      = 100
	// sleepOver is how much longer than asked a sleep takes, on average, on the machine that the
	// loads were set on. A load of 95 % that is 101 % would measure the length of the run.
	sleepOver = 150 * time.Microsecond
)

// latency is the case of one load, in percent of what the workers can do.
func latency(load int) harness.Case {
	c := harness.Case{Name: fmt.Sprintf("latency/load=%d", load), Unit: "p99-ms", Brief: true}
	for _, p := range latencyPools() {
		c.Subjects = append(c.Subjects, harness.Subject{Name: p.name, Module: p.module,
			Measure: func(r *harness.Run) (harness.Sample, error) {
				run := 2 * time.Second
				if r.Quick {
					run = time.Second / 2
				}
				wait := waits(p.open, arrivals(load, run, sleepOver))
				return harness.Sample{}.Add("p99-ms", quantile(wait, 0.99)).
					Add("p50-ms", quantile(wait, 0.5)).Add("worst-ms", quantile(wait, 1)), nil
			}})
	}
	return c
}

func latencyPools() (all []subject) {
	add := func(name, module string, open func(workers int) target) {
		all = append(all, subject{name, module, open})
	}
	for _, p := range pools {
		switch p.name {
		case "ours-shared", "ours-stealing", "ours-sharded", "channel", "ants", "pond", "gopool", "gost":
			add(p.name, p.module, p.open)
		}
	}
	// With keys: what keeps their order. The peer is what is written by hand for a fixed number of
	// goroutines, a channel for each and the key's hash to choose one.
	add("ours-keyed-ordered", "", func(workers int) target {
		p := taskpool.NewOrdered(config(workers))
		return target{
			func(i int, t taskpool.Task) { must(p.SubmitKey(bg, taskpool.Key(i), t)) },
			func() { p.Close() },
		}
	})
	add("ours-keyed-bound", "", func(workers int) target {
		p := taskpool.NewKeyed(config(workers))
		return target{
			func(i int, t taskpool.Task) { must(p.Submit(bg, taskpool.Key(i), t)) },
			func() { p.Close() },
		}
	})
	add("keyed-channels", "", func(workers int) target {
		var wg sync.WaitGroup
		queues := make([]chan taskpool.Task, workers)
		for i := range queues {
			queues[i] = make(chan taskpool.Task, queueLen)
			wg.Go(func() {
				for t := range queues[i] {
					t()
				}
			})
		}
		return target{func(i int, t taskpool.Task) { queues[i%workers] <- t }, func() {
			for _, q := range queues {
				close(q)
			}
			wg.Wait()
		}}
	})
	return all
}

// arrivals are when tasks are due, which key they have and whether they are slow.
type arrival struct {
	due  time.Duration
	key  int
	slow bool
}

func arrivals(load int, run, over time.Duration) (all []arrival) {
	mean := float64(shortTask+over) + float64(slowTask-shortTask)/slowShare
	gap := mean / latencyWorkers * 100 / float64(load)
	rng := rand.New(rand.NewPCG(uint64(load), 22)) // the same for all pools and rounds
	for at := 0.0; at < float64(run); {
		at += -math.Log(1-rng.Float64()) * gap
		all = append(all, arrival{time.Duration(at), rng.IntN(latencyKeys), rng.IntN(slowShare) == 0})
	}
	return all
}

// waits runs all on a pool, and returns the sorted waits.
func waits(open func(int) target, all []arrival) []time.Duration {
	wait := make([]time.Duration, len(all))
	t := open(latencyWorkers)
	defer t.close()
	var done atomic.Int64
	ctx, ended := context.WithCancel(bg)
	defer ended()
	// Warm up: each pool has its workers when the clock starts.
	var warm sync.WaitGroup
	for i := range latencyWorkers {
		warm.Add(1)
		t.submit(i, func() { time.Sleep(shortTask); warm.Done() })
	}
	warm.Wait()
	start := time.Now()
	for i, a := range all {
		if early := a.due - time.Since(start); early > 0 {
			time.Sleep(early)
		}
		t.submit(a.key, func() {
			wait[i] = time.Since(start) - a.due
			if a.slow {
				time.Sleep(slowTask)
			} else {
				time.Sleep(shortTask)
			}
			if int(done.Add(1)) == len(all) {
				ended()
			}
		})
	}
	<-ctx.Done()
	slices.Sort(wait)
	return wait
}

// quantile of sorted waits, in milliseconds.
func quantile(wait []time.Duration, q float64) float64 {
	return float64(wait[int(q*float64(len(wait)-1))].Microseconds()) / 1000
}
