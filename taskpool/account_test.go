// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// TestAccounting is the property that everything else rests on: over many rounds of random
// producers, limits, panics, Goexit, cancelled submits, resizes and ends, every accepted task runs
// once or comes back, and none that was refused runs.
// acceptance: Y01, Y02, Y03
// fault: 125, 126
func TestAccounting(t *testing.T) {
	rounds := 250
	if raceEnabled {
		rounds = 80
	}
	if os.Getenv("GOSTKIT_LONG") != "" {
		rounds *= 20
	}
	forKinds(t, func(t *testing.T, k kind) {
		for round := range rounds {
			seed := uint64(round) + 1
			accountingRound(t, k, seed)
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	})
}

func accountingRound(t *testing.T, k kind, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	cfg := taskpool.Config{
		Workers:     1 + rng.IntN(4),
		Queues:      1 + rng.IntN(4),
		QueueLen:    []int{-1, 1, 2, 5, 64, 1024}[rng.IntN(6)],
		OnPanic:     func(taskpool.PanicInfo) {},
		IdleTimeout: time.Duration(rng.IntN(3)) * 100 * time.Microsecond,
	}
	policies := []taskpool.Policy{taskpool.Block, taskpool.Reject, taskpool.DropOldest, taskpool.CallerRuns, taskpool.Spawn}
	if k.ordered {
		policies = policies[:3]
	}
	cfg.Policy = policies[rng.IntN(len(policies))]

	const perProducer = 60
	producers := 1 + rng.IntN(4)
	ran := make([]atomic.Int32, producers*perProducer)
	accepted := make([]atomic.Int32, producers*perProducer)
	var returned, dropped atomic.Int32
	// A task that comes back is told apart by calling it in this mode.
	var back atomic.Bool
	cfg.OnDrop = func(taskpool.Task) { dropped.Add(1) }
	p := k.make(cfg)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for i := range producers {
		mine := rand.New(rand.NewPCG(seed, uint64(i)+2))
		wg.Go(func() {
			for j := range perProducer {
				id := i*perProducer + j
				what := mine.IntN(20)
				task := func() {
					ran[id].Add(1)
					if back.Load() {
						return
					}
					switch what {
					case 0:
						panic("task")
					case 1:
						if cfg.Policy != taskpool.CallerRuns {
							runtime.Goexit()
						}
					case 2:
						runtime.Gosched()
					}
				}
				var err error
				switch mine.IntN(4) {
				case 0:
					err = p.Submit(ctx, task)
				case 1:
					err = p.TrySubmit(task)
				case 2:
					err = p.Go(task)
				default:
					_, err = p.SubmitN(ctx, task)
				}
				if err == nil {
					accepted[id].Add(1)
				} else if !errors.Is(err, taskpool.ErrClosed) && !errors.Is(err, taskpool.ErrFull) &&
					!errors.Is(err, context.Canceled) {
					t.Errorf("submit: %v", err)
				}
			}
		})
	}
	if rng.IntN(2) == 0 {
		n := 1 + rng.IntN(5)
		wg.Go(func() { p.Resize(n) })
	}
	var left []taskpool.Task
	take := func(ts []taskpool.Task) {
		left = append(left, ts...)
		returned.Add(int32(len(ts)))
	}
	mode := rng.IntN(4)
	if mode == 0 { // drain after all is submitted
		wg.Wait()
	} else {
		for range rng.IntN(200) {
			runtime.Gosched()
		}
	}
	if mode == 1 {
		cancel()
	}
	fromDrops := int32(0)
	switch mode {
	case 3:
		err := p.Close()
		var e *taskpool.LeftError[taskpool.Task]
		if errors.As(err, &e) {
			take(e.Left)
			fromDrops = int32(len(e.Left)) // Close gives them to OnDrop too
		} else if err != nil {
			t.Errorf("close: %v", err)
		}
	case 2:
		end, stop := context.WithTimeout(context.Background(), time.Duration(rng.IntN(200))*time.Microsecond)
		ts, _ := p.Shutdown(end)
		stop()
		take(ts)
	}
	cancel()
	wg.Wait()
	ts, err := p.Shutdown(context.Background())
	take(ts)
	if err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if err := p.Close(); err != nil { // again: idempotent
		var e *taskpool.LeftError[taskpool.Task]
		if errors.As(err, &e) {
			take(e.Left)
			fromDrops += int32(len(e.Left))
		}
	}

	total := int32(0)
	for id := range ran {
		r, a := ran[id].Load(), accepted[id].Load()
		total += a - r
		if r > 1 || (a == 0 && r > 0) {
			t.Errorf("task %d: accepted %d, ran %d", id, a, r)
		}
	}
	if want := returned.Load() + dropped.Load() - fromDrops; total != want {
		t.Errorf("%d accepted tasks did not run, %d came back (policy %d, mode %d)", total, want, cfg.Policy, mode)
	}
	back.Store(true)
	for _, task := range left {
		task()
	}
	for id := range ran {
		if r, a := ran[id].Load(), accepted[id].Load(); r > a {
			t.Errorf("task %d came back after it ran", id)
		}
	}
	if got := p.Submit(context.Background(), func() {}); !errors.Is(got, taskpool.ErrClosed) {
		t.Errorf("submit after the end: %v", got)
	}
	if s := p.Stats(); s.Workers != 0 || s.Queued != 0 {
		t.Errorf("after the end: %+v", s)
	}
}

// TestLostWakeup submits single tasks to pools that have just become idle, the moment in which
// wakeups get lost.
func TestLostWakeup(t *testing.T) {
	n := 3000
	if raceEnabled {
		n = 500
	}
	if os.Getenv("GOSTKIT_LONG") != "" {
		n *= 50
	}
	for _, procs := range []int{1, 2, 8} {
		forKinds(t, func(t *testing.T, k kind) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			p := k.make(taskpool.Config{Workers: 2, IdleTimeout: 50 * time.Microsecond})
			defer p.Close()
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					done := make(chan struct{})
					task := func() { done <- struct{}{} }
					for i := range n {
						if i%64 == 0 {
							runtime.Gosched()
						}
						if p.Submit(context.Background(), task) != nil {
							t.Error("refused")
							return
						}
						<-done
					}
				})
			}
			finished := make(chan struct{})
			go func() { wg.Wait(); close(finished) }()
			select {
			case <-finished:
			case <-time.After(60 * time.Second):
				require.Fail(t, "a wakeup was lost", "%+v", p.Stats())
			}
		})
	}
}

// TestResizeRace: a worker that leaves because of Resize may be the one that producers rely on to
// find their task; it must send another.
func TestResizeRace(t *testing.T) {
	n := 3000
	if raceEnabled {
		n = 500
	}
	if os.Getenv("GOSTKIT_LONG") != "" {
		n *= 50
	}
	forKinds(t, func(t *testing.T, k kind) {
		p := k.make(taskpool.Config{Workers: 3, Queues: 4, IdleTimeout: 50 * time.Microsecond})
		defer p.Close()
		var stop atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				p.Resize(1 + i%3)
				runtime.Gosched()
			}
		})
		done := make(chan struct{}, 3)
		task := func() { done <- struct{}{} }
		for range n {
			for range 3 {
				if p.TrySubmit(task) != nil {
					t.Error("refused")
				}
			}
			for range 3 {
				receive(t, done, "a task during Resize")
			}
		}
		stop.Store(true)
		wg.Wait()
	})
}

// TestResizeWakes: a larger limit is for the tasks that wait already, not only for those to come.
func TestResizeWakes(t *testing.T) {
	for _, k := range kinds {
		if k.serial {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			p, release := stuck(t, k, taskpool.Config{})
			const waiting = 3
			started, block := make(chan struct{}), make(chan struct{})
			for range waiting {
				require.NoError(t, p.TrySubmit(func() { started <- struct{}{}; <-block }))
			}
			p.Resize(1 + waiting)
			for range waiting {
				receive(t, started, "a task that waited for the larger limit")
			}
			release()
			close(block)
			require.NoError(t, errOf(p.Shutdown(context.Background())))
		})
	}
	// The queues of Keyed move to the new workers.
	p := taskpool.NewKeyed(taskpool.Config{Workers: 1, Queues: 4})
	started, block := make(chan int), make(chan struct{})
	byQueue := map[int]taskpool.Key{}
	for k := taskpool.Key(0); len(byQueue) < 4; k++ {
		byQueue[p.Queue(k)] = k
	}
	for i := range 4 {
		require.NoError(t, p.TrySubmit(byQueue[i], func() { started <- i; <-block }))
	}
	got := []int{receive(t, started, "the first queue")}
	p.Resize(4)
	for range 3 {
		got = append(got, receive(t, started, "a queue that moved"))
	}
	require.ElementsMatch(t, []int{0, 1, 2, 3}, got)
	close(block)
	require.NoError(t, errOf(p.Shutdown(context.Background())))
}
