// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty/internal/wsframe"
	"github.com/gostkit/kit/netx"
	"github.com/gostkit/kit/timerwheel"
)

// epoch is the origin of all session times, which are nanoseconds of the monotonic clock. It lies
// before the year 2000, where the time of a bubble of testing/synctest begins: session times are
// positive, since 0 stands for none.
var epoch = time.Now().Add(-50 * 365 * 24 * time.Hour)

func now() int64 { return int64(time.Since(epoch)) }

// longest stands for every longer duration: two of it can be added to a session time without
// overflow.
const longest = math.MaxInt64 / 4

// nanos returns d in the unit of session times, longest at most.
func nanos(d time.Duration) int64 { return int64(min(d, longest)) }

// A clock keeps all time limits of a session with one timer of the endpoint's wheel. Reading and
// writing only store the time at which something happened. When the timer fires, review looks which
// limit is over, and sets the timer for the limit that may be over next. No deadline is set on the
// connection, since TLS and decompressors never recover from one.
//
// The limits depend on what the peer does. What it sends is noted by the goroutine that reads. What
// it takes is found out by looks (backlog), and only while there is something for it to take.
type clock struct {
	s *session

	readLimit  atomic.Int64 // ReadTimeout
	idleLimit  atomic.Int64 // IdleTimeout
	cronPeriod atomic.Int64

	// heardAt is the peer's last sign of life, or the end of a pause in which it could give none.
	heardAt atomic.Int64
	// readAt is when bytes of the peer were last read, 0: never.
	readAt atomic.Int64
	// begunAt is when an incomplete package began, moved on by the bytes that followed; 0: none.
	begunAt atomic.Int64
	// stalledAt is the last progress of a write that waits for the peer; 0: none waits.
	stalledAt atomic.Int64
	// drainAt is when WaitTime began to limit a graceful end; 0: none is in progress.
	drainAt atomic.Int64

	mu      sync.Mutex
	timer   *timerwheel.Timer // guarded by mu; nil until a limit needs it
	due     int64             // guarded by mu: when timer fires, 0: not armed
	cronAt  int64             // guarded by mu: the next tick, 0: none
	pingAt  int64             // guarded by mu: the next ping, 0: none
	askedAt int64             // guarded by mu: the first ping since heardAt; before it: none was
	looks   *looks            // guarded by mu: made when first needed
	live    bool              // guarded by mu: the session has begun
	spared  bool              // guarded by mu: the graceful end has got more time, once
	ended   bool              // guarded by mu
}

// looks is the memory of the clock's looks at the peer. Most sessions never need it.
type looks struct {
	backlog  backlog
	reprieve [3]reprieve // of the read, the idle and the write limit
}

// A backlog is what the looks found of the bytes on their way to the peer: those that the kernel
// took, or a connection that is no socket, and that the peer has not acknowledged.
type backlog struct {
	since   int64 // the first look in a row that found bytes waiting, 0: the latest found none
	again   int64 // the next look
	taken   int64 // bytes the peer has taken, up to a constant
	waiting int64 // bytes it has still to take
}

// smallBacklog is how many bytes may be on their way to the peer without being looked at. So few, a
// ping or a heartbeat for example, are acknowledged by the peer's kernel, even if the process
// behind it is dead: that they go on is no sign of life.
const smallBacklog = 4 << 10

// A reprieve is what put off a limit that was over.
type reprieve struct {
	at    int64 // since when the limit runs
	late  bool  // at was moved because the timer fired late
	looks int8  // how often input waited in the kernel
}

// maxReprieves is how often a limit is put off because input waits in the kernel, by a quarter of
// the limit each time. A reader that has not read it by then is taken to be stuck.
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
		c.cronAt = 0 // the old period does not count any more
		c.mu.Unlock()
	}
	c.review()
}

// touch notes a sign of life of the peer.
func (c *clock) touch() { c.heardAt.Store(now()) }

// heard notes that bytes of the peer were read.
func (c *clock) heard() {
	t := now()
	c.heardAt.Store(t)
	c.readAt.Store(t)
}

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

// sentMuch begins to look what the peer takes: so much has been sent that it may need time to read
// it.
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

// A package has ReadTimeout to become complete. It gets more time while its bytes keep up a pace:
// paceBytes in each ReadTimeout or pacePerSecond, whichever is faster.
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

// arrived notes n more bytes of a package that is still not complete.
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
	// Never beyond now: bytes that come fast now are no credit for later.
	c.begunAt.Store(min(at+int64(n)*each, now()))
}

func (c *clock) complete() {
	if c.begunAt.Load() != 0 {
		c.begunAt.Store(0)
	}
}

// shift takes the time d that has just passed out of the read and idle limits: the peer could not
// be heard meanwhile.
func (c *clock) shift(d int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.begunAt.Load(); at != 0 {
		c.moveLocked(readReprieve, &c.begunAt, at, at+d)
	}
	at := c.heardAt.Load()
	c.moveLocked(idleReprieve, &c.heardAt, at, min(at+d, now()))
}

// resumed begins the read and idle limits anew, before a pause of reading ends: the reader shifts
// them as well, but is perhaps not the first to run.
func (c *clock) resumed() {
	t := now()
	if at := c.begunAt.Load(); at != 0 {
		c.begunAt.CompareAndSwap(at, t)
	}
	c.touch()
}

// moveLocked makes a limit that runs since at run since to.
func (c *clock) moveLocked(which int, since *atomic.Int64, at, to int64) {
	// A reprieve moves along. Otherwise overLocked would take it for that of another run, and grant
	// it anew after every move.
	if since.CompareAndSwap(at, to) && c.looks != nil && c.looks.reprieve[which].at == at {
		c.looks.reprieve[which].at = to
	}
}

// drain begins the WaitTime that limits a graceful end, or begins it anew.
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
	// A timer that fires too early does no harm: review looks and sets it anew. That is cheaper
	// than to move it with every event.
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
		late = t - c.due // the process was stopped, or the processor busy with others
		c.due = 0
	}
	var next soonest
	if at := c.drainAt.Load(); at != 0 {
		wait := max(c.s.life.waitTime.Load(), 0)
		by := at + wait
		// The peer's answer may wait in the kernel: after a pause of our own it is not to be taken
		// for missing. Once, so that the end comes in any case.
		if t >= by && c.isLate(late, wait) && !c.spared {
			c.spared = true
			by = t + wait/2
			c.drainAt.Store(by - wait)
		}
		if t >= by {
			c.mu.Unlock()
			c.s.spawn(c.s.life.expire) // it calls methods of the connection, which may be a user's
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
	tick, ping, renew := false, false, false
	if c.live && !c.ended {
		c.lifetimeLocked(t, &next)
		renew = c.renewLocked(t, &next)
		tick, ping = c.ticksLocked(t, ask, &next)
	}
	if next != 0 {
		c.armLocked(int64(next))
	} else if c.due == 0 {
		c.timer = nil // an idle session has no timer, and holds no memory for one
	}
	c.mu.Unlock()
	if renew {
		c.s.proto.(renewer).renew()
	}
	if tick {
		c.s.turn.post(flagCron)
	}
	if ping {
		c.s.spawn(func() { c.s.proto.(pinger).ping() })
	}
}

// lifetimeLocked begins the end of a session that has reached its MaxLifetime.
func (c *clock) lifetimeLocked(t int64, next *soonest) {
	s := c.s
	limit := nanos(s.opts.MaxLifetime)
	if limit <= 0 || s.has(flagDrain|flagClosing) {
		return
	}
	// Up to an eighth earlier, by the session's number: sessions that began together must not all
	// come back together. The factor, of the golden ratio, spreads numbers that follow each other.
	share := float64(uint32(s.id)*2654435769) / (1 << 32)
	at := s.bornAt + limit - int64(share*float64(limit/8))
	if t < at {
		next.add(at)
		return
	}
	if w, ok := s.proto.(*webSocket); ok {
		w.code.CompareAndSwap(0, wsframe.CodeGoingAway)
	}
	s.spawn(s.life.drain) // it may flush
}

// soonest is the earliest of the times that were added, 0 if there was none.
type soonest int64

func (n *soonest) add(at int64) {
	if *n == 0 || at < int64(*n) {
		*n = soonest(at)
	}
}

// limitsLocked returns the error of a limit that is over at t, or else adds to next when a limit
// may be over. ask reports that the peer is to be asked for a sign of life.
func (c *clock) limitsLocked(t, late int64, next *soonest) (ask bool, err error) {
	s := c.s
	c.lookLocked(t, next)
	if limit := s.outbox.writeTimeout.Load(); limit > 0 {
		if c.overLocked(writeReprieve, &c.stalledAt, limit, t, late, next) {
			return false, ErrWriteTimeout
		}
	}
	if s.has(flagClosing | flagReadEnd) {
		// Input is discarded, which WaitTime limits, or the peer has ended its stream.
		return false, nil
	}
	read, idle := c.readLimit.Load(), c.idleLimit.Load()
	switch busy, ticking := s.busy(); {
	case ticking:
		// The end of the callback moves both limits on by the time that it took (shift).
		for _, limit := range []int64{read, idle} {
			if limit > 0 {
				next.add(t + quarter(limit))
			}
		}
		return false, nil
	case busy:
		// The peer cannot be heard. Both limits begin anew when it can. A swap, so that a newer
		// time of the reader is not overwritten.
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
	// A peer that has nothing to say is asked for a sign of life when half of the time is over, if
	// the protocol can do that, and has the other half to answer.
	if c.pings() && t >= at+idle/2 {
		asked := c.askedAt
		if ask = asked <= at; ask { // an answer may come in the instant of the ping
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
	// After a reprieve for lateness the peer is asked too, if only by a tick.
	spared := reprieve{at: t - idle/2, late: true}
	return c.looks != nil && c.looks.reprieve[idleReprieve] == spared, nil
}

// overLocked reports whether a limit that runs since *since is over at t and not put off. If not,
// it adds to next when to look again.
func (c *clock) overLocked(
	which int, since *atomic.Int64, limit, t, late int64, next *soonest,
) bool {
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
		// For some of the time this process did not run. Input that has come meanwhile is read
		// soon, and a ping that was missed is sent now. So the peer gets half of the time again,
		// but only once.
		if again := t - limit/2; since.CompareAndSwap(at, again) {
			*r = reprieve{at: again, late: true}
		}
		next.add(t + limit/2)
		return false
	}
	b := &c.looks.backlog
	if which == writeReprieve || which == idleReprieve && b.waiting > smallBacklog {
		// Whether the peer takes bytes shows only in the difference between two looks.
		if by := b.since + quarter(limit); b.since != 0 && t < by {
			next.add(by)
			return false
		}
	}
	if which != writeReprieve && r.looks < maxReprieves && c.inputWaits() {
		// The peer has sent something. It is our reader that has not got to it.
		r.looks++
		next.add(t + quarter(limit))
		return false
	}
	return true
}

// isLate reports whether a delay of the timer counts, compared with the limit that it serves.
func (c *clock) isLate(late, limit int64) bool {
	return late > max(limit/8, int64(20*time.Millisecond))
}

// quarter returns how long to wait for another look at a limit.
func quarter(limit int64) int64 { return max(limit/4, int64(time.Millisecond)) }

// inputWaits reports whether there is something to read, which may be the end of the stream.
func (c *clock) inputWaits() (waits bool) {
	state, err := alive(c.s.proto.netConn())
	return err == nil && state != netx.Open
}

// unacknowledged returns how many bytes the kernel holds for the peer, if it can tell.
func (c *clock) unacknowledged() (n int, ok bool) {
	n, err := sendQueue(c.s.proto.netConn())
	return n, err == nil
}

// lookEvery returns the time between two looks at what the peer has taken, 0 for no looks.
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
// waits, every byte of it is progress.
//
// It would not be enough to see writes go on. A kernel calls a socket writable only when much of
// its buffer is free (Linux: a third), and until then a peer that reads slowly may need longer than
// any limit.
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
		return // nothing waits for the peer that a limit depends on
	}
	taken, waiting := int64(s.count.BytesWritten.Load()), int64(s.outbox.onTheWay())
	if n, ok := c.unacknowledged(); ok {
		taken -= int64(n)
		waiting += int64(n)
	}
	if b.since != 0 && taken > b.taken {
		// Swaps: the writer or the reader may have stored a newer time since.
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
	c.s.outbox.lookAgainAfter(smallBacklog)
}

// pings reports whether the session asks its peer for signs of life.
func (c *clock) pings() bool {
	p, ok := c.s.proto.(pinger)
	return ok && p.pingEvery() > 0
}

// ticksLocked reports which ticks (OnCron, a ping) are due at t and adds the next ones to next.
// Ticks that were missed merge into one. With ask the one that may make the peer answer is due at
// once: a ping, or else an OnCron, which may write a heartbeat.
func (c *clock) ticksLocked(t int64, ask bool, next *soonest) (tick, ping bool) {
	if period := c.cronPeriod.Load(); period > 0 {
		if c.cronAt == 0 {
			// At random, so that sessions which began together do not all tick together.
			c.cronAt = t + 1 + rand.Int64N(period)
		} else if t >= c.cronAt || ask && !c.pings() {
			tick = true
			c.cronAt = max(c.cronAt+period, t+period/2) // after a long pause not two in a row
		}
		next.add(c.cronAt)
	}
	if c.pings() {
		period := nanos(c.s.proto.(pinger).pingEvery())
		if c.pingAt == 0 {
			c.pingAt = t + 1 + rand.Int64N(period)
		} else if t >= c.pingAt || ask {
			// A peer that was heard a moment ago need not be asked.
			ping = ask || t-c.heardAt.Load() >= period/2
			c.pingAt = t + period
		}
		if ping && c.askedAt <= c.heardAt.Load() {
			c.askedAt = t
		}
		next.add(c.pingAt)
	}
	return tick, ping
}

// busy reports whether the session itself keeps from hearing the peer: it does not read, or what
// was read waits for handlers. ticking reports that this is only an OnCron or OnWritable, which
// unlike a handler at work shows no sign of life of the peer.
func (s *session) busy() (busy, ticking bool) {
	switch {
	case s.has(flagBlocked) && !s.opts.ReadWhileBlocked, s.withheld():
		return true, false
	case s.inboxIfStarted() != nil && s.inbox.waiting():
		return true, false
	case s.turn.inProgress():
		return true, s.has(flagTick)
	}
	return false, false
}
