// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"fmt"

	"github.com/gostkit/kit/getty/internal/wire"
)

// A session has three entries: begin, called once, then input for the bytes that were read, then
// end, called once. They are called one after the other, by any goroutines; that of run is one
// such caller. Everything that must survive between two calls lies in the session and nothing on a
// stack, so that a session needs no goroutine while nothing happens to it.

// run is the session's goroutine: it begins the session, reads until the input ends, and runs the
// end.
func (s *session) run(newSession NewSessionCallback) {
	returned := false
	defer func() {
		if !returned {
			// A callback has ended this goroutine with Goexit. There is a cause already.
			s.life.abandon(s.life.failure())
		}
	}()
	err := s.beginLabelled(newSession)
	returned = true
	if err != nil {
		s.life.abandon(err)
		return
	}
	s.serve()
}

// serve reads until the input ends, and runs the end.
func (s *session) serve() {
	returned := false
	defer func() {
		if !returned {
			// The Read of a user's net.Conn, or a callback, has ended this goroutine with Goexit.
			// The session still needs its end. After a callback there is a cause already, and this
			// one changes nothing.
			s.spawn(func() { s.end(&PanicError{Where: "net.Conn.Read"}) })
		}
	}()
	err := s.read()
	returned = true
	if err == wire.ErrInterrupted {
		s.spawn(s.serve) // see renew.go
		return
	}
	s.end(err)
}

// begin prepares the session and runs OnOpen. After an error the session has to be abandoned.
func (s *session) begin(newSession NewSessionCallback) error { return s.turn.prepare(newSession) }

// opened is called within the turn of OnOpen, when that has succeeded.
func (s *session) opened() {
	s.ep.opened(s)
	s.clock.start()
	if s.inbox != nil && s.has(flagDrain) {
		// Shutdown came before there was an inbox, and took the session for one without.
		s.life.drain()
	}
}

// input decodes and delivers the packages that b holds. used is how many bytes they took, need how
// many the next package needs in all, 0 if that is unknown. seen is how many leading bytes of b the
// Reader was given before without finding a whole package.
func (s *session) input(b []byte, seen int) (used, need int, err error) {
	if s.inbox != nil {
		s.clock.heard()
		return s.inbox.fill(b, seen)
	}
	for {
		n, need, more, err := s.inlineTurn(b[used:], seen)
		used += n
		if !more {
			return used, need, err
		}
		// The queue is at the high mark: the rest of b waits until it has fallen. So a peer that
		// sends and never reads stops only itself, and no answer of OnMessage is refused because
		// the queue is full.
		seen = 0
		s.awaitWhile(s.paused)
		if s.has(flagClosing) {
			s.codec.countRest(b[used:])
			return used, 0, nil
		}
	}
}

// inlineTurn decodes and delivers packages on the goroutine that reads. more reports that it
// stopped at the high mark, before the end of b.
func (s *session) inlineTurn(b []byte, seen int) (used, need int, more bool, err error) {
	var bad error
	pkgs := 0
	err = s.turn.run(wire.Held, func() (pkg any, ok bool) {
		// pkgs > 0: each turn decodes at least one package, or it would make no progress.
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
		s.clock.heard()
		s.traceDecoded(pkgs)
		// Packages that were read and not delivered are counted, unless the Reader itself failed.
		if s.has(flagClosing) && bad == nil && !panicked || panicked && where != "Reader" {
			s.codec.countRest(b[used:])
		}
	})
	if err == nil && !s.has(flagClosing) {
		err = bad // a closing session has another cause already
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

// beginRead notes that a read begins, and reports whether it may.
func (s *session) beginRead() bool {
	// The flag first, then the look at flagDrain. Shutdown does it the other way round
	// (life.drain), so that one of the two sees the other.
	if !s.has(flagReading) {
		s.setFlag(flagReading)
	}
	return !s.holds()
}

// readBegun reports whether the bytes that were just read count. They do not if the session began
// to close during the read.
func (s *session) readBegun() bool {
	// A connection that is read through its methods may wait in Read at any time, so that no
	// beginRead comes before. There flagReading is set only now; if Shutdown came first, it has not
	// waited for these bytes.
	f := s.bits.Load()
	return f&flagClosing == 0 && (f&flagReading != 0 || s.swapIn(flagReading)&flagDrain == 0)
}

// idle notes that everything that was read is decoded, and reports whether to wait for input. It
// reports false if a Shutdown has come and left the end to the reader.
func (s *session) idle() bool {
	if s.has(flagReading) {
		s.clearFlag(flagReading)
	}
	return !s.holds()
}

// endRead notes that a read, and everything that it brought, is decoded.
func (s *session) endRead() {
	// In one atomic operation: a Shutdown that set flagDrain before it left the end to the reader,
	// and one that comes later sees that no read is in progress.
	if s.swapOut(flagReading)&(flagDrain|flagClosing) == flagDrain {
		s.life.drained()
	}
}

// paused reports whether nothing may be read or handled because the queue has reached the high
// mark. Datagrams have no queue: a full socket stops no reading.
func (s *session) paused() bool {
	return s.outbox.queues && !s.opts.ReadWhileBlocked &&
		s.bits.Load()&(flagBlocked|flagClosing) == flagBlocked
}

// withheld reports whether reading pauses for a reason that concerns neither queue nor mailbox of
// the session: its ReadRate, or the memory of its endpoint. A session that closes reads on.
func (s *session) withheld() bool {
	return s.paced() || s.ep.budget.exceeded() && !s.has(flagClosing)
}

// holds reports whether nothing may be read now.
func (s *session) holds() bool {
	// A Shutdown waits until everything that was read is handled: a peer that never stops sending
	// would put that off for ever.
	return s.paused() || s.withheld() || s.bits.Load()&(flagDrain|flagClosing) == flagDrain
}

// awaitWhile waits while held, which is paused or holds, is true.
func (s *session) awaitWhile(held func() bool) {
	if !held() {
		return
	}
	begun := now()
	s.outbox.waitWhile(held)
	took := now() - begun
	s.count.rarely().Paused.Add(took)
	s.clock.shift(took) // the peer could not be heard meanwhile
}

// prepared checks what the NewSessionCallback has set, and makes the inbox if there is to be one.
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
