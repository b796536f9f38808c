// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
)

// engine runs unkeyed items: any number of queues, any number of workers. Shared, Stealing,
// Sharded, Elastic and Func are engines that differ in their numbers and in how a producer picks a
// queue.
type engine[E any] struct {
	intake[E]
	take int // items a worker takes along at most; 1: none beside the one that it runs

	// carriers has the workers that take items along, by slot; others may steal from them without
	// a lock. width is how many slots have been used so far.
	carriers []atomic.Pointer[worker]
	width    atomic.Int32

	overdue atomic.Bool // the timer that puts back items that wait too long is running
	long    atomic.Bool // tasks take long: workers take nothing along, see overdue.go
	begun   uint64      // tasks begun at the timer's previous look; of its goroutine alone
}

func (g *engine[E]) init(cfg Config, queues int, pick picker, exec func(E), task func(E) Task) {
	g.open(queues, cfg.QueueLen, pick)
	g.exec, g.task = exec, task
	// A bounded queue counts only the items in it. Taking many along would let that many more wait
	// than the user allowed, so a worker takes an eighth of the room at most.
	g.take = 1
	if cfg.Workers <= maxCarriers {
		g.take = batchLen
		if cfg.QueueLen > 0 {
			g.take = min(max(1, 1+cfg.QueueLen*queues/(8*cfg.Workers)), batchLen)
		}
	}
	if g.take > 1 {
		g.carriers = make([]atomic.Pointer[worker], maxCarriers)
	}
	g.c.init(cfg, g)
}

// maxCarriers bounds the workers that take items along, and whose batches another worker must look
// through. Workers with larger slots, which there may be after Resize, take one item at a time.
const maxCarriers = 256

// itemRunner is the part of a worker that belongs to an engine.
type itemRunner[E any] struct {
	batch *batch[E]
	along int // how many items it may take along with the one that it runs
	home  int // the queue that producers choose while the worker is idle
	next  int // the queue to look into first
}

func (g *engine[E]) attach(w *worker) {
	// Workers begin at different queues, so that they do not all meet at the first one.
	home := w.slot % len(g.queues)
	r := &itemRunner[E]{home: home, next: home}
	w.local = r
	if w.slot >= len(g.carriers) {
		r.batch = newBatch[E](1) // for stolen items
		return
	}
	r.along = g.take - 1
	r.batch = newBatch[E](batchLen)
	// The pointer is published before width: a reader that sees the new width finds the worker, or
	// nil, which it skips.
	g.carriers[w.slot].Store(w)
	g.width.Store(max(g.width.Load(), int32(w.slot)+1)) // workers.mu is held
}

func (g *engine[E]) crashed(*worker) {}

func (g *engine[E]) trim() bool {
	g.intake.trim()
	return false
}

// carrier returns the batch of the carrier with slot i, or nil. The worker may be gone; its batch
// is empty then.
func (g *engine[E]) carrier(i int) *batch[E] {
	if w := g.carriers[i].Load(); w != nil {
		return w.local.(*itemRunner[E]).batch
	}
	return nil
}

func (g *engine[E]) pending(w *worker) bool {
	if g.some() {
		return true
	}
	// Batches count as work, because an idle worker can steal from them.
	for i := range int(g.width.Load()) {
		// Not its own: an item that this worker is about to run is no work for another one.
		if v := g.carriers[i].Load(); v != nil && v != w && v.local.(*itemRunner[E]).batch.len() > 0 {
			return true
		}
	}
	return false
}

func (g *engine[E]) work(w *worker) {
	r := w.local.(*itemRunner[E])
	for {
		// Own batch, then queues, then batches of others: its own items are the oldest that it
		// knows of, and stealing costs two locks.
		e, ok := r.batch.take()
		if !ok {
			if e, ok = g.grab(w, r); !ok {
				if e, ok = g.steal(w, r.batch); !ok {
					return
				}
			}
		}
		g.exec(e)
		// After each task and not once per batch: otherwise the samples of the next task would be
		// counted under the labels of this one.
		g.c.resetLabels()
	}
}

// grab takes the oldest item of a queue, and some more along with it. It begins behind the queue
// that the worker took from last: a worker that began at its own each time would never come to the
// queue of a worker that is held up, as long as its own is never empty.
func (g *engine[E]) grab(w *worker, r *itemRunner[E]) (e E, ok bool) {
	if g.c.over.Load() {
		return e, false // Resize: leave
	}
	for misses := 0; misses < len(g.queues); {
		i := r.next
		if r.next++; r.next == len(g.queues) {
			r.next = 0
		}
		// The flag is read first, so that a round over many empty queues writes to no shared cache
		// line.
		q := &g.queues[i]
		if !q.some.Load() {
			misses++
			continue
		}
		q.lock()
		k := 1
		if r.along > 0 && !g.long.Load() {
			// No more than a fair share, so that others have something without stealing.
			k = min(1+q.lenLocked()/min(g.c.cfg.Workers, batchLen), r.along+1)
		}
		// The first item does not go through the batch: it needs no claim by compare-and-swap, as
		// it is claimed by being taken out of the queue under its lock.
		if e, ok = q.popOneLocked(); !ok {
			q.unlock()
			misses++ // another worker was faster, or the pool has been stopped
			continue
		}
		// Under the lock: a goroutine that ends the pool empties the queue under the same lock, and
		// must then know that this worker has one more task to begin.
		w.claim()
		if k > 1 && q.lenLocked() > 0 {
			k = 1 + r.batch.fill(&q.queue, k-1)
		}
		more := k > 1 || q.lenLocked() > 0
		q.unlock()
		// Before any task of the batch waits: this worker may be held up by the one that it is
		// about to run, and cannot start the timer then.
		if k > 1 {
			g.watchOverdue()
		}
		if g.pick == pickRandom && i != r.home {
			w.steals.Add(uint64(k))
		}
		// After the lock is given up, because waking costs more than the lock protects; before the
		// task, which may block.
		g.c.found(w, more)
		w.begin()
		return e, true
	}
	// Nothing waits. A producer that sees this worker idle puts its item into the home queue.
	r.next = r.home
	return e, false
}

// steal takes half of another worker's batch.
func (g *engine[E]) steal(w *worker, b *batch[E]) (e E, ok bool) {
	if g.c.over.Load() {
		return e, false
	}
	width := int(g.width.Load())
	if width < 2 {
		return e, false
	}
	// At a random place, so that thieves do not all lock the same batch.
	start := int(rand.Uint32N(uint32(width)))
	for i := range width {
		from := g.carrier((start + i) % width)
		if from == nil || from == b || from.len() == 0 {
			continue
		}
		// Half and not all: the owner keeps its caches warm and need not steal it back.
		if first, k := b.stealFrom(from, w); k > 0 {
			w.steals.Add(uint64(k))
			g.c.found(w, k > 1)
			w.begin()
			return first, true
		}
	}
	return e, false
}

// Resize changes the largest number of workers, as Config.Workers sets it. Workers beyond it leave
// when they have finished the tasks that they took along. It does not change the number of queues.
func (g *engine[E]) Resize(n int) { g.c.resize(g.c.limitFor(n)) }

// Stats returns a snapshot.
func (g *engine[E]) Stats() Stats {
	s := g.c.stats()
	s.Queues = g.count(&s)
	// Items that a worker took along have not begun and so are still queued.
	for i := range int(g.width.Load()) {
		if b := g.carrier(i); b != nil {
			s.Queued += b.len()
		}
	}
	return s
}

// Stopped returns a channel that is closed when no further task will start: after Shutdown has
// drained the pool or given up, or after Close.
func (g *engine[E]) Stopped() <-chan struct{} { return g.c.ended }

// Shutdown refuses further tasks, lets the workers run those that were accepted, and waits for the
// workers to end. If ctx ends before, it takes back the tasks that have not started and returns
// them with the cause of ctx; those that are running go on, and a further Shutdown can wait for
// them. Called from a task of this pool it cannot wait: it only begins the shutdown and returns
// [ErrInTask]. Of several calls, one gets the tasks.
func (g *engine[E]) Shutdown(ctx context.Context) ([]E, error) {
	g.begin()
	if g.c.inside() {
		return nil, ErrInTask
	}
	err := g.c.wait(ctx)
	if err == nil {
		return nil, nil
	}
	return g.abandon(), err
}

// Close is Shutdown without drain: tasks that have not started never will. They go to
// Config.OnDrop, if set, and are returned in a *[LeftError]. It waits for those that are running,
// except when called from a task of this pool. Further calls wait too and return nil.
func (g *engine[E]) Close() error {
	g.begin()
	left := g.abandon()
	// Before the wait: a running task may depend on a task that is dropped.
	g.drop(left)
	// The worker that runs this task could not end while it waits here.
	if !g.c.inside() {
		_ = g.c.wait(context.Background()) // cannot fail
	}
	if len(left) > 0 {
		return &LeftError[E]{Left: left}
	}
	return nil
}

func (g *engine[E]) begin() {
	g.refuse()
	if g.some() {
		// Before close: a producer may have added an item and not yet woken a worker. Without
		// workers the pool would count as ended, with the item in it.
		g.c.notify()
	}
	g.c.close()
}

// abandon takes back the items that have not started. Queues come before batches: items move from
// a batch to a queue only while that is not drained, and only under both locks.
func (g *engine[E]) abandon() []E {
	// No lock covers all queues and batches. The order makes up for it: items go from queues to
	// batches, so after the queues refuse and are empty the batches can only shrink.
	left := g.drain()
	for {
		all, started := g.c.every()
		for _, w := range all {
			left = append(left, w.local.(*itemRunner[E]).batch.close()...)
		}
		// A worker that has come meanwhile may have stolen from a batch that was still open.
		if _, now := g.c.every(); now == started {
			awaitBegun(all)
			break
		}
	}
	g.c.end()
	return left
}
