// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// engine runs unkeyed items: any number of queues, any number of workers. Shared, Stealing, Sharded, Elastic and Func
// are engines that differ in their numbers and in how a producer picks a queue.
type engine[E any] struct {
	c      crew
	exec   func(E)
	task   func(E) Task // for OnDrop and Spawn
	queues []ingress[E]
	lines  sync.Pool // of *waiter[E]
	take   int       // items a worker takes along; 1: no batch
	pick   picker
	next   atomic.Uint32 // round robin
	drops  atomic.Uint64
}

type ingress[E any] struct {
	queue[E]
	_ [64]byte
}

// picker is how a producer picks a queue.
type picker uint8

const (
	pickFirst  picker = iota // the only one
	pickRobin                // one after the other, the next one if full
	pickRandom               // any, the next one if full
)

func (g *engine[E]) init(cfg Config, queues int, pick picker, exec func(E), task func(E) Task) {
	g.exec, g.task, g.pick = exec, task, pick
	g.queues = make([]ingress[E], queues)
	for i := range g.queues {
		g.queues[i].limit = cfg.QueueLen
	}
	g.take = 1
	if cfg.Workers <= maxBatchers {
		g.take = batchLen
		if cfg.QueueLen > 0 {
			g.take = min(max(1, 1+cfg.QueueLen*queues/(8*cfg.Workers)), batchLen)
		}
	}
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
	for i := range g.queues {
		g.queues[i].trim()
	}
	return false
}

func (g *engine[E]) pending(*worker) bool {
	for i := range g.queues {
		if g.queues[i].some.Load() {
			return true
		}
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
		q.mu.Lock()
		// No more than a fair share, so that others have something without stealing.
		k := min(1+q.n/min(g.c.cfg.Workers, batchLen), g.take)
		if e, ok = q.popOneLocked(); !ok {
			q.mu.Unlock()
			continue
		}
		if k > 1 && q.n > 0 {
			k = 1 + b.fill(&q.queue, k-1)
		}
		more := k > 1 || q.n > 0
		q.mu.Unlock()
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

// choose returns the queue that a producer tries first.
func (g *engine[E]) choose() int {
	switch g.pick {
	case pickRobin:
		return int(g.next.Add(1) % uint32(len(g.queues)))
	case pickRandom:
		if s := g.c.idleSlot.Load(); s >= 0 {
			return int(s) % len(g.queues)
		}
		return int(rand.Uint32N(uint32(len(g.queues))))
	}
	return 0
}

// try adds e to the chosen queue or, if that is full, to another one with room.
func (g *engine[E]) try(e E) (q *queue[E], err error) {
	first := g.choose()
	for i := range g.queues {
		q := &g.queues[(first+i)%len(g.queues)].queue
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return nil, ErrClosed
		}
		if !q.fullLocked() {
			q.putLocked(e)
			q.mu.Unlock()
			g.c.notify()
			return q, nil
		}
		q.mu.Unlock()
	}
	return &g.queues[first].queue, ErrFull
}

// Submit adds e and waits for room if there is none. It returns nil, the cause of ctx, or [ErrClosed]; in the latter
// cases e was not accepted. A task that submits to its own full pool is not made to wait, since it could wait for
// itself: its task is accepted beyond the limit.
func (g *engine[E]) Submit(ctx context.Context, e E) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	q, err := g.try(e)
	if err != ErrFull {
		return err
	}
	inside := g.c.inside()
	q.mu.Lock()
	switch {
	case q.closed:
		q.mu.Unlock()
		return ErrClosed
	case inside || !q.fullLocked():
		q.putLocked(e)
		q.mu.Unlock()
		g.c.notify()
		return nil
	}
	return q.await(ctx, g.c.stop, &g.lines, e)
}

// TrySubmit adds e if there is room. It never blocks and returns nil, [ErrFull] or [ErrClosed].
func (g *engine[E]) TrySubmit(e E) error {
	_, err := g.try(e)
	return err
}

// SubmitN adds all items, in order, under one lock where there is room, and waits like Submit where there is none. It
// returns how many were accepted, and the error that kept it from accepting the rest.
func (g *engine[E]) SubmitN(ctx context.Context, items ...E) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	n := 0
	for n < len(items) {
		q := &g.queues[g.choose()].queue
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return n, ErrClosed
		}
		before := n
		for n < len(items) && !q.fullLocked() {
			q.putLocked(items[n])
			n++
		}
		q.mu.Unlock()
		if n > before {
			g.c.notify()
			continue
		}
		if err := g.Submit(ctx, items[n]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Go adds e; without room it does what Config.Policy says. It returns nil, [ErrClosed], or with policy Reject [ErrFull].
func (g *engine[E]) Go(e E) error {
	if g.c.cfg.Policy == Block {
		return g.Submit(context.Background(), e)
	}
	for {
		q, err := g.try(e)
		if err != ErrFull {
			return err
		}
		switch g.c.cfg.Policy {
		case Reject:
			return ErrFull
		case CallerRuns:
			g.c.callerRan.Add(1)
			g.c.guarded(func() { g.exec(e) })
			return nil
		case Spawn:
			return g.c.spawn(func() { g.exec(e) })
		}
		q.mu.Lock()
		old, ok := q.popOneLocked()
		q.mu.Unlock()
		if ok {
			g.drops.Add(1)
			g.c.cfg.OnDrop(g.task(old))
		}
	}
}

// Resize changes the largest number of workers, as Config.Workers sets it. Workers beyond it leave when they have
// finished what they took along. It does not change the number of queues.
func (g *engine[E]) Resize(n int) { g.c.resize(g.c.workers(n)) }

// Stats returns a snapshot.
func (g *engine[E]) Stats() Stats {
	s := g.c.stats()
	s.Queues = make([]int, len(g.queues))
	for i := range g.queues {
		q := &g.queues[i]
		q.mu.Lock()
		s.Queues[i] = q.n
		s.Queued += q.n
		s.Accepted += q.accepted
		q.mu.Unlock()
	}
	for _, w := range *g.c.roster.Load() {
		s.Queued += w.local.(*batch[E]).len()
	}
	s.Dropped = g.drops.Load()
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
	for i := range g.queues {
		g.queues[i].close()
	}
	g.c.close()
}

// abandon takes back what has not started. Queues before batches: items move only from the former to the latter, and
// only under both locks.
func (g *engine[E]) abandon() []E {
	var left []E
	for i := range g.queues {
		left = append(left, g.queues[i].drain()...)
	}
	for _, w := range *g.c.roster.Load() {
		left = append(left, w.local.(*batch[E]).close()...)
	}
	g.c.end()
	return left
}
