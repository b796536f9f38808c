// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"context"
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// acceptance: T03 T11
func TestCloseReleasesEverybody(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		fail := func() { t.Error("fired after Close") }
		tm, tk := w.AfterFunc(time.Hour, fail), w.TickFunc(time.Hour, fail)
		ch, tc := w.NewTimer(time.Hour), w.NewTicker(time.Hour)
		unread := w.NewTimer(0)
		ctx, cancel := w.Context(t.Context(), time.Hour)
		defer cancel()
		var released sync.WaitGroup
		released.Go(func() { w.Sleep(time.Hour) })
		released.Go(func() { <-w.After(time.Hour) })
		released.Go(func() {
			for range w.Tick(time.Hour) {
				t.Error("a tick after Close")
			}
		})
		released.Go(func() { <-ctx.Done() })
		synctest.Wait()
		begin := time.Now()
		var closers sync.WaitGroup
		for range 4 {
			closers.Go(w.Close) // concurrently, and more than once
		}
		closers.Wait()
		w.Close()
		released.Wait()
		require.Equal(t, begin, time.Now(), "no time passed")
		require.ErrorIs(t, ctx.Err(), context.Canceled, "Context")
		_, ok := <-ch.C
		require.False(t, ok, "a pending Timer's channel is closed")
		_, ok = <-tc.C
		require.False(t, ok, "a pending Ticker's channel is closed")
		_, ok = <-unread.C
		require.True(t, ok, "what was sent before is still there")
		for _, stop := range []func() bool{tm.Stop, tk.Stop, ch.Stop, tc.Stop, unread.Stop} {
			require.False(t, stop(), "Stop after Close")
		}
		require.False(t, tm.Reset(0), "Reset after Close")
		require.False(t, tk.Reset(ms), "Ticker.Reset after Close")
		require.False(t, ch.Reset(ms), "Reset after Close")
		require.False(t, unread.Reset(ms), "Reset after Close")
		_, ok = <-unread.C
		require.False(t, ok, "a Timer started after Close is released")

		// What is started later does nothing and keeps nobody waiting.
		require.False(t, w.AfterFunc(0, fail).Stop(), "AfterFunc after Close")
		w.Sleep(time.Hour)
		<-w.After(time.Hour)
		<-w.NewTicker(time.Hour).C
		late, cancel := w.Context(t.Context(), time.Hour)
		defer cancel()
		<-late.Done()
		require.Equal(t, begin, time.Now(), "no time passed")
		require.Zero(t, w.Stats().Pending, "Pending")
	})
	New(Config{}).Close() // never used
}

// Close ends a million pending timers, in all levels, and the receivers of a thousand of them.
// The bound says "not a minute" on a loaded machine; the log says how long it was. What Close
// looks at is the subject of the next test.
// acceptance: T03
func TestCloseWithAMillionPending(t *testing.T) {
	n := 1_000_000
	if raceEnabled {
		n = 100_000
	}
	w := New(Config{})
	defer w.Close()
	f := func() { t.Error("fired") }
	for i := range n {
		w.AfterFunc(time.Hour<<(i%8)+time.Duration(i)*time.Microsecond, f)
	}
	var released sync.WaitGroup
	for range 1000 {
		c := w.After(time.Hour)
		released.Go(func() { <-c })
	}
	begin := time.Now()
	w.Close()
	took := time.Since(begin)
	released.Wait()
	t.Logf("Close of %d callbacks and 1000 receivers: %v", n, took)
	require.Less(t, took, time.Minute, "Close")
	s := w.Stats()
	require.Equal(t, []int{0, n + 1000}, []int{s.Pending, int(s.Stopped)}, "pending, stopped")
	w.check()
	require.Eventually(t, func() bool { return w.linked() == 0 }, time.Minute, time.Millisecond,
		"the goroutine takes out what was pending")
}

// Close looks at those timers only that somebody may wait for. The others stay linked until the
// goroutine, which here is the test, gets to them; whatever is done with them before, they are
// ended.
// acceptance: T03
func TestCloseLooksOnlyAtWhoWaits(t *testing.T) {
	const n = 10_000
	w, other := newWheel(Config{}, 2), newWheel(Config{}, 2)
	defer other.Close()
	w.started = true // no goroutine: the test serves
	close(w.done)
	fail := func() { t.Error("fired after Close") }
	var timers []*Timer
	for i := range n {
		timers = append(timers, w.AfterFunc(time.Duration(i%30)*time.Duration(i)*time.Hour, fail))
	}
	tk := w.TickFunc(time.Hour, fail)
	var released []<-chan time.Time
	for i := range 1000 {
		ctx, cancel := w.Context(t.Context(), time.Hour)
		defer cancel()
		context.AfterFunc(ctx, func() {}) // it runs on another goroutine
		released = append(released, w.After(time.Duration(i)*time.Minute+1), w.NewTicker(time.Hour).C)
	}
	require.Equal(t, n+1+3000, w.Stats().Pending, "Pending")
	w.Close()
	s := w.Stats()
	require.Equal(t, []int{0, n + 1 + 3000}, []int{s.Pending, int(s.Stopped)}, "pending, stopped")
	require.Equal(t, n+1, w.linked(), "callbacks that Close did not look at")
	for _, c := range released {
		select {
		case _, ok := <-c:
			require.False(t, ok, "a channel is closed")
		default:
			t.Fatal("a channel is open after Close")
		}
	}
	w.check()

	require.False(t, timers[0].Stop(), "Stop")
	require.False(t, timers[1].Reset(0), "Reset to now")
	require.False(t, timers[2].Reset(math.MaxInt64), "Reset to later, lazy while the Wheel is open")
	require.False(t, timers[3].ResetAt(math.MaxInt64), "ResetAt to later")
	require.False(t, tk.Reset(time.Minute), "Reset of a Ticker")
	require.Equal(t, n+1-5, w.linked(), "what is used is taken out")
	other.InitFunc(timers[4], fail) // not pending any more: no panic
	timers[4].Reset(time.Hour)
	require.Panics(t, func() { w.InitFunc(timers[4], fail) }, "InitFunc of a timer pending elsewhere")
	require.True(t, timers[4].Stop(), "Stop there")
	for range 3 {
		for i := range w.shards {
			w.shards[i].serve(w.now() + int64(100*time.Hour)) // the goroutine may be in the middle of it
		}
	}
	require.Equal(t, s, w.Stats(), "Stats")

	kept := timers[n-1]
	var freed atomic.Int64
	for _, tm := range timers[5 : n-1] {
		runtime.AddCleanup(tm, func(int) { freed.Add(1) }, 0)
	}
	timers = nil
	sweep(w.plain)
	require.Zero(t, w.linked(), "after the sweep")
	require.Zero(t, w.plain[0].levels.depth, "the levels are given back")
	require.Eventually(t, func() bool { runtime.GC(); return freed.Load() == n-6 }, 10*time.Second,
		time.Millisecond, "collected, although one of them is not")
	require.False(t, kept.Stop(), "Stop")
	w.check()
}

// Close has marked the shards and not come to the timers yet: who stops one before that does not
// keep its receivers waiting.
// acceptance: T03
func TestStopWhileClosing(t *testing.T) {
	w := newWheel(Config{}, 1)
	w.started = true // no goroutine
	close(w.done)
	tm, tk := w.NewTimer(time.Hour), w.NewTicker(time.Hour)
	for i := range w.shards {
		w.shards[i].close()
	}
	require.False(t, tm.Stop(), "Stop: Close has stopped it")
	require.False(t, tk.Stop(), "Stop of a Ticker")
	for _, c := range []<-chan time.Time{tm.C, tk.C} {
		select {
		case _, ok := <-c:
			require.False(t, ok, "the channel is closed")
		default:
			t.Error("the channel is open")
		}
	}
	w.Close()
	require.Equal(t, uint64(2), w.Stats().Stopped, "Stopped")
	w.check()
}

// The rule about stale values outlives Close, and nothing is counted twice.
func TestNoStaleValueAfterClose(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		reset, stopped := w.NewTimer(0), w.NewTimer(0)
		tkReset, tkStopped := w.NewTicker(ms), w.NewTicker(ms)
		time.Sleep(ms + 1)
		synctest.Wait()
		w.Close()
		before := w.Stats()
		require.False(t, reset.Reset(ms), "Reset")
		require.False(t, tkReset.Reset(ms), "Reset of a Ticker")
		require.False(t, tkStopped.Stop(), "Stop of a Ticker that Close has stopped")
		for _, c := range []<-chan time.Time{reset.C, tkReset.C, tkStopped.C} {
			_, ok := <-c
			require.False(t, ok, "a value of the time before")
		}
		require.Equal(t, before, w.Stats(), "Stats")
		require.True(t, stopped.Stop(), "a value that was not received is taken back")
		require.Empty(t, stopped.C, "C")
		require.Equal(t, []uint64{before.Fired - 1, before.Stopped + 1},
			[]uint64{w.Stats().Fired, w.Stats().Stopped}, "fired, stopped")
	})
}

// BenchmarkClose reports how long Close takes with a million pending, and then the goroutine, for
// callbacks, at which it does not look, and for channels, which it has to close.
func BenchmarkClose(b *testing.B) {
	for name, start := range map[string]func(w *Wheel, d time.Duration){
		"AfterFunc": func(w *Wheel, d time.Duration) { w.AfterFunc(d, func() {}) },
		"NewTimer":  func(w *Wheel, d time.Duration) { w.NewTimer(d) },
	} {
		b.Run(name, func(b *testing.B) {
			var closing, ending time.Duration
			for b.Loop() {
				w := New(Config{})
				for i := range 1_000_000 {
					start(w, time.Hour+time.Duration(i)*time.Millisecond)
				}
				runtime.GC()
				begin := time.Now()
				w.Close()
				closing += time.Since(begin)
				for w.linked() > 0 {
					time.Sleep(time.Millisecond)
				}
				ending += time.Since(begin)
			}
			b.ReportMetric(closing.Seconds()*1000/float64(b.N), "ms/Close")
			b.ReportMetric(ending.Seconds()*1000/float64(b.N), "ms/sweep")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// Close comes between everything else, again and again.
// acceptance: T03
func TestCloseRacesUse(t *testing.T) {
	rounds := 300
	if raceEnabled {
		rounds = 60
	}
	for range rounds {
		w := New(Config{})
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 50 {
					tm := w.NewTimer(time.Millisecond)
					w.AfterFunc(0, func() { tm.Reset(0) })
					tm.Reset(time.Microsecond)
					tm.Stop()
					tm.Reset(time.Hour)
				}
				w.Sleep(time.Hour)
			})
		}
		runtime.Gosched()
		begin := time.Now()
		w.Close()
		group.Wait()
		require.Less(t, time.Since(begin), 20*time.Second, "Close and everybody it released")
		w.check()
	}
}

func TestCloseFromCallback(t *testing.T) {
	for name, exec := range map[string]func(func()){
		"goroutine": nil, "inline": Inline, "like inline": func(f func()) { f() }} {
		bubble(t, Config{Executor: exec}, func(t *testing.T, w *Wheel) {
			done := make(chan struct{})
			w.AfterFunc(ms, func() { w.Close(); w.Close(); close(done) })
			for range 100 {
				w.AfterFunc(2*ms, func() { t.Error("fired after Close: " + name) })
			}
			<-done
			<-w.done
			time.Sleep(time.Second)
		})
	}
}

// Close waits for an inline callback that is running.
func TestCloseWaitsForTheGoroutine(t *testing.T) {
	bubble(t, Config{Executor: Inline}, func(t *testing.T, w *Wheel) {
		ended := false
		w.AfterFunc(0, func() { time.Sleep(10 * ms); ended = true })
		time.Sleep(ms)
		w.Close()
		require.True(t, ended, "the callback has ended")
	})
}

// fault: 131
// acceptance: T07
func TestSlowCallbackDelaysNobody(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		for range 100 {
			w.AfterFunc(0, func() { time.Sleep(time.Second) })
		}
		<-w.After(50 * ms)
		require.Equal(t, 50*ms, time.Since(begin), "After beside slow callbacks")
		time.Sleep(2 * time.Second)
	})
}

// fault: 131
// acceptance: T07
func TestPanicAndGoexit(t *testing.T) {
	for name, exec := range map[string]func(func()){"goroutine": nil, "inline": Inline,
		"like inline": func(f func()) { f() }, "own": func(f func()) { go f() }} {
		var panics atomic.Int64
		cfg := Config{Executor: exec, OnPanic: func(v any, stack []byte) {
			if v != "boom" || len(stack) == 0 {
				t.Errorf("OnPanic(%v, %d bytes)", v, len(stack))
			}
			panics.Add(1)
		}}
		bubble(t, cfg, func(t *testing.T, w *Wheel) {
			begin := time.Now()
			var calls atomic.Int64
			for range 200 {
				w.AfterFunc(ms, func() { panic("boom") })
				w.AfterFunc(ms, func() { runtime.Goexit() })
				w.AfterFunc(ms, func() { calls.Add(1) })
			}
			tk := w.TickFunc(ms, func() { calls.Add(1); panic("boom") })
			<-w.After(10*ms + 1)
			synctest.Wait()
			require.Equal(t, w.ceil(10*ms+1), time.Since(begin), "%s: After", name)
			tk.Stop()
			synctest.Wait()
			require.InDelta(t, 210, int(calls.Load()), 1, "%s: the others ran", name)
			require.Equal(t, calls.Load(), panics.Load(), "%s: OnPanic", name)
		})
	}
}

// An Executor that refuses by a panic loses that callback and nothing else.
func TestExecutorPanics(t *testing.T) {
	var refuse atomic.Bool
	var panics atomic.Int64
	cfg := Config{
		OnPanic: func(any, []byte) { panics.Add(1) },
		Executor: func(f func()) {
			if refuse.Load() {
				panic(errors.New("full"))
			}
			go f()
		},
	}
	bubble(t, cfg, func(t *testing.T, w *Wheel) {
		var calls atomic.Int64
		tk := w.TickFunc(10*ms, func() { calls.Add(1) })
		time.Sleep(15 * ms)
		refuse.Store(true)
		time.Sleep(20 * ms)
		refuse.Store(false)
		time.Sleep(20 * ms)
		require.Equal(t, int64(3), calls.Load(), "calls")
		require.Equal(t, int64(2), panics.Load(), "panics")
		tk.Stop()
	})
}

// An Executor that passes the call on and then panics, or ends the goroutine: f of a Ticker does
// not run beside itself. Who is first, f or the end of the Executor, has the call.
func TestExecutorEndsAfterHandingOver(t *testing.T) {
	ends := map[string]func(){"panic": func() { panic("late") }, "Goexit": runtime.Goexit}
	for name, end := range ends {
		var began chan bool
		var held []func()
		var hold atomic.Bool
		cfg := Config{OnPanic: func(any, []byte) {}, Executor: func(f func()) {
			if hold.Load() {
				held = append(held, f)
			} else {
				go f()
				<-began
			}
			end()
		}}
		synctest.Test(t, func(t *testing.T) {
			began = make(chan bool)
			w := New(cfg)
			defer w.Close()
			var running, calls atomic.Int64
			tk := w.TickFunc(10*ms, func() {
				if running.Add(1) > 1 {
					t.Errorf("%s: f beside itself", name)
				}
				calls.Add(1)
				began <- true
				time.Sleep(25 * ms)
				running.Add(-1)
			})
			time.Sleep(105 * ms)
			require.Equal(t, int64(4), calls.Load(), "%s: calls", name)
			time.Sleep(22 * ms)
			hold.Store(true) // nobody runs
			time.Sleep(20 * ms)
			tk.Stop()
			synctest.Wait()
			require.Len(t, held, 2, "%s: the Ticker is free after the end of the Executor", name)
			for _, f := range held {
				f()
			}
			require.Equal(t, int64(4), calls.Load(), "%s: what was given up does not run", name)
		})
	}
}

func TestContext(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		key := new(int)
		parent, cancelParent := context.WithCancelCause(context.WithValue(t.Context(), key, "v"))
		ctx, cancel := w.Context(parent, 50*ms)
		child, cancelChild := context.WithCancel(ctx)
		defer cancelChild()
		deadline, ok := ctx.Deadline()
		require.True(t, ok, "Deadline")
		require.Equal(t, begin.Add(50*ms), deadline, "Deadline")
		require.Equal(t, "v", ctx.Value(key), "Value")
		require.NoError(t, ctx.Err(), "Err before")
		<-child.Done()
		require.Equal(t, 50*ms, time.Since(begin), "expired")
		for _, c := range []context.Context{ctx, child} {
			require.Equal(t, context.DeadlineExceeded, c.Err(), "Err")
			require.Equal(t, context.DeadlineExceeded, context.Cause(c), "Cause")
		}
		cancel()
		require.Equal(t, context.DeadlineExceeded, ctx.Err(), "Err after cancel")

		ctx, cancel = w.Context(parent, time.Hour)
		cancel()
		<-ctx.Done()
		require.Equal(t, context.Canceled, ctx.Err(), "canceled")
		require.Zero(t, w.Stats().Pending, "cancel stops the timer")

		ctx, cancel = w.Context(parent, time.Hour)
		defer cancel()
		expired, cancelExpired := w.Context(parent, 0)
		defer cancelExpired()
		ended, cancelEnded := w.Context(parent, time.Hour)
		cancelEnded()
		cause := errors.New("why")
		cancelParent(cause)
		require.Equal(t, context.Canceled, ctx.Err(), "parent canceled")
		require.Equal(t, cause, context.Cause(ctx), "parent's cause")
		require.Equal(t, context.DeadlineExceeded, context.Cause(expired), "the first cause stays")
		require.Equal(t, context.Canceled, context.Cause(ended), "the first cause stays")

		ctx, cancel = w.Context(t.Context(), 0)
		defer cancel()
		require.Equal(t, context.DeadlineExceeded, ctx.Err(), "no time at all")
		short, cancelShort := w.Context(t.Context(), ms)
		defer cancelShort()
		ctx, cancel = w.Context(short, time.Hour)
		defer cancel()
		<-ctx.Done()
		require.Equal(t, context.DeadlineExceeded, ctx.Err(), "the parent's deadline is earlier")

		// Close ends also those that their parents would have ended.
		short, cancelShort = context.WithTimeout(t.Context(), time.Minute)
		defer cancelShort()
		ctx, cancel = w.Context(short, time.Hour)
		defer cancel()
		child, cancelChild = context.WithCancel(ctx)
		defer cancelChild()
		deadline, _ = ctx.Deadline()
		require.Equal(t, time.Minute, time.Until(deadline), "Deadline is the parent's")
		w.Close()
		require.Equal(t, context.Canceled, ctx.Err(), "Close")
		<-child.Done()
		require.Equal(t, context.Canceled, child.Err(), "Close")
		late, cancelLate := w.Context(short, time.Hour)
		defer cancelLate()
		require.Equal(t, context.Canceled, late.Err(), "after Close")
		require.NoError(t, short.Err(), "the parent goes on")
	})
}

// ownContext is a context that package context does not know.
type ownContext struct {
	context.Context
	done chan struct{}
}

func (c ownContext) Done() <-chan struct{} { return c.done }

func (c ownContext) Err() error {
	select {
	case <-c.done:
		return errors.New("over")
	default:
		return nil
	}
}

// TestContextParentEnds: a timer of a Context does not outlive it, whatever ended it and whatever
// kind of context the parent is. Nobody calls the CancelFunc.
//
// case: 9
func TestContextParentEnds(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		pending := func() int {
			synctest.Wait()
			return w.Stats().Pending
		}
		const n = 100
		start := func(parent context.Context) (ctx context.Context) {
			for range n {
				ctx, _ = w.Context(parent, time.Hour)
			}
			return ctx
		}

		parent, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("why")
		ctx := start(parent)
		require.Equal(t, n, pending(), "pending")
		cancel(cause)
		require.Zero(t, pending(), "the parent was canceled")
		require.Equal(t, cause, context.Cause(ctx), "cause")

		ctx = start(parent)
		require.Zero(t, pending(), "the parent had ended before")
		require.Equal(t, cause, context.Cause(ctx), "cause")

		short, cancelShort := context.WithTimeout(t.Context(), time.Minute)
		defer cancelShort()
		start(short)
		time.Sleep(time.Minute)
		require.Zero(t, pending(), "the parent's deadline came")

		outer, cancelOuter := w.Context(t.Context(), time.Minute)
		defer cancelOuter()
		start(outer)
		time.Sleep(time.Minute + ms)
		require.Zero(t, pending(), "the parent is a Context of the Wheel and expired")

		own := ownContext{t.Context(), make(chan struct{})}
		start(own)
		require.Equal(t, n, pending(), "pending")
		close(own.done)
		require.Zero(t, pending(), "the parent is of another package")
	})
}

// TestContextParentEndsMeanwhile: the parent ends while Context is at work.
//
// case: 9
func TestContextParentEndsMeanwhile(t *testing.T) {
	w := New(Config{})
	defer w.Close()
	for range 2000 {
		parent, cancelParent := context.WithCancel(t.Context())
		go cancelParent()
		ctx, cancel := w.Context(parent, time.Hour)
		<-ctx.Done()
		defer cancel()
	}
	require.Eventually(t, func() bool { return w.Stats().Pending == 0 },
		10*time.Second, ms, "timers of contexts that have ended")
}

func TestDefault(t *testing.T) {
	require.Same(t, Default(), Default(), "Default")
	<-Default().After(ms)
	Default().Close() // only here, for the check for leaked goroutines
}
