// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// intake is the producers' side of a pool: queues of items that any worker may run, and the
// policies for a full queue. How workers take items is the matter of the pool that embeds it.
type intake[E any] struct {
	c       workers
	exec    func(E)      // for CallerRuns and Spawn
	task    func(E) Task // for OnDrop
	isTask  bool         // E is Task: nil is refused
	queues  []ingress[E]
	line    line[E]   // of producers for whom no queue had room
	spare   sync.Pool // of *waiter[E]
	pick    picker
	next    atomic.Uint32 // round robin
	drops   atomic.Uint64
	spawned spawnedSet[E]
}

type ingress[E any] struct {
	queue[E]
	_ [64]byte
}

// picker is how a producer picks a queue.
type picker uint8

const (
	pickFirst  picker = iota // there is one
	pickRobin                // in turn, the next one if full
	pickRandom               // any, the next one if full
)

func (in *intake[E]) open(queues, limit int, pick picker) {
	in.pick = pick
	var zero E
	_, in.isTask = any(zero).(Task)
	in.queues = make([]ingress[E], queues)
	for i := range in.queues {
		q := &in.queues[i]
		// All queues share the line: with a line for each, a producer could wait at a queue behind
		// slow tasks while others have room.
		q.limit, q.watched, q.line = limit, true, &in.line
	}
}

// check refuses a nil task.
func (in *intake[E]) check(e E) error {
	// Decided once in open: for an item type of Func this is one test of a constant field.
	if in.isTask {
		if t, _ := any(e).(Task); t == nil {
			return ErrNilTask
		}
	}
	return nil
}

// choose returns the queue that a producer tries first.
func (in *intake[E]) choose() int {
	switch in.pick {
	case pickRobin:
		// The one word that all producers of a Sharded pool write. Random numbers would spare it,
		// and give up that equal queues stay equally long.
		return int(in.next.Add(1) % uint32(len(in.queues)))
	case pickRandom:
		// The worker that would be woken looks into this queue first. The slot is a hint: a wrong
		// one costs that worker a longer look, and no task.
		if s := in.c.idleSlot.Load(); s >= 0 {
			return int(s) % len(in.queues)
		}
		return int(rand.Uint32N(uint32(len(in.queues))))
	}
	return 0
}

// try adds e to the chosen queue or, if that is full, to another one with room. With ErrFull it
// returns the last one it tried, locked.
func (in *intake[E]) try(e E, t *ticket) (*queue[E], error) {
	at := in.choose()
	for i := 0; ; i++ {
		q := &in.queues[at].queue
		// Not by a remainder: with one queue, the usual number, the division is a tenth of the
		// processor time of a task.
		if at++; at == len(in.queues) {
			at = 0
		}
		q.lock()
		switch {
		case q.closed:
			q.mu.Unlock()
			return nil, ErrClosed
		case !q.fullLocked():
			q.putLocked(e, t)
			q.mu.Unlock()
			// Announce, then look for a worker, in this order: see workers. After the unlock, so
			// that the worker does not wake only to wait for this lock.
			in.c.notify()
			return nil, nil
		// The lock is kept: between giving it up and standing in line, room could appear and
		// be offered to no producer.
		case i == len(in.queues)-1:
			return q, ErrFull
		}
		q.mu.Unlock()
	}
}

// Submit adds e and waits for room if there is none. It returns nil, the cause of ctx, or
// [ErrClosed]; in the latter cases e was not accepted. Producers that wait are let in one by one as
// room appears, first come, first served. A task that submits to its own full pool is not made to
// wait, since it could wait for itself: its task is accepted beyond the limit.
func (in *intake[E]) Submit(ctx context.Context, e E) error {
	if err := in.check(e); err != nil {
		return err
	}
	return in.submit(ctx, e, nil)
}

func (in *intake[E]) submit(ctx context.Context, e E, t *ticket) error {
	// An ended ctx refuses also where there is room. Otherwise a caller could not rely on its own
	// deadline.
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	q, err := in.try(e, t)
	if err != ErrFull {
		return err
	}
	w := in.line.add(&in.spare, e, t)
	q.mu.Unlock()
	// The other queues were not locked when w took its place: room that appeared in one of
	// them before that moment was offered to no producer.
	for i := 0; len(in.queues) > 1 && i < len(in.queues); i++ {
		o := &in.queues[i].queue
		o.lock()
		o.admitLocked()
		o.unlock()
	}
	// Asked while in line: the usual answer is no, and finding it out takes longer than many waits.
	if in.c.inside() && in.line.leave(w) {
		w.release(&in.spare)
		q.lock()
		if q.closed {
			q.mu.Unlock()
			return ErrClosed
		}
		// Beyond the limit. A task that waited for room in its own pool could be the only one that
		// makes room.
		q.putLocked(e, t)
		q.mu.Unlock()
		in.c.notify()
		return nil
	}
	return in.line.await(ctx, nil, &in.spare, w)
}

// TrySubmit adds e if there is room. It never blocks and returns nil, [ErrFull] or [ErrClosed].
func (in *intake[E]) TrySubmit(e E) error {
	if err := in.check(e); err != nil {
		return err
	}
	q, err := in.try(e, nil)
	if err == ErrFull {
		q.mu.Unlock()
	}
	return err
}

// SubmitN adds all items, in order, under one lock where there is room, and waits like Submit where
// there is none. It returns how many were accepted, and the error that kept it from accepting the
// rest. If one of them is a nil task it accepts none.
func (in *intake[E]) SubmitN(ctx context.Context, items ...E) (int, error) {
	// All are looked at before one is added: a caller that made a mistake should not have to find
	// out how many were accepted.
	for _, e := range items {
		if err := in.check(e); err != nil {
			return 0, err
		}
	}
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
		// roomLocked is zero while other producers wait, so a batch does not overtake them.
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
		// One item at a time waits, as the others do. Then the loop tries to add many again.
		if err := in.submit(ctx, items[n], nil); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Go adds e; without room Config.Policy decides. It returns nil, [ErrClosed], or with
// policy Reject [ErrFull].
func (in *intake[E]) Go(e E) error {
	if err := in.check(e); err != nil {
		return err
	}
	if in.c.cfg.Policy == Block {
		return in.submit(context.Background(), e, nil)
	}
	q, err := in.try(e, nil)
	if err != ErrFull {
		return err
	}
	if in.c.cfg.Policy == DropOldest {
		// No worker need be woken: there is as much to do as before.
		oldest, ok := q.replaceLocked(e)
		q.mu.Unlock()
		if ok {
			in.drops.Add(1)
			in.drop([]E{oldest})
		}
		return nil
	}
	// Not under the lock: the caller would run its task, or start a goroutine, while no worker can
	// take anything.
	q.mu.Unlock()
	switch in.c.cfg.Policy {
	case CallerRuns:
		return in.callerRuns(e)
	case Spawn:
		return in.spawn(e)
	}
	return ErrFull
}

// drop gives items to OnDrop, all of them even if it panics or calls Goexit.
func (in *intake[E]) drop(items []E) {
	if in.c.cfg.OnDrop == nil {
		return
	}
	in.c.guardedEach(len(items), func(i int) { in.c.cfg.OnDrop(in.task(items[i])) })
}

// some reports whether any queue has an item, without a lock.
func (in *intake[E]) some() bool {
	for i := range in.queues {
		// Set and cleared under the lock of the queue, and read here without it: a producer sets it
		// before it looks for a worker, and a worker reads it after it has said that it is idle.
		if in.queues[i].some.Load() {
			return true
		}
	}
	return false
}

// count adds the queued and the accepted items to s, and returns the length of each.
func (in *intake[E]) count(s *Stats) []int {
	lens := make([]int, len(in.queues))
	for i := range in.queues {
		q := &in.queues[i]
		q.mu.Lock()
		lens[i] = q.lenLocked()
		s.Queued += lens[i]
		s.Accepted += q.accepted
		q.mu.Unlock()
	}
	s.Dropped = in.drops.Load()
	return lens
}

// refuse lets nothing in any more, and ends the wait of producers.
func (in *intake[E]) refuse() {
	for i := range in.queues {
		in.queues[i].close()
	}
	// After the queues: a producer joins the line only while it sees an open queue, locked.
	in.line.close()
}

// drain removes and returns the items of all queues, and spawned tasks that have not begun.
func (in *intake[E]) drain() (left []E) {
	for i := range in.queues {
		left = append(left, in.queues[i].drain()...)
	}
	return append(left, in.spawned.drain()...)
}

func (in *intake[E]) trim() {
	// Only empty queues give back memory, so a burst that returns does not pay for growing again.
	for i := range in.queues {
		in.queues[i].trim()
	}
}
