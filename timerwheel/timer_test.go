// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

const ms = time.Millisecond

// acceptance: T04
func TestResetCountsFromNow(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		fired := make(chan time.Duration, 10)
		tm := w.AfterFunc(time.Second, func() { fired <- time.Since(begin) })
		time.Sleep(800 * ms)
		require.True(t, tm.Reset(time.Second), "Reset of a pending timer")
		require.Equal(t, 1800*ms, <-fired, "fired")
		require.False(t, tm.Reset(100*ms), "Reset of a fired timer")
		require.Equal(t, 1900*ms, <-fired, "fired again")
		tm.Reset(time.Hour)
		tm.Reset(50 * ms) // earlier
		require.Equal(t, 1950*ms, <-fired, "moved to earlier")
		tm.Reset(10 * ms)
		require.True(t, tm.Stop(), "Stop")
		require.False(t, tm.Reset(20*ms), "Reset of a stopped timer")
		require.Equal(t, 1970*ms, <-fired, "started after Stop")
	})
}

// acceptance: T06
func TestStopTwiceAndCounts(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		for range 5 {
			tm := w.AfterFunc(ms, func() {})
			time.Sleep(2 * ms)
			require.False(t, tm.Stop(), "Stop of a fired timer")
			require.False(t, tm.Stop(), "second Stop")
		}
		tm := w.AfterFunc(ms, func() {})
		require.True(t, tm.Stop(), "Stop")
		require.False(t, tm.Stop(), "second Stop")
		s := w.Stats()
		require.Equal(t, []uint64{0, 5, 1}, []uint64{uint64(s.Pending), s.Fired, s.Stopped}, "counters")
		require.False(t, new(Timer).Stop(), "Stop of a zero Timer")
		require.False(t, new(Ticker).Stop(), "Stop of a zero Ticker")
	})
}

// acceptance: T10
func TestZeroAndNegative(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		for _, d := range []time.Duration{0, -1, -time.Hour} {
			<-w.After(d)
			<-w.NewTimer(d).C
			w.Sleep(d)
			<-w.Until(begin.Add(d))
			done := make(chan struct{})
			w.AfterFunc(d, func() { close(done) })
			<-done
			require.Panics(t, func() { w.NewTicker(d) }, "NewTicker(%v)", d)
			require.Panics(t, func() { w.TickFunc(d, func() {}) }, "TickFunc(%v)", d)
			require.Nil(t, w.Tick(d), "Tick(%v)", d)
		}
		require.Equal(t, begin, time.Now(), "no time passed")
	})
}

func TestMisusePanics(t *testing.T) {
	w := New(Config{})
	defer w.Close()
	require.Panics(t, func() { w.AfterFunc(1, nil) }, "nil function")
	require.Panics(t, func() { w.TickFunc(1, nil) }, "nil function")
	require.Panics(t, func() { AfterFuncArg[int](w, 1, nil, 1) }, "nil function")
	require.Panics(t, func() { new(Timer).Reset(1) }, "Reset of a zero Timer")
	require.Panics(t, func() { new(Timer).ResetAt(1) }, "ResetAt of a zero Timer")
	require.Panics(t, func() { new(Timer).SetCoarse(true) }, "SetCoarse of a zero Timer")
	require.Panics(t, func() { new(Ticker).Reset(1) }, "Reset of a zero Ticker")
	require.Panics(t, func() { w.NewTicker(time.Hour).Reset(0) }, "Reset of a Ticker to 0")
	tm := w.AfterFunc(time.Hour, func() {})
	require.Panics(t, func() { w.InitFunc(tm, func() {}) }, "InitFunc of a pending Timer")
}

// A Timer that was one with a channel becomes one with a callback.
func TestInitFuncOfATimerWithAChannel(t *testing.T) {
	bubble(t, Config{Executor: Inline}, func(t *testing.T, w *Wheel) {
		calls := 0
		tm := w.NewTimer(0)
		c := tm.C
		synctest.Wait() // the value is in the channel
		w.InitFunc(tm, func() { calls++ })
		require.Nil(t, tm.C, "C")
		require.False(t, tm.Reset(ms), "the value belongs to the time before")
		time.Sleep(2 * ms)
		synctest.Wait()
		require.Equal(t, 1, calls, "calls")
		require.Len(t, c, 1, "the old channel")
		InitFuncArg(w, tm, func(n int) { calls += n }, 10)
		tm.Reset(0)
		synctest.Wait()
		require.Equal(t, 11, calls, "calls")
	})
}

// acceptance: T05
func TestAfterNeverNil(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		const n = 20_000
		cs := make(chan (<-chan time.Time), n)
		for range 8 {
			go func() {
				for range n / 8 {
					cs <- w.After(50 * ms)
				}
			}()
		}
		begin := time.Now()
		for range n {
			c := <-cs
			require.NotNil(t, c, "After")
			<-c
		}
		require.Equal(t, 50*ms, time.Since(begin), "all at the same time")
		w.Sleep(20 * ms)
		require.Equal(t, 70*ms, time.Since(begin), "Sleep")
	})
}

// No value from before Stop or Reset is received after it.
func TestNoStaleValue(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		tm := w.NewTimer(ms)
		time.Sleep(5 * ms)
		synctest.Wait()
		require.Len(t, tm.C, 1, "fired")
		require.True(t, tm.Stop(), "Stop takes the value back")
		require.Empty(t, tm.C, "after Stop")
		require.False(t, tm.Stop(), "second Stop")
		tm.Reset(ms)
		time.Sleep(5 * ms)
		synctest.Wait()
		require.True(t, tm.Reset(10*ms), "Reset takes the value back")
		require.Zero(t, w.Stats().Fired, "values taken back are not counted")
		begin := time.Now()
		require.Equal(t, begin.Add(10*ms), <-tm.C, "the new value")
		tk := w.NewTicker(ms)
		time.Sleep(5 * ms)
		require.True(t, tk.Reset(20*ms), "Reset of a running ticker")
		begin = time.Now()
		require.Equal(t, begin.Add(20*ms), <-tk.C, "first tick of the new period")
		time.Sleep(50 * ms)
		synctest.Wait()
		require.True(t, tk.Stop(), "Stop of a running ticker")
		require.Empty(t, tk.C, "after Stop")
	})
}

func TestArguments(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		got := make(chan any, 1)
		AfterFuncArg(w, ms, func(s string) { got <- s }, "text")
		require.Equal(t, "text", <-got, "string")
		AfterFuncArg(w, ms, func(e error) { got <- e }, nil)
		require.Nil(t, <-got, "nil interface")
		var s struct{ flush Timer }
		InitFuncArg(w, &s.flush, func(p *int) { got <- *p }, new(int))
		require.Empty(t, got, "prepared, not started")
		require.False(t, s.flush.Reset(ms), "first Reset")
		require.Equal(t, 0, <-got, "pointer")
	})
}

// The callback moves its own timer.
func TestResetFromCallback(t *testing.T) {
	for name, exec := range map[string]func(func()){"goroutine": nil, "inline": Inline} {
		bubble(t, Config{Executor: exec}, func(t *testing.T, w *Wheel) {
			begin := time.Now()
			var at []time.Duration
			var tm Timer
			w.InitFunc(&tm, func() {
				at = append(at, time.Since(begin))
				if len(at) < 5 {
					require.False(t, tm.Reset(time.Duration(len(at)-1)*10*ms), "%s: Reset", name)
				}
			})
			tm.Reset(ms)
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, []time.Duration{ms, ms, 11 * ms, 31 * ms, 61 * ms}, at, name)
		})
	}
}

// A callback that starts itself again at once does not keep the others waiting.
func TestBusyCallbackLeavesOthersTheirTurn(t *testing.T) {
	w := newWheel(Config{Executor: Inline}, 1)
	defer w.Close()
	var tm Timer
	w.InitFunc(&tm, func() { tm.Reset(0) })
	tm.Reset(0)
	<-w.After(5 * ms)
	require.Eventually(t, func() bool { return w.Stats().Fired > 100 },
		20*time.Second, time.Millisecond, "it is busy")
	<-w.After(5 * ms)
	tm.Stop()
}

// Moving the deadline up leaves the node where it is, and it fires at the last deadline.
func TestLazyReset(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		var fired atomic.Int64
		tm := w.AfterFunc(100*ms, func() { fired.Store(int64(time.Since(begin))) })
		wakeups := uint64(0)
		for range 10_000 {
			time.Sleep(7 * ms)
			if !tm.Reset(100 * ms) {
				t.Fatal("Reset of a pending timer returned false")
			}
			wakeups++
		}
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 70_100*ms, time.Duration(fired.Load()), "fired")
		// It is looked at once in a while, not at each Reset.
		require.Less(t, w.Stats().Wakeups, wakeups/4, "wake-ups")
	})
}

func TestResetAt(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		tm := w.NewTimer(time.Hour)
		now := w.Elapsed()
		require.True(t, tm.ResetAt(now+10*ms), "to earlier")
		require.True(t, tm.ResetAt(now+20*ms), "to later")
		<-tm.C
		require.Equal(t, 20*ms, time.Since(begin), "fired")
		require.False(t, tm.ResetAt(now), "to the past")
		<-tm.C
		require.False(t, tm.ResetAt(-1), "before the beginning")
		<-tm.C
		require.Equal(t, 20*ms, time.Since(begin), "at once")
	})
}

// Coarse timers are late by an eighth and a tick at most, never early, and share wake-ups.
func TestCoarse(t *testing.T) {
	bubble(t, Config{Executor: Inline}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		instants := map[time.Duration]bool{}
		n := 0
		for d := time.Duration(1); d < 20*time.Hour; d += d/100 + 1000 {
			n++
			w.CoarseFunc(d, func() {
				late := time.Since(begin) - d
				if late < 0 || late > d/8+ms {
					t.Errorf("CoarseFunc(%v) late by %v", d, late)
				}
				instants[time.Since(begin)] = true
			})
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		require.Equal(t, uint64(n), w.Stats().Fired, "Fired")
		require.Less(t, len(instants), n/3, "distinct instants")
		require.Zero(t, w.Stats().Latest, "Latest leaves coarse timers out")
		// Moved lazily, with durations of all sizes: the bound is that of the last one.
		var tm Timer
		var want time.Time
		var bound time.Duration
		w.InitFunc(&tm, func() {
			if late := time.Since(want); late < 0 || late > bound {
				t.Errorf("late by %v, bound %v", late, bound)
			}
		})
		tm.SetCoarse(true)
		for d := 10 * ms; d < time.Hour; d = d*5/4 + 3*ms {
			for _, back := range []time.Duration{0, d / 2, d - ms} {
				want, bound = time.Now().Add(d), d/8+ms
				tm.Reset(d)
				time.Sleep(back)
				want, bound = time.Now().Add(d/3+ms), (d/3+ms)/8+ms
				tm.Reset(d/3 + ms)
				time.Sleep(2 * d)
				synctest.Wait()
			}
		}
		// A short duration after a long one, which was rounded to beyond both; then an exact one.
		for _, coarse := range []bool{true, false} {
			want, bound = time.Now().Add(80*time.Second), 10*time.Second+ms
			tm.Reset(80 * time.Second)
			time.Sleep(79900 * ms)
			want, bound = time.Now().Add(200*ms), ms
			if tm.SetCoarse(coarse); coarse {
				bound += 200 * ms / 8
			}
			require.True(t, tm.Reset(200*ms), "Reset of a pending Timer")
			time.Sleep(20 * time.Second)
			tm.SetCoarse(true)
		}
		// A timer that was stopped is exact again if it is told so.
		tm.SetCoarse(false)
		want, bound = time.Now().Add(1001*ms), ms
		tm.Reset(1001 * ms)
		time.Sleep(2 * time.Second)
	})
}

// The round tick of a coarse timer may lie beyond what the clock can show.
func TestCoarseAtTheEndOfTime(t *testing.T) {
	for _, tick := range []time.Duration{1, 17, ms, maxTick} {
		bubble(t, Config{Tick: tick}, func(t *testing.T, w *Wheel) {
			for _, d := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64 / 2} {
				tm := w.CoarseFunc(d, func() { t.Errorf("CoarseFunc(%v) fired", d) })
				time.Sleep(3 * tick)
				synctest.Wait()
				w.check()
				require.True(t, tm.Reset(d), "Reset of a pending Timer")
				w.check()
				require.True(t, tm.Stop(), "Stop")
			}
		})
	}
}

// acceptance: T13
func TestTickerDropsWhatWasMissed(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		tk := w.NewTicker(10 * ms)
		time.Sleep(105 * ms) // ten periods without a receiver
		synctest.Wait()
		require.Equal(t, 10*ms, (<-tk.C).Sub(begin), "the first is kept")
		require.Equal(t, 110*ms, (<-tk.C).Sub(begin), "the rest is dropped, the rhythm stays")
		require.Equal(t, 120*ms, (<-tk.C).Sub(begin), "and goes on")
	})
}

// The process is stopped for ten periods: a ticker fires once.
// acceptance: T13
func TestTickerFiresOnceAfterAStop(t *testing.T) {
	w := newWheel(Config{Executor: Inline}, 1)
	defer w.Close()
	sh := &w.shards[0]
	w.started = true // no goroutine: the test serves
	close(w.done)
	n := 0
	w.TickFunc(time.Second, func() { n++ })
	w.base = w.base.Add(-10500 * ms) // ten and a half periods at once
	for sh.serve(w.now()); sh.next.Load() == 0; {
		sh.serve(w.now())
	}
	require.Equal(t, 1, n, "calls")
	w.base = w.base.Add(-time.Second)
	sh.serve(w.now())
	require.Equal(t, 2, n, "calls a period later")
}

func TestTickFuncNeverOverlaps(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		var at []time.Duration
		tk := w.TickFunc(10*ms, func() {
			at = append(at, time.Since(begin))
			time.Sleep(25 * ms)
		})
		time.Sleep(105 * ms)
		require.True(t, tk.Stop(), "Stop")
		time.Sleep(100 * ms)
		synctest.Wait()
		require.Equal(t, []time.Duration{10 * ms, 40 * ms, 70 * ms, 100 * ms}, at, "calls")
		require.False(t, tk.Reset(5*ms), "Reset of a stopped Ticker")
		time.Sleep(6 * ms)
		synctest.Wait()
		require.Len(t, at, 5, "goes on after Reset")
		tk.Stop()
		time.Sleep(time.Second)
	})
}
