// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"context"
	"math/bits"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

// Wheel runs timers. Make one with [New]; the zero Wheel is not usable. All methods may be
// called by any number of goroutines at once, and from callbacks.
//
// A Wheel owns one goroutine. It starts with the first timer, sleeps until the next deadline
// (for ever, if there is none), and ends with [Wheel.Close].
type Wheel struct {
	base     time.Time // when the clock of this Wheel was 0; one tick before it was made
	tick     int64     // nanoseconds, see fineTick
	closed   atomic.Bool
	shift    uint8   // turns a 64-bit hash into an index of plain or waited
	shards   []shard // all
	plain    []shard // of timers with a callback, which no goroutine waits for
	waited   []shard // of those with a channel or a Context, which Close has to find
	execFunc func(func())
	inline   bool
	onPanic  func(any, []byte)

	// armed is the tick until which the goroutine sleeps: never if it waits for a wake-up
	// only, or was not started; 0 while it is awake and going to look at every shard.
	armed   atomic.Int64
	wakeups atomic.Uint64
	runner  atomic.Uint64 // id of the goroutine, 0 before it runs
	wake    chan struct{}
	done    chan struct{} // closed when the goroutine serves no more, or never will start

	mu      sync.Mutex // guards started, and it against closed
	started bool
}

// Stats are the counters of a [Wheel], at about one moment.
type Stats struct {
	Pending int           // timers and tickers that will fire
	Fired   uint64        // expirations, of tickers each
	Stopped uint64        // calls of Stop that returned true, and timers ended by Close
	Wakeups uint64        // times the goroutine was woken, by the clock or by a new first timer
	Latest  time.Duration // longest time from a deadline to its serving; Coarse timers excluded
}

// New makes a Wheel. It panics if cfg.Tick is negative or more than a day.
//
// A Wheel made inside a testing/synctest bubble belongs to it: it follows the clock of the
// bubble, must not be used outside, and must be closed before the bubble ends.
func New(cfg Config) *Wheel { return newWheel(cfg, defaultShards()) }

func newWheel(cfg Config, shards int) *Wheel {
	if cfg.Tick < 0 || cfg.Tick > maxTick {
		panic("timerwheel: Config.Tick out of range")
	}
	if cfg.Tick == 0 {
		cfg.Tick = DefaultTick
	}
	if cfg.OnPanic == nil {
		cfg.OnPanic = logPanic
	}
	tick := fineTick(int64(cfg.Tick))
	w := &Wheel{
		tick: tick,
		// The clock never shows 0, which stands for "not pending" in a deadline.
		base:     time.Now().Add(-time.Duration(tick)),
		execFunc: cfg.Executor,
		inline:   isInline(cfg.Executor),
		onPanic:  cfg.OnPanic,
		shards:   make([]shard, 2*shards),
		shift:    uint8(64 - bits.TrailingZeros(uint(shards))),
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
	}
	w.plain, w.waited = w.shards[:shards], w.shards[shards:]
	for i := range w.shards {
		w.shards[i].w = w
		w.shards[i].next.Store(never)
	}
	w.armed.Store(never)
	return w
}

var defaultWheel = sync.OnceValue(func() *Wheel { return New(Config{}) })

// Default returns a Wheel with the zero [Config] that the whole process shares, made by the
// first call. Do not close it, and do not use it in a testing/synctest bubble: make one there.
func Default() *Wheel { return defaultWheel() }

// now returns the nanoseconds on this Wheel's clock, at least one tick. The clock is monotonic:
// setting the system's time does not move it.
func (w *Wheel) now() int64 { return int64(time.Since(w.base)) }

// Elapsed returns the reading of the Wheel's clock, which is monotonic and began about when
// the Wheel was made. One reading can serve several [Timer.ResetAt], and differences of
// readings are durations.
func (w *Wheel) Elapsed() time.Duration { return time.Duration(w.now()) }

// Stats returns the counters. It locks the parts of the Wheel one after another, so it sees
// timers that are moved meanwhile before or after the move.
func (w *Wheel) Stats() Stats {
	s := Stats{Wakeups: w.wakeups.Load()}
	for i := range w.shards {
		w.shards[i].addTo(&s)
	}
	return s
}

// Close stops every timer and ends the goroutine. After that nothing fires, starting a timer
// has no effect, Reset returns false, and so does Stop, unless it takes back the value of a Timer
// that had fired. Callbacks that are running in goroutines
// of their own, or were handed to the Executor, are not waited for.
//
// Waiting goroutines are released: the channel of each pending Timer and Ticker is closed
// (receiving from it yields the zero time and ok == false), [Wheel.Sleep] returns, and a
// [Wheel.Context] is canceled. What is started later is released at once.
//
// Close may be called more than once and concurrently; each call returns when no callback runs
// on the goroutine any more, nor will. A callback that runs there may call it too; this call
// returns at once. Close looks at those timers only that somebody may wait for: a million
// callbacks make it no slower. The goroutine takes them out after that, and ends.
func (w *Wheel) Close() {
	// Under mu, so that kick does not start the goroutine after this has looked at started.
	w.mu.Lock()
	first := w.closed.CompareAndSwap(false, true)
	started := w.started
	w.mu.Unlock()
	if first {
		// All shards are closed before anybody is released: a released goroutine may start a
		// timer, which must find its shard closed.
		for i := range w.shards {
			w.shards[i].close()
		}
		sweep(w.waited)
		if !started {
			w.end()
		}
		w.kick() // the goroutine may sleep until a far deadline
	}
	if w.runner.Load() != goroutineID() {
		<-w.done
	}
}

// end is the end of the goroutine, or takes its place if it was never started. Close does not
// wait for the sweep, which looks at each timer.
func (w *Wheel) end() {
	// done first: sweeping looks at every timer, which a caller of Close need not wait for.
	close(w.done)
	sweep(w.plain)
}

func sweep(shards []shard) {
	for i := range shards {
		shards[i].sweep()
	}
}

// wakeFor makes sure that the goroutine is awake at the tick start.
//
// No wake-up is lost: a shard's next is stored before armed is read here; the goroutine stores
// armed before it reads every next once more. One of the two sees the other.
func (w *Wheel) wakeFor(start int64) {
	for {
		armed := w.armed.Load()
		if start >= armed {
			return
		}
		if w.armed.CompareAndSwap(armed, 0) {
			w.kick() // one caller wakes it; until it sleeps again, nobody else tries
			return
		}
	}
}

// kick wakes the goroutine, or starts it.
func (w *Wheel) kick() {
	w.mu.Lock()
	if !w.started && !w.closed.Load() {
		w.started = true
		go w.run()
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default: // a wake-up is under way already
	}
}

// run is the goroutine.
func (w *Wheel) run() {
	w.runner.Store(goroutineID())
	resetLabels()
	ended := false
	defer func() {
		// An inline callback that calls runtime.Goexit (a failing test, say) takes this
		// goroutine with it, but no other timer.
		if !ended {
			go w.run()
			return
		}
		w.end()
	}()
	clock := time.NewTimer(time.Hour) // any duration: sleep sets it
	defer clock.Stop()
	for !w.closed.Load() {
		next := w.serve()
		if next == 0 {
			continue // a shard had more to do than its budget
		}
		// Announce, then look again: see wakeFor. What came between is served, not slept over.
		w.armed.Store(next)
		if w.earliest() < next {
			w.armed.Store(0)
			continue
		}
		w.sleep(clock, next)
		w.armed.Store(0)
		w.wakeups.Add(1)
	}
	ended = true
}

// serve serves the shards that want it and returns the tick at which one wants it next.
func (w *Wheel) serve() (next int64) {
	next = never
	nowTick := w.now() / w.tick
	for i := range w.shards {
		sh := &w.shards[i]
		if sh.next.Load() <= nowTick {
			sh.serve(w.now())
			nowTick = w.now() / w.tick // serving took time; the next shards should not be late
		}
		next = min(next, sh.next.Load())
	}
	return next
}

func (w *Wheel) earliest() int64 {
	next := never
	for i := range w.shards {
		next = min(next, w.shards[i].next.Load())
	}
	return next
}

// sleep returns at the tick next, or when woken.
func (w *Wheel) sleep(clock *time.Timer, next int64) {
	if next >= never/w.tick {
		// Beyond what the clock can show; next*tick would overflow.
		clock.Stop()
		<-w.wake
		return
	}
	clock.Reset(time.Duration(next*w.tick - w.now()))
	select {
	case <-clock.C:
	case <-w.wake:
	}
}

// execute runs a callback as the Config says. It returns at once unless the callback runs on
// this goroutine.
func (w *Wheel) execute(call caller, arg any) {
	if w.execFunc == nil {
		go w.guard(call, arg)
		return
	}
	if w.inline {
		w.guard(call, arg)
	} else {
		w.handOver(call, arg)
	}
	resetLabels() // user code ran on this goroutine and may have set some
}

// resetLabels takes the profiler labels from the Wheel's goroutine. A goroutine inherits those
// of the one that starts it, here of whichever goroutine made the first timer; and what runs on
// the Wheel's goroutine, or is started by it, would be counted as that one's work.
func resetLabels() { pprof.SetGoroutineLabels(context.Background()) }

// guard runs a callback and reports its panic.
func (w *Wheel) guard(call caller, arg any) {
	defer w.recovered()
	call.run(arg)
}

func (w *Wheel) handOver(call caller, arg any) {
	if _, ok := call.(tickCaller); ok {
		w.handOverTick(arg.(*Ticker))
		return
	}
	defer w.recovered()
	w.execFunc(func() { w.guard(call, arg) })
}

// handOverTick gives the Ticker free if the Executor does not return. It may have passed the
// call on before, to a goroutine that has not begun yet: whichever is first has it.
func (w *Wheel) handOverTick(tk *Ticker) {
	var taken atomic.Bool
	handed := false
	defer func() {
		if !handed && taken.CompareAndSwap(false, true) {
			tk.running.Store(false)
		}
	}()
	defer w.recovered() // runs first: the function above needs no stack of a panic
	w.execFunc(func() {
		if taken.CompareAndSwap(false, true) {
			w.guard(tickCaller{}, tk)
		}
	})
	handed = true
}

// recovered is to be deferred.
func (w *Wheel) recovered() {
	if v := recover(); v != nil {
		w.onPanic(v, debug.Stack())
	}
}
