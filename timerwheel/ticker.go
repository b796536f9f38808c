// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"sync/atomic"
	"time"
)

// Ticker fires again and again. Tickers come from [Wheel.NewTicker] and [Wheel.TickFunc]; the
// zero Ticker does nothing. All methods may be called concurrently, and from the callback.
//
// Times that pass while the receiver or the callback is busy, or while the process is stopped,
// are dropped; the rhythm stays.
type Ticker struct {
	// C delivers the ticks, if the Ticker was made by [Wheel.NewTicker]; else it is nil.
	C <-chan time.Time

	t       Timer
	period  time.Duration // under t.sh.mu
	f       func()
	running atomic.Bool // f runs, or was handed to the Executor
}

// NewTicker makes a Ticker that sends the current time on its channel every d. It panics if d
// is not positive. Nothing can be received from the channel after Stop or Reset that belongs
// to the time before. The channel has capacity 1.
func (w *Wheel) NewTicker(d time.Duration) *Ticker {
	if d <= 0 {
		panic("timerwheel: non-positive interval for NewTicker")
	}
	c := make(chan time.Time, 1)
	tk := &Ticker{C: c, period: d}
	w.startTicker(tk, w.waited, valueChan(c), c)
	return tk
}

// TickFunc calls f every d, where Config.Executor says. It panics if d is not positive or f is
// nil. A call of f that is due while the previous one still runs is dropped: f never runs
// beside itself.
func (w *Wheel) TickFunc(d time.Duration, f func()) *Ticker {
	if d <= 0 {
		panic("timerwheel: non-positive interval for TickFunc")
	}
	if f == nil {
		panic("timerwheel: nil function")
	}
	tk := &Ticker{period: d, f: f}
	w.startTicker(tk, w.plain, tickCaller{}, nil)
	return tk
}

// Tick is NewTicker(d).C, for loops that end with the Wheel: [Wheel.Close] closes the channel.
// Zero or a negative d returns nil, as in package time.
func (w *Wheel) Tick(d time.Duration) <-chan time.Time {
	if d <= 0 {
		return nil
	}
	return w.NewTicker(d).C
}

func (w *Wheel) startTicker(tk *Ticker, shards []shard, call caller, c <-chan time.Time) {
	w.init(&tk.t, shards, call, tk)
	tk.t.C = c
	tk.t.periodic = true
	tk.t.start(tk.period)
}

// Stop turns off the Ticker. It returns true if the Ticker was on. No tick can be received
// after it, and no call of f begins that was not started or handed to the Executor before.
// It does not close the channel.
func (tk *Ticker) Stop() bool { return tk.t.Stop() }

// Reset makes the Ticker fire every d, the first time after d, also if it was stopped. It
// returns true if the Ticker was on, and panics if d is not positive or the Ticker is zero.
func (tk *Ticker) Reset(d time.Duration) bool {
	if d <= 0 {
		panic("timerwheel: non-positive interval for Ticker.Reset")
	}
	sh := tk.t.sh
	if sh == nil {
		panic("timerwheel: Reset of an uninitialized Ticker")
	}
	now := sh.w.now()
	return sh.arm(&tk.t, now, after(now, d), d)
}

// tickCaller is the caller of TickFunc; the Ticker is its argument.
type tickCaller struct{}

func (tickCaller) run(arg any) {
	tk := arg.(*Ticker)
	defer tk.running.Store(false) // also when f panics, or the ticks would end with it
	tk.f()
}
