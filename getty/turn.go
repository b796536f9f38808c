// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/gostkit/kit/getty/internal/wire"
	"github.com/gostkit/kit/taskpool"
)

// A turn runs the callbacks of a session; no other file calls them. They run under the session's
// token: the goroutine that sets flagTurn holds it until it clears that flag. A callback that
// becomes due meanwhile (OnCron, OnWritable) is flagged. The holder of the token serves it before
// the next package, or sees it when it gives the token up.
//
// The word turn also means the time between begin and end, in which one goroutine holds the token.
// Every callback runs below guard, which turns a panic or a Goexit into the end of that session.
type turn struct {
	s        *session
	listener EventListener
	tasks    atomic.Int32 // handlers of unordered packages at work; they have no token

	mu   sync.Mutex
	free chan struct{} // guarded by mu: closed when the token is free; nil if nothing waits for it
}

// begin takes the token. It waits for a turn in progress.
func (t *turn) begin() {
	for !t.s.setFlag(flagTurn) {
		t.mu.Lock()
		// Both flags at once: end clears both at once too, so it cannot pass between a look at the
		// token and the wish to wait for it.
		if t.s.swapIn(flagTurn|flagAwaited)&flagTurn == 0 {
			t.mu.Unlock()
			return
		}
		if t.free == nil {
			t.free = make(chan struct{})
		}
		free := t.free
		t.mu.Unlock()
		<-free
	}
}

// end offers the packages that the turn queued to the kernel, gives the token up, and does what
// others have left to its holder.
func (t *turn) end(how wire.Mode) {
	s := t.s
	// Before the token is given up: until then other writers leave their packages to this turn, and
	// do not contend for the flush token.
	if s.has(flagQueued) {
		s.outbox.flush(how)
	}
	// A writer inside a turn need not ask for a flush: this step clears flagTurn and reads
	// flagQueued at once. A package that is queued before it is flushed below; a writer that comes
	// after it sees no turn and flushes for itself.
	f := s.swapOut(flagTurn | flagAwaited | flagMessage)
	if f&flagAwaited != 0 {
		t.mu.Lock()
		if t.free != nil {
			// All that wait are woken and try again. One of them gets the token, the others set
			// flagAwaited anew.
			close(t.free)
			t.free = nil
		}
		t.mu.Unlock()
	}
	// flagQueued is still set where an encoder was at work during the flush above. If another turn
	// has begun meanwhile, the end of that one flushes.
	if f&flagQueued != 0 && !t.inProgress() {
		s.outbox.flush(wire.Try)
	}
	switch {
	case f&flagClosing != 0: // no callback runs any more but the last ones
	case f&(flagDrain|flagReading) == flagDrain && s.inbox == nil:
		// Shutdown came during this turn and left the close to its end. With flagReading the read
		// that this turn belongs to may hold more, and endRead closes.
		s.Close()
	case f&flagsDue != 0:
		t.post(0) // it was flagged after the last look in this turn
	}
}

// inProgress reports whether a turn or a task is at work, at whose end what is queued now leaves.
func (t *turn) inProgress() bool { return t.s.has(flagTurn) || t.tasks.Load() > 0 }

// guard runs user code. A panic or Goexit in it ends the session, and guard returns it as an error;
// where names the callback.
func (t *turn) guard(where *string, run func() error) (err error) {
	// Not recover alone: it returns nil for a Goexit.
	returned := false
	defer func() {
		if !returned {
			err = t.panicked(*where, recover())
		}
	}()
	err = run()
	returned = true
	return err
}

// panicked ends the session for a panic, or a Goexit if v is nil, in a callback or codec. It is
// called by the deferred function that recovered.
func (t *turn) panicked(where string, v any) error {
	// Below the deferred function the stack is still that of the panic.
	err := &PanicError{Where: where, Value: v, Stack: debug.Stack()}
	s := t.s
	s.ep.log.Error("getty: callback panicked",
		"session", s.id, "peer", peerText(s.proto.remoteAddr), "where", where,
		"panic", limitString(fmt.Sprint(v)), "stack", string(err.Stack))
	s.life.fail(err)
	return err
}

// prepare runs the user's preparation and OnOpen.
func (t *turn) prepare(newSession NewSessionCallback) (err error) {
	s, where := t.s, "NewSessionCallback"
	t.begin()
	defer t.end(wire.Try)
	defer func() {
		if err != nil {
			s.setFlag(flagClosing) // so that the end of the turn runs no callback
		}
	}()
	return t.guard(&where, func() error {
		if err := newSession(s); err != nil {
			return err
		}
		if err := s.prepared(); err != nil {
			return err
		}
		where = "OnOpen"
		if err := t.listener.OnOpen(s); err != nil {
			return err
		}
		s.opened()
		return nil
	})
}

// run delivers the packages that next yields, in one turn. after runs before the turn ends, also
// after a panic or Goexit, when where names the callback. The error is that of a panic.
func (t *turn) run(
	how wire.Mode, next func() (pkg any, ok bool), after func(where string, panicked bool),
) error {
	s, where, returned := t.s, "Reader", false
	t.begin()
	// Deferred, since a Goexit in a callback ends this goroutine, and must not keep the token.
	defer t.end(how)
	defer func() { after(where, !returned) }()
	err := t.guard(&where, func() error {
		for first := true; ; first = false {
			pkg, ok := next()
			if !ok {
				break
			}
			if first {
				s.setFlag(flagMessage) // not before: the Reader is no handler; see behindLine
			}
			// Between two packages, so that a flood does not keep OnCron and OnWritable waiting.
			if s.has(flagsAttended) {
				t.serveDue(&where)
			}
			t.deliver(pkg, &where)
			where = "Reader"
		}
		if s.has(flagsDue) {
			t.serveDue(&where)
		}
		return nil
	})
	returned = err == nil
	return err
}

// runTask delivers one package of an unordered session: without the token, beside other such tasks.
func (t *turn) runTask(pkg any, after func()) {
	s, where := t.s, "OnMessage"
	t.tasks.Add(1)
	defer func() {
		after()
		t.tasks.Add(-1)
		// The last task at work flushes for all: each counts itself out before it looks, so that
		// not every one of them can find another at work.
		if s.has(flagQueued) && !t.inProgress() {
			s.outbox.flush(wire.Try)
		}
	}()
	_ = t.guard(&where, func() error {
		t.deliver(pkg, &where)
		return nil
	})
}

// deliver hands one package to OnMessage, unless the session is closing, and releases it.
func (t *turn) deliver(pkg any, where *string) {
	if t.s.has(flagClosing) {
		t.s.count.undelivered(1)
	} else {
		*where = "OnMessage"
		if o := t.s.opts; o.Trace != nil || o.SlowHandler > 0 || o.TimeCallbacks {
			t.observed(pkg)
		} else {
			t.listener.OnMessage(t.s, pkg)
		}
	}
	*where = "Release" // user code too
	release(pkg)
}

// callback runs one callback as a turn of its own, unless the session is closing. The error is that
// of a panic.
func (t *turn) callback(where string, call func()) error {
	t.begin()
	defer t.end(wire.Try)
	return t.guard(&where, func() error {
		if !t.s.has(flagClosing) {
			call()
		}
		return nil
	})
}

// finish runs the last callbacks, when the turn in progress is over, and then over.
func (t *turn) finish(settle func() (unclean error), over func()) {
	t.begin()
	unclean := settle()
	t.s.traceEnded(t.s.life.err())
	// All is deferred, so that a Goexit in one of the callbacks leaves no step out: OnError,
	// OnClose, the token, over. The session has ended, so that a panic can only be logged.
	defer over()
	defer t.end(wire.Try)
	closing, failing := "OnClose", "OnError"
	defer func() {
		_ = t.guard(&closing, func() error { t.listener.OnClose(t.s); return nil })
	}()
	if unclean != nil {
		_ = t.guard(&failing, func() error { t.listener.OnError(t.s, unclean); return nil })
	}
}

// post flags f, the callbacks that are due, and sees to it that they run: on the goroutine that
// holds the token if there is one, else in the session's strand or on a goroutine of their own. It
// never blocks, so that the timer wheel may call it.
func (t *turn) post(f uint32) {
	s := t.s
	if f != 0 {
		s.setFlag(f)
	}
	if !s.started.Load() {
		return // the turn of the preparation sees it at its end
	}
	if s.dispatch == Ordered {
		// If the pool has no room, an OnCron can wait for the next package and runs before it. If
		// the pool is closed, the session has ended.
		err := s.inbox.strand.TryWake()
		if f == flagWritable && errors.Is(err, taskpool.ErrFull) {
			// This must not wait for the next package. The strand has stood still above the high
			// mark, and the peer may wait for the answers to what lies in the inbox.
			s.spawn(func() { _ = s.inbox.strand.Wake(untilHard{s}) })
		}
		return
	}
	if !s.has(flagTurn) { // else the holder of the token sees the flag at the end of its turn
		s.spawn(t.runDue)
	}
}

// runDue is a turn without packages, on a goroutine of its own.
func (t *turn) runDue() {
	if !t.s.setFlag(flagTurn) {
		return // another turn has begun, and sees the flags at its end
	}
	where := "OnCron"
	defer t.end(wire.Try)
	_ = t.guard(&where, func() error {
		t.serveDue(&where)
		return nil
	})
}

// serveDue runs the callbacks that are due. The token is held.
func (t *turn) serveDue(where *string) {
	s := t.s
	if s.has(flagClosing) || !s.has(flagsDue) {
		return
	}
	s.setFlag(flagTick)
	begun := now()
	if s.clearFlag(flagCron) {
		*where = "OnCron"
		t.listener.OnCron(s)
	}
	if s.clearFlag(flagWritable) && !s.has(flagClosing) {
		if l, ok := t.listener.(WritableListener); ok {
			*where = "OnWritable"
			l.OnWritable(s)
		}
	}
	// While a callback ran, the peer could not be heard: its limits move on by that time. It has
	// given no sign of life either, so they do not begin anew.
	s.clock.shift(now() - begun)
	s.clearFlag(flagTick)
}
