// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/netx"
	"github.com/gostkit/kit/timerwheel"
)

// epoch is the origin of all session times, which are nanoseconds of the monotonic clock.
var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

// longest is as good as for ever: a time to which two such durations can be added without overflow.
const longest = math.MaxInt64 / 4

// nanos returns d as session times count, however long it is.
func nanos(d time.Duration) int64 { return int64(min(d, longest)) }

// A clock keeps all time limits of a session with one timer of the endpoint's wheel. The hot paths only
// store when something happened; when the timer fires it looks which limit is over and sets itself to
// the next one that may be. No deadline ever reaches the descriptor, since TLS, decompressors and
// gorilla never recover from one.
type clock struct {
	s *session

	readLimit  atomic.Int64 // ReadTimeout
	idleLimit  atomic.Int64 // IdleTimeout
	cronPeriod atomic.Int64

	lastActive atomic.Int64 // bytes moved, or a turn ended
	begunAt    atomic.Int64 // the incomplete package's first byte, 0: there is none
	stalledAt  atomic.Int64 // last progress of a write that waits for the peer, 0: none waits
	lookedAt   atomic.Int64 // when that write's bytes in the kernel were counted
	unacked    atomic.Int64 // how many they were
	drainBy    atomic.Int64 // when a graceful end is over, 0: none is in progress

	mu     sync.Mutex
	timer  *timerwheel.Timer // guarded by mu; nil until a limit needs it
	due    int64             // guarded by mu: when timer fires, 0: not armed
	cronAt int64             // guarded by mu: the next tick, 0: none
	pingAt int64             // guarded by mu: the next ping, 0: none
	live   bool              // guarded by mu: the session has begun
	ended  bool              // guarded by mu
}

func (c *clock) init(s *session) {
	c.s = s
	c.readLimit.Store(nanos(s.opts.ReadTimeout))
	c.idleLimit.Store(nanos(s.opts.IdleTimeout))
	c.cronPeriod.Store(nanos(s.opts.CronPeriod))
	c.lastActive.Store(now())
}

// A pinger is a transport that keeps an idle peer in touch.
type pinger interface {
	pingEvery() time.Duration
	ping(s *session)
}

// start begins to watch; the session's options are set.
func (c *clock) start() {
	c.mu.Lock()
	c.live = true
	c.mu.Unlock()
	c.touch()
	c.review()
}

func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

func (c *clock) setLimit(p *atomic.Int64, d time.Duration) {
	p.Store(nanos(max(d, 0)))
	if p == &c.cronPeriod {
		c.mu.Lock()
		c.cronAt = 0
		c.mu.Unlock()
	}
	c.review()
}

func (c *clock) touch() { c.lastActive.Store(now()) }

func (c *clock) active() time.Time { return epoch.Add(time.Duration(c.lastActive.Load())) }

// wrote notes progress of a write. What a turn queued, its end notes.
func (c *clock) wrote() {
	if c.stalledAt.Load() != 0 {
		c.stalledAt.Store(now())
	} else if !c.s.inTurn() {
		c.touch()
	}
}

// stalled notes that a write waits for the peer.
func (c *clock) stalled() {
	t := now()
	c.stalledAt.Store(t)
	if limit := c.s.writeTimeout.Load(); limit > 0 {
		c.arm(t + limit/2)
	}
}

func (c *clock) unstalled() {
	if c.stalledAt.Load() != 0 {
		c.stalledAt.Store(0)
		c.touch()
	}
}

// begun notes that the first bytes of a package are there, and not all of it.
func (c *clock) begun() {
	if c.begunAt.Load() != 0 {
		return
	}
	t := now()
	c.begunAt.Store(t)
	if limit := c.readLimit.Load(); limit > 0 {
		c.arm(t + limit)
	}
}

func (c *clock) complete() {
	if c.begunAt.Load() != 0 {
		c.begunAt.Store(0)
	}
}

// shift makes the read and idle clocks stand still for d, while reading was paused.
func (c *clock) shift(d int64) {
	if t := c.begunAt.Load(); t != 0 {
		c.begunAt.Store(t + d)
	}
	c.touch()
}

func (c *clock) armDrain(d time.Duration) {
	t := now() + int64(d)
	c.drainBy.Store(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live = true
	c.armLocked(t)
}

// arm makes sure that the timer fires by t.
func (c *clock) arm(t int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armLocked(t)
}

func (c *clock) armLocked(t int64) {
	if !c.live || c.ended || c.due != 0 && c.due <= t {
		return
	}
	c.due = t
	d := time.Duration(max(t-now(), 0))
	if c.timer == nil {
		c.timer = c.s.ep.wheel.AfterFunc(d, c.review)
		return
	}
	c.timer.Reset(d)
}

// review runs on the wheel, and after a limit changed: it ends the session if a limit is over, posts the
// ticks that are due, and sets the timer for what comes next. It never blocks.
func (c *clock) review() {
	t := now()
	c.mu.Lock()
	if c.due <= t {
		c.due = 0 // before the limits are looked at: one that begins from here on arms the timer itself
	}
	c.mu.Unlock()
	var next soonest
	if by := c.drainBy.Load(); by != 0 {
		if t >= by {
			c.s.spawn(c.s.expire)
			return
		}
		next.add(by)
	}
	if err := c.limits(t, &next); err != nil {
		c.s.spawn(func() { c.s.fail(err) })
		return
	}
	c.mu.Lock()
	tick, ping := false, false
	if c.live && !c.ended {
		tick, ping = c.ticksLocked(t, &next)
	}
	if next != 0 {
		c.armLocked(int64(next))
	}
	c.mu.Unlock()
	if tick {
		c.s.post(flagCron)
	}
	if ping {
		c.s.spawn(func() { c.s.tr.(pinger).ping(c.s) })
	}
}

// soonest is the earliest of the times that were added, 0 if there was none.
type soonest int64

func (n *soonest) add(at int64) {
	if *n == 0 || at < int64(*n) {
		*n = soonest(at)
	}
}

// limits returns the error of a limit that is over at t, or adds when those that run may be.
func (c *clock) limits(t int64, next *soonest) error {
	if at, limit := c.stalledAt.Load(), c.s.writeTimeout.Load(); at != 0 && limit > 0 {
		stuck, again := c.stuck(at, t, limit)
		if stuck {
			return ErrWriteTimeout
		}
		next.add(again)
	}
	if c.s.has(flagClosing | flagReadEnd) {
		return nil // what comes is discarded, for at most WaitTime; or nothing comes any more
	}
	// While a callback runs or packages wait for one, the others stand still.
	busy := c.s.busy()
	if at, limit := c.begunAt.Load(), c.readLimit.Load(); at != 0 && limit > 0 {
		if busy {
			c.begunAt.CompareAndSwap(at, t)
			at = t
		}
		if t >= at+limit {
			return ErrReadTimeout
		}
		next.add(at + limit)
	}
	if limit := c.idleLimit.Load(); limit > 0 {
		if busy {
			c.lastActive.Store(t)
		}
		at := c.lastActive.Load()
		if t >= at+limit {
			return ErrIdleTimeout
		}
		next.add(at + limit)
	}
	return nil
}

// stuck reports whether a write that waits since at has to be given up at t, or when to look again. A kernel calls
// a socket writable when much of its buffer is free (Linux: a third), for which a peer that reads slowly may need
// longer than limit. So the peer is not stuck if it has acknowledged something in the second half of that time.
func (c *clock) stuck(at, t, limit int64) (stuck bool, again int64) {
	looked := c.lookedAt.Load()
	again = at + limit/2
	if looked >= at { // later than it should if this process slept, or limit was changed
		again = max(at+limit, looked+limit/2)
	}
	if t < again {
		return false, again
	}
	n, err := netx.SendQueue(c.s.tr.netConn())
	switch {
	case err != nil: // nobody can tell
		return t >= at+limit, at + limit
	case looked < at:
		c.unacked.Store(int64(n))
		c.lookedAt.Store(t)
		return false, max(at+limit, t+limit/2)
	case int64(n) >= c.unacked.Load():
		return true, 0
	}
	c.stalledAt.CompareAndSwap(at, t)
	return false, t + limit/2
}

// ticksLocked reports which ticks are due at t and adds the next ones. The phases of many sessions spread
// out by chance, and ticks that were missed merge into one.
func (c *clock) ticksLocked(t int64, next *soonest) (tick, ping bool) {
	if period := c.cronPeriod.Load(); period > 0 {
		if c.cronAt == 0 {
			c.cronAt = t + 1 + rand.Int64N(period)
		} else if t >= c.cronAt {
			tick = true
			c.cronAt = max(c.cronAt+period, t+period/2)
		}
		next.add(c.cronAt)
	}
	if p, ok := c.s.tr.(pinger); ok && p.pingEvery() > 0 {
		period := nanos(p.pingEvery())
		if c.pingAt == 0 {
			c.pingAt = t + 1 + rand.Int64N(period)
		} else if t >= c.pingAt {
			ping = t-c.lastActive.Load() >= period/2 // else there is traffic: no need
			c.pingAt = t + period
		}
		next.add(c.pingAt)
	}
	return tick, ping
}

// busy reports whether the session's own side keeps it from reading.
func (s *session) busy() bool {
	return s.inTurn() || s.has(flagBlocked) && !s.opts.ReadWhileBlocked || s.mailbox() != nil && s.box.waiting()
}
