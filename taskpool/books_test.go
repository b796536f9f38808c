// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// TestCallerRunsIsolated: a task that policy CallerRuns runs, and one that a task gives to Do of
// its own pool, end nobody but themselves.
// case: 5
func TestCallerRunsIsolated(t *testing.T) {
	for _, k := range kinds {
		if k.serial {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			infos := make(chan taskpool.PanicInfo, 4)
			onPanic := func(i taskpool.PanicInfo) { infos <- i }
			if !k.ordered {
				p, release := stuck(t, k, taskpool.Config{QueueLen: 1, Policy: taskpool.CallerRuns, OnPanic: onPanic})
				require.NoError(t, p.Go(func() {}))
				returned := make(chan error, 1)
				go func() { returned <- p.Go(runtime.Goexit) }()
				require.NoError(t, receive(t, returned, "the caller of a task that calls Goexit"))
				require.True(t, receive(t, infos, "the report").Goexit)
				require.NoError(t, p.Go(func() { panic("task") }))
				require.Equal(t, "task", receive(t, infos, "the report").Value)
				release()
				require.NoError(t, errOf(p.Shutdown(context.Background())))
				require.EqualValues(t, 2, p.Stats().CallerRan)
				require.EqualValues(t, 2, p.Stats().Panics)
			}
			if k.name == "func" {
				return
			}
			p := k.make(taskpool.Config{Workers: 1, OnPanic: onPanic})
			errs := make(chan error, 1)
			require.NoError(t, p.Submit(context.Background(), func() {
				errs <- p.Do(context.Background(), runtime.Goexit)
			}))
			require.ErrorIs(t, receive(t, errs, "a task beside one that calls Goexit"), taskpool.ErrGoexit)
			require.EqualValues(t, 2, p.Stats().Accepted)
			require.NoError(t, p.Close())
		})
	}
}

// TestCallerRunsCounted: the end of the pool waits for what a caller runs, which is a task of the
// pool, and nothing is run for a caller that comes later.
// case: 5
func TestCallerRunsCounted(t *testing.T) {
	for _, k := range kinds {
		if k.ordered {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			p, release := stuck(t, k, taskpool.Config{QueueLen: 1, Policy: taskpool.CallerRuns})
			require.NoError(t, p.TrySubmit(func() {}))
			began, block := make(chan struct{}), make(chan struct{})
			inside := make(chan error, 1)
			go func() {
				_ = p.Go(func() {
					close(began)
					<-block
					inside <- errOf(p.Shutdown(context.Background()))
				})
			}()
			receive(t, began, "the caller's task")
			release()
			ctx, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer stop()
			require.ErrorIs(t, errOf(p.Shutdown(ctx)), context.DeadlineExceeded, "it is not over")
			require.ErrorIs(t, p.Go(func() { t.Error("ran") }), taskpool.ErrClosed)
			close(block)
			require.ErrorIs(t, receive(t, inside, "Shutdown in the task"), taskpool.ErrInTask)
			require.NoError(t, p.Close())
			require.ErrorIs(t, p.Go(func() { t.Error("ran") }), taskpool.ErrClosed)
		})
	}
}

// TestCountedWhenBegun: a task that no worker runs is counted when it begins, so that the books are
// complete when Close returns, whatever became of the caller.
// case: 5
func TestCountedWhenBegun(t *testing.T) {
	for _, k := range kinds {
		if k.ordered {
			continue
		}
		for name, policy := range map[string]taskpool.Policy{
			"caller": taskpool.CallerRuns, "spawn": taskpool.Spawn,
		} {
			t.Run(k.name+"/"+name, func(t *testing.T) {
				p, release := stuck(t, k, taskpool.Config{QueueLen: 1, Policy: policy})
				require.NoError(t, p.TrySubmit(func() {}))
				before := p.Stats().Accepted
				seen := make(chan taskpool.Stats, 1)
				require.NoError(t, p.Go(func() { seen <- p.Stats() }))
				s := receive(t, seen, "the task")
				require.EqualValues(t, 1, s.CallerRan+s.Spawned)
				require.Equal(t, before+1, s.Accepted)
				release()
				require.NoError(t, errOf(p.Shutdown(context.Background())))
			})
		}
	}
	t.Run("do", func(t *testing.T) {
		p := taskpool.NewShared(taskpool.Config{Workers: 1})
		var outer, inner taskpool.Stats
		require.NoError(t, p.Do(context.Background(), func() {
			outer = p.Stats()
			require.NoError(t, p.Do(context.Background(), func() { inner = p.Stats() }))
		}))
		require.Equal(t, outer.Accepted+1, inner.Accepted)
		require.NoError(t, p.Close())
	})
}

// TestNothingStartsAfterStopped: whatever way a task takes into the pool, it does not start once
// Stopped is closed, and so not after Close, or a Shutdown that has given up, has returned.
// case: 5
func TestNothingStartsAfterStopped(t *testing.T) {
	if os.Getenv("GOSTKIT_LONG") == "" {
		t.Skip("TestBegunBeforeStopped makes the moment that this one hopes for")
	}
	const rounds = 3000
	policies := []taskpool.Policy{taskpool.Block, taskpool.Reject, taskpool.CallerRuns, taskpool.Spawn}
	forKinds(t, func(t *testing.T, k kind) {
		total := int32(0)
		for round := range rounds {
			rng := rand.New(rand.NewPCG(uint64(round), 5))
			policy := policies[round%len(policies)]
			if k.ordered {
				policy = policies[round%2]
			}
			p := k.make(taskpool.Config{
				Workers: 1 + rng.IntN(4), QueueLen: []int{1, 3, 100}[rng.IntN(3)], Policy: policy,
			})
			var late atomic.Int32
			stopped := p.Stopped()
			task := func() {
				select {
				case <-stopped:
					late.Add(1)
				default:
				}
			}
			// On another pool a run that was promised follows the one in progress, in the same
			// task.
			var strand taskpool.Strand
			o, ordered := p.(*taskpool.Ordered)
			if ordered {
				strand.Init(o, func() bool { task(); return false })
			}
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					for p.TrySubmit(task) != taskpool.ErrClosed {
						switch i {
						case 0:
							_ = p.Go(task)
						case 1:
							if ordered {
								_ = strand.TryWake()
							}
						case 2:
							if k.name != "func" { // whose Do does not notice the end of the pool
								_ = p.Do(context.Background(), task)
							}
						default:
							_ = p.Submit(context.Background(), task)
						}
					}
				})
			}
			for range rng.IntN(100) {
				runtime.Gosched()
			}
			if rng.IntN(2) == 0 {
				_ = p.Close()
			} else {
				_, _ = p.Shutdown(over())
			}
			wg.Wait()
			_ = p.Close()
			total += late.Load()
		}
		// A machine may take a processor away between the call of a task and its first instruction.
		require.LessOrEqual(t, total, int32(rounds/200))
	})
}

// TestDoInsideClosed: a task that the pool would run for Do of its own task is refused like any
// other once the pool is closing.
// case: 5
func TestDoInsideClosed(t *testing.T) {
	for _, k := range kinds {
		if k.serial || k.name == "func" {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			p := k.make(taskpool.Config{Workers: 1})
			errs := make(chan error, 2)
			require.NoError(t, p.Submit(context.Background(), func() {
				errs <- errOf(p.Shutdown(context.Background()))
				errs <- p.Do(context.Background(), func() { t.Error("ran") })
			}))
			require.ErrorIs(t, receive(t, errs, "Shutdown"), taskpool.ErrInTask)
			require.ErrorIs(t, receive(t, errs, "Do"), taskpool.ErrClosed)
			require.NoError(t, errOf(p.Shutdown(context.Background())))
		})
	}
}

// big is something whose memory is missed.
type big struct{ _ [1 << 16]byte }

// gone waits until the garbage collector has taken what w points to.
func gone(t *testing.T, w weak.Pointer[big], what string) {
	t.Helper()
	for deadline := time.Now().Add(patience); w.Value() != nil; runtime.Gosched() {
		require.True(t, time.Now().Before(deadline), what)
		runtime.GC()
	}
}

// TestWithdrawnIsGone: calls that were given up hold neither room nor memory, and let in those who
// wait for the room.
// case: 6
func TestWithdrawnIsGone(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		if k.name == "func" {
			return // has no Do
		}
		const limit = 100
		p, release := stuck(t, k, taskpool.Config{QueueLen: limit, Queues: 1})
		var refs [limit]weak.Pointer[big]
		ctx, cancel := context.WithCancel(context.Background())
		var calls sync.WaitGroup
		base := p.Stats().Accepted
		for i := range limit {
			calls.Go(func() {
				b := new(big)
				refs[i] = weak.Make(b)
				err := p.Do(ctx, func() { t.Error("a withdrawn task ran"); runtime.KeepAlive(b) })
				if err != context.Canceled {
					t.Error(err)
				}
			})
		}
		for p.Stats().Accepted != base+limit {
			runtime.Gosched()
		}
		require.ErrorIs(t, p.TrySubmit(func() {}), taskpool.ErrFull)
		var ran atomic.Int32
		waiting := make(chan error, 1)
		go func() { waiting <- p.Submit(context.Background(), func() { ran.Add(1) }) }()
		time.Sleep(5 * time.Millisecond)
		cancel()
		calls.Wait()
		require.NoError(t, receive(t, waiting, "room that was given up"))
		require.Equal(t, 1, p.Stats().Queued)
		for range limit - 1 {
			require.NoError(t, p.TrySubmit(func() { ran.Add(1) }))
		}
		require.ErrorIs(t, p.TrySubmit(func() {}), taskpool.ErrFull)
		for _, w := range refs {
			gone(t, w, "a withdrawn task is kept")
		}
		release()
		require.NoError(t, errOf(p.Shutdown(context.Background())))
		require.EqualValues(t, limit, ran.Load())
	})
}

// TestWithdrawnForEver: calls that time out one after the other behind a task that blocks cost no
// memory that grows, also with a queue that has no limit.
// case: 6
func TestWithdrawnForEver(t *testing.T) {
	p, release := stuck(t, kinds[0], taskpool.Config{QueueLen: -1})
	require.NoError(t, p.TrySubmit(func() {}))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 2000 {
		ctx, stop := context.WithCancel(context.Background())
		errs := make(chan error, 1)
		go func() { errs <- p.Do(ctx, func() {}) }()
		for p.Stats().Queued < 2 {
			runtime.Gosched()
		}
		stop()
		require.ErrorIs(t, <-errs, context.Canceled)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	require.Less(t, int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(64<<10))
	release()
	require.NoError(t, errOf(p.Shutdown(context.Background())))
}

// TestFinishedFuture: a future that has its result keeps the result, and not the function.
// case: 6
func TestFinishedFuture(t *testing.T) {
	p := taskpool.NewShared(taskpool.Config{Workers: 1})
	start := func() (*taskpool.Future[int], weak.Pointer[big]) {
		b := new(big)
		f, err := taskpool.Async(context.Background(), p, func() (int, error) {
			runtime.KeepAlive(b)
			return 7, nil
		})
		require.NoError(t, err)
		return f, weak.Make(b)
	}
	f, w := start()
	receive(t, f.Done(), "the function")
	gone(t, w, "a finished future keeps its function")
	v, err := f.Wait(context.Background())
	require.NoError(t, err)
	require.Equal(t, 7, v)
	require.NoError(t, p.Close())
}

// profile returns what the profiler says about the calling goroutine.
func profile() string {
	var b bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
	for _, g := range strings.Split(b.String(), "\n\n") {
		if strings.Contains(g, "taskpool_test.profile") {
			return g
		}
	}
	return ""
}

// TestLabels: a task has the profiler labels of its pool, and neither those of a producer nor those
// that another task has set, on whatever goroutine it runs.
// case: 7
func TestLabels(t *testing.T) {
	labelled := func(f func()) {
		pprof.Do(context.Background(), pprof.Labels("leak", "producer"), func(context.Context) { f() })
	}
	set := func() {
		pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("leak", "task")))
	}
	check := func(t *testing.T, name string, submit func(taskpool.Task)) {
		run := func(after func()) {
			got := make(chan string, 1)
			submit(func() {
				got <- profile()
				set()
				after()
			})
			text := receive(t, got, "a task")
			require.NotContains(t, text, "leak", "labels that are not its own")
			if name != "" {
				require.Contains(t, text, fmt.Sprintf("%q:%q", "taskpool", name))
			}
		}
		for range 3 {
			run(func() {})
			run(runtime.Goexit)
			run(func() { panic("task") })
		}
	}
	quiet := func(taskpool.PanicInfo) {}
	for _, name := range []string{"", "labelled"} {
		forKinds(t, func(t *testing.T, k kind) {
			p := k.make(taskpool.Config{Workers: 1, Name: name, OnPanic: quiet})
			check(t, name, func(task taskpool.Task) {
				labelled(func() { require.NoError(t, p.Submit(context.Background(), task)) })
			})
			require.NoError(t, p.Close())
			if k.ordered {
				return
			}
			for _, policy := range []taskpool.Policy{taskpool.Spawn, taskpool.CallerRuns} {
				p, release := stuck(t, k, taskpool.Config{QueueLen: 1, Policy: policy, Name: name, OnPanic: quiet})
				require.NoError(t, p.TrySubmit(func() {}))
				check(t, name, func(task taskpool.Task) {
					// The caller of CallerRuns waits, with labels of its own, for its task.
					done := make(chan error, 1)
					if policy == taskpool.CallerRuns {
						done <- p.Go(task)
					} else {
						labelled(func() { done <- p.Go(task) })
					}
					require.NoError(t, <-done)
				})
				release()
				require.NoError(t, errOf(p.Shutdown(context.Background())))
			}
		})
		t.Run("strand", func(t *testing.T) {
			p := taskpool.NewOrdered(taskpool.Config{Workers: 1, Name: name, OnPanic: quiet})
			check(t, name, func(task taskpool.Task) {
				s := new(taskpool.Strand)
				s.Init(p, func() bool { task(); return false })
				labelled(func() { require.NoError(t, s.TryWake()) })
			})
			require.NoError(t, p.Close())
		})
	}
}

// TestResizeMany: a pool that was small starts many workers at a cost that grows as their number.
// case: 8
func TestResizeMany(t *testing.T) {
	const workers = 6000
	for _, k := range kinds {
		if k.serial {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			p := k.make(taskpool.Config{Workers: 8, QueueLen: -1})
			p.Resize(workers)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			block := make(chan struct{})
			var running sync.WaitGroup
			for range workers {
				running.Add(1)
				require.NoError(t, p.TrySubmit(func() { running.Done(); <-block }))
			}
			running.Wait()
			runtime.ReadMemStats(&after)
			require.Equal(t, workers, p.Stats().Workers)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(workers*4<<10))
			close(block)
			require.NoError(t, errOf(p.Shutdown(context.Background())))
		})
	}
}

// TestOnDropPanics: an OnDrop that panics, or calls Goexit, is told of all tasks, and the caller
// gets them.
// case: 8
func TestOnDropPanics(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		for _, goexit := range []bool{false, true} {
			var told atomic.Int32
			p, release := stuck(t, k, taskpool.Config{
				OnPanic: func(taskpool.PanicInfo) {},
				OnDrop: func(taskpool.Task) {
					told.Add(1)
					if goexit {
						runtime.Goexit()
					}
					panic("drop")
				},
			})
			for range 5 {
				require.NoError(t, p.TrySubmit(func() { t.Error("ran") }))
			}
			ended := make(chan error, 1)
			go func() {
				defer close(ended)
				ended <- p.Close()
			}()
			receive(t, p.Stopped(), "Close")
			release()
			err := receive(t, ended, "Close")
			if !goexit {
				var left *taskpool.LeftError[taskpool.Task]
				require.ErrorAs(t, err, &left)
				require.Len(t, left.Left, 5)
			}
			require.NoError(t, p.Close())
			require.EqualValues(t, 5, told.Load())
		}
	})
	p, release := stuck(t, kinds[0], taskpool.Config{
		QueueLen: 1, Policy: taskpool.DropOldest, OnDrop: func(taskpool.Task) { panic("drop") },
		OnPanic: func(taskpool.PanicInfo) {},
	})
	require.NoError(t, p.Go(func() {}))
	require.NoError(t, p.Go(func() {}), "it was accepted, whatever OnDrop does")
	release()
	require.NoError(t, errOf(p.Shutdown(context.Background())))
}

// TestNil: nil is refused where it is given, and nothing of a batch that has one is accepted.
// case: 8
func TestNil(t *testing.T) {
	bg := context.Background()
	forKinds(t, func(t *testing.T, k kind) {
		p := k.make(taskpool.Config{})
		ok := func() { t.Error("ran") }
		require.ErrorIs(t, p.Submit(bg, nil), taskpool.ErrNilTask)
		require.ErrorIs(t, p.TrySubmit(nil), taskpool.ErrNilTask)
		require.ErrorIs(t, p.Go(nil), taskpool.ErrNilTask)
		n, err := p.SubmitN(bg, ok, nil, ok)
		require.ErrorIs(t, err, taskpool.ErrNilTask)
		require.Zero(t, n)
		if k.name != "func" {
			require.ErrorIs(t, p.Do(bg, nil), taskpool.ErrNilTask)
		}
		g, _ := taskpool.NewGroup(bg, p, 1)
		g.Go(nil)
		require.ErrorIs(t, g.Wait(), taskpool.ErrNilTask)
		_, err = taskpool.Async[int](bg, p, nil)
		require.ErrorIs(t, err, taskpool.ErrNilTask)
		require.Zero(t, p.Stats().Accepted)
		require.NoError(t, p.Close())
		var s taskpool.Strand
		require.Panics(t, func() { s.Init(p, nil) })
	})
	o := taskpool.NewOrdered(taskpool.Config{})
	m := o.NewMailbox(0)
	require.ErrorIs(t, m.Submit(bg, nil), taskpool.ErrNilTask)
	require.ErrorIs(t, m.TrySubmit(nil), taskpool.ErrNilTask)
	require.ErrorIs(t, m.Post(func() { t.Error("ran") }, nil), taskpool.ErrNilTask)
	_, err := m.SubmitN(bg, func() { t.Error("ran") }, nil)
	require.ErrorIs(t, err, taskpool.ErrNilTask)
	require.NoError(t, o.Close())
	require.Panics(t, func() { taskpool.NewFunc[int](taskpool.Config{}, nil) })
	var s taskpool.Strand
	require.Panics(t, func() { s.Init(nil, func() bool { return false }) })
}
