// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/gostkit/kit/taskpool"
)

// Callbacks of a session run under its token, which is a flag: who sets it runs a turn. What wants to run
// meanwhile (a cron tick, the news that the queue fell) leaves a flag too, which the holder serves before
// the next package, and sees when it clears its own.

// Bits of session.flags.
const (
	flagRefuse   uint32 = 1 << iota // no package is accepted any more
	flagClosing                     // no package is delivered any more
	flagHard                        // the descriptor is closed or about to be
	flagEnded                       // OnClose is the next callback, or has run
	flagBlocked                     // the queue reached the high mark and not yet the low mark
	flagWatched                     // on the endpoint's list of sessions with packages queued in a turn
	flagCron                        // an OnCron is due
	flagWritable                    // an OnWritable is due
	flagDrain                       // read nothing more, close when all that was read is handled
	flagOwnClose                    // Close was called by the user or by Shutdown
	flagOpen                        // OnOpen has succeeded
	flagWant                        // somebody wanted to flush, and the token or the encoder lock was taken
	flagReview                      // somebody wanted to look whether the queue fell, and the encoder lock was taken
	flagQueued                      // packages are queued; changed with encMu held
	flagTurn                        // a turn has the token
	flagAwaited                     // somebody waits for the token; set with qMu held
	flagMessage                     // the turn has packages
	flagTick                        // the turn runs OnCron or OnWritable
	flagLine                        // writers wait in line (line.go); changed with qMu held
	flagReading                     // the reader is between a read and the end of what it brought
	flagDraining                    // a goroutine waits to close the session when all is handled
	flagReadEnd                     // OnReadEnd keeps the session open after the peer's end
	flagExpired                     // WaitTime is over: what is read is out of order

	flagsPending  = flagCron | flagWritable
	flagsAttended = flagsPending | flagClosing
)

func (s *session) setFlag(f uint32) bool   { return s.flags.Or(f)&f == 0 }
func (s *session) clearFlag(f uint32) bool { return s.flags.And(^f)&f != 0 }
func (s *session) has(f uint32) bool       { return s.flags.Load()&f != 0 }

// A framing is a transport that cuts packages out of the bytes of a stream itself.
type framing interface {
	// decode is session.decode, limits included.
	decode(s *session, b []byte) (pkg any, n int, err error)
	// weigh returns the size of the latest package, which took n bytes of what decode was given.
	weigh(n int) int
}

// decode calls the Reader for the package that begins b and checks the answer. A nil pkg without error means
// that b holds no whole package; n is then the size it needs, 0 if unknown.
func (s *session) decode(b []byte, seen int) (pkg any, n int, err error) {
	if s.framed != nil {
		return s.framed.decode(s, b)
	}
	switch {
	case s.resumer != nil:
		pkg, n, err = s.resumer.ReadResume(s, b, seen)
	case s.reader != nil:
		pkg, n, err = s.reader.Read(s, b)
	default:
		return nil, 0, fmt.Errorf("%w: no Reader set", ErrBadReader)
	}
	if err != nil {
		return nil, 0, readerError(err)
	}
	limit := int(s.maxMsgLen.Load())
	if pkg != nil {
		switch {
		case n <= 0 || n > len(b):
			err = fmt.Errorf("%w: Read returned a package of %d of %d bytes", ErrBadReader, n, len(b))
		case n > limit:
			err = fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLong, n, limit)
		default:
			return pkg, n, nil
		}
		release(pkg)
		return nil, 0, err
	}
	switch {
	case n < 0 || n > 0 && n <= len(b):
		return nil, 0, fmt.Errorf("%w: Read asks for %d bytes and was given %d", ErrBadReader, n, len(b))
	case n > limit || len(b) >= limit:
		return nil, 0, fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
	}
	return nil, n, nil
}

// readerError returns a Reader's error as the cause of a session. A Reader that says io.EOF, which a
// parser finds at the end of its bytes, has met a broken package: not the end of the stream.
func readerError(err error) error {
	if err == io.EOF {
		return fmt.Errorf("getty: Reader: %w", err)
	}
	return err
}

// checkMessage checks what a Reader made of b, which is a whole message or datagram: kind says which.
func checkMessage(kind string, b []byte, pkg any, n int) error {
	switch {
	case pkg != nil && n == len(b):
		return nil
	case pkg != nil:
		release(pkg)
		return fmt.Errorf("%w: Read took %d bytes of a %s of %d", ErrBadReader, n, kind, len(b))
	case n < 0 || n > 0 && n <= len(b):
		return fmt.Errorf("%w: Read asks for %d bytes and was given a %s of %d",
			ErrBadReader, n, kind, len(b))
	}
	return fmt.Errorf("%w: a %s of %d bytes holds no whole package", io.ErrUnexpectedEOF, kind, len(b))
}

func release(pkg any) {
	if r, ok := pkg.(Releaser); ok {
		r.Release()
	}
}

// beginTurn takes the token and waits for it if it must.
func (s *session) beginTurn() {
	if s.setFlag(flagTurn) {
		return
	}
	s.qMu.Lock()
	defer s.qMu.Unlock()
	for s.flags.Or(flagTurn|flagAwaited)&flagTurn != 0 {
		s.qCond.Wait()
	}
}

// endTurn offers to the kernel what the turn queued, gives the token back, and sees to what was flagged while
// it was held and found nobody to serve it. pkgs is how many packages were read in the turn. The turn counts as
// sign of life if active says that it handled what the peer sent: what it queued does not make it one.
func (s *session) endTurn(pkgs int, active bool) {
	queued := s.has(flagQueued)
	if active {
		s.clock.touch()
	}
	if queued || pkgs > 0 {
		s.qMu.Lock()
		s.count.PkgsRead += uint64(pkgs)
		if queued {
			s.flushLocked(false)
		} else {
			s.qMu.Unlock()
		}
	}
	// From this step on who queues flushes for itself; who did before is seen here.
	f := s.flags.And(^(flagTurn | flagAwaited | flagMessage))
	if f&flagAwaited != 0 {
		s.qMu.Lock()
		s.qCond.Broadcast()
		s.qMu.Unlock()
	}
	if f&flagQueued != 0 && !s.inTurn() {
		s.flush()
	}
	switch {
	case f&flagClosing != 0:
	case f&(flagDrain|flagReading) == flagDrain && s.box == nil:
		s.Close() // a read in progress is not over with its turn: endRead closes
	case f&flagsPending != 0:
		s.post(0)
	}
}

// inTurn reports whether a turn is in progress, so that what is queued now leaves with its end.
func (s *session) inTurn() bool { return s.has(flagTurn) || s.tasks.Load() > 0 }

// turnInline decodes and delivers the packages that b holds, on the goroutine that reads. It returns how many
// bytes they were and how many the next one needs in all, 0 if that is unknown. more says that it stopped
// at the high mark, before the end of b.
func (s *session) turnInline(b []byte, seen int) (used, need int, more bool, err error) {
	s.beginTurn()
	s.setFlag(flagMessage)
	where := "Reader"
	pkgs, done := 0, false
	defer func() {
		if !done {
			err = s.panicked(where, recover())
		}
		defer func() { s.endTurn(pkgs, true) }()
		if s.has(flagClosing) && err == nil || !done && where != "Reader" {
			s.countRest(b[used:])
		}
	}()
	for used < len(b) {
		var pkg any
		var n int
		if pkg, n, err = s.decode(b[used:], seen); pkg == nil {
			need = n
			break
		}
		seen = 0
		used += n
		pkgs++
		if s.has(flagsAttended) {
			if s.has(flagClosing) {
				s.tally(&s.count.Undelivered, 1)
				release(pkg)
				break
			}
			s.servePending(&where)
		}
		where = "OnMessage"
		s.listener.OnMessage(s, pkg)
		where = "Release"
		release(pkg)
		where = "Reader"
		if s.paused() && used < len(b) {
			more = true
			break
		}
	}
	done = true
	if err != nil && s.has(flagClosing) {
		err = nil // the session has ended already, and for another reason
	}
	return used, need, more, err
}

// countRest counts the packages that b begins with, which were read, as undelivered: the session is
// closing.
func (s *session) countRest(b []byte) {
	pkgs, done := 0, false
	defer func() {
		if !done {
			s.panicked("Reader", recover())
		}
		s.tally(&s.count.PkgsRead, pkgs)
		s.tally(&s.count.Undelivered, pkgs)
	}()
	for len(b) > 0 {
		pkg, n, err := s.decode(b, 0)
		if pkg == nil || err != nil {
			break
		}
		pkgs++
		releaseGuarded(pkg)
		b = b[n:]
	}
	done = true
}

// turnsInline is turnInline, again and again while the high mark interrupts it: a peer that floods and never
// reads stops itself between two packages, and no answer is refused for want of room.
func (s *session) turnsInline(b []byte, seen int) (used, need int, err error) {
	for {
		n, need, more, err := s.turnInline(b[used:], seen)
		used += n
		if !more {
			return used, need, err
		}
		seen = 0
		s.awaitWhile(s.paused)
		if s.has(flagClosing) {
			s.countRest(b[used:])
			return used, 0, nil
		}
	}
}

// turnMailbox decodes the packages that b holds and posts them to the mailbox in as few steps as its
// limits allow. It waits while the mailbox is full: that stops reading.
func (s *session) turnMailbox(b []byte, seen int) (used, need int, err error) {
	done, posting := false, false
	stage := mailQueues.Get().(*mailQueue)
	defer func() {
		if !done {
			err = s.panicked("Reader", recover())
			if !posting {
				s.forgo(stage)
			}
		}
	}()
	for whole := true; whole && used < len(b) && err == nil && !s.has(flagClosing); {
		pkgs, bytes := s.box.room()
		size := 0
		for len(stage.items) < pkgs && size < bytes && used < len(b) {
			var pkg any
			var n int
			if pkg, n, err = s.decode(b[used:], seen); pkg == nil {
				need, whole = n, false
				break
			}
			seen = 0
			used += n
			if s.framed != nil {
				n = s.framed.weigh(n)
			}
			size += n
			stage.items = append(stage.items, mail{pkg, n})
		}
		if len(stage.items) > 0 {
			posting = true // whatever becomes of that, they are in the mailbox
			s.tally(&s.count.PkgsRead, len(stage.items))
			s.postMails(stage.items)
			posting = false
			clear(stage.items)
			stage.items = stage.items[:0]
		}
	}
	stage.free()
	done = true
	if s.has(flagClosing) {
		if err == nil {
			s.countRest(b[used:])
		}
		err = nil // the session has ended already, and for another reason
	}
	return used, need, err
}

// forgo counts and releases packages that were decoded and, because the Reader panicked, not posted.
func (s *session) forgo(stage *mailQueue) {
	s.tally(&s.count.PkgsRead, len(stage.items))
	s.tally(&s.count.Undelivered, len(stage.items))
	for !stage.empty() {
		releaseGuarded(stage.pop().pkg)
	}
	stage.free()
}

// postMails hands packages to the mailbox and wakes whoever handles them. A pool that takes none
// ends the session.
func (s *session) postMails(mails []mail) {
	s.box.put(mails)
	var err error
	if s.dispatch == Ordered {
		err = s.box.strand.Wake(untilHard{s})
	} else {
		for i := 0; i < len(mails) && err == nil; i++ {
			err = s.box.pool.Submit(untilHard{s}, s.handleOne)
		}
	}
	if err != nil && !s.has(flagHard) {
		s.fail(fmt.Errorf("getty: task pool: %w", err))
	}
}

// maxBatch is how many packages of one session a worker handles before it turns to other sessions.
const maxBatch = 64

// handleBatch is the strand of an ordered session: one turn for a batch of the mailbox. It reports whether
// there is more.
func (s *session) handleBatch() (more bool) {
	s.beginTurn()
	where, done := "OnMessage", false
	handled, bytes := 0, 0
	defer func() {
		if !done {
			s.panicked(where, recover())
		}
		more = s.box.handled(handled, bytes) && !s.paused()
		s.endTurn(0, handled > 0)
	}()
	for handled < maxBatch && !s.paused() { // unblock wakes the strand again
		m, ok := s.box.takeOrdered()
		if !ok {
			break
		}
		if handled == 0 {
			s.setFlag(flagMessage)
		}
		handled++
		bytes += m.size
		if s.has(flagsAttended) {
			if s.has(flagClosing) {
				s.tally(&s.count.Undelivered, 1)
				release(m.pkg)
				continue
			}
			s.servePending(&where)
		}
		where = "OnMessage"
		s.listener.OnMessage(s, m.pkg)
		where = "Release"
		release(m.pkg)
	}
	if s.has(flagsPending) && !s.has(flagClosing) {
		s.servePending(&where)
	}
	done = true
	return more
}

// handleOne is the task of an unordered session: one package, a turn of its own, without the token.
func (s *session) handleOne() {
	m, ok := s.box.take()
	if !ok {
		return // the session ended and the package was counted as undelivered
	}
	s.tasks.Add(1)
	where, done := "OnMessage", false
	defer func() {
		if !done {
			s.panicked(where, recover())
		}
		s.clock.touch()
		s.box.handled(1, m.size)
		s.tasks.Add(-1)
		if s.has(flagQueued) && !s.inTurn() {
			s.flush()
		}
	}()
	if s.has(flagClosing) {
		s.tally(&s.count.Undelivered, 1)
	} else {
		s.listener.OnMessage(s, m.pkg)
	}
	where = "Release"
	release(m.pkg)
	done = true
}

// post flags f and sees to it that somebody serves what is flagged: the holder of the token if there is one,
// else an executor goroutine. It never blocks, so that the timer wheel may call it.
func (s *session) post(f uint32) {
	if f != 0 {
		s.setFlag(f)
	}
	if !s.started.Load() {
		return // the turn of the preparation sees it at its end
	}
	if s.dispatch == Ordered {
		// A pool without room serves a tick with the next package; a closed one has ended the session.
		err := s.box.strand.TryWake()
		if f == flagWritable && errors.Is(err, taskpool.ErrFull) {
			// The mailbox stood still: what is in it may be all that there will be.
			s.spawn(func() { _ = s.box.strand.Wake(untilHard{s}) })
		}
		return
	}
	if !s.has(flagTurn) { // else the holder of the token sees it at the end of its turn
		s.spawn(s.runPending)
	}
}

// runPending is a turn without packages, on an executor goroutine.
func (s *session) runPending() {
	if !s.setFlag(flagTurn) {
		return
	}
	where, done := "OnCron", false
	defer func() {
		if !done {
			s.panicked(where, recover())
		}
		s.endTurn(0, false)
	}()
	s.servePending(&where)
	done = true
}

// servePending runs the callbacks that are due. The token is held.
func (s *session) servePending(where *string) {
	s.setFlag(flagTick)
	begun := now()
	s.runCallbacksDue(where)
	s.clock.shift(now() - begun)
	s.clearFlag(flagTick)
}

func (s *session) runCallbacksDue(where *string) {
	if s.clearFlag(flagCron) && !s.has(flagClosing) {
		*where = "OnCron"
		s.listener.OnCron(s)
	}
	if s.clearFlag(flagWritable) && !s.has(flagClosing) {
		if l, ok := s.listener.(WritableListener); ok {
			*where = "OnWritable"
			l.OnWritable(s)
		}
	}
}

// panicked ends the session for a panic, or a Goexit if v is nil, in a callback or codec. It is called from
// the deferred function that recovered, so that the stack is still the one of the panic.
func (s *session) panicked(where string, v any) error {
	err := &PanicError{Where: where, Value: v, Stack: debug.Stack()}
	s.ep.log.Error("getty: callback panicked", "session", s.id, "peer", peerText(s.tr.remoteAddr), "where", where,
		"panic", limitString(fmt.Sprint(v)), "stack", string(err.Stack))
	s.fail(err)
	return err
}
