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

// A clock keeps all time limits of a session with one timer of the endpoint's wheel. The hot paths
// only store when something happened; when the timer fires it looks which limit is over and sets
// itself to the next one that may be. No deadline ever reaches the descriptor, since TLS and
// decompressors never recover from one.
//
// The limits look at what the peer did. What it sent is noted by the goroutine that reads. What it
// took is found out by looks (backlog), but only while there is something for it to take.
type clock struct {
	s *session

	readLimit  atomic.Int64 // ReadTimeout
	idleLimit  atomic.Int64 // IdleTimeout
	cronPeriod atomic.Int64

	heardAt   atomic.Int64 // the peer's last sign of life, or the end of a pause in which it could give none
	begunAt   atomic.Int64 // the incomplete package's first byte, moved by those that follow; 0: there is none
	stalledAt atomic.Int64 // last progress of a write that waits for the peer, 0: none waits
	drainAt   atomic.Int64 // when WaitTime began to limit a graceful end, 0: none is in progress

	mu      sync.Mutex
	timer   *timerwheel.Timer // guarded by mu; nil until a limit needs it
	due     int64             // guarded by mu: when timer fires, 0: not armed
	cronAt  int64             // guarded by mu: the next tick, 0: none
	pingAt  int64             // guarded by mu: the next ping, 0: none
	askedAt int64             // guarded by mu: the first ping since the peer's last sign of life, if there was one
	looks   *looks            // guarded by mu: made when first needed
	live    bool              // guarded by mu: the session has begun
	spared  bool              // guarded by mu: the graceful end was late and has got more time
	ended   bool              // guarded by mu
}

// looks are what the clock remembers of its looks at the peer. Most sessions never need them.
type looks struct {
	backlog  backlog
	reprieve [3]reprieve // of the read, the idle and the write limit
}

// A backlog is what the looks found of the bytes on their way to the peer: those that the kernel,
// or a connection that has none behind it, took and the peer has not acknowledged.
type backlog struct {
	since   int64 // the first of the looks in a row that found bytes waiting, 0: the latest found none
	again   int64 // the next look
	taken   int64 // bytes the peer has taken, up to a constant
	waiting int64 // bytes it has still to take
}

// smallBacklog is how many bytes may wait for the peer without being taken for something it reads.
// A ping or a heartbeat is acknowledged by the peer's kernel, however dead the process behind it,
// so that says nothing.
const smallBacklog = 4 << 10

// A reprieve is a limit that was over and did not strike.
type reprieve struct {
	at    int64 // since when the limit ran
	late  bool  // at was set because the limit came late
	looks int8  // how often input waited in the kernel
}

// maxReprieves is how often a limit is put off for input that waits in the kernel, a quarter of the
// limit each time. A reader that has not come to it by then never will.
const maxReprieves = 8

const (
	readReprieve = iota
	idleReprieve
	writeReprieve
)

func (c *clock) init(s *session) {
	c.s = s
	c.readLimit.Store(nanos(s.opts.ReadTimeout))
	c.idleLimit.Store(nanos(s.opts.IdleTimeout))
	c.cronPeriod.Store(nanos(s.opts.CronPeriod))
	c.heardAt.Store(now())
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

// touch notes a sign of life.
func (c *clock) touch() { c.heardAt.Store(now()) }

func (c *clock) active() time.Time { return epoch.Add(time.Duration(c.heardAt.Load())) }

// wrote notes that a write which waits for the peer goes on.
func (c *clock) wrote() {
	if c.stalledAt.Load() != 0 {
		c.stalledAt.Store(now())
	}
}

// stalled notes that a write waits for the peer.
func (c *clock) stalled() {
	t := now()
	c.stalledAt.Store(t)
	if every := c.lookEvery(); every > 0 {
		c.arm(t + every)
	}
}

func (c *clock) unstalled() {
	if c.stalledAt.Load() != 0 {
		c.stalledAt.Store(0)
	}
}

// sentMuch notes that so much was sent since the peer had taken everything that it may need time to
// read it.
func (c *clock) sentMuch() {
	if every := c.lookEvery(); every > 0 {
		t := now()
		c.mu.Lock()
		b := &c.looksLocked().backlog
		if b.again == 0 {
			b.again = t + every
		}
		c.armLocked(b.again)
		c.mu.Unlock()
	}
}

// A package that arrives has ReadTimeout to become complete. It gets more time while it keeps up a
// pace: paceBytes in each ReadTimeout, or pacePerSecond where that is more.
const (
	paceBytes     = 1 << 10
	pacePerSecond = 256
)

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

// arrived notes n more bytes of the package that was begun, and that it is still not complete.
func (c *clock) arrived(n int) {
	at := c.begunAt.Load()
	if at == 0 {
		c.begun()
		return
	}
	each := int64(time.Second / pacePerSecond)
	if limit := c.readLimit.Load(); limit > 0 {
		each = min(each, limit/paceBytes)
	}
	c.begunAt.Store(min(at+int64(n)*each, now()))
}

func (c *clock) complete() {
	if c.begunAt.Load() != 0 {
		c.begunAt.Store(0)
	}
}

// shift makes the read and idle clocks stand still for the d that have just passed, in which the
// peer could not be heard.
func (c *clock) shift(d int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.begunAt.Load(); at != 0 {
		c.moveLocked(readReprieve, &c.begunAt, at, at+d)
	}
	at := c.heardAt.Load()
	c.moveLocked(idleReprieve, &c.heardAt, at, min(at+d, now()))
}

// moveLocked moves a limit that runs since at. A reprieve that it had is used up all the same.
func (c *clock) moveLocked(which int, since *atomic.Int64, at, to int64) {
	if since.CompareAndSwap(at, to) && c.looks != nil && c.looks.reprieve[which].at == at {
		c.looks.reprieve[which].at = to
	}
}

// drain lets WaitTime begin to limit a graceful end, or begin again.
func (c *clock) drain() {
	t := now()
	c.drainAt.Store(t)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live = true
	c.armLocked(t + c.s.life.waitTime.Load())
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

// review runs on the wheel, and after a limit changed: it ends the session if a limit is over,
// posts the ticks that are due, and sets the timer for what comes next. It never blocks.
func (c *clock) review() {
	c.mu.Lock()
	t := now()
	late := int64(0)
	if c.due != 0 && c.due <= t {
		late = t - c.due // a stopped process, a starved processor
		c.due = 0
	}
	var next soonest
	if at := c.drainAt.Load(); at != 0 {
		wait := max(c.s.life.waitTime.Load(), 0)
		by := at + wait
		if t >= by && c.isLate(late, wait) && !c.spared {
			c.spared = true
			by = t + wait/2
			c.drainAt.Store(by - wait)
		}
		if t >= by {
			c.mu.Unlock()
			c.s.spawn(c.s.life.expire)
			return
		}
		next.add(by)
	}
	ask, err := c.limitsLocked(t, late, &next)
	if err != nil {
		c.mu.Unlock()
		c.s.spawn(func() { c.s.life.fail(err) })
		return
	}
	tick, ping := false, false
	if c.live && !c.ended {
		tick, ping = c.ticksLocked(t, ask, &next)
	}
	if next != 0 {
		c.armLocked(int64(next))
	}
	c.mu.Unlock()
	if tick {
		c.s.turn.post(flagCron)
	}
	if ping {
		c.s.spawn(func() { c.s.proto.(pinger).ping() })
	}
}

// soonest is the earliest of the times that were added, 0 if there was none.
type soonest int64

func (n *soonest) add(at int64) {
	if *n == 0 || at < int64(*n) {
		*n = soonest(at)
	}
}

// limitsLocked returns the error of a limit that is over at t, or adds when those that run may be.
// ask says that the peer is to be asked for a sign of life.
func (c *clock) limitsLocked(t, late int64, next *soonest) (ask bool, err error) {
	s := c.s
	c.lookLocked(t, next)
	if limit := s.outbox.writeTimeout.Load(); limit > 0 {
		if c.overLocked(writeReprieve, &c.stalledAt, limit, t, late, next) {
			return false, ErrWriteTimeout
		}
	}
	if s.has(flagClosing | flagReadEnd) {
		return false, nil // what comes is discarded, for at most WaitTime; or nothing comes any more
	}
	read, idle := c.readLimit.Load(), c.idleLimit.Load()
	switch busy, ticking := s.busy(); {
	case ticking:
		// Its end moves both limits on by the time it took.
		for _, limit := range []int64{read, idle} {
			if limit > 0 {
				next.add(t + quarter(limit))
			}
		}
		return false, nil
	case busy: // the peer cannot be heard
		if at := c.begunAt.Load(); at != 0 {
			c.begunAt.CompareAndSwap(at, t)
		}
		c.heardAt.CompareAndSwap(c.heardAt.Load(), t)
	}
	if read > 0 && c.overLocked(readReprieve, &c.begunAt, read, t, late, next) {
		return false, ErrReadTimeout
	}
	if idle <= 0 {
		return false, nil
	}
	at := c.heardAt.Load()
	// A session that can ask its peer for a sign of life does so when half of the time is over at
	// the latest, and leaves it the other half.
	if c.pings() && t >= at+idle/2 {
		asked := c.askedAt
		if ask = asked < at; ask {
			asked = t
		}
		if by := asked + idle/2; t < by {
			next.add(by)
			return ask, nil
		}
	} else if c.pings() {
		next.add(at + idle/2)
	}
	if c.overLocked(idleReprieve, &c.heardAt, idle, t, late, next) {
		return false, ErrIdleTimeout
	}
	return c.looks != nil && c.looks.reprieve[idleReprieve] == reprieve{at: t - idle/2, late: true}, nil
}

// overLocked reports whether a limit that runs since *since is over at t and has to strike; if not,
// it adds when it may be.
func (c *clock) overLocked(which int, since *atomic.Int64, limit, t, late int64, next *soonest) bool {
	at := since.Load()
	if at == 0 {
		return false
	}
	if t < at+limit {
		next.add(at + limit)
		return false
	}
	r := &c.looksLocked().reprieve[which]
	if r.at != at {
		*r = reprieve{at: at}
	}
	if c.isLate(late, limit) && !r.late {
		// Some of the time was our own absence. What waited for us is seen soon, and what the peer
		// would have been asked for meanwhile it is asked for now: it gets half of the time again,
		// once.
		if again := t - limit/2; since.CompareAndSwap(at, again) {
			*r = reprieve{at: again, late: true}
		}
		next.add(t + limit/2)
		return false
	}
	if b := &c.looks.backlog; which == writeReprieve || which == idleReprieve && b.waiting > smallBacklog {
		// What the peer takes shows in the difference of two looks.
		if by := b.since + quarter(limit); b.since != 0 && t < by {
			next.add(by)
			return false
		}
	}
	if which != writeReprieve && r.looks < maxReprieves && c.inputWaits() {
		r.looks++
		next.add(t + quarter(limit))
		return false
	}
	return true
}

// isLate reports whether a timer that fired so much too late makes a difference to a limit.
func (c *clock) isLate(late, limit int64) bool {
	return late > max(limit/8, int64(20*time.Millisecond))
}

// quarter returns how long to wait for another look at a limit.
func quarter(limit int64) int64 { return max(limit/4, int64(time.Millisecond)) }

// inputWaits reports whether the reader has something to read, be it the end of the stream.
func (c *clock) inputWaits() (waits bool) {
	state, err := alive(c.s.proto.netConn())
	return err == nil && state != netx.Open
}

// unacknowledged returns how many bytes the kernel holds for the peer, if it can tell.
func (c *clock) unacknowledged() (n int, ok bool) {
	n, err := sendQueue(c.s.proto.netConn())
	return n, err == nil
}

// lookEvery returns how often to look what the peer has taken, 0 for never.
func (c *clock) lookEvery() (every int64) {
	if limit := c.s.outbox.writeTimeout.Load(); limit > 0 && c.stalledAt.Load() != 0 {
		every = quarter(limit)
	}
	if limit := c.idleLimit.Load(); limit > 0 && (every == 0 || limit/4 < every) {
		every = quarter(limit)
	}
	return every
}

// lookLocked looks what the peer has taken since the last look, if it is time. For a write that
// waits any of it is progress. A kernel calls a socket writable only when much of its buffer is
// free (Linux: a third), for which a peer that reads slowly may need longer than any limit, so it
// is not enough to see writes go on.
func (c *clock) lookLocked(t int64, next *soonest) {
	s := c.s
	every, stalled := c.lookEvery(), c.stalledAt.Load()
	if every == 0 || !s.outbox.queues {
		c.calmLocked()
		return
	}
	idle := c.idleLimit.Load()
	if c.looks == nil && stalled == 0 && (idle <= 0 || t < c.heardAt.Load()+idle) {
		return
	}
	b := &c.looksLocked().backlog
	switch {
	case b.again != 0 && t < b.again:
		if stalled != 0 {
			b.again = min(b.again, t+every) // a limit became shorter, or a write has begun to wait
		}
		next.add(b.again)
		return
	case b.again == 0 && stalled == 0 && (idle <= 0 || t < c.heardAt.Load()+idle):
		return
	}
	taken, waiting := int64(s.count.BytesWritten.Load()), int64(s.outbox.onTheWay())
	if n, ok := c.unacknowledged(); ok {
		taken -= int64(n)
		waiting += int64(n)
	}
	if b.since != 0 && taken > b.taken {
		if stalled != 0 {
			c.stalledAt.CompareAndSwap(stalled, t)
		}
		if b.waiting > smallBacklog {
			c.heardAt.CompareAndSwap(c.heardAt.Load(), t)
		}
	}
	b.taken, b.waiting = taken, waiting
	if stalled == 0 && waiting <= smallBacklog {
		c.calmLocked()
		return
	}
	if b.since == 0 {
		b.since = t
	}
	b.again = t + every
	next.add(b.again)
}

func (c *clock) looksLocked() *looks {
	if c.looks == nil {
		c.looks = new(looks)
	}
	return c.looks
}

// calmLocked ends the looks until much has been sent again.
func (c *clock) calmLocked() {
	if c.looks == nil || c.looks.backlog.again == 0 {
		return
	}
	c.looks.backlog = backlog{}
	s := c.s
	s.outbox.lookAgainAfter(smallBacklog)
}

// pings reports whether the session asks its peer for signs of life.
func (c *clock) pings() bool {
	p, ok := c.s.proto.(pinger)
	return ok && p.pingEvery() > 0
}

// ticksLocked reports which ticks are due at t and adds the next ones. The phases of many sessions
// spread out by chance, and ticks that were missed merge into one. With ask there is one that may
// make the peer answer: a ping, or else a tick, in which heartbeats are written.
func (c *clock) ticksLocked(t int64, ask bool, next *soonest) (tick, ping bool) {
	if period := c.cronPeriod.Load(); period > 0 {
		if c.cronAt == 0 {
			c.cronAt = t + 1 + rand.Int64N(period)
		} else if t >= c.cronAt || ask && !c.pings() {
			tick = true
			c.cronAt = max(c.cronAt+period, t+period/2)
		}
		next.add(c.cronAt)
	}
	if c.pings() {
		period := nanos(c.s.proto.(pinger).pingEvery())
		if c.pingAt == 0 {
			c.pingAt = t + 1 + rand.Int64N(period)
		} else if t >= c.pingAt || ask {
			ping = ask || t-c.heardAt.Load() >= period/2 // else the peer is there: no need
			c.pingAt = t + period
		}
		if ping && c.askedAt < c.heardAt.Load() {
			c.askedAt = t
		}
		next.add(c.pingAt)
	}
	return tick, ping
}

// busy reports whether the session's own side keeps it from hearing the peer. ticking says that
// this is only a tick's callback, which is no sign of life.
func (s *session) busy() (busy, ticking bool) {
	switch {
	case s.has(flagBlocked) && !s.opts.ReadWhileBlocked:
		return true, false
	case s.inboxIfStarted() != nil && s.inbox.waiting():
		return true, false
	case s.turn.inProgress():
		return true, s.has(flagTick)
	}
	return false, false
}
