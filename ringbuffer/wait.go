// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// # The waiting strategy
//
// A waiting form first tries, then backs off, then parks.
//
// Backing off spins on registers only. A goroutine that polls the other side's word pulls the
// cache line to its core each time and makes the other side fetch it back for every single item;
// one that looks away for a moment finds a batch. That is the whole speed of a ring on two
// cores. The byte buffers do not spin: a chunk is a batch already, and two cores that copy in and
// out of one small buffer at the same time lose more to moving its lines than they gain
// (docs/ringbuffer.md has the measurement).
//
// Parking must not lose a wakeup. The obligation, for a condition "there is an item" (and in the
// mirror image "there is room"):
//
//	waiter:                              the other side:
//	 1 announce: count up in sleepers     A publish: write the word that makes try succeed
//	 2 re-check: try once more            B look:    if sleepers != 0, wake one
//	 3 sleep until woken or ctx ends
//
// All four accesses to the two words are sequentially consistent atomics (Go has no weaker
// ones), so they have one total order. If 2 does not see A, then 2 is before A in that order; 1 is
// before 2 and A before B, hence 1 is before B, and B sees the waiter. Either the re-check
// succeeds or the other side takes the lock and wakes. The wake token is a value in a
// channel of capacity 1, so a token given between 2 and 3 is kept.
//
// Several sleepers add one duty. One publication wakes one sleeper, so a token must never be
// burnt while there is work for another sleeper:
//
//   - a waiter that was given a token but leaves otherwise (its re-check succeeded, its context
//     ended) hands the token on: see retract;
//   - where slots are published out of order (MPMC), a waiter may wake, find the head slot claimed
//     but not yet published, and sleep again, while the slot behind it is ready. When the head
//     slot is published there is one token for two items. So a goroutine that took an item in the
//     slow path looks whether the next one is ready too, and wakes the next sleeper: the callers
//     of wait do that.
//
//   - Close wakes all sleepers, but a consumer that wakes may find that an item is still being
//     pushed, and sleep again. When that item comes there is one token for it, and no push comes
//     after it. So a goroutine that leaves the slow path looks also for the end, and wakes the
//     next sleeper to see it.
//
// From these follows the invariant: while somebody sleeps and the head item is ready (or the end is
// reached), a token is under way or a slow-path goroutine is about to look. A fast-path pop
// takes no token, so it cannot break it. A sleeper that announced too late for Close sees the
// closed bit in its re-check.

// gate is the place where the goroutines of one side sleep. The zero value is ready. The word
// sleepers is written only when somebody parks or wakes, so looking at it after every
// publication costs a load from a line that stays shared.
type gate struct {
	sleepers atomic.Uint32 // length of the queue; written under its mu
	spin     bool          // worth spinning before parking; fixed when the ring is made
	queue    atomic.Pointer[waiters]
}

// waiters is the queue of a gate. It is made when somebody parks for the first time: most gates
// of a hundred thousand idle queues never see that.
//
// Waiters are kept for reuse per gate, not in a global sync.Pool: a channel made inside a
// testing/synctest bubble must never be used outside.
type waiters struct {
	mu    sync.Mutex
	first *waiter // oldest first: a circular doubly linked list
	free  *waiter // waiters to reuse, linked by next
	spare int     // length of free
}

// line returns the queue of the gate. That of a gate with sleepers exists.
func (g *gate) line() *waiters {
	if q := g.queue.Load(); q != nil {
		return q
	}
	g.queue.CompareAndSwap(nil, new(waiters)) // several may park for the first time at once
	return g.queue.Load()
}

// maxSpare bounds how many waiters a gate keeps after a crowd has left.
const maxSpare = 8

// waiter is one parked goroutine, or one that is about to park.
type waiter struct {
	token      chan struct{} // capacity 1
	next, prev *waiter
	queued     bool // still in the queue: no token was given
}

// wake gives a token to the oldest sleeper, if there is one. The caller has just published.
func (g *gate) wake() {
	if g.sleepers.Load() != 0 {
		g.wakeOne()
	}
}

// wakeOne is the slow half of wake, kept apart so that wake is inlined.
//
//go:noinline
func (g *gate) wakeOne() {
	q := g.line()
	q.mu.Lock()
	w := q.first
	if w != nil {
		g.take(q, w)
	}
	q.mu.Unlock()
	if w != nil {
		w.token <- struct{}{} // does not block: each waiter gets one token
	}
}

// wakeAll empties the queue; Close calls it after it has set the closed bit.
func (g *gate) wakeAll() {
	for g.sleepers.Load() != 0 {
		g.wakeOne()
	}
}

// announce puts a waiter into the queue: step 1.
func (g *gate) announce() *waiter {
	q := g.line()
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.free
	if w != nil {
		q.free, w.next = w.next, nil
		q.spare--
	} else {
		w = &waiter{token: make(chan struct{}, 1)}
	}
	if q.first == nil {
		w.next, w.prev = w, w
		q.first = w
	} else {
		last := q.first.prev
		w.prev, w.next = last, q.first
		last.next, q.first.prev = w, w
	}
	w.queued = true
	g.sleepers.Add(1)
	return w
}

// retract takes back an announcement by a goroutine that did not use a token. If one was given
// meanwhile, it goes to the next sleeper.
func (g *gate) retract(w *waiter) {
	q := g.line()
	q.mu.Lock()
	// Either w is still queued, and nobody will ever give it a token, or its token is certain.
	given := !w.queued
	if !given {
		g.take(q, w)
	}
	q.mu.Unlock()
	if given {
		<-w.token // sent right after the lock was released, if not before
		g.wake()
	}
	g.recycle(w)
}

// take removes w from the queue, whose lock the caller holds.
func (g *gate) take(q *waiters, w *waiter) {
	if w.next == w {
		q.first = nil
	} else {
		w.prev.next, w.next.prev = w.next, w.prev
		if q.first == w {
			q.first = w.next
		}
	}
	w.next, w.prev, w.queued = nil, nil, false
	g.sleepers.Add(^uint32(0))
}

// recycle keeps a waiter whose token has been taken.
func (g *gate) recycle(w *waiter) {
	q := g.line()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.spare < maxSpare {
		w.next, q.free = q.free, w
		q.spare++
	}
}

// wait calls try until it reports true, and parks in between. It returns nil then, or the cause
// of ctx's end. try must not block; it runs on the caller's goroutine.
func (g *gate) wait(ctx context.Context, try func() bool) error {
	if g.backOff(try) {
		return nil
	}
	done := ctx.Done() // takes a lock in most contexts, so not in the loop
	for {
		w := g.announce() // 1
		if try() {        // 2
			g.retract(w)
			return nil
		}
		select { // 3
		case <-w.token:
			// The token channel is empty again, so w can serve another sleeper.
			g.recycle(w)
		case <-done:
			g.retract(w)
			return context.Cause(ctx)
		}
		if try() || g.backOff(try) {
			return nil
		}
	}
}

// spinTurns is the length of the spinning phase, two microseconds where it was measured: long
// enough for the other side to move a batch undisturbed, short beside a park and a wakeup on
// another processor. It bounds what spinning adds to the time until an item is noticed.
const spinTurns = 4096

// backOff is the phase before parking: one look away, where that helps, and one turn given to other
// goroutines, each followed by a try.
func (g *gate) backOff(try func() bool) bool {
	if g.spin {
		idle(spinTurns)
		if try() {
			return true
		}
	}
	runtime.Gosched()
	return try()
}

// idle burns n turns of an empty loop, which the compiler keeps.
func idle(n int) {
	for range n {
	}
}

// newGate returns a gate that spins where a goroutine that spins can be waiting for one that
// runs. That is asked when a ring is made, since GOMAXPROCS takes a lock. A zero gate does not
// spin.
func newGate() gate { return gate{spin: runtime.GOMAXPROCS(0) > 1} }
