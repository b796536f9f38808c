// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"sync"
	"sync/atomic"
	"time"
)

// How much is done before a shard's lock is given to others, and before other shards get
// their turn.
const (
	moveBudget = 256
	fireBudget = 64
)

// shard is a part of a Wheel with a lock of its own. A timer belongs to one shard for life.
//
// Who writes what: Timer.deadline is 0 while the timer is not pending, else the time in
// nanoseconds on the Wheel's clock. It goes from and to 0, and down, only under mu. It is
// moved up by compare-and-swap without the lock (the lazy Reset). Hence, under mu: a timer is
// in a list exactly if its deadline is not 0, and it is never in a slot later than its
// deadline's; in an earlier one it is merely looked at once too often.
type shard struct {
	w *Wheel

	// next is the tick at which the shard wants to be served: at most the beginning of the
	// earliest occupied slot, 0 while something is due, never when there is nothing. Written
	// under mu. It may be early (the timer behind it was stopped), never late.
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

	_ [64]byte // the next shard's first line is written by others
}

// arm sets t to expire at the time at and reports whether it was pending. If t is a ticker's,
// it goes on every period.
func (sh *shard) arm(t *Timer, now, at int64, period time.Duration) bool {
	sh.mu.Lock()
	if sh.closed {
		t.release()
		sh.mu.Unlock()
		return false
	}
	was := t.deadline.Swap(at) != 0
	if was {
		sh.unlink(t)
	} else {
		sh.pending++
	}
	if t.C != nil && t.drain() {
		was = true
		sh.fired--
	}
	if t.periodic {
		t.arg.(*Ticker).period = period
	}
	start := int64(0)
	if at <= now {
		sh.pushDue(t) // nothing to wait for, not even the rest of this tick
	} else {
		start = sh.place(t, now, at)
	}
	if start < sh.next.Load() {
		sh.next.Store(start)
	}
	sh.mu.Unlock()
	sh.w.wakeFor(start)
	return was
}

// stop makes t not pending and reports whether it was.
func (sh *shard) stop(t *Timer) bool {
	sh.mu.Lock()
	was := t.deadline.Load() != 0
	if was {
		t.deadline.Store(0)
		sh.unlink(t)
		sh.pending--
	}
	if t.C != nil && t.drain() {
		was = true
		sh.fired--
	}
	if was {
		sh.stopped++
	}
	sh.mu.Unlock()
	return was
}

// place puts t, which is in no list, where its deadline at belongs, and returns when the shard
// has to be served for it.
func (sh *shard) place(t *Timer, now, at int64) (start int64) {
	tick := uint64(sh.w.tick) // a division of unsigned numbers is the faster one
	if now >= sh.catchUp {
		nowTick := int64(uint64(now) / tick)
		if nowTick > sh.levels.cur && nowTick < sh.next.Load() {
			// Nothing lies between: moving on here, where it is free, keeps timers in
			// low levels although the goroutine has slept for a while.
			sh.levels.cur = nowTick
		}
		sh.catchUp = now + slotCount*int64(tick)
	}
	want := int64(uint64(at-1)/tick) + 1 // rounded up: never early
	if want <= sh.levels.cur {
		sh.pushDue(t)
		return 0
	}
	if t.coarse {
		if delta := want - now/sh.w.tick; delta > 0 {
			want = coarseTick(want, delta)
		}
	}
	return sh.levels.insert(t, want)
}

func (sh *shard) unlink(t *Timer) {
	if t.level == levelDue {
		sh.due.remove(t)
		t.level = levelNone
		return
	}
	sh.levels.remove(t)
}

func (sh *shard) pushDue(t *Timer) {
	sh.due.push(t)
	t.level = levelDue
}

// serve does what is to be done at the time now, or a part of it: then next is 0. Only the
// Wheel's goroutine calls it. A callback that ends this goroutine leaves the shard consistent,
// with next not above now.
func (sh *shard) serve(now int64) {
	w := sh.w
	sh.mu.Lock()
	behind := sh.advance(now)
	for n := 0; n < fireBudget && sh.due.head != nil; n++ {
		t := sh.due.head
		at := t.deadline.Load()
		if at > now {
			now = w.now() // a callback may have added t after now was read
		}
		if !sh.takeDue(t, now, at) {
			continue
		}
		if t.C != nil {
			t.send()
			continue
		}
		call, arg := t.call, t.arg
		if t.periodic && !arg.(*Ticker).running.CompareAndSwap(false, true) {
			continue // f still runs: this call is dropped
		}
		sh.mu.Unlock()
		w.execute(call, arg)
		now = w.now()
		sh.mu.Lock()
	}
	if behind || sh.due.head != nil {
		sh.next.Store(0)
	} else {
		sh.next.Store(sh.levels.next())
	}
	sh.mu.Unlock()
}

// advance moves what the clock has reached to the due list and reports whether it stopped
// half way.
func (sh *shard) advance(now int64) (behind bool) {
	nowTick := now / sh.w.tick
	for n := 0; n < moveBudget; {
		t := sh.levels.takeCurrent()
		if t != nil {
			sh.place(t, now, t.deadline.Load())
			n++
			continue
		}
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
	if late := now - at; late > sh.latest && !t.coarse {
		sh.latest = late
	}
	return true
}

// close stops every timer. It returns those whose waiters must be told outside the lock.
func (sh *shard) close() (released []*Timer) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.closed {
		return nil
	}
	sh.closed = true
	end := func(l *list) {
		for t := l.head; t != nil; t = l.head {
			l.remove(t)
			t.level = levelNone
			t.deadline.Store(0)
			t.release()
			if _, ok := t.call.(closer); ok {
				released = append(released, t)
			}
		}
	}
	end(&sh.due)
	for _, lv := range sh.levels.lv {
		if lv == nil {
			continue
		}
		for i := range lv.slot {
			end(&lv.slot[i])
		}
	}
	sh.levels = levels{}
	sh.stopped += uint64(sh.pending)
	sh.pending = 0
	sh.next.Store(never)
	return released
}

func (sh *shard) addTo(s *Stats) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s.Pending += sh.pending
	s.Fired += sh.fired
	s.Stopped += sh.stopped
	s.Latest = max(s.Latest, time.Duration(sh.latest))
}
