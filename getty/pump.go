// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"fmt"

	"github.com/gostkit/kit/getty/internal/wire"
)

// A session has three entries, which any goroutine may call, one after the other: begin once, then
// input for what was read, then end once. The goroutine of run is one such caller. All that must
// survive between two calls lies in the session, nothing on a stack, so that a session needs no
// goroutine while nothing happens to it.

// run is the session's goroutine: it begins the session, reads until the input ends, and runs the
// end.
func (s *session) run(newSession NewSessionCallback) {
	opened, returned := false, false
	defer func() {
		// A callback, or a user's net.Conn, may have ended this goroutine with Goexit; the session
		// still needs its end. The callback's has a cause already.
		if !returned && opened {
			s.spawn(func() { s.end(&PanicError{Where: "net.Conn.Read"}) })
		} else if !returned {
			s.life.abandon(s.life.failure())
		}
	}()
	err := s.begin(newSession)
	if opened = err == nil; opened {
		err = s.proto.serve()
	}
	returned = true
	if opened {
		s.end(err)
	} else {
		s.life.abandon(err)
	}
}

// begin prepares the session and runs OnOpen. After an error the session has to be abandoned.
func (s *session) begin(newSession NewSessionCallback) error { return s.turn.prepare(newSession) }

// opened is called within the turn of OnOpen, when that has succeeded.
func (s *session) opened() {
	s.ep.opened(s)
	s.clock.start()
	if s.inbox != nil && s.has(flagDrain) {
		s.life.drain() // Shutdown came before there was an inbox to wait for
	}
}

// input decodes and delivers what b holds. It returns how many bytes are done with, and how many
// the next package needs in all, 0 if that is unknown; seen is how much of b the Reader has looked
// at in vain.
func (s *session) input(b []byte, seen int) (used, need int, err error) {
	if s.inbox != nil {
		s.clock.touch()
		return s.inbox.fill(b, seen)
	}
	for {
		n, need, more, err := s.inlineTurn(b[used:], seen)
		used += n
		if !more {
			return used, need, err
		}
		// A peer that floods and never reads stops itself between two packages, and no answer is
		// refused for want of room.
		seen = 0
		s.awaitWhile(s.paused)
		if s.has(flagClosing) {
			s.codec.countRest(b[used:])
			return used, 0, nil
		}
	}
}

// inlineTurn decodes and delivers packages on the goroutine that reads. more says that it stopped
// at the high mark, before the end of b.
func (s *session) inlineTurn(b []byte, seen int) (used, need int, more bool, err error) {
	var bad error
	pkgs := 0
	err = s.turn.run(wire.Held, func() (pkg any, ok bool) {
		if used == len(b) || pkgs > 0 && s.has(flagClosing) {
			return nil, false
		}
		if more = pkgs > 0 && s.paused(); more {
			return nil, false
		}
		var n int
		if pkg, n, bad = s.codec.decode(b[used:], seen); pkg == nil {
			need = n
			return nil, false
		}
		seen = 0
		used += n
		pkgs++
		return pkg, true
	}, func(where string, panicked bool) {
		s.count.PkgsRead.Add(uint64(pkgs))
		s.clock.touch()
		if s.has(flagClosing) && bad == nil && !panicked || panicked && where != "Reader" {
			s.codec.countRest(b[used:])
		}
	})
	if err == nil && !s.has(flagClosing) {
		err = bad // else the session has ended already, and for another reason
	}
	return used, need, more && err == nil, err
}

// end is the end of a session that was opened. err is why its input ended.
func (s *session) end(err error) {
	s.life.conclude(err)
	s.turn.finish(s.life.settle, func() {
		s.ep.ended(s)
		s.life.finished()
	})
}

// beginRead sets flagReading before it looks whether it may read, and Shutdown sets flagDrain
// before it looks whether a read is in progress, so that one of them sees the other.
func (s *session) beginRead() bool {
	if !s.has(flagReading) {
		s.setFlag(flagReading)
	}
	return !s.holds()
}

// readBegun reports whether what was just read counts. What comes beside a Close is as if it came
// after. So is, beside a Shutdown, what was read without a beginRead, by a connection that cannot
// be asked not to wait.
func (s *session) readBegun() bool {
	f := s.bits.Load()
	return f&flagClosing == 0 && (f&flagReading != 0 || s.swapIn(flagReading)&flagDrain == 0)
}

// idle tells a Shutdown that all that was read is handled. If it has left the end to the reader,
// that is false.
func (s *session) idle() bool {
	if s.has(flagReading) {
		s.clearFlag(flagReading)
	}
	return !s.holds()
}

// endRead is the end of a read and all that it brought. A Shutdown that came meanwhile has waited
// for this.
func (s *session) endRead() {
	if s.swapOut(flagReading)&(flagDrain|flagClosing) == flagDrain {
		s.life.drained()
	}
}

// paused reports whether the queue is above the high mark, so that nothing may be read. A full
// socket of datagrams, which has no queue, stops no reading.
func (s *session) paused() bool {
	return s.outbox.queues && s.bits.Load()&(flagBlocked|flagClosing) == flagBlocked && !s.opts.ReadWhileBlocked
}

// holds reports whether nothing may be read now: paused, or a Shutdown waits until what was read is
// handled, which a peer that never stops would put off for ever.
func (s *session) holds() bool {
	return s.paused() || s.bits.Load()&(flagDrain|flagClosing) == flagDrain
}

// awaitWhile waits while held, which is paused or holds.
func (s *session) awaitWhile(held func() bool) {
	if !held() {
		return
	}
	begun := now()
	s.outbox.waitWhile(held)
	s.clock.shift(now() - begun)
}

// prepared checks what the user's preparation set and makes what it needs.
func (s *session) prepared() error {
	switch {
	case s.turn.listener == nil:
		return errNoListener
	case s.codec.reader == nil:
		return fmt.Errorf("%w: the new-session callback set no Reader", ErrBadReader)
	}
	if s.dispatch != Inline {
		s.inbox = newInbox(s, s.ep.taskPool())
	}
	s.started.Store(true)
	return nil
}
