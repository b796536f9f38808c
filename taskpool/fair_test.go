// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// route is a way for tasks into a pool. n tells tasks apart: those of a keyed route have keys, with
// no two of the tests' own tasks under one.
type route struct {
	name string
	open func(cfg taskpool.Config) (p pool, try func(n int, t taskpool.Task) error)
}

func plain(k kind) route {
	return route{k.name, func(cfg taskpool.Config) (pool, func(int, taskpool.Task) error) {
		p := k.make(cfg)
		return p, func(_ int, t taskpool.Task) error { return p.TrySubmit(t) }
	}}
}

// routes are those on which a slow task may delay nobody else.
func routes() (all []route) {
	for _, k := range kinds {
		if !k.serial {
			all = append(all, plain(k))
		}
	}
	ordered := func(cfg taskpool.Config) (*taskpool.Ordered, pool) {
		p := taskpool.NewOrdered(cfg)
		return p, p
	}
	return append(all,
		route{"sharded-many", func(cfg taskpool.Config) (pool, func(int, taskpool.Task) error) {
			cfg.Queues = 3 * cfg.Workers
			p := taskpool.NewSharded(cfg)
			return p, func(_ int, t taskpool.Task) error { return p.TrySubmit(t) }
		}},
		route{"key", func(cfg taskpool.Config) (pool, func(int, taskpool.Task) error) {
			o, p := ordered(cfg)
			return p, func(n int, t taskpool.Task) error { return o.TrySubmitKey(taskpool.Key(n), t) }
		}},
		route{"mailbox", func(cfg taskpool.Config) (pool, func(int, taskpool.Task) error) {
			o, p := ordered(cfg)
			var mu sync.Mutex
			boxes := map[int]*taskpool.Mailbox{}
			return p, func(n int, t taskpool.Task) error {
				mu.Lock()
				m := boxes[n]
				if m == nil {
					m = o.NewMailbox(0)
					boxes[n] = m
				}
				mu.Unlock()
				return m.TrySubmit(t)
			}
		}},
		route{"strand", func(cfg taskpool.Config) (pool, func(int, taskpool.Task) error) {
			o, p := ordered(cfg)
			return p, func(_ int, t taskpool.Task) error {
				s := new(taskpool.Strand)
				s.Init(o, func() bool { t(); return false })
				return s.TryWake()
			}
		}})
}

// TestSlowTask: a task that blocks its worker delays nobody else while other workers are free now
// and then, however busy they are kept: neither what its worker took along with it, nor what lies
// in the queue or list that its worker would look into first.
// case: 1, 2
func TestSlowTask(t *testing.T) {
	for _, r := range routes() {
		for _, workers := range []int{2, 4} {
			t.Run(fmt.Sprintf("%s/workers=%d", r.name, workers), func(t *testing.T) {
				p, try := r.open(taskpool.Config{Workers: workers})
				must := func(n int, task taskpool.Task) {
					for try(n, task) != nil {
						runtime.Gosched()
					}
				}
				// All workers are held, so that what follows waits in the queues.
				var held sync.WaitGroup
				gate, block := make(chan struct{}), make(chan struct{})
				for i := range workers {
					held.Add(1)
					must(-1-i, func() { held.Done(); <-gate })
				}
				held.Wait()
				const marked = 60
				var left sync.WaitGroup
				left.Add(3 * marked)
				began := make(chan struct{})
				must(1000, func() { close(began); <-block })
				for i := range marked {
					must(2000+i, left.Done)
				}
				// From here on the other workers always find something.
				var stop atomic.Bool
				var flood sync.WaitGroup
				for i := range 2 {
					flood.Go(func() {
						for n := 0; !stop.Load(); n++ {
							if try(100*i+n%50, func() {}) != nil {
								runtime.Gosched()
							}
						}
					})
				}
				close(gate)
				receive(t, began, "the slow task")
				for i := range 2 * marked {
					must(3000+i, left.Done)
				}
				all := make(chan struct{})
				go func() { left.Wait(); close(all) }()
				receive(t, all, "the tasks beside the slow one")
				close(block)
				stop.Store(true)
				flood.Wait()
				require.NoError(t, errOf(p.Shutdown(context.Background())))
			})
		}
	}
}

// TestFairTurns: keys and strands that are always ready all get their turns, while one of them blocks
// a worker and the others never leave the workers without work.
// case: 1
func TestFairTurns(t *testing.T) {
	for _, workers := range []int{2, 4, 8} {
		t.Run(fmt.Sprintf("workers=%d", workers), func(t *testing.T) {
			p := taskpool.NewOrdered(taskpool.Config{Workers: workers})
			const each = 20
			var turns [2 * each]atomic.Int64
			block, began := make(chan struct{}), make(chan struct{})
			var stop atomic.Bool
			var enough sync.WaitGroup
			enough.Add(len(turns))
			turn := func(i int) (more bool) {
				if turns[i].Add(1) == 400 {
					enough.Done()
				}
				return !stop.Load()
			}
			require.NoError(t, p.TrySubmitKey(1<<40, func() { close(began); <-block }))
			receive(t, began, "the slow key")
			var strands [each]taskpool.Strand
			for i := range each {
				strands[i].Init(p, func() bool { return turn(i) })
				require.NoError(t, strands[i].TryWake())
				var again func()
				again = func() {
					if turn(each + i) {
						_ = p.TrySubmitKey(taskpool.Key(i), again)
					}
				}
				require.NoError(t, p.TrySubmitKey(taskpool.Key(i), again))
			}
			all := make(chan struct{})
			go func() { enough.Wait(); close(all) }()
			receive(t, all, "400 turns of each")
			stop.Store(true)
			close(block)
			require.NoError(t, errOf(p.Shutdown(context.Background())))
		})
	}
}

// TestStartOrder: one worker starts tasks in the order of submission, also where what it took along
// was put back, because the task before took long.
// case: 4
func TestStartOrder(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		p := k.make(taskpool.Config{Workers: 1, Queues: 1})
		var got []int
		var ts []taskpool.Task
		for i := range 50 {
			ts = append(ts, func() {
				got = append(got, i)
				if i%10 == 0 {
					time.Sleep(5 * time.Millisecond) // what waits behind it is overdue by then
				}
			})
		}
		_, err := p.SubmitN(context.Background(), ts...)
		require.NoError(t, err)
		require.NoError(t, errOf(p.Shutdown(context.Background())))
		require.Equal(t, upTo(50), got)
	})
}

// awaitLine waits until n producers wait for room.
func awaitLine(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		buf := make([]byte, 1<<20)
		if strings.Count(string(buf[:runtime.Stack(buf, true)]), "taskpool.(*line[...]).await(") == n {
			return
		}
		require.True(t, time.Now().Before(deadline), "no %d producers in line", n)
	}
}

// TestRoomForOne: each place that a worker makes free lets in one producer, the one that has waited
// longest, and TrySubmit finds it if nobody waits.
// case: 3
func TestRoomForOne(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		const limit = 100
		p := k.make(taskpool.Config{Workers: 1, Queues: 1, QueueLen: limit})
		step, began := make(chan struct{}), make(chan int)
		task := func(i int) taskpool.Task { return func() { began <- i; <-step } }
		require.NoError(t, p.TrySubmit(task(0)))
		require.Equal(t, 0, receive(t, began, "the first task"))
		n := 0
		for p.TrySubmit(task(n+1)) == nil {
			n++
		}
		require.Equal(t, limit, n)
		// One after the other, so that it is known which came first. None can take a place now.
		const waiting = 3
		in := make(chan int, waiting)
		for i := range waiting {
			go func() {
				if p.Submit(context.Background(), task(limit+1+i)) == nil {
					in <- i
				}
			}()
			awaitLine(t, i+1)
		}
		require.Empty(t, in)
		// The worker takes the next task, and perhaps some along: as many places become free.
		step <- struct{}{}
		require.Equal(t, 1, receive(t, began, "the second task"))
		receive(t, in, "room")
		for i := 2; i <= limit+waiting; i++ {
			step <- struct{}{}
			require.Equal(t, i, receive(t, began, "a task"), "first come, first served")
		}
		for range waiting - 1 {
			receive(t, in, "the other producers") // none is left for the next pool's awaitLine
		}
		require.NoError(t, p.TrySubmit(func() {}))
		step <- struct{}{}
		require.NoError(t, errOf(p.Shutdown(context.Background())))
	})
}

// TestProducerReleasesWorkers: a producer that must get in before anything goes on gets in with the
// first place that is free.
// case: 3
func TestProducerReleasesWorkers(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		const limit = 50
		p := k.make(taskpool.Config{Workers: 1, Queues: 1, QueueLen: limit})
		tokens := make(chan struct{}, 4*limit)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 3 * limit {
				if p.Submit(context.Background(), func() { <-tokens }) != nil {
					t.Error("refused")
				}
				tokens <- struct{}{} // one for each that was accepted, and none before
			}
		}()
		receive(t, done, "a producer whose tasks wait for it")
		require.NoError(t, errOf(p.Shutdown(context.Background())))
	})
}

// TestLineOfManyQueues: room in any queue is for the producer that has waited longest, whichever
// queue that saw full last.
// case: 3
func TestLineOfManyQueues(t *testing.T) {
	for name, p := range map[string]pool{
		"sharded":  taskpool.NewSharded(taskpool.Config{Workers: 1, Queues: 5, QueueLen: 1}),
		"stealing": taskpool.NewStealing(taskpool.Config{Workers: 5, QueueLen: 1}),
	} {
		t.Run(name, func(t *testing.T) {
			p.Resize(1)
			step, began := make(chan struct{}), make(chan struct{})
			require.NoError(t, p.TrySubmit(func() { close(began); <-step }))
			receive(t, began, "the first task")
			task := func() { <-step }
			for p.TrySubmit(task) == nil {
			}
			const waiting = 4
			in := make(chan int, waiting)
			for i := range waiting {
				go func() {
					if p.Submit(context.Background(), task) == nil {
						in <- i
					}
				}()
				awaitLine(t, i+1)
			}
			require.Empty(t, in)
			for i := range waiting {
				step <- struct{}{}
				require.Equal(t, i, receive(t, in, "room in some queue"))
			}
			close(step)
			require.NoError(t, errOf(p.Shutdown(context.Background())))
		})
	}
}

// TestLongTasks: while tasks are long, workers take none along: once the first batches have been put
// back, tasks start in the order of submission, but for the one that each worker is about to start.
// case: 1
func TestLongTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers, first, size = 4, 4 * 16, 400
		p := taskpool.NewShared(taskpool.Config{Workers: workers})
		var mu sync.Mutex
		var order []int
		var ts []taskpool.Task
		for i := range size {
			ts = append(ts, func() {
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				if i%25 == 0 {
					time.Sleep(27 * time.Millisecond)
				}
				time.Sleep(3 * time.Millisecond)
			})
		}
		_, err := p.SubmitN(context.Background(), ts...)
		require.NoError(t, err)
		require.NoError(t, errOf(p.Shutdown(context.Background())))
		for at, i := range order {
			if i >= first {
				require.InDelta(t, i, at, workers, "task %d started as number %d", i, at)
			}
		}
	})
}
