// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"runtime"
	"time"
)

// errWouldBlock is a transport's answer when the kernel takes no more and the caller will not wait.
var errWouldBlock = errors.New("getty: write would block")

// flush offers what is queued to the kernel and never blocks. If the token is taken, its holder is asked to
// see to what was queued since.
func (s *session) flush() {
	s.qMu.Lock()
	s.flushLocked(s.queued.Load() >= flushSize)
}

// flushLate is flush for a queue that has waited too long, also for the one who gathers.
func (s *session) flushLate() {
	s.qMu.Lock()
	s.flushLocked(true)
}

// offer is flush for a package that was written outside a turn. Where many goroutines write to a session,
// the one that gets the token lets those that are ready to run write first, so that their packages leave in
// one system call. Whether that pays is found out now and then; it costs a lone writer next to nothing.
func (s *session) offer() {
	s.qMu.Lock()
	s.tries++
	if s.flushing || s.gain == 0 && s.tries%64 != 0 {
		s.flushLocked(s.queued.Load() >= flushSize)
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
	s.gathering = false
	if s.emptyLocked() {
		s.flushing = false
		s.drainedLocked()
		return
	}
	b := s.detachLocked()
	s.flushing = b != nil
	if gathered && b != nil {
		if len(b.ends) > 1 {
			s.gain = 64
		} else if s.gain > 0 {
			s.gain--
		}
	}
	s.qMu.Unlock()
	if b != nil {
		s.writeOut(b, false)
	}
}

func (s *session) emptyLocked() bool { return s.out == nil && s.side == nil }

// detachLocked takes the queue. While an encoder is at work in its memory it cannot be taken: the result is
// nil then, and the encoder flushes when it is done.
func (s *session) detachLocked() *batch {
	var b *batch
	if s.out != nil {
		if !s.encMu.TryLock() {
			s.setFlag(flagWant)
			if !s.encMu.TryLock() { // it looks at the flag after it has unlocked
				return nil
			}
		}
		b, s.out = s.out, nil
		s.encMu.Unlock()
	} else {
		b = newBatch()
	}
	for _, seg := range s.side {
		b.size += len(seg.b)
		b.segs = append(b.segs, seg)
	}
	s.side = nil
	if s.has(flagWant) {
		s.clearFlag(flagWant)
	}
	return b
}

// writeOut writes b and gives the token back. A goroutine that came with a package of its own writes no
// later batch than that package's: what was queued meanwhile goes to a flusher, a transient goroutine
// that may wait for a slow peer and is gone when the queue is empty. There is at most one, since it
// holds the token.
func (s *session) writeOut(b *batch, flusher bool) {
	for {
		if b != nil {
			err := s.tr.write(s, b, flusher)
			if err == errWouldBlock {
				s.clock.stalled()
				stuck := b // so that b itself does not escape
				s.spawn(func() { s.writeOut(stuck, true) })
				return
			}
			if err != nil {
				s.writeFailed(b, err)
				return
			}
			s.clock.unstalled()
			b.free()
		}
		s.qMu.Lock()
		if s.emptyLocked() {
			s.flushing = false
			s.drainedLocked()
			return
		}
		if !flusher {
			// In a turn the rest waits for the turn's end, unless somebody wants it now.
			if !s.has(flagWant) && s.turns.Load() > 0 && s.refused == nil {
				s.flushing = false
				s.qMu.Unlock()
				return
			}
			s.qMu.Unlock()
			s.spawn(func() { s.writeOut(nil, true) })
			return
		}
		b = s.detachLocked()
		s.flushing = b != nil
		s.qMu.Unlock()
		if b == nil {
			return
		}
	}
}

// drainedLocked is called with qMu held, the queue empty and the token free; it unlocks. If the session is
// closing, this is the moment of the FIN.
func (s *session) drainedLocked() {
	if s.refused == nil {
		s.qMu.Unlock()
		return
	}
	fin := !s.finSent && s.flags.Load()&flagHard == 0
	if fin {
		s.finSent, s.flushing = true, true
	}
	s.qCond.Broadcast()
	s.qMu.Unlock()
	if !fin {
		return
	}
	err := s.tr.closeWrite(s)
	if wait := time.Duration(s.waitTime.Load()); err == nil && wait > 0 {
		s.clock.armDrain(wait) // now for the peer's end
	}
	s.qMu.Lock()
	s.flushing = false
	s.qCond.Broadcast()
	s.qMu.Unlock()
	if err != nil {
		s.fail(err)
	}
}

// took is how transports account n bytes of b that the kernel took in one call.
func (s *session) took(b *batch, n int) {
	gone, withdrawn := b.gone, b.withdrawn
	b.took(n)
	s.count.writes.Add(1)
	s.count.bytesWritten.Add(uint64(n))
	s.count.pkgsWritten.Add(uint64(b.gone - gone - (b.withdrawn - withdrawn)))
	s.clock.wrote()
	s.unqueued(n)
}

// writeFailed ends the session after a write error: everything queued is unsent. Once we have closed the
// descriptor ourselves, the error says nothing but that.
func (s *session) writeFailed(b *batch, err error) {
	if !s.has(flagHard) {
		s.fail(err)
	}
	s.discardBatch(b)
	s.qMu.Lock()
	s.flushing = false
	s.qCond.Broadcast()
	s.qMu.Unlock()
}

// discardBatch counts what is left of b as unsent and tells who waits for it.
func (s *session) discardBatch(b *batch) {
	b.took(0)
	pkgs, bytes := b.fail(s.failure())
	s.countUnsent(pkgs, bytes)
	b.free()
}

// queueControl queues bytes that are no package: a control frame.
func (s *session) queueControl(p []byte) {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.refused == nil {
		s.queueControlLocked(p)
	}
}

func (s *session) queueControlLocked(p []byte) {
	s.side = append(s.side, segment{b: p})
	s.queued.Add(int64(len(p)))
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
			s.queueControlLocked(last)
		}
	}
	room := s.room
	s.room = nil
	s.qCond.Broadcast()
	s.qMu.Unlock()
	for _, w := range room {
		w.fail(err)
	}
}

// awaitFlushed returns when a closing session's queue is empty and its FIN is sent, or when the descriptor
// is being closed.
func (s *session) awaitFlushed() {
	s.qMu.Lock()
	for s.flags.Load()&flagHard == 0 && (!s.emptyLocked() || s.flushing || !s.finSent) {
		s.qCond.Wait()
	}
	s.qMu.Unlock()
}

// discardQueue waits for the flush token, which is soon free once the descriptor is closed, keeps it, and
// counts what was never sent.
func (s *session) discardQueue() {
	s.qMu.Lock()
	for s.flushing {
		s.qCond.Wait()
	}
	s.flushing = true
	b := s.out
	if b == nil || s.encMu.TryLock() {
		if b != nil {
			s.out = nil
			s.encMu.Unlock()
		}
		s.qMu.Unlock()
		if b != nil {
			s.discardBatch(b)
		}
	} else {
		// An encoder is at work in the batch's memory, and user code may take any time. What it makes will be
		// refused; the memory is left to the garbage collector.
		pkgs, bytes := b.fail(s.failure())
		b.next, b.ends = len(b.segs), nil
		s.qMu.Unlock()
		s.countUnsent(pkgs, bytes)
	}
	s.qMu.Lock()
	side := s.side
	s.side = nil
	s.qMu.Unlock()
	for _, seg := range side {
		s.unqueued(len(seg.b))
		if seg.w != nil {
			seg.w.fail(s.failure())
		}
	}
}

func (s *session) countUnsent(pkgs, bytes int) {
	s.count.unsent.Add(uint64(pkgs))
	s.count.unsentBytes.Add(uint64(bytes))
	s.unqueued(bytes)
}

// lookAtQueue tells the endpoint's watch whether nothing is queued, and whether what is queued was there
// when it last looked.
func (s *session) lookAtQueue() (calm, overdue bool) {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.out == nil || len(s.out.segs) == 0 {
		return true, false
	}
	overdue = s.out.seen && (!s.flushing || s.gathering)
	s.out.seen = true
	return false, overdue
}
