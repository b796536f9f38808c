// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/taskpool"
	"github.com/gostkit/kit/timerwheel"
)

// An EndPoint is what sessions belong to: a [Server] or a [Client].
type EndPoint interface {
	// ID is unique among all endpoints of the process.
	ID() uint64
	// RunEventLoop starts the endpoint and returns: a server when it listens, a client when it has
	// begun to dial. Bad options and a busy port are errors.
	RunEventLoop(NewSessionCallback) error
	// Sessions yields the open sessions, in no order. Others may come and go meanwhile.
	Sessions() iter.Seq[Session]
	// SessionByID returns the open session with that ID, and whether there is one.
	SessionByID(id uint64) (Session, bool)
	// Stats returns the endpoint's counters.
	Stats() EndPointStats
	// IsClosed reports whether Close or Shutdown was called.
	IsClosed() bool
	// Shutdown ends gracefully: nothing new, every session handles what it has read, flushes and
	// closes; when ctx ends, the rest is closed at once. It returns when OnClose of all sessions
	// has returned, or when ctx has ended and a callback does not return; it must not be called
	// from a callback.
	Shutdown(ctx context.Context) (Report, error)
	// Close closes all sessions as [Session.Close] does: what does not drain within its WaitTime is
	// closed at once. It does not wait, so that callbacks may call it.
	Close()
	// Done returns a channel that is closed when, after Close or Shutdown, all has ended: sessions,
	// callbacks and goroutines.
	Done() <-chan struct{}
}

// EndPointStats are the counters of an endpoint. Those of open sessions are included in Total.
type EndPointStats struct {
	Open     int      // sessions now
	Opened   uint64   // sessions whose OnOpen succeeded
	Refused  uint64   // connections refused, for whatever reason
	Refusals Refusals // the same by reason
	Accepts  uint64   // connections accepted (server)
	Retries  uint64   // accepts that failed and were tried again (server)
	Dials    uint64   // dials begun (client)
	DialErrs uint64   // dials that failed (client)
	Held     int64    // bytes held by sessions, as MemoryBudget counts them; 0 without one
	Cut      uint64   // sessions ended with ErrMemoryBudget

	CallbackTimes CallbackTimes // of OnMessage, where TimeCallbacks or SlowHandler is set
	Total         SessionStats  // sums over all sessions, ended ones included
}

// A Report tells how a Shutdown ended.
type Report struct {
	Drained int      // sessions that ended by themselves
	Forced  int      // sessions that were closed when ctx ended
	Unsent  uint64   // packages accepted and not sent, over all of them
	Stuck   []string // sessions with a callback that has not returned, each as its Stat

	// Slowest is the session that was the last to end, as its Stat, and Took how long the Shutdown
	// waited for it; of those that are stuck it is the first. "" if there were no sessions.
	Slowest string
	Took    time.Duration
}

// An endpoint is the part that servers and clients have in common: the table of sessions, the
// wheel, the pool, the count of goroutines, and the watch for late flushes.
type endpoint struct {
	id   uint64
	name string
	self EndPoint
	opts *SessionOptions
	log  *slog.Logger

	onOpened, onFreed func(*session) // set before the first session; may be nil

	wheel *timerwheel.Wheel // shared by all endpoints of the process while any is running

	mu       sync.Mutex
	sessions map[uint64]*session // guarded by mu: open ones
	places   places              // of sessions, and of connections that may become one
	budget   *budget             // nil without a MemoryBudget
	closing  bool                // guarded by mu
	running  int                 // guarded by mu: goroutines
	over     bool                // guarded by mu: closing, and no goroutine is left
	doneCh   chan struct{}       // closed after over was set
	past     SessionStats        // guarded by mu: sums of sessions that are gone
	last     *session            // guarded by mu: the latest to end while closing
	lastAt   int64               // guarded by mu: when it ended
	stats    endpointCounters

	waiters sendq.Waiters // callers that wait for the queue of a session

	poolOnce sync.Once
	pool     *taskpool.Ordered // the endpoint's own, if one was needed

	watch flushWatch
}

type endpointCounters struct {
	opened, refused, accepts, retries, dials, dialErrs, cut atomic.Uint64

	refusals  refusals
	callbacks callbackCounts
}

var endpointIDs atomic.Uint64

// newEndpoint makes an endpoint; kind and a number are its name in logs.
func newEndpoint(self EndPoint, kind string, opts *SessionOptions) *endpoint {
	id := endpointIDs.Add(1)
	name := fmt.Sprintf("%s-%d", kind, id)
	e := &endpoint{
		id: id, self: self, opts: opts, name: name,
		log:      newLogger(opts.Logger, name),
		sessions: make(map[uint64]*session), doneCh: make(chan struct{}),
	}
	if opts.MemoryBudget > 0 {
		e.budget = newBudget(e, opts.MemoryBudget)
	}
	return e
}

// begin makes the endpoint ready for sessions. It fails if it has begun or was closed before.
func (e *endpoint) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closing:
		return ErrEndpointClosed
	case e.wheel != nil:
		return errors.New("getty: endpoint already running")
	}
	e.wheel = acquireWheel()
	return nil
}

// enter adds a goroutine that Done waits for, until it calls leave.
func (e *endpoint) enter() {
	e.mu.Lock()
	e.running++
	e.mu.Unlock()
}

// spawn runs f on a goroutine that Done waits for.
func (e *endpoint) spawn(f func()) {
	e.enter()
	go func() {
		defer e.leave()
		f()
	}()
}

// spawnUnlessClosing is spawn for work that must not begin any more after Close: it reports whether
// f runs.
func (e *endpoint) spawnUnlessClosing(f func()) bool {
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		return false
	}
	e.running++
	e.mu.Unlock()
	go func() {
		defer e.leave()
		f()
	}()
	return true
}

func (e *endpoint) leave() {
	e.mu.Lock()
	e.running--
	last := e.running == 0 && e.closing
	e.mu.Unlock()
	if last {
		e.end()
	}
}

// beginClose marks the endpoint as closing, and reports whether it was not before.
func (e *endpoint) beginClose() bool {
	e.mu.Lock()
	first := !e.closing
	e.closing = true
	idle := first && e.running == 0
	e.mu.Unlock()
	if idle {
		e.end()
	}
	return first
}

// end releases the wheel and the pool of the endpoint, when its last goroutine has ended.
func (e *endpoint) end() {
	e.mu.Lock()
	first := !e.over
	e.over = true
	e.mu.Unlock()
	if !first {
		// The goroutines ended once before. Since then a timer callback that was late has spawned
		// one more, which found nothing to do.
		return
	}
	e.watch.stop()
	if e.pool != nil {
		e.pool.Close()
	}
	if e.wheel != nil {
		releaseWheel()
	}
	close(e.doneCh)
}

// taskPool returns the pool of ordered and unordered sessions.
func (e *endpoint) taskPool() taskpool.Pool {
	if e.opts.Pool != nil {
		return containPool(e.opts.Pool)
	}
	e.poolOnce.Do(func() {
		name := fmt.Sprintf("getty-%d", e.id)
		e.pool = taskpool.NewOrdered(taskpool.Config{Name: name, Logger: e.log})
	})
	return e.pool
}

// open starts a session on proto on a goroutine of its own, unless the endpoint is closing.
func (e *endpoint) open(proto protocol, prepare NewSessionCallback) (*session, error) {
	at, _ := e.places.reserve(0, 0, nil)
	return e.openReserved(proto, at, prepare)
}

// openReserved is open for a session that has its place. If it fails the place is free again.
func (e *endpoint) openReserved(
	proto protocol, at place, prepare NewSessionCallback,
) (*session, error) {
	s := newSession(e, proto, e.opts)
	s.place = at
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		e.places.release(at)
		return nil, ErrEndpointClosed
	}
	e.sessions[s.id] = s
	e.running++
	e.mu.Unlock()
	go func() {
		defer e.leave()
		s.run(prepare)
	}()
	return s, nil
}

// opened is the report of a session whose OnOpen succeeded.
func (e *endpoint) opened(s *session) {
	e.stats.opened.Add(1)
	s.setFlag(flagOpen)
	if e.onOpened != nil {
		e.onOpened(s)
	}
	s.traceOpened()
}

// refused is the report of a session that did not open.
func (e *endpoint) refused(s *session, err error) {
	e.stats.refused.Add(1)
	e.stats.refusals.callback.Add(1)
	e.traceRefused(peerText(s.proto.remoteAddr), err)
	e.log.Warn("getty: session refused",
		"session", s.id, "peer", peerText(s.proto.remoteAddr), "error", limitText(err))
	e.freed(s)
	e.ended(s)
}

// freed is the report that a session's descriptor is free. Its place is free too, though its last
// callbacks may still be running.
func (e *endpoint) freed(s *session) {
	e.places.release(s.place)
	if e.onFreed != nil {
		e.onFreed(s)
	}
}

// ended is the report that a session's last callback has returned.
func (e *endpoint) ended(s *session) {
	st := s.Stats()
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.sessions, s.id)
	e.past.add(st)
	if e.closing {
		e.last, e.lastAt = s, now()
	}
}

func (e *endpoint) snapshot() []*session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Values(e.sessions))
}

func (e *endpoint) openSessions() iter.Seq[Session] {
	return func(yield func(Session) bool) {
		for _, s := range e.snapshot() {
			if s.has(flagOpen) && !yield(s) {
				return
			}
		}
	}
}

// sessionByID is SessionByID of the endpoint.
func (e *endpoint) sessionByID(id uint64) (Session, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sessions[id]; s != nil && s.has(flagOpen) {
		return s, true
	}
	return nil, false
}

// live returns the sessions that accept packages, in the order in which they were made.
func (e *endpoint) live() []*session {
	list := slices.DeleteFunc(e.snapshot(), func(s *session) bool {
		return !s.has(flagOpen) || s.IsClosed()
	})
	slices.SortFunc(list, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	return list
}

func (e *endpoint) statsSnapshot() EndPointStats {
	c := &e.stats
	st := EndPointStats{
		Opened: c.opened.Load(), Refused: c.refused.Load(),
		Accepts: c.accepts.Load(), Retries: c.retries.Load(),
		Dials: c.dials.Load(), DialErrs: c.dialErrs.Load(),
		Cut: c.cut.Load(), Refusals: c.refusals.snapshot(),
		CallbackTimes: c.callbacks.snapshot(),
	}
	if e.budget != nil {
		st.Held = e.budget.used.Load()
	}
	e.mu.Lock()
	st.Total = e.past
	open := slices.Collect(maps.Values(e.sessions))
	e.mu.Unlock()
	st.Open = len(open)
	// Without the lock: Stats may flush for another goroutine (unlockEncoder), and a flush may need
	// the lock to start a flusher.
	for _, s := range open {
		st.Total.add(s.Stats())
	}
	return st
}

func (e *endpoint) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closing
}

// shutdown drains all sessions until ctx ends. The endpoint is closing already, so that no session
// is added.
func (e *endpoint) shutdown(ctx context.Context) (Report, error) {
	// Packages that were lost with sessions before are none of this report.
	before, begun := e.statsSnapshot().Total.Unsent, now()
	all := e.snapshot()
	for _, s := range all {
		s.life.drain()
	}
	var r Report
	select {
	case <-e.doneCh: // not the Done of each session: goroutines have to be over too
		r.Drained = len(all)
		r.Unsent = e.statsSnapshot().Total.Unsent - before
		e.tellSlowest(&r, begun)
		return r, nil
	case <-ctx.Done():
	}
	// Sessions that are in their last callbacks count as forced too: nothing tells them apart, and
	// for them fail does nothing.
	rest := e.snapshot()
	for _, s := range rest {
		s.life.fail(fmt.Errorf("%w: shutdown ended: %w", ErrSessionClosed, context.Cause(ctx)))
	}
	r.Forced = len(rest)
	r.Drained = len(all) - r.Forced
	// Now only callbacks can keep a session. They see the end of their session, and mostly return
	// soon; those that do not are reported instead of waited for, since ctx is over.
	grace := time.NewTimer(100 * time.Millisecond)
	defer grace.Stop()
	select {
	case <-e.doneCh:
	case <-grace.C:
		for _, s := range e.snapshot() {
			r.Stuck = append(r.Stuck, s.Stat())
		}
	}
	r.Unsent = e.statsSnapshot().Total.Unsent - before
	e.tellSlowest(&r, begun)
	return r, context.Cause(ctx)
}

// tellSlowest fills in what r tells of the slowest session; begun is when the shutdown began.
func (e *endpoint) tellSlowest(r *Report, begun int64) {
	e.mu.Lock()
	s, at := e.last, e.lastAt
	e.mu.Unlock()
	switch {
	case len(r.Stuck) > 0:
		r.Slowest, r.Took = r.Stuck[0], time.Duration(now()-begun)
	case s != nil:
		r.Slowest, r.Took = s.Stat(), time.Duration(max(at-begun, 0))
	}
}

// wheelUse counts the endpoints that use the wheel of the process. The wheel is made for the first
// of them and closed with the last.
var wheelUse struct {
	sync.Mutex
	n     int               // guarded by the mutex
	wheel *timerwheel.Wheel // guarded by the mutex
}

func acquireWheel() *timerwheel.Wheel {
	wheelUse.Lock()
	defer wheelUse.Unlock()
	if wheelUse.n++; wheelUse.n == 1 {
		wheelUse.wheel = timerwheel.New(timerwheel.Config{Executor: timerwheel.Inline})
	}
	return wheelUse.wheel
}

func releaseWheel() {
	wheelUse.Lock()
	defer wheelUse.Unlock()
	if wheelUse.n--; wheelUse.n == 0 {
		wheelUse.wheel.Close()
		wheelUse.wheel = nil
	}
}
