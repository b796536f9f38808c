// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// byHand returns a Wheel with one shard of each kind and no goroutine: the test serves.
func byHand(t *testing.T) (*Wheel, *shard) {
	w := newWheel(Config{Executor: Inline}, 1)
	w.started = true
	close(w.done)
	t.Cleanup(w.Close)
	return w, &w.plain[0]
}

// However many timers are due at once, the lock is given to others after a bounded number.
func TestServeIsDoneInPortions(t *testing.T) {
	const n = 10 * moveBudget
	w, sh := byHand(t)
	fired := 0
	for range n {
		w.AfterFunc(time.Second, func() { fired++ })
	}
	w.base = w.base.Add(-2 * time.Second) // two seconds pass
	for served := 1; fired < n; served++ {
		require.LessOrEqual(t, served, 2*n/fireBudget, "portions")
		before := fired
		sh.serve(w.now())
		require.LessOrEqual(t, fired-before, fireBudget, "fired in a portion")
		due := 0
		for tm := sh.due.head; tm != nil; tm = tm.next {
			due++
		}
		require.LessOrEqual(t, due+fired, served*moveBudget, "moved in %d portions", served)
		require.Equal(t, fired < n, sh.next.Load() == 0, "it wants its next turn at once")
		w.check()
	}
}

// A slot of few timers is looked through for the first that is due, a full one is opened when it
// begins; beyond its end nobody is left to lie.
func TestWakeLooksThroughAFewTimers(t *testing.T) {
	w, sh := byHand(t)
	const level = 3
	begin := int64(5) << (level * slotBits)
	at := func(tick int64) time.Duration { return time.Duration(tick * w.tick) }
	all := make([]Timer, few)
	for i := range all {
		w.InitFunc(&all[i], func() {})
		all[i].ResetAt(at(begin + 1000 - int64(i)))
		require.Equal(t, begin+1000-int64(i), sh.wake(), "with %d timers", i+1)
	}
	more := w.AfterFunc(0, func() {})
	more.Stop()
	more.ResetAt(at(begin + 2000))
	require.Equal(t, begin, sh.wake(), "with one timer more than a few")
	more.Stop()
	all[0].Stop()
	all[0].SetCoarse(true)
	all[0].ResetAt(at(begin + 1000))
	require.Equal(t, begin, sh.wake(), "with a coarse timer")
	for i := range all {
		all[i].Stop()
	}
	require.Equal(t, never, sh.wake(), "with no timer")
	lazy := w.AfterFunc(0, func() {})
	lazy.Stop()
	lazy.ResetAt(at(begin + 10))
	lazy.ResetAt(at(begin * 3))
	require.Equal(t, uint8(5), lazy.slot, "a lazy Reset leaves the timer in its slot")
	require.Equal(t, begin+1<<(level*slotBits)-1, sh.wake(), "the end of its slot")
}

// A Reset to earlier within the slot does not move the timer.
func TestResetWithinASlotStays(t *testing.T) {
	w, sh := byHand(t)
	a, b := w.AfterFunc(time.Hour, func() {}), w.AfterFunc(time.Hour, func() {})
	require.True(t, a.Reset(time.Hour-10*time.Millisecond), "Reset")
	require.Same(t, b, a.next, "the order in the slot")
	require.True(t, a.Reset(time.Minute), "Reset")
	require.Nil(t, a.next, "moved to another slot")
	require.LessOrEqual(t, sh.next.Load(), sh.tickOf(a.deadline.Load()), "next")
	w.check()
}

// While the goroutine sleeps, the shard keeps up with the clock as far as nothing lies between:
// what starts then goes to the level that its duration asks for.
func TestLevelsFollowTheClock(t *testing.T) {
	w, sh := byHand(t)
	w.AfterFunc(1000*time.Hour, func() {})
	w.base = w.base.Add(-time.Hour) // an hour passes
	tm := w.AfterFunc(time.Millisecond, func() {})
	require.Equal(t, uint8(0), tm.level, "level of a timer for a millisecond")
	require.Less(t, w.now()/w.tick-sh.levels.cur, int64(time.Hour)/w.tick/2, "distance to the clock")
	tm.Stop()
	w.base = w.base.Add(-time.Hour)
	now := w.now()
	sh.serve(now)
	require.Equal(t, now/w.tick, sh.levels.cur, "after serving")
	w.check()
}

// What became due after the clock was read fires in the same round.
func TestDueAfterTheClockWasRead(t *testing.T) {
	w, sh := byHand(t)
	now, fired := w.now(), 0
	for w.now() == now {
	}
	w.AfterFunc(0, func() { fired++ })
	sh.serve(now)
	require.Equal(t, 1, fired, "calls")
}

// Latest counts the time that an inline callback takes from the others.
func TestLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWheel(Config{Executor: Inline}, 1)
		defer w.Close()
		w.AfterFunc(ms, func() { time.Sleep(10 * ms) })
		w.AfterFunc(ms, func() {})
		time.Sleep(20 * ms)
		require.Equal(t, 10*ms, w.Stats().Latest, "Latest")
	})
}

// The clock does not begin at 0, which would be the deadline of a timer that is not pending.
func TestStopAtTheBeginningOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := byHand(t)
		require.True(t, w.AfterFunc(0, func() {}).Stop(),
			"Stop of what was started when the Wheel was made")
		tm := w.AfterFunc(time.Hour, func() {})
		require.True(t, tm.ResetAt(0), "ResetAt to a time before that")
		require.True(t, tm.Stop(), "Stop")
	})
}
