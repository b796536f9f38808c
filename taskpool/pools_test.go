// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

func over() context.Context {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	return ctx
}

// TestTakenAlong: what a busy worker took along and has not started comes back like the rest, in
// order.
// acceptance: Y01
func TestTakenAlong(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		p := k.make(taskpool.Config{Workers: 1, Queues: 1})
		started, block := make(chan struct{}), make(chan struct{})
		var got []int
		ts := []taskpool.Task{func() { close(started); <-block }}
		const waiting = 40
		for i := range waiting {
			ts = append(ts, func() { got = append(got, i) })
		}
		n, err := p.SubmitN(context.Background(), ts...)
		require.NoError(t, err)
		require.Equal(t, len(ts), n)
		receive(t, started, "the first task")
		require.Equal(t, waiting, p.Stats().Queued)
		left, err := p.Shutdown(over())
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, left, waiting)
		receive(t, p.Stopped(), "Stopped")
		close(block)
		require.NoError(t, errOf(p.Shutdown(context.Background())))
		require.Empty(t, got)
		for _, task := range left {
			task()
		}
		require.ElementsMatch(t, got, upTo(waiting))
		if k.serial {
			require.Equal(t, upTo(waiting), got)
		}
	})
}

func upTo(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

// TestDeadContext: a context that has ended accepts nothing.
func TestDeadContext(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		p := k.make(taskpool.Config{})
		no := func() { t.Error("a refused task ran") }
		require.ErrorIs(t, p.Submit(over(), no), context.Canceled)
		n, err := p.SubmitN(over(), no)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, n)
		n, err = p.SubmitN(context.Background())
		require.NoError(t, err)
		require.Zero(t, n)
		require.Zero(t, p.Stats().Accepted)
		require.NoError(t, errOf(p.Shutdown(context.Background())))
		receive(t, p.Stopped(), "Stopped after a drain")
	})
}

// TestResizeBusy: workers beyond a smaller limit leave while there is work, as soon as their task
// has ended.
func TestResizeBusy(t *testing.T) {
	for _, k := range kinds {
		if k.serial {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := k.make(taskpool.Config{Workers: 3, Queues: 1, QueueLen: 20})
				var running, most atomic.Int32
				for range 12 {
					require.NoError(t, p.Submit(t.Context(), func() {
						if n := running.Add(1); n > most.Load() {
							most.Store(n)
						}
						time.Sleep(time.Second)
						running.Add(-1)
					}))
				}
				synctest.Wait()
				require.EqualValues(t, 3, running.Load())
				p.Resize(1)
				time.Sleep(2500 * time.Millisecond) // a second task that was taken along may run
				synctest.Wait()
				require.Equal(t, 1, p.Stats().Workers)
				most.Store(0)
				time.Sleep(time.Minute)
				require.LessOrEqual(t, most.Load(), int32(1))
				require.Zero(t, p.Stats().Queued)
				require.NoError(t, p.Close())
				synctest.Wait()
			})
		})
	}
}

// TestResizeKeyedBusy: while a worker beyond a smaller limit is busy with its last task, those that
// stay go on, also with the keys that it had.
func TestResizeKeyedBusy(t *testing.T) {
	p := taskpool.NewKeyed(taskpool.Config{Workers: 2, Queues: 4})
	var keys [4]taskpool.Key // by queue
	for k, n := taskpool.Key(0), 0; n < len(keys); k++ {
		if q := p.Queue(k); keys[q] == 0 && k > 0 {
			keys[q] = k
			n++
		}
	}
	bg := context.Background()
	started, block := make(chan struct{}), make(chan struct{})
	require.NoError(t, p.Submit(bg, keys[1], func() { close(started); <-block }))
	receive(t, started, "the task of the worker that is to leave")
	p.Resize(1)
	ran := make(chan int, 2)
	for _, q := range []int{0, 3} {
		require.NoError(t, p.Submit(bg, keys[q], func() { ran <- q }))
		require.Equal(t, q, receive(t, ran, "a task of the worker that stays"))
	}
	close(block)
	require.NoError(t, errOf(p.Shutdown(bg)))
}

// TestOtherPool: a task of another pool is nothing special to a pool, also if that has no limit of
// workers: it waits for room and for the end of what it asks for.
func TestOtherPool(t *testing.T) {
	other := taskpool.NewShared(taskpool.Config{Workers: 1})
	p := taskpool.NewOrdered(taskpool.Config{QueueLen: 1})
	m := p.NewMailbox(1)
	bg := context.Background()
	started, block := make(chan struct{}), make(chan struct{})
	require.NoError(t, m.TrySubmit(func() { close(started); <-block }))
	receive(t, started, "the first task")
	require.NoError(t, m.TrySubmit(func() {}))
	ctx, stop := context.WithTimeout(bg, time.Millisecond)
	defer stop()
	require.NoError(t, other.Do(bg, func() {
		if err := m.Submit(ctx, func() {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("accepted beyond the limit", err)
		}
		if err := p.DoKey(bg, 5, func() {}); err != nil {
			t.Error(err)
		}
		close(block)
		if err := errOf(p.Shutdown(bg)); err != nil {
			t.Error(err)
		}
	}))
	require.NoError(t, other.Close())
}

// TestResizeExtremes: Resize takes the numbers that Config.Workers takes.
func TestResizeExtremes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tasks = 300
		check := func(name string, want int, p interface {
			Go(t taskpool.Task) error
			Stats() taskpool.Stats
			Close() error
		}) {
			for range tasks {
				require.NoError(t, p.Go(func() { time.Sleep(time.Second) }))
			}
			synctest.Wait()
			// One may have been woken for a task that another was faster to take.
			require.InDelta(t, want, p.Stats().Workers, 3, name)
			time.Sleep(time.Hour)
			require.NoError(t, p.Close())
			synctest.Wait()
		}
		check("shared", tasks, taskpool.NewShared(taskpool.Config{Workers: math.MaxInt}))
		shared := taskpool.NewShared(taskpool.Config{Workers: 1})
		shared.Resize(math.MaxInt)
		check("shared, resized", tasks, shared)
		ordered := taskpool.NewOrdered(taskpool.Config{Workers: 1})
		ordered.Resize(0)
		check("ordered, no limit", tasks, ordered)
		elastic := taskpool.NewElastic(taskpool.Config{Workers: 1})
		elastic.Resize(0)
		check("elastic, no limit", tasks, elastic)
		keyed := taskpool.NewKeyed(taskpool.Config{Workers: math.MaxInt})
		require.Less(t, keyed.Queue(1), 1<<16)
		require.NoError(t, keyed.Close())
	})
}

// TestSharded: producers take the queues in turn, and the next one if that is full.
func TestSharded(t *testing.T) {
	p := taskpool.NewSharded(taskpool.Config{Workers: 1, Queues: 4, QueueLen: 3})
	started, block := make(chan struct{}), make(chan struct{})
	require.NoError(t, p.TrySubmit(func() { close(started); <-block }))
	receive(t, started, "the first task")
	for range 4 {
		require.NoError(t, p.TrySubmit(func() {}))
	}
	require.Equal(t, []int{1, 1, 1, 1}, p.Stats().Queues)
	n, err := p.SubmitN(context.Background(), func() {}, func() {})
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.ElementsMatch(t, []int{3, 1, 1, 1}, p.Stats().Queues, "one queue is full before the others")
	for range 6 {
		require.NoError(t, p.TrySubmit(func() {}), "there is room in another queue")
	}
	require.Equal(t, []int{3, 3, 3, 3}, p.Stats().Queues)
	require.ErrorIs(t, p.TrySubmit(func() {}), taskpool.ErrFull)
	close(block)
	require.NoError(t, errOf(p.Shutdown(context.Background())))
}

// TestStealing: with one worker held up the other runs what lies in both queues, and Stats tells.
func TestStealing(t *testing.T) {
	p := taskpool.NewStealing(taskpool.Config{Workers: 2})
	started, block := make(chan struct{}), make(chan struct{})
	require.NoError(t, p.TrySubmit(func() { close(started); <-block }))
	receive(t, started, "the first task")
	done := make(chan struct{}, 200)
	for range cap(done) {
		require.NoError(t, p.TrySubmit(func() { done <- struct{}{} }))
	}
	for range cap(done) {
		receive(t, done, "a task beside one that blocks")
	}
	require.Positive(t, p.Stats().Steals)
	close(block)
	require.NoError(t, p.Close())
}

// TestSpawnedEndsPool: a spawned task is a task of its pool, which therefore does not wait for it
// to end the pool.
// acceptance: Y07
func TestSpawnedEndsPool(t *testing.T) {
	for _, k := range kinds {
		if k.ordered {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			p, release := stuck(t, k, taskpool.Config{QueueLen: 1, Policy: taskpool.Spawn})
			require.NoError(t, p.Go(func() {}))
			errs := make(chan error, 2)
			require.NoError(t, p.Go(func() {
				errs <- errOf(p.Shutdown(context.Background()))
				errs <- p.Go(func() {})
			}))
			require.ErrorIs(t, receive(t, errs, "a spawned task that shuts its pool down"), taskpool.ErrInTask)
			require.ErrorIs(t, receive(t, errs, "Go"), taskpool.ErrClosed)
			release()
			require.NoError(t, errOf(p.Shutdown(context.Background())))
			require.EqualValues(t, 1, p.Stats().Spawned)
			require.NoError(t, errOf(p.Shutdown(over())), "a pool that has ended")
		})
	}
}

// TestFutureReady: a result that is there is returned, also to a ctx that has ended.
func TestFutureReady(t *testing.T) {
	p := taskpool.NewShared(taskpool.Config{})
	f, err := taskpool.Async(context.Background(), p, func() (int, error) { return 7, nil })
	require.NoError(t, err)
	receive(t, f.Done(), "the function")
	for range 50 {
		v, err := f.Wait(over())
		require.NoError(t, err)
		require.Equal(t, 7, v)
	}
	require.NoError(t, p.Close())
}

// TestGroupLimit: a slot of the group that a refused function held is free again.
func TestGroupLimit(t *testing.T) {
	p := taskpool.NewShared(taskpool.Config{})
	require.NoError(t, p.Close())
	g, _ := taskpool.NewGroup(context.Background(), p, 1)
	for range 3 {
		g.Go(func(context.Context) error { return errors.New("ran") })
	}
	require.ErrorIs(t, g.Wait(), taskpool.ErrClosed)
}

// TestGroupLimitOfEndedPool: when the pool ends, a Go that waits for a place of the group does not
// wait for functions that will never start.
// case: 5
func TestGroupLimitOfEndedPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := taskpool.NewShared(taskpool.Config{Workers: 1})
		gate := make(chan struct{})
		require.NoError(t, p.Submit(context.Background(), func() { <-gate }))
		g, _ := taskpool.NewGroup(context.Background(), p, 1)
		g.Go(func(context.Context) error { return errors.New("started") }) // waits for the worker
		returned := make(chan struct{})
		go func() {
			defer close(returned)
			g.Go(func(context.Context) error { return errors.New("started") })
		}()
		synctest.Wait() // it waits for the place of the first
		gaveUp, cancel := context.WithCancel(context.Background())
		cancel()
		left, err := p.Shutdown(gaveUp)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, left, 1)
		synctest.Wait()
		select {
		case <-returned:
		default:
			t.Error("Go waits for a place that nobody gives back")
		}
		require.ErrorIs(t, g.Wait(), taskpool.ErrClosed)
		close(gate)
		require.NoError(t, p.Close())
	})
}
