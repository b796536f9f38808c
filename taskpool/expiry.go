// SPDX-License-Identifier: Apache-2.0

package taskpool

import "time"

// Idle workers retire without a helper goroutine and without a timer of their own: one runtime
// timer per pool runs only while somebody is idle, counts half idle timeouts, and sends home those
// that have been idle for three of its ticks (between one and one and a half timeouts).

const (
	expireTicks = 3
	expireChunk = 256 // workers sent home under one lock
)

func (c *workers) armLocked() {
	if c.armed || c.cfg.IdleTimeout < 0 || c.closing.Load() {
		return
	}
	// At most one timer runs per pool, however many workers there are. A timer for each would cost
	// every park and every wakeup a heap operation in the runtime.
	c.armed = true
	// A timeout of a nanosecond is legal, and half of it is zero: the timer would fire without
	// pause.
	period := max(c.cfg.IdleTimeout/2, time.Microsecond)
	if c.timer == nil {
		c.timer = time.AfterFunc(period, c.tick)
		return
	}
	c.timer.Reset(period)
}

// arm is for work of trim that has no idle worker to arm the timer.
func (c *workers) arm() {
	c.mu.Lock()
	c.armLocked()
	c.mu.Unlock()
}

func (c *workers) tick() {
	c.mu.Lock()
	c.ticks++
	c.mu.Unlock()
	// In chunks, so that the lock is not held while thousands of workers are told.
	for c.expire() {
	}
	// Without workers.mu: trim locks the shards of the key map, and a producer with a new key takes
	// workers.mu while it holds one, to start this timer.
	again := c.src.trim()
	c.mu.Lock()
	// Only now, under the lock: a worker that parked during the tick saw armed set, and relied on
	// the look at nIdle that follows.
	c.armed = false
	if c.nIdle > 0 || again {
		c.armLocked()
	}
	c.mu.Unlock()
}

// retire sends home some of the workers that have been idle for long; true if there may be more.
func (c *workers) expire() bool {
	var leaving [expireChunk]*worker
	n := 0
	c.mu.Lock()
	// From the bottom: the list is ordered by the time of parking, so the first worker that may
	// stay ends the search.
	for n < len(leaving) && c.idleBottom != nil && c.ticks-c.idleBottom.idleSince >= expireTicks {
		leaving[n] = c.idleBottom
		c.retireLocked(c.idleBottom)
		n++
	}
	c.mu.Unlock()
	// Outside the lock: each of them needs it to leave. The channel has room for the token, so this
	// does not block.
	for _, w := range leaving[:n] {
		w.wake <- struct{}{}
	}
	return n == len(leaving)
}
