// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// intake is the producers' side of a crew: queues of items that any worker may run. What the workers do with the queues
// is the matter of the pool that embeds it.
type intake[E any] struct {
	c      crew
	exec   func(E)      // for CallerRuns and Spawn
	task   func(E) Task // for OnDrop
	queues []ingress[E]
	lines  sync.Pool // of *waiter[E]
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

func (in *intake[E]) open(queues, limit int, pick picker) {
	in.pick = pick
	in.queues = make([]ingress[E], queues)
	for i := range in.queues {
		in.queues[i].limit, in.queues[i].watched = limit, true
	}
}

// choose returns the queue that a producer tries first.
func (in *intake[E]) choose() int {
	switch in.pick {
	case pickRobin:
		return int(in.next.Add(1) % uint32(len(in.queues)))
	case pickRandom:
		if s := in.c.idleSlot.Load(); s >= 0 {
			return int(s) % len(in.queues)
		}
		return int(rand.Uint32N(uint32(len(in.queues))))
	}
	return 0
}

// try adds e to the chosen queue or, if that is full, to another one with room. With ErrFull it returns the last one it
// tried, locked.
func (in *intake[E]) try(e E) (*queue[E], error) {
	first := in.choose()
	for i := 0; ; i++ {
		q := &in.queues[(first+i)%len(in.queues)].queue
		q.lock()
		switch {
		case q.closed:
			q.mu.Unlock()
			return nil, ErrClosed
		case !q.fullLocked():
			q.putLocked(e)
			q.mu.Unlock()
			in.c.notify()
			return nil, nil
		case i == len(in.queues)-1:
			return q, ErrFull
		}
		q.mu.Unlock()
	}
}

// Submit adds e and waits for room if there is none. It returns nil, the cause of ctx, or [ErrClosed]; in the latter
// cases e was not accepted. A task that submits to its own full pool is not made to wait, since it could wait for
// itself: its task is accepted beyond the limit.
func (in *intake[E]) Submit(ctx context.Context, e E) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	q, err := in.try(e)
	if err != ErrFull {
		return err
	}
	w := q.lineUpLocked(&in.lines, e)
	q.mu.Unlock()
	// Asked while in line, because the usual answer is no, and takes longer than some wait.
	if in.c.inside() {
		q.mu.Lock()
		if q.leaveLocked(w) {
			q.putLocked(e)
			q.mu.Unlock()
			w.release(&in.lines)
			in.c.notify()
			return nil
		}
		q.mu.Unlock()
	}
	return q.await(ctx, nil, &in.lines, w)
}

// TrySubmit adds e if there is room. It never blocks and returns nil, [ErrFull] or [ErrClosed].
func (in *intake[E]) TrySubmit(e E) error {
	q, err := in.try(e)
	if err == ErrFull {
		q.mu.Unlock()
	}
	return err
}

// SubmitN adds all items, in order, under one lock where there is room, and waits like Submit where there is none. It
// returns how many were accepted, and the error that kept it from accepting the rest.
func (in *intake[E]) SubmitN(ctx context.Context, items ...E) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	n := 0
	for n < len(items) {
		q := &in.queues[in.choose()].queue
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return n, ErrClosed
		}
		k := min(q.roomLocked(), len(items)-n)
		if k > 0 {
			q.putAllLocked(items[n : n+k])
		}
		q.mu.Unlock()
		if k > 0 {
			n += k
			in.c.notify()
			continue
		}
		if err := in.Submit(ctx, items[n]); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Go adds e; without room it does what Config.Policy says. It returns nil, [ErrClosed], or with policy Reject [ErrFull].
func (in *intake[E]) Go(e E) error {
	if in.c.cfg.Policy == Block {
		return in.Submit(context.Background(), e)
	}
	q, err := in.try(e)
	if err != ErrFull {
		return err
	}
	if in.c.cfg.Policy == DropOldest {
		oldest := q.replaceLocked(e) // no worker need be told: there is as much to do as before
		q.mu.Unlock()
		in.drops.Add(1)
		in.c.cfg.OnDrop(in.task(oldest))
		return nil
	}
	q.mu.Unlock()
	switch in.c.cfg.Policy {
	case CallerRuns:
		in.c.callerRan.Add(1)
		in.c.guarded(func() { in.exec(e) })
		return nil
	case Spawn:
		return in.c.spawn(func() { in.exec(e) })
	}
	return ErrFull
}

// some reports whether any queue has an item, without a lock.
func (in *intake[E]) some() bool {
	for i := range in.queues {
		if in.queues[i].some.Load() {
			return true
		}
	}
	return false
}

// count adds what the queues hold and did to s, and returns the length of each.
func (in *intake[E]) count(s *Stats) []int {
	lens := make([]int, len(in.queues))
	for i := range in.queues {
		q := &in.queues[i]
		q.mu.Lock()
		lens[i] = q.n
		s.Queued += q.n
		s.Accepted += q.accepted
		q.mu.Unlock()
	}
	s.Dropped = in.drops.Load()
	return lens
}

// refuse lets nothing in any more, and sends waiting producers home.
func (in *intake[E]) refuse() {
	for i := range in.queues {
		in.queues[i].close()
	}
}

// drain removes and returns what the queues hold.
func (in *intake[E]) drain() (left []E) {
	for i := range in.queues {
		left = append(left, in.queues[i].drain()...)
	}
	return left
}

func (in *intake[E]) trim() {
	for i := range in.queues {
		in.queues[i].trim()
	}
}
