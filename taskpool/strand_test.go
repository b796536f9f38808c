// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// job is what an owner does with a strand: a counter of things to do, done a few at a time.
type job struct {
	taskpool.Strand
	todo, done atomic.Int64
	inside     atomic.Int32
	wrong      atomic.Int32
	dropped    atomic.Int32
}

func (j *job) run() bool {
	if j.inside.Add(1) != 1 {
		j.wrong.Add(1)
	}
	defer j.inside.Add(-1)
	for range 3 {
		if j.todo.Load() == 0 {
			return false
		}
		j.todo.Add(-1)
		if j.done.Add(1)%50 == 0 {
			// Panics and Goexit end a run; what is left needs a wake, as the documentation says.
			_ = j.TryWake()
			if j.done.Load()%100 == 0 {
				panic("run")
			}
			runtime.Goexit()
		}
	}
	return j.todo.Load() > 0
}

// TestStrand: nothing woken is lost and no strand runs twice at a time, on Ordered and on any other
// pool.
func TestStrand(t *testing.T) {
	quiet := func(taskpool.PanicInfo) {}
	forKinds(t, func(t *testing.T, k kind) {
		p := k.make(taskpool.Config{Workers: 3, OnPanic: quiet})
		jobs := make([]job, 20)
		for i := range jobs {
			if o, ok := p.(*taskpool.Ordered); ok {
				jobs[i].Init(o, jobs[i].run)
			} else {
				jobs[i].Init(p, jobs[i].run)
			}
		}
		const producers, each = 4, 200
		var wg sync.WaitGroup
		for range producers {
			wg.Go(func() {
				for range each {
					for i := range jobs {
						jobs[i].todo.Add(1)
						if err := jobs[i].Wake(context.Background()); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
		// A run that panics wakes its strand itself, which only an open pool accepts.
		for i := range jobs {
			for jobs[i].todo.Load() > 0 {
				runtime.Gosched()
			}
		}
		_, err := p.Shutdown(context.Background())
		require.NoError(t, err)
		for i := range jobs {
			require.EqualValues(t, producers*each, jobs[i].done.Load(), "job %d", i)
			require.Zero(t, jobs[i].wrong.Load())
			require.ErrorIs(t, jobs[i].Wake(context.Background()), taskpool.ErrClosed)
		}
	})
}

// TestStrandPanic: a run that panics is over; the strand runs again only when it is woken.
func TestStrandPanic(t *testing.T) {
	p := taskpool.NewOrdered(taskpool.Config{Workers: 1, OnPanic: func(taskpool.PanicInfo) {}})
	var s taskpool.Strand
	runs := 0
	s.Init(p, func() bool {
		if runs++; runs == 2 {
			runtime.Goexit()
		}
		panic("run")
	})
	for i := 1; i <= 3; i++ {
		require.NoError(t, s.TryWake())
		require.NoError(t, p.DoKey(context.Background(), 1, func() {}))
		require.NoError(t, p.DoKey(context.Background(), 1, func() {}))
		require.Equal(t, i, runs)
	}
	_, err := p.Shutdown(context.Background())
	require.NoError(t, err)
	require.Equal(t, 3, runs)
}

// TestStrandDrop: a strand that waits when the pool is closed is told, once.
// fault: 126
func TestStrandDrop(t *testing.T) {
	p := taskpool.NewOrdered(taskpool.Config{Workers: 1})
	started, block := make(chan struct{}), make(chan struct{})
	var running, waiting job
	running.Init(p, func() bool { close(started); <-block; return true })
	running.OnDrop(func() { running.dropped.Add(1) })
	waiting.Init(p, func() bool { t.Error("a dropped strand ran"); return false })
	waiting.OnDrop(func() { waiting.dropped.Add(1) })
	require.NoError(t, running.TryWake())
	receive(t, started, "the strand")
	require.NoError(t, waiting.TryWake())
	require.NoError(t, waiting.TryWake())
	ended, stop := context.WithCancel(context.Background())
	stop()
	_, err := p.Shutdown(ended)
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, 1, waiting.dropped.Load())
	require.ErrorIs(t, waiting.TryWake(), taskpool.ErrClosed)
	require.ErrorIs(t, running.TryWake(), taskpool.ErrClosed)
	close(block)
	require.NoError(t, p.Close())
	require.EqualValues(t, 1, running.dropped.Load(), "it wanted to go on")
	require.EqualValues(t, 1, waiting.dropped.Load())
}

// TestStrandDropStops: a drop function may stop the pool itself, and one that calls Goexit keeps no
// other strand from being told, nor its worker from ending.
func TestStrandDropStops(t *testing.T) {
	p := taskpool.NewOrdered(taskpool.Config{Workers: 1, OnPanic: func(taskpool.PanicInfo) {}})
	started, block := make(chan struct{}), make(chan struct{})
	var running, first, second job
	running.Init(p, func() bool { close(started); <-block; return true })
	running.OnDrop(func() { running.dropped.Add(1); runtime.Goexit() })
	for _, j := range []*job{&first, &second} {
		j.Init(p, func() bool { t.Error("a dropped strand ran"); return false })
		j.OnDrop(func() {
			j.dropped.Add(1)
			left, err := p.Shutdown(over())
			if err == nil || len(left) > 0 {
				t.Error(left, err)
			}
			runtime.Goexit()
		})
	}
	require.NoError(t, running.TryWake())
	receive(t, started, "the strand")
	require.NoError(t, first.TryWake())
	require.NoError(t, second.TryWake())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		_ = p.Close()
	}()
	receive(t, stopped, "Close that a drop function interrupts")
	require.EqualValues(t, 1, first.dropped.Load())
	require.EqualValues(t, 1, second.dropped.Load())
	close(block)
	require.NoError(t, p.Close())
	require.EqualValues(t, 1, running.dropped.Load())
}

// TestStrandUnreported: a run that panics is over, also if OnPanic never returns.
func TestStrandUnreported(t *testing.T) {
	p := taskpool.NewOrdered(taskpool.Config{Workers: 1, OnPanic: func(taskpool.PanicInfo) { runtime.Goexit() }})
	var s taskpool.Strand
	runs := 0
	s.Init(p, func() bool {
		if runs++; runs > 2 {
			return false
		}
		panic("run")
	})
	for i := 1; i <= 2; i++ {
		require.NoError(t, s.TryWake())
		require.NoError(t, p.DoKey(context.Background(), 1, func() {}))
		require.NoError(t, p.DoKey(context.Background(), 1, func() {}))
		require.Equal(t, i, runs)
	}
	require.NoError(t, p.Close())
}

// TestMailbox: batches are whole, in order, bounded, and come back when the pool is closed.
// acceptance: Y01
// fault: 126
func TestMailbox(t *testing.T) {
	p := taskpool.NewOrdered(taskpool.Config{Workers: 2})
	m := p.NewMailbox(4)
	started, block := make(chan struct{}), make(chan struct{})
	require.NoError(t, m.Post())
	require.NoError(t, m.Post(func() { close(started); <-block }))
	receive(t, started, "the first task")
	var got []int
	add := func(i int) taskpool.Task { return func() { got = append(got, i) } }
	require.NoError(t, m.Post(add(0), add(1), add(2)))
	require.ErrorIs(t, m.Post(add(8), add(9)), taskpool.ErrFull, "all or nothing")
	require.NoError(t, m.TrySubmit(add(3)))
	require.ErrorIs(t, m.TrySubmit(add(9)), taskpool.ErrFull)
	require.Equal(t, 4, m.Len())
	waiting := make(chan error)
	go func() { waiting <- m.Submit(context.Background(), add(4)) }()
	close(block)
	require.NoError(t, receive(t, waiting, "room"))
	_, err := p.Shutdown(context.Background())
	require.NoError(t, err)
	require.Equal(t, []int{0, 1, 2, 3, 4}, got)
	require.ErrorIs(t, m.Post(add(5)), taskpool.ErrClosed)
	require.ErrorIs(t, m.TrySubmit(add(5)), taskpool.ErrClosed)
	require.ErrorIs(t, m.Submit(context.Background(), add(5)), taskpool.ErrClosed)

	p = taskpool.NewOrdered(taskpool.Config{Workers: 1})
	m = p.NewMailbox(-1)
	started, block, got = make(chan struct{}), make(chan struct{}), nil
	// The first two are taken along by the worker; they must come back all the same, in front.
	batch := []taskpool.Task{func() { close(started); <-block }}
	for i := range 40 {
		batch = append(batch, add(i))
	}
	require.NoError(t, m.Post(batch...))
	receive(t, started, "the first task")
	errs := make(chan error)
	go func() { errs <- p.Close() }()
	receive(t, p.Stopped(), "Close")
	close(block)
	var le *taskpool.LeftError[taskpool.Task]
	require.ErrorAs(t, receive(t, errs, "Close"), &le)
	require.Len(t, le.Left, 40)
	require.Empty(t, got)
	for i, task := range le.Left {
		task()
		require.Equal(t, i, got[i])
	}
	require.Contains(t, le.Error(), "40")
}

// TestIdle: workers start with work, stay for the timeout and not much longer, and leave nothing
// behind.
// acceptance: Y06
func TestIdle(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		synctest.Test(t, func(t *testing.T) {
			p := k.make(taskpool.Config{Workers: 3, IdleTimeout: time.Minute})
			require.Zero(t, p.Stats().Workers, "nothing starts before there is work")
			block := make(chan struct{})
			for range 3 {
				require.NoError(t, p.Submit(t.Context(), func() { <-block }))
			}
			synctest.Wait()
			want := 3
			if k.serial {
				want = 1
			}
			require.Equal(t, want, p.Stats().Workers)
			close(block)
			time.Sleep(59 * time.Second)
			synctest.Wait()
			require.Equal(t, want, p.Stats().Workers)
			require.Equal(t, want, p.Stats().Idle)
			time.Sleep(32 * time.Second)
			synctest.Wait()
			require.Zero(t, p.Stats().Workers)
			time.Sleep(time.Hour) // no timer keeps the pool awake
			require.NoError(t, p.Submit(t.Context(), func() {}))
			synctest.Wait()
			require.Equal(t, 1, p.Stats().Workers)
			require.NoError(t, p.Close())
			synctest.Wait()
		})
	})
}

// TestResize: the number of tasks that run together follows the limit both ways.
func TestResize(t *testing.T) {
	for _, k := range kinds {
		if k.serial {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := k.make(taskpool.Config{Workers: 2, IdleTimeout: -1})
				var running, peak atomic.Int32
				task := func() {
					n := running.Add(1)
					if n > peak.Load() {
						peak.Store(n)
					}
					time.Sleep(time.Second)
					running.Add(-1)
				}
				check := func(want int32) {
					peak.Store(0)
					for range 12 {
						require.NoError(t, p.Submit(t.Context(), task))
					}
					time.Sleep(time.Minute)
					require.Equal(t, want, peak.Load())
				}
				check(2)
				p.Resize(6)
				check(6)
				p.Resize(1)
				synctest.Wait()
				require.Equal(t, 1, p.Stats().Workers, "idle workers leave at once")
				check(1)
				require.NoError(t, p.Close())
				synctest.Wait()
			})
		})
	}
}

// TestGroup: Wait ends, whatever the tasks and the pool do.
func TestGroup(t *testing.T) {
	p := taskpool.NewShared(taskpool.Config{Workers: 4})
	g, ctx := taskpool.NewGroup(context.Background(), p, 2)
	var running, peak atomic.Int32
	for range 20 {
		g.Go(func(context.Context) error {
			if n := running.Add(1); n > 2 {
				peak.Store(n)
			}
			runtime.Gosched()
			running.Add(-1)
			return nil
		})
	}
	require.NoError(t, g.Wait())
	require.Zero(t, peak.Load())
	require.Error(t, ctx.Err())

	cause := errors.New("cause")
	for _, f := range []struct {
		f     func(context.Context) error
		check func(error)
	}{
		{func(context.Context) error { return cause }, func(err error) { require.ErrorIs(t, err, cause) }},
		{func(context.Context) error { panic(cause) }, func(err error) { require.ErrorIs(t, err, cause) }},
		{func(context.Context) error { runtime.Goexit(); return nil }, func(err error) { require.ErrorIs(t, err, taskpool.ErrGoexit) }},
	} {
		g, ctx = taskpool.NewGroup(context.Background(), p, 0)
		g.Go(f.f)
		<-ctx.Done()
		f.check(g.Wait())
	}
	require.NoError(t, p.Close())
	g, _ = taskpool.NewGroup(context.Background(), p, 1)
	g.Go(func(context.Context) error { return nil })
	require.ErrorIs(t, g.Wait(), taskpool.ErrClosed)

	q, release := stuck(t, kinds[0], taskpool.Config{})
	g, _ = taskpool.NewGroup(context.Background(), q, 0)
	g.Go(func(context.Context) error { t.Error("an abandoned task ran"); return nil })
	errs := make(chan error)
	go func() { errs <- g.Wait() }()
	ended, stop := context.WithCancel(context.Background())
	stop()
	_, _ = q.Shutdown(ended)
	require.ErrorIs(t, receive(t, errs, "Wait"), taskpool.ErrClosed)
	release()
	require.NoError(t, q.Close())
}

// TestFuture: the same for Wait of a future.
func TestFuture(t *testing.T) {
	p := taskpool.NewShared(taskpool.Config{Workers: 1})
	f, err := taskpool.Async(context.Background(), p, func() (int, error) { return 42, nil })
	require.NoError(t, err)
	v, err := f.Wait(context.Background())
	require.NoError(t, err)
	require.Equal(t, 42, v)
	receive(t, f.Done(), "Done")
	f, err = taskpool.Async(context.Background(), p, func() (int, error) { panic("x") })
	require.NoError(t, err)
	_, err = f.Wait(context.Background())
	var pe *taskpool.PanicError
	require.ErrorAs(t, err, &pe)
	require.NoError(t, p.Close())
	_, err = taskpool.Async(context.Background(), p, func() (int, error) { return 0, nil })
	require.ErrorIs(t, err, taskpool.ErrClosed)

	q, release := stuck(t, kinds[0], taskpool.Config{})
	f, err = taskpool.Async(context.Background(), q, func() (int, error) { t.Error("ran"); return 0, nil })
	require.NoError(t, err)
	ended, stop := context.WithCancel(context.Background())
	stop()
	_, err = f.Wait(ended)
	require.ErrorIs(t, err, context.Canceled)
	_, _ = q.Shutdown(ended)
	_, err = f.Wait(context.Background())
	require.ErrorIs(t, err, taskpool.ErrClosed)
	_, err = f.Wait(context.Background())
	require.ErrorIs(t, err, taskpool.ErrClosed)
	release()
	require.NoError(t, q.Close())
}

// TestAllocs: submitting allocates nothing once the pool is warm.
func TestAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	check := func(t *testing.T, name string, submit func(task taskpool.Task) error) {
		t.Helper()
		done := make(chan struct{})
		task := func() { done <- struct{}{} }
		// On a machine that is busy with something else a worker may start or a queue grow during a
		// run. What submitting itself allocates shows in every run.
		var got float64
		for range 5 {
			got = testing.AllocsPerRun(500, func() {
				if err := submit(task); err != nil {
					t.Error(err)
				}
				<-done
			})
			if got == 0 {
				break
			}
		}
		require.Zero(t, got, name)
	}
	forKinds(t, func(t *testing.T, k kind) {
		p := k.make(taskpool.Config{})
		defer p.Close()
		check(t, "Submit", func(task taskpool.Task) error { return p.Submit(context.Background(), task) })
		check(t, "TrySubmit", p.TrySubmit)
		check(t, "Go", p.Go)
	})
	p := taskpool.NewOrdered(taskpool.Config{})
	defer p.Close()
	m := p.NewMailbox(0)
	check(t, "Post", func(task taskpool.Task) error { return m.Post(task) })
	check(t, "StringKey", func(task taskpool.Task) error {
		return p.SubmitKey(context.Background(), taskpool.StringKey("some user"), task)
	})
	if !purego {
		check(t, "KeyOf", func(task taskpool.Task) error { return p.SubmitKey(context.Background(), taskpool.KeyOf(12345), task) })
	}
	var s taskpool.Strand
	done := make(chan struct{})
	s.Init(p, func() bool { done <- struct{}{}; return false })
	wake := func() float64 { return testing.AllocsPerRun(500, func() { _ = s.TryWake(); <-done }) }
	require.Zero(t, min(wake(), wake(), wake()), "Wake")
}
