// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"runtime"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// source is where workers find work. The kinds of pools differ only in it.
type source interface {
	// attach prepares w before its goroutine starts; called with workers.mu held.
	attach(w *worker)
	// work runs tasks until it finds none, or w is surplus.
	work(w *worker)
	// pending reports whether w would find work; if w is nil, whether any worker would.
	pending(w *worker) bool
	// crashed puts the source in order after the task that w ran did not return.
	crashed(w *worker)
	// trim gives back memory after a time without work; true if it wants to be called again.
	trim() bool
}

// worker is one goroutine of a pool. It outlives the goroutine if a task calls Goexit: a new one
// takes over.
type worker struct {
	wake   chan struct{} // capacity 1; one token per removal from the idle list
	local  any           // the source's own
	slot   int           // a number that no other worker has at the time
	steals atomic.Uint64

	// searching counts in workers.searching; written by the waker before wake, else by the worker.
	searching bool
	finished  bool // the goroutine ends as planned
	retired   bool // no longer counted in workers.live; written under workers.mu

	// claimed counts tasks taken straight from a queue, and is guarded by that queue's lock; begun
	// follows it when the task is about to be called, see awaitBegun.
	claimed uint64
	begun   atomic.Uint64

	// Guarded by workers.mu.
	at         int // index in workers.all
	idle       bool
	idleSince  uint64 // workers.ticks at that time
	prev, next *worker
}

// workers is the one mechanism behind all pools: workers start when there is work, park, are woken,
// survive panics and Goexit, retire when idle for long, and are waited for.
//
// No wakeup is lost, because both sides announce before they look. A producer adds work, then reads
// spare and searching. A worker about to park raises spare and lowers searching, then looks for
// work again; so does one that leaves, for any reason, since it may have been the one that a
// producer relied on. A worker that finds work while others could help wakes the next one, so that
// a producer need wake at most one ("searching" workers were woken and have not found work yet).
// protocol_test.go tries every interleaving of a small model of this.
type workers struct {
	src       source
	cfg       Config
	labels    context.Context // of the profiler; without Name it has none
	maxSearch int32
	spins     int  // how often an idle worker yields and looks again before it parks
	pinned    bool // worker i alone serves queue i: see notifySlot
	unlimited bool // no limit of workers unless one is set
	tracked   bool // ids is kept
	roots     roots

	idleSlot  atomic.Int64 // slot of the worker that would be woken next; -1: none. A hint
	_         [64]byte
	spare     atomic.Int64 // idle workers + workers that may still be started
	searching atomic.Int32
	over      atomic.Bool // more workers than limit
	_         [64]byte

	panics    atomic.Uint64
	callerRan atomic.Uint64
	nSpawned  atomic.Uint64
	didInside atomic.Uint64 // calls of Do by tasks of the pool

	closing atomic.Bool
	stop    chan struct{} // closed when closing
	ended   chan struct{} // closed when no task will start any more
	done    chan struct{} // closed when the last goroutine is gone

	mu         sync.Mutex
	limit      int
	live       int     // workers, without the retired
	goroutines int     // of workers, and of spawned tasks
	idleTop    *worker // woken first: its stack and caches are warm
	idleBottom *worker
	nIdle      int
	free       []int     // slots given back
	slots      int       // slots handed out so far
	all        []*worker // those in live
	started    uint64    // workers that were ever added to all
	steals     uint64    // of workers that are gone
	bySlot     []place   // pinned only
	ids        map[uint64]struct{}

	ticks  uint64
	armed  bool
	timer  *time.Timer
	wgDone sync.Once
	endOne sync.Once
}

// place is that of a pinned worker. busy is false while the worker is parked or absent.
type place struct {
	busy atomic.Bool
	w    *worker // guarded by workers.mu
	_    [48]byte
}

func (c *workers) init(cfg Config, src source) {
	c.cfg, c.src = cfg, src
	c.limit = cfg.Workers
	c.spare.Store(int64(cfg.Workers))
	// One at a time. Each worker that finds work wakes the next if there is more, so the number
	// doubles as long as it helps; a producer that woke several would wake most of them for
	// nothing.
	c.maxSearch = 1
	c.idleSlot.Store(-1)
	c.stop, c.ended, c.done = make(chan struct{}), make(chan struct{}), make(chan struct{})
	// See inside.go: a pool without limit starts workers too often to note the id of each.
	c.tracked = c.tracked || cfg.Workers < noLimit
	c.findRoots()
	c.labels = context.Background()
	if cfg.Name != "" {
		c.labels = pprof.WithLabels(c.labels, pprof.Labels("taskpool", cfg.Name))
	}
}

// resetLabels gives the calling goroutine the pool's own profiler labels: at its start, because a
// goroutine inherits those of its creator, which is whatever producer happened to come first; and
// after each task, because the next one must not be counted as the last one's. Setting them costs
// 3 ns (6 with a Name); there is no way to ask whether a task has changed them.
func (c *workers) resetLabels() { pprof.SetGoroutineLabels(c.labels) }

// notify is called after work was added that any worker may do.
func (c *workers) notify() {
	if c.helpful() {
		c.wakeOne()
	}
}

// helpful reports whether another worker could be woken and none is on its way.
func (c *workers) helpful() bool { return c.spare.Load() > 0 && c.searching.Load() < c.maxSearch }

// wakeOne wakes the worker that parked last, or starts one.
func (c *workers) wakeOne() {
	c.mu.Lock()
	// Asked again under the lock: many producers may have seen no worker searching, and one of them
	// is to wake one.
	if c.searching.Load() >= c.maxSearch || c.finishedLocked() {
		c.mu.Unlock()
		return
	}
	// The last one that parked: its stack and its part of the cache are warm. The first one may
	// retire.
	w := c.idleTop
	started := false
	switch {
	case w != nil:
		c.unparkLocked(w)
	// Idle workers first, as starting one costs several times as much.
	case c.live < c.limit:
		w, started = c.addLocked(-1), true
	default:
		c.mu.Unlock()
		return
	}
	// On the worker's behalf, before it runs: the next producer must not wake another meanwhile.
	w.searching = true
	c.searching.Add(1)
	c.mu.Unlock()
	// Without the lock: sending wakes a goroutine, and the woken one needs the lock before long.
	c.launch(w, started)
}

// notifySlot is notify for pinned workers: only worker i may do the work.
func (c *workers) notifySlot(i int) {
	// A busy worker looks again after it has cleared busy and before it parks, so a strand that was
	// pushed before this load is found. Most calls end here.
	if c.bySlot[i].busy.Load() {
		return
	}
	c.mu.Lock()
	w := c.bySlot[i].w
	// Not idle means woken already, or about to leave. One that leaves calls recheck, which comes
	// here again.
	if c.finishedLocked() || (w != nil && !w.idle) {
		c.mu.Unlock()
		return
	}
	started := w == nil
	if started {
		w = c.addLocked(i)
	} else {
		c.unparkLocked(w)
	}
	c.mu.Unlock()
	c.launch(w, started)
}

func (c *workers) launch(w *worker, started bool) {
	if started {
		go c.run(w)
	} else {
		// One token per removal from the idle list and room for one: this never blocks.
		w.wake <- struct{}{}
	}
}

func (c *workers) finishedLocked() bool { return c.closing.Load() && c.goroutines == 0 }

// addLocked makes a worker that is about to be started; slot -1 means any.
func (c *workers) addLocked(slot int) *worker {
	w := &worker{wake: make(chan struct{}, 1), slot: slot}
	if slot < 0 {
		// Slots are used again, so that their numbers stay below the largest number of workers.
		if n := len(c.free); n > 0 {
			w.slot, c.free = c.free[n-1], c.free[:n-1]
		} else {
			w.slot = c.slots
			c.slots++
		}
	} else {
		c.bySlot[slot].w = w
		c.bySlot[slot].busy.Store(true)
	}
	c.live++
	// Counted here and not by the goroutine itself, so that Shutdown cannot miss one that has yet
	// to run.
	c.goroutines++
	c.started++
	c.spare.Add(-1)
	w.at = len(c.all)
	c.all = append(c.all, w)
	// Under the lock: the end of the pool copies all, and needs the batch of every worker in it.
	c.src.attach(w)
	return w
}

// removeLocked takes w out of all; the last one takes its place.
func (c *workers) removeLocked(w *worker) {
	// Order does not matter here, and closing the gap would make the end of many workers quadratic.
	last := len(c.all) - 1
	c.all[w.at] = c.all[last]
	c.all[w.at].at = w.at
	c.all[last] = nil
	c.all = c.all[:last]
}

// every returns a copy of all, and how many were started so far.
func (c *workers) every() ([]*worker, uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all), c.started
}

// claim is called with the lock of the queue held from which w takes a task to run it, and begin
// when it is about to call the task.
func (w *worker) claim() { w.claimed++ }

func (w *worker) begin() { w.begun.Store(w.claimed) }

// awaitBegun waits until each worker has begun the task that it took from a queue. It is called
// when the queues have been drained, so that no more can be taken. Without the wait a task could
// start long after a Shutdown that has given up had returned.
func awaitBegun(all []*worker) {
	for _, w := range all {
		// claimed is read without its lock: the drain has held that lock since, and after it no
		// worker claims. Between claim and begin a worker wakes producers and other workers, and
		// may lose its processor; but it runs no code of the user, so the wait is short. A look is
		// enough here, while a lock held from claim to begin would make every worker wait for every
		// wakeup.
		for w.begun.Load() != w.claimed {
			runtime.Gosched()
		}
	}
}

// run is the goroutine of a worker. It starts in launch, ends when the worker is surplus, has been
// idle for long, or the pool is closing, and Shutdown waits for it.
func (c *workers) run(w *worker) {
	defer c.leave(w)
	if c.tracked {
		defer c.track()()
	}
	// A panic ends workLoop and not the goroutine: a new one would have to grow its stack again.
	for !c.workLoop(w) {
	}
	// Not reached after Goexit, by which leave tells the two apart.
	w.finished = true
}

// workLoop works until the worker is to leave (true) or a task panicked (false). The one recover
// around tasks is here, so that a task costs no defer.
func (c *workers) workLoop(w *worker) (leave bool) {
	// A flag, since recover returns nil for Goexit as well.
	returned := false
	defer func() {
		if returned {
			return
		}
		defer c.src.crashed(w) // also if OnPanic calls Goexit
		c.report(recover())
	}()
	c.resetLabels()
	for {
		c.src.work(w)
		if !c.park(w) {
			leave = true
			break
		}
	}
	returned = true
	// Outside the protected part, but before leave: while this goroutine is counted, the pool
	// cannot have ended.
	c.recheck(w)
	return leave
}

// leave ends the goroutine of w; after Goexit a new one carries on with the same worker and its
// queue.
func (c *workers) leave(w *worker) {
	if !w.finished {
		// The same worker: its batch may still hold tasks that were accepted, and it stays in the
		// list of all.
		go c.run(w)
		return
	}
	c.gone()
}

// gone counts a goroutine of the pool out.
func (c *workers) gone() {
	c.mu.Lock()
	c.goroutines--
	c.finishLocked()
	c.mu.Unlock()
}

func (c *workers) finishLocked() {
	if c.finishedLocked() {
		// May come here more than once: close finds no goroutine, or the last one that leaves does. The end comes first,
		// since a caller that has waited for done may look at it next.
		c.end()
		c.wgDone.Do(func() { close(c.done) })
	}
}

func (c *workers) end() { c.endOne.Do(func() { close(c.ended) }) }

// found ends the search of w, and wakes another worker if there is more work. more says that there
// is, in the place where w found its task.
func (c *workers) found(w *worker, more bool) {
	// Lowered before the look below, so that a producer that still saw w searching has added its
	// work before, where the look finds it.
	if w.searching {
		w.searching = false
		c.searching.Add(-1)
	}
	// All sources are asked, and not only the one where w found its task: a worker that filled its
	// batch meanwhile saw w searching and so woke no other. The cheap questions come first; usually
	// another worker is not needed or not to be had.
	if c.helpful() && (more || c.src.pending(w)) {
		c.wakeOne()
	}
}

// limitFor returns n as a limit of workers, or the default if it is not one.
func (c *workers) limitFor(n int) int {
	switch {
	case n > 0:
		return min(n, noLimit)
	case c.unlimited:
		return noLimit
	}
	return procs()
}

// close makes idle workers leave; busy ones leave when they find no more work. Only the first call
// does anything.
func (c *workers) close() {
	c.mu.Lock()
	if c.closing.Load() {
		c.mu.Unlock()
		return
	}
	c.closing.Store(true)
	// Under the lock, with the flag: a worker that parks afterwards sees it, see park.
	close(c.stop)
	if c.timer != nil {
		c.timer.Stop()
	}
	var leaving []*worker
	// All at once. They would otherwise stay until their next token, which does not come any more.
	for w := c.idleTop; w != nil; w = c.idleTop {
		c.unparkLocked(w)
		leaving = append(leaving, w)
	}
	c.finishLocked()
	c.mu.Unlock()
	// They look for work once more, find that the pool is closing, and leave.
	for _, w := range leaving {
		w.wake <- struct{}{}
	}
}

// wait returns when all workers and spawned tasks are gone, or with the cause of ctx.
func (c *workers) wait(ctx context.Context) error {
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

func (c *workers) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{
		Workers: c.live, Idle: c.nIdle, Steals: c.steals, Panics: c.panics.Load(),
		CallerRan: c.callerRan.Load(), Spawned: c.nSpawned.Load(),
	}
	s.Accepted = s.CallerRan + s.Spawned + c.didInside.Load()
	// Each worker counts by itself, so that stealing writes no line that others write.
	for _, w := range c.all {
		s.Steals += w.steals.Load()
	}
	return s
}
