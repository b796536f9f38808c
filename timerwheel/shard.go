// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/cpu"
)

// How much is done before a shard's lock is given to others, and before other shards get
// their turn.
const (
	moveBudget = 256
	fireBudget = 64
)

// few is how many timers of a slot are looked at to find out when the first of them is due.
const few = 8

// shard is a part of a Wheel with a lock of its own. A timer belongs to one shard for life.
//
// Timer.deadline is 0 while the timer is not pending, else the time in
// nanoseconds on the Wheel's clock. It goes from and to 0, and down, only under mu. It is
// moved up by compare-and-swap without the lock (the lazy Reset). Hence, under mu: a timer is
// in a list exactly if its deadline is not 0, and it is never in a slot later than its
// deadline's; in an earlier one it is merely looked at once too often.
//
// Closing a shard only sets closed: no timer is visited. Those that are still linked are not
// pending any more, whatever their deadlines say, and are taken out one by one: by sweep, or
// when somebody uses them.
type shard struct {
	w *Wheel

	// next is the tick at which the shard wants to be served: 0 while something is due, never
	// when there is nothing. Written under mu. It may be early (the timer behind it was
	// stopped), never late.
	next atomic.Int64

	mu      sync.Mutex // guards the rest
	levels  levels
	catchUp int64 // when place may try again to move levels.cur
	due     list  // in the order in which they fire
	closed  bool
	pending int
	fired   uint64
	stopped uint64
	latest  int64

	_ cpu.CacheLinePad // the next shard's first words are written by other goroutines
}

// arm sets t to expire at the time at and reports whether it was pending. If t is a ticker's,
// it goes on every period.
func (sh *shard) arm(t *Timer, now, at int64, period time.Duration) bool {
	sh.mu.Lock()
	if sh.closed {
		// Close did not visit t, and it may not be started any more.
		sh.retire(t)
		sh.mu.Unlock()
		return false
	}
	// A swap, not a load and a store: a lazy Reset may come between those, and would be lost.
	was := t.deadline.Swap(at) != 0
	if !was {
		sh.pending++
	}
	if t.C != nil && t.drain() {
		// The value was never received, so for the caller the timer has not fired.
		was = true
		sh.fired--
	}
	if t.periodic {
		t.arg.(*Ticker).period = period
	}
	start := int64(0)
	if at <= now {
		sh.makeDue(t) // nothing to wait for, not even the rest of this tick
	} else {
		start = sh.place(t, now, at)
	}
	// Beside the goroutine, only this moves next, and only down. It stays where it is when t
	// was the earliest and moved up: the goroutine may come once in vain, which is cheaper than
	// to look for the earliest now.
	if start < sh.next.Load() {
		sh.next.Store(start)
	}
	sh.mu.Unlock()
	// After the lock, since waking takes another one. wakeFor says why no wake-up is lost.
	if start < sh.w.armed.Load() {
		sh.w.wakeFor(start)
	}
	return was
}

// stop makes t not pending and reports whether it was.
func (sh *shard) stop(t *Timer) bool {
	sh.mu.Lock()
	was := t.deadline.Load() != 0
	if was {
		// 0 first: from here on a lazy Reset fails, and takes the lock.
		t.deadline.Store(0)
		sh.unlink(t)
		if sh.closed {
			was = false // Close has stopped and counted it, and would have released it
			t.release()
		} else {
			sh.pending--
		}
	}
	// A value that nobody received is taken back, and t counts as stopped before it fired. The
	// ticker of a closed shard was on until Close, which has counted it already.
	if t.C != nil && t.drain() && !(sh.closed && t.periodic) {
		was = true
		sh.fired--
	}
	if was {
		sh.stopped++
	}
	sh.mu.Unlock()
	return was
}

// place puts t where its deadline at belongs, from wherever it is, and returns when the shard
// has to be served for it.
func (sh *shard) place(t *Timer, now, at int64) (start int64) {
	if now >= sh.catchUp {
		nowTick := now / sh.w.tick
		if nowTick > sh.levels.cur && nowTick < sh.next.Load() && nowTick < sh.levels.next() {
			// Nothing lies between, and no serving is half done: moving on here, where
			// it is free, keeps timers in low levels although the goroutine has slept
			// for a while.
			sh.levels.cur = nowTick
		}
		sh.catchUp = now + slotCount*sh.w.tick
	}
	want := sh.tickOf(at)
	if want <= sh.levels.cur {
		// The levels cannot hold what is not after cur. cur may be ahead of now by the rest of
		// a tick, so takeDue looks at the deadline again.
		sh.makeDue(t)
		return 0
	}
	if t.coarse {
		want = sh.roundUp(t, now)
	}
	if t.level == levelDue {
		sh.unlink(t) // put moves t from a level by itself, but knows no other list
	}
	sh.levels.put(t, want)
	return want
}

// roundUp moves the deadline of t, a coarse timer, up to a round tick, which it returns. It is the
// deadline that moves, not only the slot: a Reset to a time before that tick then is one to an
// earlier time, and does not leave t where it is.
func (sh *shard) roundUp(t *Timer, now int64) int64 {
	for {
		at := t.deadline.Load()
		tick := sh.tickOf(at)
		delta := tick - now/sh.w.tick
		if delta <= 0 {
			return tick
		}
		// Near the end of time a rounded tick, counted in nanoseconds, would overflow.
		tick = min(coarseTick(tick, delta), sh.tickOf(never))
		round := never
		if tick < never/sh.w.tick {
			round = tick * sh.w.tick
		}
		if t.deadline.CompareAndSwap(at, round) { // else a lazy Reset came between
			return tick
		}
	}
}

// makeDue puts t at the end of the due list, unless it is in that.
func (sh *shard) makeDue(t *Timer) {
	if t.level == levelDue {
		return
	}
	if t.level != levelNone {
		sh.levels.remove(t)
	}
	sh.due.push(t)
	t.level = levelDue
}

// unlink takes t out of the list in which it is.
func (sh *shard) unlink(t *Timer) {
	if t.level == levelDue {
		sh.due.remove(t)
		t.level = levelNone
		return
	}
	sh.levels.remove(t)
}

// serve does what is to be done at the time now, or a part of it: then next is 0. Only the
// Wheel's goroutine calls it. A callback that ends this goroutine leaves the shard consistent,
// with next not above now.
func (sh *shard) serve(now int64) {
	w := sh.w
	sh.mu.Lock()
	behind := sh.advance(now)
	// The budget gives other shards their turn when this one has a crowd of due timers.
	for n := 0; n < fireBudget && sh.due.head != nil && !sh.closed; n++ {
		t := sh.due.head
		at := t.deadline.Load()
		if at > now {
			now = w.now() // a callback may have added t after now was read
		}
		if !sh.takeDue(t, now, at) {
			continue
		}
		if t.C != nil {
			t.send() // under the lock, so that a Stop finds the value or prevents it
			continue
		}
		// Read before the lock is given up: a callback may prepare t anew for other work.
		call, arg := t.call, t.arg
		if t.periodic && !arg.(*Ticker).running.CompareAndSwap(false, true) {
			continue // f still runs: this call is dropped
		}
		// User code runs without the lock. It may use this very timer, and it may end this
		// goroutine: the shard is consistent here, and next is still in the past.
		sh.mu.Unlock()
		w.execute(call, arg)
		now = w.now() // the callback took time
		sh.mu.Lock()
	}
	switch {
	case sh.closed: // close has set next
	case behind || sh.due.head != nil:
		sh.next.Store(0) // come again at once, after the other shards
	default:
		sh.next.Store(sh.wake())
	}
	sh.mu.Unlock()
}

// wake returns the tick at which the shard has to be served next. That is when the first timer
// of the earliest slot is due. Where there are many in it, it is the beginning of the slot: to
// move them down, and not to search it each time.
func (sh *shard) wake() int64 {
	wake := never
	for n := range sh.levels.depth {
		l, begin := sh.levels.first(n)
		if begin >= wake {
			continue // a lower level wants to be served before
		}
		// No timer of the slot is looked at after the slot's end, even if a lazy Reset moved
		// it further. So the slots that follow in this level need no look now.
		tick := begin | (1<<(n*slotBits) - 1)
		k := 0
		for t := l.head; t != nil && tick > begin; t = t.next {
			// A coarse timer's deadline is a round tick, mostly the beginning of its slot.
			if k++; k > few || t.coarse {
				tick = begin
				break
			}
			tick = min(tick, sh.tickOf(t.deadline.Load()))
		}
		wake = min(wake, tick)
	}
	return wake
}

// tickOf returns the first tick not before the time at: never early.
func (sh *shard) tickOf(at int64) int64 {
	// Unsigned, since a division by a variable is cheaper so. at is at least 1.
	return int64(uint64(at-1)/uint64(sh.w.tick)) + 1
}

// advance moves what the clock has reached to the due list and reports whether it stopped
// half way.
func (sh *shard) advance(now int64) (behind bool) {
	nowTick := now / sh.w.tick
	for n := 0; n < moveBudget; {
		t := sh.levels.takeCurrent()
		if t != nil {
			// By its deadline of now: a lazy Reset may have moved it to a later slot.
			sh.place(t, now, t.deadline.Load())
			n++
			continue
		}
		// Empty slots are passed in one step, however many there are.
		start := sh.levels.next()
		if start > nowTick {
			sh.levels.cur = max(sh.levels.cur, nowTick)
			return false
		}
		sh.levels.cur = start
	}
	return true
}

// takeDue takes t, the first of the due list, from it. It returns false if t was moved to a
// later time meanwhile, and puts it there. A periodic timer is placed for its next time.
func (sh *shard) takeDue(t *Timer, now, at int64) bool {
	// Out of the list first: place and a later expiry find t in no list.
	sh.unlink(t)
	for {
		if at > now {
			sh.place(t, now, at)
			return false
		}
		next := int64(0)
		if t.periodic {
			p := int64(t.arg.(*Ticker).period)
			// Missed times are skipped and the phase is kept, as in package time.
			if next = at + p*(1+(now-at)/p); next < 0 {
				next = never
			}
		}
		// The swap decides against a lazy Reset: whichever is first, the other one sees it.
		if t.deadline.CompareAndSwap(at, next) {
			if next != 0 {
				sh.place(t, now, next)
			} else {
				sh.pending--
			}
			break
		}
		at = t.deadline.Load() // only a lazy Reset gets here: it went up
	}
	sh.fired++
	// A coarse timer is late on purpose.
	if late := now - at; late > sh.latest && !t.coarse {
		sh.latest = late
	}
	return true
}

// close ends every timer of the shard without looking at one.
func (sh *shard) close() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.closed {
		return
	}
	sh.closed = true
	sh.stopped += uint64(sh.pending)
	sh.pending = 0
	sh.next.Store(never)
}

// retire takes t, which the closed shard may still have, out of it, and releases its receivers.
// They do not get what was sent before.
func (sh *shard) retire(t *Timer) {
	if t.deadline.Load() != 0 {
		t.deadline.Store(0)
		sh.unlink(t)
	}
	if t.C != nil {
		t.drain() // else a receiver takes an old value for a new one
	}
	t.release()
}

// sweep retires what the closed shard still has, so that no timer keeps its former neighbours
// alive, and tells the closers among them.
func (sh *shard) sweep() {
	for more := true; more; {
		var told []*Timer
		sh.mu.Lock()
		for n := 0; n < moveBudget && more; n++ {
			t := sh.due.head
			if t != nil {
				sh.unlink(t)
			} else if t = sh.levels.takeAny(); t == nil {
				sh.levels = levels{} // a KiB for each level
				more = false
				break
			}
			t.deadline.Store(0)
			t.release()
			if _, ok := t.call.(closer); ok {
				told = append(told, t)
			}
		}
		sh.mu.Unlock()
		// Without the lock: a cancel calls into package context, which may call anything.
		for _, t := range told {
			t.call.(closer).wheelClosed(t.arg)
		}
	}
}

// forget reports whether t is not pending, and can become a timer of another Wheel.
func (sh *shard) forget(t *Timer) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.closed {
		sh.retire(t)
	}
	return t.deadline.Load() == 0
}

func (sh *shard) addTo(s *Stats) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.Pending += sh.pending
	s.Fired += sh.fired
	s.Stopped += sh.stopped
	s.Latest = max(s.Latest, time.Duration(sh.latest))
}
