// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"math/rand/v2"
)

// engine runs unkeyed items: any number of queues, any number of workers. Shared, Stealing, Sharded, Elastic and Func
// are engines that differ in their numbers and in how a producer picks a queue.
type engine[E any] struct {
	intake[E]
	take int // items a worker takes along; 1: no batch
}

func (g *engine[E]) init(cfg Config, queues int, pick picker, exec func(E), task func(E) Task) {
	g.open(queues, cfg.QueueLen, pick)
	g.exec, g.task = exec, task
	g.take = 1
	if cfg.Workers <= maxBatchers {
		g.take = batchLen
		if cfg.QueueLen > 0 {
			g.take = min(max(1, 1+cfg.QueueLen*queues/(8*cfg.Workers)), batchLen)
		}
	}
	g.c.thieves = true
	g.c.init(cfg, g)
}

// maxBatchers bounds the workers that carry a batch, and whose batches a thief must look through.
const maxBatchers = 256

func (g *engine[E]) attach(w *worker) {
	if g.take > 1 {
		w.local = new(batch[E])
		g.c.enrollLocked(w)
	}
}

func (g *engine[E]) crashed(*worker) {}

func (g *engine[E]) trim() bool {
	g.intake.trim()
	return false
}

func (g *engine[E]) pending(*worker) bool {
	if g.some() {
		return true
	}
	for _, v := range *g.c.roster.Load() {
		if v.local.(*batch[E]).len() > 0 {
			return true
		}
	}
	return false
}

func (g *engine[E]) work(w *worker) {
	b, _ := w.local.(*batch[E])
	if b == nil {
		for e, ok := g.grab(w, nil); ok; e, ok = g.grab(w, nil) {
			g.exec(e)
		}
		return
	}
	for {
		e, ok := b.take()
		if !ok {
			if e, ok = g.grab(w, b); !ok {
				if e, ok = g.steal(w, b); !ok {
					return
				}
			}
		}
		g.exec(e)
	}
}

// grab takes the oldest item of a queue, the worker's home first, and if b is not nil some more along with it.
func (g *engine[E]) grab(w *worker, b *batch[E]) (e E, ok bool) {
	if g.c.over.Load() {
		return e, false // Resize: leave
	}
	home := w.slot % len(g.queues)
	for i := range g.queues {
		j := home + i
		if j >= len(g.queues) {
			j -= len(g.queues)
		}
		q := &g.queues[j]
		if !q.some.Load() {
			continue
		}
		q.lock()
		// No more than a fair share, so that others have something without stealing.
		k := min(1+q.n/min(g.c.cfg.Workers, batchLen), g.take)
		if e, ok = q.popOneLocked(); !ok {
			q.unlock()
			continue
		}
		if k > 1 && q.n > 0 {
			k = 1 + b.fill(&q.queue, k-1)
		}
		more := k > 1 || q.n > 0
		q.unlock()
		if i > 0 && g.pick == pickRandom {
			w.steals.Add(uint64(k))
		}
		g.c.found(w, more)
		return e, true
	}
	return e, false
}

// steal takes half of another worker's batch.
func (g *engine[E]) steal(w *worker, b *batch[E]) (e E, ok bool) {
	if g.c.over.Load() {
		return e, false
	}
	roster := *g.c.roster.Load()
	start := 0
	if len(roster) > 1 {
		start = int(rand.Uint32N(uint32(len(roster))))
	}
	for i := range roster {
		v := roster[(start+i)%len(roster)]
		if v == w {
			continue
		}
		from := v.local.(*batch[E])
		if from.len() == 0 {
			continue
		}
		// Both locks, lower slot first: the end of the pool must find each item in one of the batches.
		one, two := b, from
		if v.slot < w.slot {
			one, two = from, b
		}
		var got [batchLen]E
		k := 0
		one.mu.Lock()
		two.mu.Lock()
		if !b.closed {
			if k = from.claimLocked(got[:], true); k > 1 {
				b.addLocked(got[1:k])
			}
		}
		two.mu.Unlock()
		one.mu.Unlock()
		if k > 0 {
			w.steals.Add(uint64(k))
			g.c.found(w, k > 1)
			return got[0], true
		}
	}
	return e, false
}

// Resize changes the largest number of workers, as Config.Workers sets it. Workers beyond it leave when they have
// finished what they took along. It does not change the number of queues.
func (g *engine[E]) Resize(n int) { g.c.resize(g.c.workers(n)) }

// Stats returns a snapshot.
func (g *engine[E]) Stats() Stats {
	s := g.c.stats()
	s.Queues = g.count(&s)
	for _, w := range *g.c.roster.Load() {
		s.Queued += w.local.(*batch[E]).len()
	}
	return s
}

// Stopped returns a channel that is closed when no further task will start: after Shutdown has drained the pool or
// given up, or after Close.
func (g *engine[E]) Stopped() <-chan struct{} { return g.c.ended }

// Shutdown refuses further tasks, lets the workers run those that were accepted, and waits for the workers to end. If
// ctx ends before, it takes back the tasks that have not started and returns them with the cause of ctx; those that are
// running go on, and a further Shutdown can wait for them. Called from a task of this pool it cannot wait: it only
// begins the shutdown and returns [ErrInTask]. Of several calls, one gets the tasks.
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

// Close is Shutdown without drain: tasks that have not started never will. They go to Config.OnDrop, if set, and are
// returned in a *[LeftError]. It waits for those that are running, except when called from a task of this pool.
// Further calls wait too and return nil.
func (g *engine[E]) Close() error {
	g.begin()
	left := g.abandon()
	if g.c.cfg.OnDrop != nil {
		for _, e := range left {
			g.c.cfg.OnDrop(g.task(e))
		}
	}
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
		g.c.notify() // before the crew may end: whoever added something may not have told a worker yet
	}
	g.c.close()
}

// abandon takes back what has not started. Queues before batches: items move only from the former to the latter, and
// only under both locks.
func (g *engine[E]) abandon() []E {
	left := g.drain()
	for {
		roster := g.c.roster.Load()
		for _, w := range *roster {
			left = append(left, w.local.(*batch[E]).close()...)
		}
		// A worker that has come meanwhile may have stolen from a batch that was still open.
		if g.c.roster.Load() == roster {
			break
		}
	}
	g.c.end()
	return left
}
