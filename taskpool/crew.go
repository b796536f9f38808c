// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// source is where a crew's workers find work. The kinds of pools differ only in it.
type source interface {
	// attach prepares w before its goroutine starts; called with crew.mu held.
	attach(w *worker)
	// work runs tasks until it finds none, or w is surplus.
	work(w *worker)
	// pending reports whether w would find work; if w is nil, whether any worker would.
	pending(w *worker) bool
	// crashed puts the source in order after the task that w ran did not return.
	crashed(w *worker)
	// trim gives back memory after a time without work; it returns true if it wants to be called again.
	trim() bool
}

// worker is one goroutine of a crew. It outlives the goroutine if a task calls Goexit: a new one takes over.
type worker struct {
	wake   chan struct{} // capacity 1; one token per removal from the idle list
	local  any           // the source's own
	slot   int           // smallest free number at the start
	steals atomic.Uint64

	// searching counts in crew.searching; written by the waker before wake, else by the worker.
	searching bool
	finished  bool // the goroutine ends as planned
	discharge bool // no longer counted in crew.live; written under crew.mu

	// Guarded by crew.mu.
	at         int // index in crew.staff
	idle       bool
	idleSince  uint64 // crew.ticks at that time
	prev, next *worker
}

// crew is the one mechanism behind all pools: workers start when there is work, park, are woken, survive panics and
// Goexit, retire when idle for long, and are waited for.
//
// No wakeup is lost, because both sides announce before they look. A producer adds work, then reads spare and searching.
// A worker about to park raises spare and lowers searching, then looks for work again; so does one that leaves, for
// whatever reason, since it may have been the one that a producer relied on. A worker that finds work while others could
// help wakes the next one, so that a producer need wake at most one ("searching" workers were woken and have not found
// work yet). protocol_test.go tries every interleaving of a small model of this.
type crew struct {
	src       source
	cfg       Config
	labels    context.Context // nil without Name
	maxSearch int32
	looks     int  // how often an idle worker yields and looks again before it parks
	pinned    bool // worker i alone serves queue i: see notifySlot
	boundless bool // no limit of workers unless one is set
	tracked   bool // ids is kept
	thieves   bool // roster is kept
	roots     roots

	idleSlot  atomic.Int64 // slot of the worker that would be woken next; -1: none. A hint
	_         [64]byte
	spare     atomic.Int64 // idle workers + workers that may still be started
	searching atomic.Int32
	over      atomic.Bool // more workers than limit
	_         [64]byte

	panics    atomic.Uint64
	callerRan atomic.Uint64
	spawned   atomic.Uint64

	closing atomic.Bool
	stop    chan struct{} // closed when closing
	ended   chan struct{} // closed when no task will start any more
	done    chan struct{} // closed when the last goroutine is gone

	mu         sync.Mutex
	limit      int
	live       int     // workers, without the discharged
	goroutines int     // of workers, and of policy Spawn
	idleTop    *worker // woken first: its stack and caches are warm
	idleBottom *worker
	nIdle      int
	free       []int                     // slots given back
	slots      int                       // slots handed out so far
	staff      []*worker                 // enrolled
	roster     atomic.Pointer[[]*worker] // copy of staff, for looking without the lock; only with thieves
	steals     uint64                    // of workers that are gone
	seats      []seat                    // pinned only
	ids        map[uint64]struct{}

	ticks  uint64
	armed  bool
	timer  *time.Timer
	wgDone sync.Once
	endOne sync.Once
}

// seat is the place of a pinned worker. busy is false while the worker is parked or absent.
type seat struct {
	busy atomic.Bool
	w    *worker // guarded by crew.mu
	_    [48]byte
}

func (c *crew) init(cfg Config, src source) {
	c.cfg, c.src = cfg, src
	c.limit = cfg.Workers
	c.spare.Store(int64(cfg.Workers))
	c.maxSearch = 1
	c.idleSlot.Store(-1)
	c.stop, c.ended, c.done = make(chan struct{}), make(chan struct{}), make(chan struct{})
	c.roster.Store(new([]*worker))
	c.tracked = c.tracked || cfg.Workers < noLimit
	c.findRoots()
	if cfg.Name != "" {
		c.labels = pprof.WithLabels(context.Background(), pprof.Labels("taskpool", cfg.Name))
	}
}

// notify is called after work was added that any worker may do.
func (c *crew) notify() {
	if c.helpful() {
		c.hire()
	}
}

// helpful reports whether another worker could be woken and none is on its way.
func (c *crew) helpful() bool { return c.spare.Load() > 0 && c.searching.Load() < c.maxSearch }

// hire wakes the worker that parked last, or starts one.
func (c *crew) hire() {
	c.mu.Lock()
	if c.searching.Load() >= c.maxSearch || c.finishedLocked() {
		c.mu.Unlock()
		return
	}
	w := c.idleTop
	started := false
	switch {
	case w != nil:
		c.unparkLocked(w)
	case c.live < c.limit:
		w, started = c.enlistLocked(-1), true
	default:
		c.mu.Unlock()
		return
	}
	w.searching = true
	c.searching.Add(1)
	c.mu.Unlock()
	c.launch(w, started)
}

// notifySlot is notify for a pinned crew: only worker i may do the work.
func (c *crew) notifySlot(i int) {
	if c.seats[i].busy.Load() {
		return
	}
	c.mu.Lock()
	w := c.seats[i].w
	if c.finishedLocked() || (w != nil && !w.idle) {
		c.mu.Unlock()
		return
	}
	started := w == nil
	if started {
		w = c.enlistLocked(i)
	} else {
		c.unparkLocked(w)
	}
	c.mu.Unlock()
	c.launch(w, started)
}

func (c *crew) launch(w *worker, started bool) {
	if started {
		go c.run(w)
	} else {
		w.wake <- struct{}{}
	}
}

func (c *crew) finishedLocked() bool { return c.closing.Load() && c.goroutines == 0 }

// enlistLocked makes a worker that is about to be started; slot -1 means any.
func (c *crew) enlistLocked(slot int) *worker {
	w := &worker{wake: make(chan struct{}, 1), slot: slot}
	if slot < 0 {
		if n := len(c.free); n > 0 {
			w.slot, c.free = c.free[n-1], c.free[:n-1]
		} else {
			w.slot = c.slots
			c.slots++
		}
	} else {
		c.seats[slot].w = w
		c.seats[slot].busy.Store(true)
	}
	c.live++
	c.goroutines++
	c.spare.Add(-1)
	c.src.attach(w)
	return w
}

// enrollLocked adds w to the staff, which the end of the pool looks through.
func (c *crew) enrollLocked(w *worker) {
	w.at = len(c.staff)
	c.staff = append(c.staff, w)
	c.publishLocked()
}

func (c *crew) strikeLocked(w *worker) {
	last := len(c.staff) - 1
	if last < 0 || c.staff[w.at] != w {
		return // not enrolled
	}
	c.staff[w.at] = c.staff[last]
	c.staff[w.at].at = w.at
	c.staff[last] = nil
	c.staff = c.staff[:last]
	c.publishLocked()
}

// publishLocked copies the staff for thieves. A pool that may have any number of workers has none: the copies would make
// the start of many cost the square of their number.
func (c *crew) publishLocked() {
	if c.thieves {
		list := slices.Clone(c.staff)
		c.roster.Store(&list)
	}
}

// enrolled returns a copy of the staff.
func (c *crew) enrolled() []*worker {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.staff)
}

// run is the goroutine of a worker. It starts in launch, ends when the worker is surplus, has been idle for long, or
// the crew is closing, and shutdown waits for it.
func (c *crew) run(w *worker) {
	defer c.leave(w)
	if c.labels != nil {
		pprof.SetGoroutineLabels(c.labels)
	}
	if c.tracked {
		defer c.enroll()()
	}
	for !c.shift(w) {
	}
	w.finished = true
}

// shift works until the worker is to leave (true) or a task panicked (false). The one recover of the package is here,
// so that a task costs no defer.
func (c *crew) shift(w *worker) (leave bool) {
	returned := false
	defer func() {
		if returned {
			return
		}
		defer c.src.crashed(w) // also if OnPanic calls Goexit
		c.report(recover())
	}()
	for {
		c.src.work(w)
		if !c.park(w) {
			leave = true
			break
		}
	}
	returned = true
	c.handOver(w)
	return leave
}

// leave ends the goroutine of w; after Goexit a new one carries on with the same worker and its queue.
func (c *crew) leave(w *worker) {
	if !w.finished {
		go c.run(w)
		return
	}
	c.gone()
}

// gone counts a goroutine of the crew out.
func (c *crew) gone() {
	c.mu.Lock()
	c.goroutines--
	c.finishLocked()
	c.mu.Unlock()
}

func (c *crew) finishLocked() {
	if c.finishedLocked() {
		c.wgDone.Do(func() { close(c.done) })
		c.end()
	}
}

func (c *crew) end() { c.endOne.Do(func() { close(c.ended) }) }

// found is called by a worker that took work. It wakes the next one if there is more, here (more) or anywhere: what it
// did not see may lie in the batch of a worker that looked for help while this one was still searching.
func (c *crew) found(w *worker, more bool) {
	if w.searching {
		w.searching = false
		c.searching.Add(-1)
	}
	if c.helpful() && (more || c.src.pending(w)) {
		c.hire()
	}
}

// workers returns n as a limit of workers, or the default if it is not one.
func (c *crew) workers(n int) int {
	switch {
	case n > 0:
		return min(n, noLimit)
	case c.boundless:
		return noLimit
	}
	return procs()
}

// close makes idle workers leave; busy ones leave when they find no more work. Only the first call does anything.
func (c *crew) close() {
	c.mu.Lock()
	if c.closing.Load() {
		c.mu.Unlock()
		return
	}
	c.closing.Store(true)
	close(c.stop)
	if c.timer != nil {
		c.timer.Stop()
	}
	var leaving []*worker
	for w := c.idleTop; w != nil; w = c.idleTop {
		c.unparkLocked(w)
		leaving = append(leaving, w)
	}
	c.finishLocked()
	c.mu.Unlock()
	// They look for work once more, find that the crew is closing, and leave.
	for _, w := range leaving {
		w.wake <- struct{}{}
	}
}

// wait returns when all workers and the goroutines of Spawn are gone, or with the cause of ctx.
func (c *crew) wait(ctx context.Context) error {
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-c.done: // both were ready; a pool that has ended did not fail to
		return nil
	default:
		return context.Cause(ctx)
	}
}

func (c *crew) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{
		Workers: c.live, Idle: c.nIdle, Steals: c.steals, Panics: c.panics.Load(),
		CallerRan: c.callerRan.Load(), Spawned: c.spawned.Load(),
	}
	s.Accepted = s.CallerRan + s.Spawned
	for _, w := range c.staff {
		s.Steals += w.steals.Load()
	}
	return s
}
