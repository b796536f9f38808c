// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"math"
	"runtime"
)

// The flush token is the right to write to the kernel. Its holder takes the whole queue, and what comes
// meanwhile forms the next batch. No package is left behind, because of four rules:
//
//   - Whoever queues outside a turn asks for a flush afterwards. Who queues within a turn need not: the turn's
//     end looks at flagQueued in the same atomic step in which it gives up flagTurn.
//   - The token's holder looks at the queue, under qMu, before it gives the token back. Who asks meanwhile
//     leaves flagWant, so that what is queued is not left to the end of a turn.
//   - Who holds the token and finds an encoder at work leaves flagWant, tries once more, and gives the token
//     back. The encoder looks at flagWant after it has unlocked. (Likewise flagReview: who cannot look whether
//     the queue has fallen to the low mark.)
//   - A closing session is drained when its queue is empty and encMu could be taken: no encoder is at work, and
//     all that come later see flagRefuse.
//
// TestFlushProtocol plays these steps in every order.

// errWouldBlock is a transport's answer when the kernel takes no more and the caller will not wait.
var errWouldBlock = errors.New("getty: write would block")

// flush offers what is queued to the kernel and never blocks. If the token is taken, its holder is asked to
// see to what was queued since.
func (s *session) flush() {
	s.qMu.Lock()
	s.flushLocked(false)
}

// flushLate is flush for a queue that has waited too long or grown large, also for the one who gathers.
func (s *session) flushLate() {
	s.qMu.Lock()
	s.flushLocked(true)
}

// offer is flush for a package that was written outside a turn. Where many goroutines write to a session,
// the one that gets the token lets those that are ready to run write first, so that their packages leave in
// one system call. Whether that pays is found out now and then; it costs a lone writer next to nothing.
func (s *session) offer(large bool) {
	s.qMu.Lock()
	s.tries++
	if large || s.flushing || s.gain == 0 && s.tries%64 != 0 {
		s.flushLocked(large)
		return
	}
	s.flushing, s.gathering = true, true
	s.qMu.Unlock()
	s.ep.watch(s)
	runtime.Gosched()
	s.qMu.Lock()
	if !s.gathering { // the queue grew large, or this took long: somebody else flushes
		s.qMu.Unlock()
		return
	}
	s.flushLocked(true)
}

// flushLocked takes the token, or with takeOver from the one who gathers, and writes. It unlocks qMu.
func (s *session) flushLocked(takeOver bool) {
	if s.flushing && !(s.gathering && takeOver) {
		s.setFlag(flagWant)
		s.qMu.Unlock()
		return
	}
	gathered := s.gathering
	s.flushing, s.gathering = true, false
	b, busy := s.detachLocked()
	if gathered && b != nil {
		if len(b.ends) > 1 {
			s.gain = 64
		} else if s.gain > 0 {
			s.gain--
		}
	}
	s.writeOut(s.tokenLocked(b, busy), false)
}

// flusher is the transient goroutine that writes what the holder of the token may not wait for. There is at
// most one per session, since it has the token from the one who started it.
func (s *session) flusher() {
	s.qMu.Lock()
	s.writeOut(s.tokenLocked(s.detachLocked()), true)
}

// detachLocked takes the queue: nil is an empty one. If an encoder is at work the queue cannot be taken, and
// the encoder flushes when it is done. The token and qMu are held.
func (s *session) detachLocked() (b *batch, busy bool) {
	if !s.tryEncoder(flagWant) {
		return nil, true
	}
	b = s.takeQueue()
	s.encMu.Unlock()
	return b, false
}

// takeQueue takes what is queued out of the session, in the order of the wire: packages, then control frames.
// encMu and qMu are held.
func (s *session) takeQueue() *batch {
	b, side := s.out, s.side
	side.answer()
	if b != nil {
		s.out = nil
		s.clearFlag(flagQueued)
	}
	if !side.empty() {
		if b == nil {
			b = newBatch()
		}
		if side.control != nil {
			b.append(side.control, nil, nil)
			s.appended += uint64(len(side.control))
			s.controls += uint64(len(side.control))
			if s.queuedBytes() >= uint64(s.opts.HighWater) {
				s.setFlag(flagBlocked) // else a writer refused for these bytes is never told when they have gone
			}
		}
		for _, w := range side.marks {
			b.append(nil, nil, w)
		}
		side.control, side.marks = nil, nil
	}
	s.detached = s.appended
	return b
}

// empty reports whether q has nothing for a flush.
func (q *sideQueue) empty() bool { return q == nil || len(q.control) == 0 && len(q.marks) == 0 }

// tokenLocked is what the token's holder does with what detachLocked returned: it keeps the token to write b,
// or gives it back. It unlocks qMu.
func (s *session) tokenLocked(b *batch, busy bool) *batch {
	switch {
	case b != nil:
		s.qMu.Unlock()
	case busy:
		s.releaseLocked()
		s.qMu.Unlock()
	default:
		s.drainedLocked()
	}
	return b
}

// releaseLocked gives the token back.
func (s *session) releaseLocked() {
	s.flushing = false
	if s.refused != nil {
		s.qCond.Broadcast() // the session's end may be waiting
	}
}

// writeOut writes b, if there is one, and gives the token back. A goroutine that came with a package of its
// own writes no later batch than that package's: what was queued meanwhile goes to a flusher.
func (s *session) writeOut(b *batch, flusher bool) {
	for {
		if s.has(flagBlocked) {
			s.reviewBlock()
		}
		if b == nil {
			return
		}
		if flusher {
			s.clock.stalled() // it may have to wait with this batch, whatever became of the one before
		}
		err := s.tr.write(s, b, flusher)
		if err == errWouldBlock {
			s.account(b)
			stuck := b // so that b itself does not escape
			s.spawn(func() { s.writeOut(stuck, true) })
			return
		}
		if err != nil {
			s.writeFailed(b, err)
			return
		}
		s.clock.unstalled()
		s.qMu.Lock()
		s.accountLocked(b)
		much := s.count.BytesWritten > s.lookAfter && s.clock.idleLimit.Load() > 0
		if much {
			s.lookAfter = math.MaxUint64 // until the clock has looked
		}
		done := b
		b = s.proceedLocked(flusher)
		done.free()
		if much {
			s.clock.sentMuch()
		}
	}
}

// proceedLocked decides how it goes on when a batch is gone: with the next batch, which it returns, or with
// the token given back, or given on to a flusher. It unlocks qMu.
func (s *session) proceedLocked(flusher bool) *batch {
	empty := s.emptyLocked()
	switch {
	case empty && s.refused == nil:
		s.drainedLocked()
		return nil
	case flusher || empty:
		return s.tokenLocked(s.detachLocked())
	case s.refused == nil && s.inTurn() && !s.has(flagWant): // the rest waits for the turn's end
		s.releaseLocked()
		s.qMu.Unlock()
	default:
		s.qMu.Unlock()
		s.spawn(s.flusher)
	}
	return nil
}

// emptyLocked reports whether nothing is queued. An encoder may be about to queue something.
func (s *session) emptyLocked() bool {
	return !s.has(flagQueued) && s.side.empty()
}

// drainedLocked gives the token back when the queue is empty; it unlocks qMu. If the session is closing,
// this is the moment of the FIN.
func (s *session) drainedLocked() {
	if s.has(flagWant) {
		s.clearFlag(flagWant) // it was for what is gone
	}
	fin := s.refused != nil && !s.finSent && !s.has(flagHard)
	if !fin {
		s.releaseLocked()
		s.qMu.Unlock()
		return
	}
	s.finSent = true
	s.qMu.Unlock()
	err := s.tr.closeWrite(s)
	if err == nil && s.waitTime.Load() > 0 {
		s.clock.drain() // now for the peer's end
	}
	s.qMu.Lock()
	s.releaseLocked()
	s.qMu.Unlock()
	if err != nil {
		s.fail(err)
	}
}

// account counts what the kernel took of b since the last call. The token is held.
func (s *session) account(b *batch) {
	s.qMu.Lock()
	s.accountLocked(b)
	s.qMu.Unlock()
	if s.has(flagBlocked) {
		s.reviewBlock()
	}
}

func (s *session) accountLocked(b *batch) {
	calls, taken, pkgs, gone := b.progress()
	if calls > 0 {
		s.count.Writes += uint64(calls)
		s.count.BytesWritten += uint64(taken)
		s.count.PkgsWritten += uint64(pkgs)
		s.clock.wrote()
	}
	s.gone.Add(uint64(gone))
}

// writeFailed ends the session after a write error: everything queued is unsent. Once we have closed the
// descriptor ourselves, the error says nothing but that.
func (s *session) writeFailed(b *batch, err error) {
	if !s.has(flagHard) {
		s.fail(err)
	}
	s.discardBatch(b)
	s.qMu.Lock()
	s.releaseLocked()
	s.qMu.Unlock()
}

// discardBatch counts what is left of b as unsent and tells who waits for it.
func (s *session) discardBatch(b *batch) {
	b.took(0)
	s.account(b)
	rest := b.size - b.off
	pkgs, bytes := b.fail(s.closedBy())
	s.qMu.Lock()
	s.count.Unsent += uint64(pkgs)
	s.count.UnsentBytes += uint64(bytes)
	s.qMu.Unlock()
	s.gone.Add(uint64(rest))
	b.free()
}

// maxControl bounds the control frames that wait for a flush. Of the answers beyond it only the latest is
// kept, as RFC 6455, section 5.5.3, allows; others, our own pings, are dropped: they have become pointless.
const maxControl = 4 << 10

// queueControl queues bytes that are no package: a control frame. An answer is never dropped for want of room,
// unless a later one takes its place.
func (s *session) queueControl(p []byte, answer bool) {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.refused != nil {
		return
	}
	switch side := s.sideLocked(); {
	case len(side.control)+len(p) <= maxControl && len(side.late) == 0:
		side.control = append(side.control, p...)
	case answer:
		side.late = append(side.late[:0], p...)
	}
}

// answer moves the latest answer behind the control frames that waited before it.
func (q *sideQueue) answer() {
	if q != nil && len(q.late) > 0 {
		q.control = append(q.control, q.late...)
		q.late = nil
	}
}

// refuse makes the session accept no more packages; err is what writers get.
func (s *session) refuse(err error) { s.refuseWith(err, nil) }

// refuseWith is refuse with last bytes to send, which nothing can follow.
func (s *session) refuseWith(err error, last []byte) {
	s.setFlag(flagRefuse)
	s.qMu.Lock()
	if s.refused == nil {
		s.refused = err
		if last != nil {
			side := s.sideLocked()
			side.answer()
			side.control = append(side.control, last...)
		}
	}
	s.dissolveLineLocked(err)
	s.qCond.Broadcast()
	s.qMu.Unlock()
}

// awaitFlushed returns when a closing session's queue is empty and its FIN is sent, or when the descriptor
// is being closed.
func (s *session) awaitFlushed() {
	s.qMu.Lock()
	for !s.has(flagHard) && (s.flushing || !s.finSent) {
		s.qCond.Wait()
	}
	s.qMu.Unlock()
}

// discardQueue waits for the flush token, which is soon free once the descriptor is closed, keeps it, and
// counts what was never sent. Like a callback, an encoder that is at work is waited for.
func (s *session) discardQueue() {
	s.qMu.Lock()
	for s.flushing {
		s.qCond.Wait()
	}
	s.flushing = true
	s.qMu.Unlock()

	s.encMu.Lock()
	s.qMu.Lock()
	b := s.takeQueue()
	s.qMu.Unlock()
	s.encMu.Unlock()
	if b != nil {
		s.discardBatch(b)
	}
}

// lookAtQueue serves the endpoint's watch, for which it keeps the number of the last flush in *flush. calm says
// that nothing is queued which could be left to the end of a turn, late that something was there at
// the last look already and nobody is writing.
func (s *session) lookAtQueue(flush *uint64) (late, calm bool) {
	if !s.has(flagQueued) {
		return false, true
	}
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.flushing && !s.gathering {
		return false, !s.inTurn()
	}
	late = *flush == s.detached
	*flush = s.detached
	return late, false
}
