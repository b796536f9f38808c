// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// stuck returns a pool of one worker that is busy until release is called.
func stuck(t *testing.T, k kind, cfg taskpool.Config) (p pool, release func()) {
	t.Helper()
	cfg.Workers = 1
	p = k.make(cfg)
	started, block := make(chan struct{}), make(chan struct{})
	require.NoError(t, p.Submit(context.Background(), func() { close(started); <-block }))
	receive(t, started, "the first task")
	return p, func() { close(block) }
}

// TestPolicies: without room Go does what was configured, and nothing is silent.
// acceptance: Y04
// fault: 125
func TestPolicies(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		t.Run("reject", func(t *testing.T) {
			p, release := stuck(t, k, taskpool.Config{QueueLen: 1, Policy: taskpool.Reject})
			require.NoError(t, p.Go(func() {}))
			before := runtime.NumGoroutine()
			for range 1000 {
				require.ErrorIs(t, p.Go(func() { t.Error("a refused task ran") }), taskpool.ErrFull)
				require.ErrorIs(t, p.TrySubmit(func() { t.Error("a refused task ran") }), taskpool.ErrFull)
			}
			require.LessOrEqual(t, runtime.NumGoroutine(), before+2, "a full pool starts no goroutines")
			release()
			_, err := p.Shutdown(context.Background())
			require.NoError(t, err)
		})
		t.Run("drop-oldest", func(t *testing.T) {
			var dropped []taskpool.Task
			p, release := stuck(t, k, taskpool.Config{
				QueueLen: 2, Policy: taskpool.DropOldest,
				OnDrop: func(t taskpool.Task) { dropped = append(dropped, t) },
			})
			var ran []int
			for i := range 5 {
				require.NoError(t, p.Go(func() { ran = append(ran, i) }))
			}
			release()
			_, err := p.Shutdown(context.Background())
			require.NoError(t, err)
			require.Equal(t, []int{3, 4}, ran)
			require.Len(t, dropped, 3)
			for _, task := range dropped {
				task()
			}
			require.Equal(t, []int{3, 4, 0, 1, 2}, ran, "OnDrop gets the oldest, as tasks that can be run")
			require.EqualValues(t, 3, p.Stats().Dropped)
		})
		if k.ordered {
			for _, policy := range []taskpool.Policy{taskpool.CallerRuns, taskpool.Spawn} {
				require.Panics(t, func() { k.make(taskpool.Config{Policy: policy}) })
			}
			return
		}
		t.Run("caller-runs", func(t *testing.T) {
			p, release := stuck(t, k, taskpool.Config{QueueLen: 1, Policy: taskpool.CallerRuns, OnPanic: func(taskpool.PanicInfo) {}})
			require.NoError(t, p.Go(func() {}))
			here := false
			require.NoError(t, p.Go(func() { here = true; panic("on the caller") }))
			require.True(t, here)
			require.EqualValues(t, 1, p.Stats().CallerRan)
			release()
			_, err := p.Shutdown(context.Background())
			require.NoError(t, err)
		})
		t.Run("spawn", func(t *testing.T) {
			p, release := stuck(t, k, taskpool.Config{QueueLen: 1, Policy: taskpool.Spawn, OnPanic: func(taskpool.PanicInfo) {}})
			require.NoError(t, p.Go(func() {}))
			spawned := make(chan struct{})
			var ended atomic.Bool
			require.NoError(t, p.Go(func() { close(spawned); runtime.Gosched(); ended.Store(true); runtime.Goexit() }))
			receive(t, spawned, "the spawned task")
			release()
			_, err := p.Shutdown(context.Background())
			require.NoError(t, err)
			require.True(t, ended.Load(), "Shutdown waits for spawned tasks")
		})
	})
	require.Panics(t, func() { taskpool.NewShared(taskpool.Config{Policy: taskpool.DropOldest}) })
	require.Panics(t, func() { taskpool.NewShared(taskpool.Config{Policy: 99}) })
}

// TestBlockedSubmit: a producer that waits for room ends with its context, or with the pool, and
// its task never runs.
// acceptance: Y03
func TestBlockedSubmit(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		p, release := stuck(t, k, taskpool.Config{QueueLen: 1})
		require.NoError(t, p.TrySubmit(func() {}))
		cause := errors.New("cause")
		ctx, cancel := context.WithCancelCause(context.Background())
		errs := make(chan error)
		go func() { errs <- p.Submit(ctx, func() { t.Error("a refused task ran") }) }()
		cancel(cause)
		require.ErrorIs(t, receive(t, errs, "cancel"), cause)
		go func() { errs <- p.Submit(context.Background(), func() { t.Error("a refused task ran") }) }()
		ended, stop := context.WithCancel(context.Background())
		stop()
		left, err := p.Shutdown(ended)
		require.ErrorIs(t, err, context.Canceled)
		require.Len(t, left, 1)
		require.ErrorIs(t, receive(t, errs, "the end of the pool"), taskpool.ErrClosed)
		receive(t, p.Stopped(), "Stopped")
		release()
		_, err = p.Shutdown(context.Background())
		require.NoError(t, err)
	})
}

// TestOwnPool: tasks submit to their own full pool, wait for it, shut it down and close it, and
// nobody hangs.
// acceptance: Y06, Y07
func TestOwnPool(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		p := k.make(taskpool.Config{Workers: 1, QueueLen: 1})
		done := make(chan error, 1)
		var more atomic.Int32
		require.NoError(t, p.Submit(context.Background(), func() {
			for range 5 {
				if err := p.Submit(context.Background(), func() { more.Add(1) }); err != nil {
					t.Error(err)
				}
			}
			_, err := p.Shutdown(context.Background())
			done <- err
		}))
		require.ErrorIs(t, receive(t, done, "a task that shuts its pool down"), taskpool.ErrInTask)
		_, err := p.Shutdown(context.Background())
		require.NoError(t, err)
		require.EqualValues(t, 5, more.Load())

		p = k.make(taskpool.Config{Workers: 1})
		require.NoError(t, p.Submit(context.Background(), func() { done <- p.Close() }))
		require.NoError(t, receive(t, done, "a task that closes its pool"))
		require.NoError(t, p.Close())

		p = k.make(taskpool.Config{Workers: 1})
		if k.name == "func" {
			return // has no Do
		}
		require.NoError(t, p.Submit(context.Background(), func() {
			done <- p.Do(context.Background(), func() {})
		}))
		err = receive(t, done, "a task that waits for another")
		if k.serial {
			require.ErrorIs(t, err, taskpool.ErrInTask)
		} else {
			require.NoError(t, err)
		}
		require.NoError(t, p.Close())
	})
}

// TestPanics: every panic is reported with its stack, the worker and what it had queued live on.
// acceptance: Y06, Y07
func TestPanics(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		infos := make(chan taskpool.PanicInfo, 100)
		p := k.make(taskpool.Config{Name: "x", Workers: 1, OnPanic: func(i taskpool.PanicInfo) { infos <- i; panic("again") },
			Logger: slog.New(slog.DiscardHandler)})
		var after atomic.Int32
		for range 20 {
			_, err := p.SubmitN(context.Background(), func() { panic("boom") }, func() { after.Add(1) }, runtime.Goexit,
				func() { after.Add(1) })
			require.NoError(t, err)
		}
		_, err := p.Shutdown(context.Background())
		require.NoError(t, err)
		require.EqualValues(t, 40, after.Load())
		require.EqualValues(t, 40, p.Stats().Panics)
		require.Len(t, infos, 40)
		goexits := 0
		for range 40 {
			i := <-infos
			require.Equal(t, "x", i.Pool)
			require.NotEmpty(t, i.Stack)
			if i.Goexit {
				goexits++
				require.Nil(t, i.Value)
			} else {
				require.Equal(t, "boom", i.Value)
				require.Contains(t, string(i.Stack), "fault_test.go")
			}
		}
		require.Equal(t, 20, goexits)
	})
	var log bytes.Buffer
	p := taskpool.NewShared(taskpool.Config{Workers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, p.Submit(context.Background(), func() { panic("unheard") }))
	require.NoError(t, errOf(p.Shutdown(context.Background())))
	require.Contains(t, log.String(), "unheard", "without OnPanic the log is told")

	p = taskpool.NewShared(taskpool.Config{Workers: 1, Logger: slog.New(badHandler{slog.DiscardHandler})})
	require.NoError(t, p.Submit(context.Background(), func() { panic("unheard") }))
	require.NoError(t, p.Do(context.Background(), func() {}), "the log panics too, which ends nothing")
	require.NoError(t, p.Close())
}

// badHandler panics whenever something is logged.
type badHandler struct{ slog.Handler }

func (badHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (badHandler) Handle(context.Context, slog.Record) error { panic("log") }

func errOf[T any](_ T, err error) error { return err }

// TestDo: results of waiting.
// acceptance: Y07
func TestDo(t *testing.T) {
	forKinds(t, func(t *testing.T, k kind) {
		if k.name == "func" {
			return
		}
		p, release := stuck(t, k, taskpool.Config{OnPanic: func(taskpool.PanicInfo) {}})
		ctx, cancel := context.WithCancel(context.Background())
		errs := make(chan error)
		before := p.Stats().Accepted
		go func() { errs <- p.Do(ctx, func() { t.Error("a withdrawn task ran") }) }()
		for p.Stats().Accepted == before {
			runtime.Gosched()
		}
		cancel()
		require.ErrorIs(t, receive(t, errs, "cancel"), context.Canceled)
		release()
		ran := false
		require.NoError(t, p.Do(context.Background(), func() { ran = true }))
		require.True(t, ran)
		var pe *taskpool.PanicError
		cause := errors.New("cause")
		require.ErrorAs(t, p.Do(context.Background(), func() { panic(cause) }), &pe)
		require.ErrorIs(t, pe, cause)
		require.ErrorIs(t, p.Do(context.Background(), runtime.Goexit), taskpool.ErrGoexit)
		require.NoError(t, p.Close())
		require.ErrorIs(t, p.Do(context.Background(), func() {}), taskpool.ErrClosed)

		p, release = stuck(t, k, taskpool.Config{})
		submitted := p.Stats().Accepted
		go func() { errs <- p.Do(context.Background(), func() { t.Error("an abandoned task ran") }) }()
		for p.Stats().Accepted == submitted {
			runtime.Gosched()
		}
		ended, stop := context.WithCancel(context.Background())
		stop()
		left, _ := p.Shutdown(ended)
		require.Len(t, left, 1)
		require.ErrorIs(t, receive(t, errs, "abandoned Do"), taskpool.ErrClosed)
		release()
		require.NoError(t, p.Close())
	})
}
