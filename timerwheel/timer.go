// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"math"
	"sync/atomic"
	"time"
)

// Timer is a single event in the future: a callback, or a value on a channel. Timers come from
// [Wheel.AfterFunc], [AfterFuncArg], [Wheel.CoarseFunc] and [Wheel.NewTimer], or are part of a
// larger value and prepared by [Wheel.InitFunc] or [InitFuncArg].
//
// Stop on a zero Timer returns false; Reset panics. A Timer must not be copied after first use.
// All methods may be called concurrently, and from the callback.
type Timer struct {
	// C receives the time when the Timer expires, if it was made by [Wheel.NewTimer]; else
	// it is nil.
	C <-chan time.Time

	sh         *shard
	deadline   atomic.Int64 // see shard
	prev, next *Timer       // this and the rest: under sh.mu
	call       caller       // constant
	arg        any          // constant; of a Ticker's timer, the *Ticker
	level      uint8        // where it is linked: a level, levelNone or levelDue
	slot       uint8        // index in the level
	coarse     bool
	periodic   bool // constant
	released   bool // C was closed
}

// caller is what a timer does; arg is the timer's. Functions implement it, so that a callback
// with its argument needs no closure.
type caller interface{ run(arg any) }

// closer is a caller that wants to know that its pending timer was ended by Wheel.Close.
type closer interface{ wheelClosed(arg any) }

type (
	plainFunc      func()
	argFunc[T any] func(T)
	valueChan      chan time.Time // never called: the value is sent under the shard's lock
)

func (f plainFunc) run(any) { f() }

func (f argFunc[T]) run(arg any) {
	v, _ := arg.(T) // fails only for a nil interface, which is the zero T
	f(v)
}

func (valueChan) run(any) {}

// AfterFunc waits for d and then calls f, in a goroutine of its own unless Config.Executor says
// otherwise. If d is zero or negative, that is at once. The Timer can be used to cancel the
// call with its Stop method. One allocation, of 80 bytes.
func (w *Wheel) AfterFunc(d time.Duration, f func()) *Timer {
	t := new(Timer)
	w.InitFunc(t, f)
	t.start(d)
	return t
}

// AfterFuncArg is [Wheel.AfterFunc] for a function with an argument: it needs no closure. If T
// is a pointer, map, channel or function, there is no allocation but the Timer.
func AfterFuncArg[T any](w *Wheel, d time.Duration, f func(T), arg T) *Timer {
	t := new(Timer)
	InitFuncArg(w, t, f, arg)
	t.start(d)
	return t
}

// CoarseFunc is [Wheel.AfterFunc] for a call that may come later than asked for by an eighth
// of d and a tick, but never earlier; see [Timer.SetCoarse].
func (w *Wheel) CoarseFunc(d time.Duration, f func()) *Timer {
	t := new(Timer)
	w.InitFunc(t, f)
	t.coarse = true
	t.start(d)
	return t
}

// InitFunc prepares t, typically a field of a larger struct, as a stopped Timer that calls f;
// [Timer.Reset] starts it. Nothing is allocated. As long as t is pending, the Wheel holds a
// pointer to it and thereby keeps the struct alive. InitFunc panics if t is pending. A Timer that
// had a channel loses it: its C is nil then.
func (w *Wheel) InitFunc(t *Timer, f func()) {
	if f == nil {
		panic("timerwheel: nil function")
	}
	w.init(t, w.plain, plainFunc(f), nil)
}

// InitFuncArg is [Wheel.InitFunc] for a function with an argument, such as the struct that t is
// a field of: InitFuncArg(w, &s.idle, (*session).onIdle, s) allocates nothing.
func InitFuncArg[T any](w *Wheel, t *Timer, f func(T), arg T) {
	if f == nil {
		panic("timerwheel: nil function")
	}
	w.init(t, w.plain, argFunc[T](f), arg)
}

// NewTimer makes a Timer that sends the current time on its channel after at least d.
//
// As with package time since Go 1.23, nothing can be received from the channel after Stop or
// Reset that belongs to the time before. Unlike there, the channel has capacity 1 and
// len 1 once the Timer fired, and a Timer that nobody refers to any more is not collected
// before it has fired or was stopped.
func (w *Wheel) NewTimer(d time.Duration) *Timer {
	c := make(chan time.Time, 1)
	t := new(Timer)
	w.init(t, w.waited, valueChan(c), nil)
	t.C = c
	t.start(d)
	return t
}

// After waits for d and then sends the current time on the returned channel. It is
// NewTimer(d).C.
func (w *Wheel) After(d time.Duration) <-chan time.Time { return w.NewTimer(d).C }

// Until returns a channel that receives the current time when at has come. The duration is
// worked out once, by [time.Until]: from then on setting the system's clock changes nothing.
func (w *Wheel) Until(at time.Time) <-chan time.Time { return w.After(time.Until(at)) }

// Sleep pauses the calling goroutine for at least d, or until the Wheel is closed. Zero or a
// negative d returns at once. A callback that runs inline must not call it.
func (w *Wheel) Sleep(d time.Duration) {
	if d > 0 {
		<-w.After(d)
	}
}

// init prepares t as a timer in one of the shards.
func (w *Wheel) init(t *Timer, shards []shard, call caller, arg any) {
	if t.deadline.Load() != 0 && !t.sh.forget(t) {
		panic("timerwheel: initialization of a pending Timer")
	}
	// A pending Timer is linked in a shard, and writing to it here would break the lists.
	t.C = nil // t may have been one with a channel
	t.sh = &shards[spread(t, w.shift)]
	t.call, t.arg, t.level = call, arg, levelNone
}

// start begins t, which was never started.
func (t *Timer) start(d time.Duration) {
	now := t.sh.w.now()
	t.sh.arm(t, now, after(now, d), d)
}

// after returns the time d after now. What would be beyond the end of time is the end.
func after(now int64, d time.Duration) int64 {
	if d <= 0 {
		return now
	}
	if int64(d) > math.MaxInt64-now {
		return math.MaxInt64 // in 292 years
	}
	return now + int64(d)
}

// Stop prevents the Timer from firing. It returns true if the call stops the Timer, false if
// it has expired or was stopped. False means for a callback that it was started, or handed to
// the Executor; Stop does not wait for it. For a Timer with a channel, a value that was sent
// and not received is taken back and counts as not fired: Stop returns true.
//
// From then on the Wheel holds no pointer to the Timer.
func (t *Timer) Stop() bool {
	return t.sh != nil && t.sh.stop(t)
}

// Reset makes the Timer expire after d, whether it is pending, stopped or has fired. It returns
// true if the Timer was pending, or its value had not been received, and false otherwise; then
// a callback of the earlier expiry may still be running, also beside the one to come. Reset
// panics on a zero Timer.
//
// Moving the deadline of a pending Timer up is one reading of the clock and one atomic
// instruction, without a lock: the Wheel finds out when the old deadline comes.
func (t *Timer) Reset(d time.Duration) bool {
	sh := t.sh
	if sh == nil {
		panic("timerwheel: Reset of an uninitialized Timer")
	}
	// Timers of a closed Wheel still have deadlines, which postpone would take for pending.
	open := !sh.w.closed.Load()
	now := sh.w.now()
	at := after(now, d)
	return open && t.postpone(at) || sh.arm(t, now, at, 0)
}

// ResetAt is [Timer.Reset] with the deadline as a reading of the Wheel's clock, see
// [Wheel.Elapsed]: it saves the reading where the caller has one, or sets several timers.
// A deadline in the past means at once.
func (t *Timer) ResetAt(at time.Duration) bool {
	sh := t.sh
	if sh == nil {
		panic("timerwheel: ResetAt of an uninitialized Timer")
	}
	if !sh.w.closed.Load() && t.postpone(int64(at)) {
		return true
	}
	now := sh.w.now()
	return sh.arm(t, now, max(int64(at), now), 0)
}

// postpone moves the deadline of a pending t up to at, and returns false if t is not pending
// or its deadline is later than that.
func (t *Timer) postpone(at int64) bool {
	for {
		old := t.deadline.Load()
		if old == 0 || at < old {
			return false // it has to be linked anew, which takes the lock
		}
		// A lost swap is another Reset or an expiry; the next round finds out which.
		if t.deadline.CompareAndSwap(old, at) {
			return true
		}
	}
}

// SetCoarse says whether the Timer may fire late by up to an eighth of the duration it was last
// set to, plus a tick. It takes effect when the Timer is set the next time; true may do so at
// once on a pending Timer, with the time that is left as the duration. Coarse timers expire
// together at round ticks, which are multiples of a power of two, and are moved between levels
// once or not at all as a rule: right for idle limits, which need not be exact. Reset stays
// lock-free only if the new deadline is after that round tick. SetCoarse panics on a zero Timer.
func (t *Timer) SetCoarse(coarse bool) {
	if t.sh == nil {
		panic("timerwheel: SetCoarse of an uninitialized Timer")
	}
	t.sh.mu.Lock()
	t.coarse = coarse
	t.sh.mu.Unlock()
}

// send offers the time to the channel. It is called under the shard's lock, so that Stop and
// Reset find the value there or prevent it.
func (t *Timer) send() {
	select {
	case t.call.(valueChan) <- time.Now():
	default: // a ticker's receiver has not taken the previous one
	}
}

// drain takes back a value that nobody received.
func (t *Timer) drain() bool {
	select {
	case _, ok := <-t.C:
		return ok
	default:
		return false
	}
}

// release closes the channel, if there is one.
func (t *Timer) release() {
	if t.C != nil && !t.released {
		t.released = true // closing twice would panic, and several calls come here
		close(t.call.(valueChan))
	}
}
