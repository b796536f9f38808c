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

// A turn runs the user's callbacks, and nothing else does. They run under the session's token: the
// goroutine that sets flagTurn holds it until it clears that flag. What is to run meanwhile (a cron
// tick, the news that the queue fell) leaves a flag, which the holder of the token serves before
// the next package, or sees when it gives the token up.
//
// Every callback runs below guard, which turns a panic or a Goexit into the end of that session.
type turn struct {
	s        *session
	listener EventListener
	tasks    atomic.Int32 // handlers of unordered packages at work; they have no token

	mu   sync.Mutex
	free chan struct{} // guarded by mu: closed when the token is given up; nil if nobody waits for that
}

// begin takes the token. It waits for a turn in progress.
func (t *turn) begin() {
	for !t.s.setFlag(flagTurn) {
		t.mu.Lock()
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

// end offers to the kernel what the turn queued, gives the token up, and sees to what was left for
// its holder.
func (t *turn) end(how wire.Mode) {
	s := t.s
	if s.has(flagQueued) {
		s.outbox.flush(how)
	}
	// A writer inside a turn need not ask for a flush: this step clears flagTurn and reads
	// flagQueued at once. From here on writers flush for themselves.
	f := s.swapOut(flagTurn | flagAwaited | flagMessage)
	if f&flagAwaited != 0 {
		t.mu.Lock()
		if t.free != nil { // all who wait try again, and those who fail wait anew
			close(t.free)
			t.free = nil
		}
		t.mu.Unlock()
	}
	if f&flagQueued != 0 && !t.inProgress() {
		s.outbox.flush(wire.Try)
	}
	switch {
	case f&flagClosing != 0:
	case f&(flagDrain|flagReading) == flagDrain && s.inbox == nil:
		s.Close() // a read in progress is not over with its turn: endRead closes
	case f&flagsDue != 0:
		t.post(0)
	}
}

// inProgress reports whether what is queued now leaves with the end of a turn.
func (t *turn) inProgress() bool { return t.s.has(flagTurn) || t.tasks.Load() > 0 }

// guard runs user code. A panic or Goexit in it ends the session, and is the result; where names
// the callback.
func (t *turn) guard(where *string, run func() error) (err error) {
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
// called from the deferred function that recovered, so that the stack is still the one of the
// panic.
func (t *turn) panicked(where string, v any) error {
	err := &PanicError{Where: where, Value: v, Stack: debug.Stack()}
	s := t.s
	s.ep.log.Error("getty: callback panicked", "session", s.id, "peer", peerText(s.proto.remoteAddr), "where", where,
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
// after a panic or Goexit: where tells in what. The error is that of a panic.
func (t *turn) run(how wire.Mode, next func() (pkg any, ok bool), after func(where string, panicked bool)) error {
	s, where, returned := t.s, "Reader", false
	t.begin()
	defer t.end(how)
	defer func() { after(where, !returned) }()
	err := t.guard(&where, func() error {
		for first := true; ; first = false {
			pkg, ok := next()
			if !ok {
				break
			}
			if first {
				s.setFlag(flagMessage)
			}
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
		t.listener.OnMessage(t.s, pkg)
	}
	*where = "Release"
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

// finish runs the last callbacks, when the turn in progress is over. All of it is deferred, so that
// neither a panic nor a Goexit in one of them leaves a step out; a panic can only be logged.
func (t *turn) finish(settle func() (unclean error), over func()) {
	t.begin()
	unclean := settle()
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

// post flags f and sees to it that somebody serves what is flagged: the holder of the token if
// there is one, else an executor goroutine. It never blocks, so that the timer wheel may call it.
func (t *turn) post(f uint32) {
	s := t.s
	if f != 0 {
		s.setFlag(f)
	}
	if !s.started.Load() {
		return // the turn of the preparation sees it at its end
	}
	if s.dispatch == Ordered {
		// A pool without room serves a tick with the next package; a closed one has ended the
		// session.
		err := s.inbox.strand.TryWake()
		if f == flagWritable && errors.Is(err, taskpool.ErrFull) {
			// Delivery stood still: what is in the inbox may be all that there will be.
			s.spawn(func() { _ = s.inbox.strand.Wake(untilHard{s}) })
		}
		return
	}
	if !s.has(flagTurn) { // else the holder of the token sees it at the end of its turn
		s.spawn(t.runDue)
	}
}

// runDue is a turn without packages, on an executor goroutine.
func (t *turn) runDue() {
	if !t.s.setFlag(flagTurn) {
		return // the holder of the token sees what is due
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
	// What a tick took is no sign of life of the peer, but it could not be heard meanwhile.
	s.clock.shift(now() - begun)
	s.clearFlag(flagTick)
}
