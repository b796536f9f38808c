// SPDX-License-Identifier: Apache-2.0

package taskpool

import "runtime"

// A worker without work parks in the list of idle workers, or leaves. The reasons to leave are
// here and in expiry.go; workers says why no task is forgotten on either way.

// park waits for work. It returns false if the worker is to leave.
func (c *workers) park(w *worker) bool {
	if c.spins > 0 && !c.over.Load() {
		// While it looks it counts as searching, so that producers need not start another worker.
		if !c.pinned && !w.searching && c.searching.CompareAndSwap(0, 1) {
			w.searching = true
		}
		// Yield and not sleep: the goroutine that brings work often waits for this processor.
		for range c.spins {
			runtime.Gosched()
			if c.src.pending(w) {
				return true
			}
		}
	}
	c.mu.Lock()
	// A closing pool wakes no worker that parks from now on: it may stay only for work that it
	// sees.
	if c.surplusLocked(w) || (c.closing.Load() && !c.src.pending(w)) {
		c.retireLocked(w)
		c.mu.Unlock()
		return false
	}
	// On top, so that the workers that were needed last are those that are woken first, and those
	// at the bottom stay idle long enough to retire.
	w.idle, w.idleSince = true, c.ticks
	w.prev, w.next = nil, c.idleTop
	if c.idleTop != nil {
		c.idleTop.prev = w
	} else {
		c.idleBottom = w
	}
	c.idleTop = w
	c.nIdle++
	c.idleSlot.Store(int64(w.slot))
	// From here on producers see that this worker is idle, and no longer that it searches. A
	// producer that saw the opposite had added its work before, where the look below finds it.
	c.spare.Add(1)
	if c.pinned {
		c.bySlot[w.slot].busy.Store(false)
	}
	if w.searching {
		w.searching = false
		c.searching.Add(-1)
	}
	// Under the lock, so that a tick that is about to end sees this worker in nIdle.
	c.armLocked()
	c.mu.Unlock()

	// Look again, now that producers can see that this worker is idle.
	if c.src.pending(w) || c.closing.Load() {
		c.mu.Lock()
		if w.idle {
			c.unparkLocked(w)
			c.mu.Unlock()
			return true
		}
		// Another goroutine has taken it off the list in the meantime, and sends a token. It must
		// be received, or the next park would return at once.
		c.mu.Unlock()
	}
	<-w.wake
	return !w.retired
}

// recheck looks for work once more on behalf of a worker that has retired: a producer may have seen
// it and therefore woken no other.
func (c *workers) recheck(w *worker) {
	if w.searching {
		w.searching = false
		c.searching.Add(-1)
	}
	// After it counts as neither idle nor searching. A producer that comes later wakes another
	// worker itself.
	if c.src.pending(w) {
		if c.pinned {
			if w.slot < len(c.bySlot) {
				c.notifySlot(w.slot)
			}
			return
		}
		c.notify()
	}
}

func (c *workers) unparkLocked(w *worker) {
	c.unlinkIdleLocked(w)
	c.spare.Add(-1)
	if c.pinned {
		c.bySlot[w.slot].busy.Store(true)
	}
}

func (c *workers) unlinkIdleLocked(w *worker) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		c.idleTop = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		c.idleBottom = w.prev
	}
	w.prev, w.next, w.idle = nil, nil, false
	c.nIdle--
	// Kept for producers of a Stealing pool, which look at it without the lock.
	if c.idleTop == nil {
		c.idleSlot.Store(-1)
	} else {
		c.idleSlot.Store(int64(c.idleTop.slot))
	}
}

// retireLocked counts w out of the pool: its goroutine will end.
func (c *workers) retireLocked(w *worker) {
	if w.idle {
		c.unparkLocked(w)
	}
	w.retired = true
	c.live--
	// Its place may be taken by a new worker from here on, even before the goroutine has ended.
	c.spare.Add(1)
	c.removeLocked(w)
	// Counters of Stats never go back.
	c.steals += w.steals.Load()
	if c.pinned {
		c.bySlot[w.slot].w = nil
		c.bySlot[w.slot].busy.Store(false)
	} else {
		c.free = append(c.free, w.slot)
	}
	c.over.Store(c.anySurplusLocked())
}

func (c *workers) surplusLocked(w *worker) bool {
	if c.pinned {
		return w.slot >= c.limit
	}
	return c.live > c.limit
}

func (c *workers) anySurplusLocked() bool {
	if !c.pinned {
		return c.live > c.limit
	}
	// Pinned workers are told by their slot: the count alone may be within the limit while a worker
	// of a queue that has moved is still there.
	for i := c.limit; i < len(c.bySlot); i++ {
		if c.bySlot[i].w != nil {
			return true
		}
	}
	return false
}

// resize changes the limit. Idle workers beyond it leave now, others when they have finished the
// items that they took along. Work that waited because the limit was reached gets the workers that
// may be started now.
func (c *workers) resize(n int) {
	c.mu.Lock()
	c.spare.Add(int64(n - c.limit))
	c.limit = n
	c.over.Store(c.anySurplusLocked())
	var leaving []*worker
	// From the bottom: those at the top have the warmest stacks and caches.
	for w := c.idleBottom; w != nil && c.over.Load(); {
		above := w.prev
		if c.surplusLocked(w) {
			c.retireLocked(w)
			leaving = append(leaving, w)
		}
		w = above
	}
	c.mu.Unlock()
	for _, w := range leaving {
		w.wake <- struct{}{}
	}
	// Tasks that waited because the limit was reached: their producers will not come again to wake
	// a worker. Where workers are pinned, Resize moves the queues and wakes their workers.
	if !c.pinned && c.src.pending(nil) {
		c.notify()
	}
}
