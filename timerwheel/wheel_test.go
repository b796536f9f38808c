// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// bubble runs f in a synctest bubble with a Wheel whose callbacks run inline.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, w *Wheel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := New(cfg)
		defer w.Close()
		f(t, w)
		synctest.Wait()
		w.check()
	})
}

// ceil returns when a timer for d fires, if the Wheel was made at the beginning of a tick.
func (w *Wheel) ceil(d time.Duration) time.Duration {
	tick := time.Duration(w.tick)
	return (max(d, 0) + tick - 1) / tick * tick
}

// acceptance: T01 T08 T09 T11
func TestFiresInItsTick(t *testing.T) {
	for _, tick := range []time.Duration{time.Millisecond, 7 * time.Microsecond, time.Second} {
		bubble(t, Config{Tick: tick, Executor: Inline}, func(t *testing.T, w *Wheel) {
			begin := time.Now()
			n := 0
			for k := range 8 {
				p := time.Duration(w.tick) << (k * slotBits)
				if p <= 0 || p > 3*365*24*time.Hour {
					break
				}
				for _, d := range []time.Duration{
					-p, 0, 1, p - tick, p - 1, p, p + 1, p + tick, 63 * p, 64*p - 1,
				} {
					n++
					w.AfterFunc(d, func() {
						got, want := time.Since(begin), w.ceil(d)
						if got != want || got > max(d, 0)+tick {
							t.Errorf("tick %v: AfterFunc(%v) fired after %v", tick, d, got)
						}
					})
				}
			}
			for w.Stats().Pending > 0 {
				time.Sleep(10 * 365 * 24 * time.Hour)
				synctest.Wait()
			}
			require.Equal(t, uint64(n), w.Stats().Fired, "Fired")
			require.Less(t, w.Stats().Latest, tick, "Latest")
		})
	}
}

func TestFineTick(t *testing.T) {
	for tick, want := range map[time.Duration]time.Duration{
		time.Millisecond: 62500, 7 * time.Microsecond: 500, time.Second: time.Second / 16,
		1: 1, 8: 1, 16: 1,
		17: 17, 24: 2, maxTick: maxTick / 16,
	} {
		require.Equal(t, want, time.Duration(fineTick(int64(tick))), "fineTick(%v)", tick)
	}
}

// Durations up to the largest are accepted, wait, and can be stopped.
func TestHorizon(t *testing.T) {
	for _, tick := range []time.Duration{1, time.Millisecond, maxTick} {
		bubble(t, Config{Tick: tick}, func(t *testing.T, w *Wheel) {
			for _, d := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, 50 * 365 * 24 * time.Hour} {
				tm := w.AfterFunc(d, func() { t.Errorf("tick %v: fired for %v", tick, d) })
				time.Sleep(24 * time.Hour)
				require.True(t, tm.Stop(), "Stop of a timer for %v", d)
			}
		})
	}
	require.Panics(t, func() { New(Config{Tick: -1}) }, "negative Tick")
	require.Panics(t, func() { New(Config{Tick: maxTick + 1}) }, "too long a Tick")
}

// A million timers, spread and at one instant, each in the tick it belongs to.
// acceptance: T02
// fault: 130
func TestMillionFireInTheirTicks(t *testing.T) {
	n := 1_000_000
	if raceEnabled {
		n = 50_000
	}
	bubble(t, Config{Executor: Inline}, func(t *testing.T, w *Wheel) {
		begin := time.Now()
		fired := 0
		for i := range n {
			d := time.Duration(rand.Int64N(int64(10 * time.Second)))
			if i%2 == 0 {
				d = 5 * time.Second // half of them at one instant
			}
			w.AfterFunc(d, func() {
				fired++
				if got := time.Since(begin); got != w.ceil(d) {
					t.Errorf("AfterFunc(%v) fired after %v", d, got)
				}
			})
		}
		require.Equal(t, n, w.Stats().Pending, "Pending")
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		require.Equal(t, n, fired, "callbacks")
	})
}

// The wheel lags behind (its goroutine gets no processor, the process was stopped): timers fire
// late, but in the order of their ticks.
func TestLateTimersFireInOrder(t *testing.T) {
	w := newWheel(Config{Executor: Inline}, 1)
	defer w.Close()
	sh := &w.shards[0]
	w.started = true // no goroutine: the test serves
	close(w.done)
	var got []int
	for _, ms := range rand.Perm(5000) {
		w.AfterFunc(time.Duration(ms+1)*time.Millisecond, func() { got = append(got, ms) })
	}
	now := w.now() + int64(time.Minute)
	w.base = w.base.Add(-time.Minute) // a minute has passed at once
	for sh.serve(now); sh.next.Load() == 0; {
		sh.serve(now)
	}
	require.Len(t, got, 5000, "fired")
	// The deadlines of neighbours differ by a millisecond less the time between the calls.
	for i, ms := range got {
		require.InDelta(t, i, ms, 1000, "position of the timer for %d ms", ms)
	}
	require.True(t, sh.latest > int64(50*time.Second), "Latest = %v", time.Duration(sh.latest))
}

// jump changes the wall clock part of t and leaves the monotonic one: in a Time that has both, the
// first word holds a flag, 33 bits of wall seconds and 30 of nanoseconds.
func jump(t *time.Time, hours int64) {
	*(*int64)(unsafe.Pointer(t)) += hours * 3600 << 30
}

// The wall clock cannot be set from a test. What can be shown: the Wheel reads
// the clock in one place only, Wheel.now; it takes the difference to a base that has a monotonic
// reading, which package time then promises to use alone; and when the base's wall clock part
// jumps by an hour and its monotonic part does not, now does not move. Without the monotonic
// part it does: so the assertion would see a clock that is not monotonic.
// fault: 129
// acceptance: T09
func TestWallClockIsNotUsed(t *testing.T) {
	w := New(Config{}) // times in a bubble have no monotonic reading
	defer w.Close()
	require.Contains(t, w.base.String(), " m=", "the base has a monotonic reading")
	for _, hours := range []int64{1, -2, 3} { // to and fro; two hours stay
		unix, before := w.base.Unix(), w.now()
		jump(&w.base, hours)
		require.Equal(t, unix+hours*3600, w.base.Unix(), "the base's wall clock jumps")
		require.GreaterOrEqual(t, w.now(), before, "the Wheel's goes on")
		require.Less(t, w.now()-before, int64(30*time.Minute), "and does not jump")
	}
	begin := w.Elapsed()
	<-w.After(20 * ms)
	require.GreaterOrEqual(t, w.Elapsed()-begin, 20*ms, "fired early")
	require.Less(t, w.Stats().Latest, 30*time.Minute, "Latest")
	for _, file := range []string{
		"wheel.go", "shard.go", "timer.go", "ticker.go", "context.go", "levels.go", "list.go",
	} {
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, wall := range []string{
			".Unix", ".Round(", ".Truncate(", ".UTC(", ".Local(", ".In(", "time.Date(",
		} {
			require.NotContains(t, string(src), wall, "%s: strips or reads the wall clock", file)
		}
	}
}

// No wake-ups but for what is due, and one for each level that a far timer falls.
// acceptance: T13
func TestIdleWheelSleeps(t *testing.T) {
	bubble(t, Config{Executor: Inline}, func(t *testing.T, w *Wheel) {
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		require.Zero(t, w.Stats().Wakeups, "wake-ups without a timer")
		require.False(t, w.started, "a goroutine without a timer")
		for range 1000 {
			w.AfterFunc(1000*time.Hour, func() {})
		}
		synctest.Wait()
		before := w.Stats().Wakeups
		time.Sleep(900 * time.Hour)
		synctest.Wait()
		// 3.6e9 ticks are level 5; it falls to level 4 at most once in each shard.
		require.LessOrEqual(t, w.Stats().Wakeups-before, uint64(5), "wake-ups in 900 hours")
		time.Sleep(101 * time.Hour)
		synctest.Wait()
		require.Equal(t, uint64(1000), w.Stats().Fired, "Fired")
		before = w.Stats().Wakeups
		time.Sleep(1000 * time.Hour)
		require.Equal(t, before, w.Stats().Wakeups, "wake-ups after the last timer")
	})
}

// Where few timers are in a slot, the goroutine wakes for them alone, not to move them down.
// acceptance: T13
func TestFewTimersWakeNobodyInVain(t *testing.T) {
	bubble(t, Config{Executor: Inline}, func(t *testing.T, w *Wheel) {
		for d := ms; d < 1000*24*time.Hour; d = d*3 + 7*time.Microsecond {
			for n := range 2 * few {
				gap := time.Duration(w.tick) // so that they are in one slot of a far level
				at := time.Now().Add(d)
				for i := range n {
					w.AfterFunc(d+time.Duration(i)*gap, func() {
						if late := time.Since(at.Add(time.Duration(i) * gap)); late < 0 || late > gap {
							t.Errorf("%d timers for %v: late by %v", n, d, late)
						}
					})
				}
				synctest.Wait()
				before := w.Stats().Wakeups
				time.Sleep(d + time.Hour)
				synctest.Wait()
				woken := w.Stats().Wakeups - before
				if uint64(n) > woken || n <= few && uint64(n) != woken || woken > uint64(n+maxLevels) {
					t.Errorf("%d timers for %v: woken %d times", n, d, woken)
				}
			}
		}
	})
}

// A timer is started again and again just when the goroutine goes to sleep: after it has looked at
// the timer's shard, which is the first, and before it has at the others. A wake-up that gets lost
// then is lost for good: nothing else is pending.
func TestNoWakeUpIsLost(t *testing.T) {
	rounds := 100_000
	if raceEnabled {
		rounds = 10_000
	}
	w := newWheel(Config{Executor: Inline}, maxShards)
	defer w.Close()
	var tm Timer
	var fired, sink atomic.Int64
	w.InitFunc(&tm, func() { fired.Add(1) })
	tm.sh = &w.shards[0]
	begin := time.Now()
	for i := range rounds {
		// Where the two goroutines share a processor a round takes milliseconds: then they are
		// fewer.
		if i%100 == 0 && time.Since(begin) > 5*time.Second {
			t.Logf("%d rounds", i)
			break
		}
		tm.Reset(0)
		reset := time.Now()
		for spins := 1; fired.Load() <= int64(i); spins++ {
			if spins%1000 != 0 {
				continue
			}
			if runtime.Gosched(); spins%100_000 != 0 {
				continue
			}
			time.Sleep(time.Microsecond) // the other one needs the processor
			if time.Since(reset) > 30*time.Second {
				t.Fatalf("round %d: still pending", i)
			}
		}
		for range i % 128 { // some nanoseconds each
			sink.Load()
		}
	}
}

// A timer that is moved to later between the look at its deadline and the attempt to fire it does
// not fire: the Reset has returned true. So too one that was moved while it was due.
// fault: 130
func TestLazyResetMeetsFiring(t *testing.T) {
	for name, look := range map[string]func(tm *Timer) int64{
		"seen before the Reset": nil,
		"seen after it":         func(tm *Timer) int64 { return tm.deadline.Load() },
	} {
		w := newWheel(Config{Executor: Inline}, 1)
		w.started = true // no goroutine: the test serves
		close(w.done)
		sh := &w.shards[0]
		tm := w.AfterFunc(0, func() { t.Error(name + ": fired") })
		at := tm.deadline.Load()
		require.Equal(t, uint8(levelDue), tm.level, name)
		require.True(t, tm.Reset(time.Hour), "%s: Reset of a due timer", name)
		later := tm.deadline.Load()
		if look != nil {
			at = look(tm)
		}
		require.False(t, sh.takeDue(tm, w.now(), at), "%s: taken", name)
		require.Equal(t, later, tm.deadline.Load(), "%s: the deadline", name)
		require.Equal(t, Stats{Pending: 1}, w.Stats(), "%s: nothing fired", name)
		sh.serve(w.now())
		w.check()
		w.Close()
	}
}

// A period that reaches beyond the end of time does not wrap to the past.
func TestTickerAtTheEndOfTime(t *testing.T) {
	w := newWheel(Config{Executor: Inline}, 1)
	w.started = true // no goroutine: the test serves
	close(w.done)
	defer w.Close()
	sh := &w.shards[0]
	tk := w.TickFunc(time.Second, func() {})
	sh.mu.Lock()
	tk.period = math.MaxInt64 - 1
	at := tk.t.deadline.Load()
	require.True(t, sh.takeDue(&tk.t, at, at), "the first time")
	sh.mu.Unlock()
	require.Equal(t, never, tk.t.deadline.Load(), "the second")
	w.check()
}

// fault: 130
// acceptance: T05 T06
func TestStressEachFiresOnceOrIsStopped(t *testing.T) {
	const goroutines = 8
	each := 12_500
	if raceEnabled {
		each = 3_000
	}
	if long {
		each *= 50
	}
	for name, exec := range map[string]func(func()){"goroutine": nil, "inline": Inline} {
		t.Run("executor="+name, func(t *testing.T) {
			w := New(Config{Executor: exec})
			defer w.Close()
			var starts, stops, fires atomic.Int64
			var group sync.WaitGroup
			for g := range goroutines {
				group.Go(func() {
					r := rand.New(rand.NewPCG(uint64(g), 0))
					var mine [16]*Timer
					for range each {
						k := r.IntN(len(mine))
						d := time.Duration(r.IntN(3_000)-100) * time.Microsecond
						switch t := mine[k]; {
						case t == nil:
							mine[k] = w.AfterFunc(d, func() { fires.Add(1) })
							starts.Add(1)
						case r.IntN(3) == 0:
							if t.Stop() {
								stops.Add(1)
							}
						case r.IntN(4) == 0:
							mine[k] = nil // left to fire
						default:
							if !t.Reset(d) {
								starts.Add(1)
							}
						}
					}
				})
			}
			group.Wait()
			require.Eventually(t, func() bool { return starts.Load() == stops.Load()+fires.Load() },
				20*time.Second, time.Millisecond, "every start ends in a fire or a true Stop")
			s := w.Stats()
			require.Equal(t, Stats{Fired: uint64(fires.Load()), Stopped: uint64(stops.Load()),
				Wakeups: s.Wakeups, Latest: s.Latest}, s, "Stats")
			w.check()
		})
	}
}

// Timers shared by goroutines: the lazy Reset meets Stop, firing and itself.
// fault: 130
func TestStressSharedTimers(t *testing.T) {
	const goroutines = 8
	each := 20_000
	if raceEnabled {
		each = 4_000
	}
	w := New(Config{Executor: Inline})
	defer w.Close()
	var starts, stops, fires atomic.Int64
	var timers [4]Timer
	for i := range timers {
		w.InitFunc(&timers[i], func() { fires.Add(1) })
	}
	var group sync.WaitGroup
	for g := range goroutines {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range each {
				tm := &timers[r.IntN(len(timers))]
				switch d := time.Duration(r.IntN(200)-20) * 20 * time.Microsecond; r.IntN(4) {
				case 0:
					if tm.Stop() {
						stops.Add(1)
					}
				case 1:
					if !tm.ResetAt(w.Elapsed() + d) {
						starts.Add(1)
					}
				default:
					if !tm.Reset(d) {
						starts.Add(1)
					}
				}
			}
		})
	}
	group.Wait()
	require.Eventually(t, func() bool { return starts.Load() == stops.Load()+fires.Load() },
		20*time.Second, time.Millisecond, "every start ends in a fire or a true Stop")
	w.check()
}

// Timers never fire early on the real clock either.
// acceptance: T08
func TestNeverEarly(t *testing.T) {
	w := New(Config{})
	defer w.Close()
	var group sync.WaitGroup
	for i := range 2000 {
		group.Add(1)
		d := time.Duration(i%50)*time.Millisecond + time.Duration(i)*time.Microsecond
		begin := time.Now()
		w.AfterFunc(d, func() {
			if got := time.Since(begin); got < d {
				t.Errorf("AfterFunc(%v) fired after %v", d, got)
			}
			group.Done()
		})
	}
	group.Wait()
}

// The purego and the address spread both use all shards.
func TestSpread(t *testing.T) {
	w := newWheel(Config{}, 8)
	defer w.Close()
	used := map[*shard]int{}
	var keep []*Timer
	for range 100_000 {
		tm := w.AfterFunc(time.Hour, func() {})
		used[tm.sh]++
		keep = append(keep, tm)
	}
	require.Len(t, used, 8, "shards in use")
	for _, n := range used {
		require.Less(t, n, 100_000/8*2, "timers in one shard")
	}
	runtime.KeepAlive(keep)
}

// A stopped or fired timer is collectable at once, whatever its neighbours do.
func TestStoppedTimerIsCollectable(t *testing.T) {
	w := newWheel(Config{Executor: Inline}, 1)
	defer w.Close()
	type big struct {
		tm Timer
		_  [1000]byte
	}
	const n = 300
	var freed atomic.Int64
	fired := make(chan struct{}, n)
	var keep []*big // every third stays pending between the others
	func() {
		var stop []*big
		for i := range n {
			b := &big{}
			w.InitFunc(&b.tm, func() { fired <- struct{}{} })
			switch i % 3 {
			case 0:
				b.tm.Reset(time.Hour)
				keep = append(keep, b)
				continue
			case 1:
				b.tm.Reset(time.Hour)
				stop = append(stop, b)
			case 2:
				b.tm.Reset(0)
			}
			runtime.AddCleanup(b, func(int) { freed.Add(1) }, 0)
		}
		for _, b := range stop {
			require.True(t, b.tm.Stop(), "Stop")
		}
	}()
	for range n / 3 {
		<-fired
	}
	require.Eventually(t, func() bool { runtime.GC(); return freed.Load() >= n/3*2-1 },
		10*time.Second, time.Millisecond, "collected")
	require.Equal(t, n/3, w.Stats().Pending, "Pending")
	runtime.KeepAlive(keep)
}

// acceptance: T02
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	w := New(Config{Executor: Inline})
	defer w.Close()
	f := func() {}
	arg := new(int)
	g := func(*int) {}
	check := func(want float64, what string, op func()) {
		t.Helper()
		op() // levels are made once
		run := func() float64 { return testing.AllocsPerRun(1000, op) }
		require.Equal(t, want, min(run(), run(), run()), what) // other goroutines allocate too
	}
	check(1, "AfterFunc and Stop", func() { w.AfterFunc(time.Hour, f).Stop() })
	check(1, "AfterFuncArg and Stop", func() { AfterFuncArg(w, time.Hour, g, arg).Stop() })
	tm := w.AfterFunc(time.Hour, f)
	check(0, "Reset to later", func() { tm.Reset(time.Hour) })
	check(0, "Reset to earlier and later", func() { tm.Reset(time.Minute); tm.Reset(time.Hour) })
	check(0, "Stop and Reset", func() { tm.Stop(); tm.Reset(time.Hour) })
	var s struct{ idle Timer }
	check(0, "InitFuncArg and Reset", func() {
		InitFuncArg(w, &s.idle, g, arg)
		s.idle.Reset(time.Hour)
		s.idle.Stop()
	})
	done := make(chan struct{})
	InitFuncArg(w, &s.idle, func(c chan struct{}) { c <- struct{}{} }, done)
	check(0, "firing inline", func() { s.idle.Reset(0); <-done })
}
