// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"math"
	"runtime"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// The flush token is the right to write to the kernel. Its holder takes the whole queue, and what
// comes meanwhile forms the next batch. No package is left behind, because of four rules:
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

// flush offers what is queued to the kernel and never blocks. If the token is taken, its holder is
// asked to see to what was queued since.
func (o *outbox) flush(how wire.Mode) {
	o.mu.Lock()
	o.flushLocked(false, how)
}

// flushLate is flush for a queue that has waited too long or grown large, also for the one who
// gathers.
func (o *outbox) flushLate() {
	o.mu.Lock()
	o.flushLocked(true, wire.Try)
}

// offer is flush for a package that was written outside a turn. Where many goroutines write to a
// session, the one that gets the token lets those that are ready to run write first, so that their
// packages leave in one system call. Whether that pays is found out now and then; it costs a lone
// writer next to nothing.
func (o *outbox) offer(large bool) {
	o.mu.Lock()
	o.tries++
	if large || o.flushing || o.gain == 0 && o.tries%64 != 0 {
		o.flushLocked(large, wire.Try)
		return
	}
	o.flushing, o.gathering = true, true
	o.mu.Unlock()
	o.s.ep.watch(o.s)
	runtime.Gosched()
	o.mu.Lock()
	if !o.gathering { // the queue grew large, or this took long: somebody else flushes
		o.mu.Unlock()
		return
	}
	o.flushLocked(true, wire.Try)
}

// flushLocked takes the token, or with takeOver from the one who gathers, and writes. It unlocks
// qMu.
func (o *outbox) flushLocked(takeOver bool, how wire.Mode) {
	if o.flushing && !(o.gathering && takeOver) {
		o.s.setFlag(flagWant)
		o.mu.Unlock()
		return
	}
	gathered := o.gathering
	o.flushing, o.gathering = true, false
	b, busy := o.detachLocked()
	if gathered && b != nil {
		if b.Packages() > 1 {
			o.gain = 64
		} else if o.gain > 0 {
			o.gain--
		}
	}
	o.writeOut(o.tokenLocked(b, busy), how)
}

// flusher is the transient goroutine that writes what the holder of the token may not wait for.
// There is at most one per session, since it has the token from the one who started it.
func (o *outbox) flusher() {
	o.mu.Lock()
	o.writeOut(o.tokenLocked(o.detachLocked()), wire.Wait)
}

// detachLocked takes the queue: nil is an empty one. If an encoder is at work the queue cannot be
// taken, and the encoder flushes when it is done. The token and qMu are held.
func (o *outbox) detachLocked() (b *sendq.Batch, busy bool) {
	if !o.tryEncoder(flagWant) {
		return nil, true
	}
	b = o.takeQueue()
	o.encMu.Unlock()
	return b, false
}

// takeQueue takes what is queued out of the session, in the order of the wire: packages, then
// control frames. encMu and qMu are held.
func (o *outbox) takeQueue() *sendq.Batch {
	b, side := o.out, o.side
	side.answer()
	if b != nil {
		o.out = nil
		o.s.clearFlag(flagQueued)
	}
	if !side.empty() {
		if b == nil {
			b = sendq.New()
		}
		if side.control != nil {
			b.AddControl(side.control)
			o.appended += uint64(len(side.control))
			o.controls += uint64(len(side.control))
			if o.queuedBytes() >= uint64(o.s.opts.HighWater) {
				o.s.setFlag(flagBlocked) // else a writer refused for these bytes is never told when they have gone
			}
		}
		for _, w := range side.marks {
			b.AddMark(w)
		}
		side.control, side.marks = nil, nil
	}
	o.detached.Store(o.appended)
	return b
}

// empty reports whether q has nothing for a flush.
func (q *sideQueue) empty() bool { return q == nil || len(q.control) == 0 && len(q.marks) == 0 }

// tokenLocked is what the token's holder does with what detachLocked returned: it keeps the token
// to write b, or gives it back. It unlocks qMu.
func (o *outbox) tokenLocked(b *sendq.Batch, busy bool) *sendq.Batch {
	switch {
	case b != nil:
		o.mu.Unlock()
	case busy:
		o.releaseLocked()
		o.mu.Unlock()
	default:
		o.drainedLocked()
	}
	return b
}

// releaseLocked gives the token back.
func (o *outbox) releaseLocked() {
	o.flushing = false
	if o.refused != nil {
		o.changed.Broadcast() // the session's end may be waiting
	}
}

// writeOut writes b, if there is one, and gives the token back. A goroutine that came with a
// package of its own writes no later batch than that package's: what was queued meanwhile goes to a
// flusher.
func (o *outbox) writeOut(b *sendq.Batch, how wire.Mode) {
	flusher := how == wire.Wait
	for {
		if o.s.has(flagBlocked) {
			o.reviewBlock()
		}
		if b == nil {
			return
		}
		if flusher {
			o.s.clock.stalled() // it may have to wait with this batch, whatever became of the one before
		}
		err := o.s.proto.write(b, how)
		if err == wire.ErrWouldBlock {
			o.account(b)
			stuck := b // so that b itself does not escape
			o.s.spawn(func() { o.writeOut(stuck, wire.Wait) })
			return
		}
		if err != nil {
			o.writeFailed(b, err)
			return
		}
		o.s.clock.unstalled()
		o.mu.Lock()
		o.accountLocked(b)
		much := o.s.count.BytesWritten.Load() > o.lookAfter && o.s.clock.idleLimit.Load() > 0
		if much {
			o.lookAfter = math.MaxUint64 // until the clock has looked
		}
		done := b
		b = o.proceedLocked(flusher)
		done.Free()
		if much {
			o.s.clock.sentMuch()
		}
	}
}

// proceedLocked decides how it goes on when a batch is gone: with the next batch, which it returns,
// or with the token given back, or given on to a flusher. It unlocks qMu.
func (o *outbox) proceedLocked(flusher bool) *sendq.Batch {
	empty := o.emptyLocked()
	switch {
	case empty && o.refused == nil:
		o.drainedLocked()
		return nil
	case flusher || empty:
		return o.tokenLocked(o.detachLocked())
	case o.refused == nil && o.s.turn.inProgress() && !o.s.has(flagWant): // the rest waits for the turn's end
		o.releaseLocked()
		o.mu.Unlock()
	default:
		o.mu.Unlock()
		o.s.spawn(o.flusher)
	}
	return nil
}

// emptyLocked reports whether nothing is queued. An encoder may be about to queue something.
func (o *outbox) emptyLocked() bool {
	return !o.s.has(flagQueued) && o.side.empty()
}

// drainedLocked gives the token back when the queue is empty; it unlocks qMu. If the session is
// closing, this is the moment of the FIN.
func (o *outbox) drainedLocked() {
	if o.s.has(flagWant) {
		o.s.clearFlag(flagWant) // it was for what is gone
	}
	fin := o.refused != nil && !o.finSent && !o.s.has(flagHard)
	if !fin {
		o.releaseLocked()
		o.mu.Unlock()
		return
	}
	o.finSent = true
	o.mu.Unlock()
	err := o.s.proto.closeWrite()
	if err == nil && o.s.life.waitTime.Load() > 0 {
		o.s.clock.drain() // now for the peer's end
	}
	o.mu.Lock()
	o.releaseLocked()
	o.mu.Unlock()
	if err != nil {
		o.s.life.fail(err)
	}
}

// account counts what the kernel took of b since the last call. The token is held.
func (o *outbox) account(b *sendq.Batch) {
	o.mu.Lock()
	o.accountLocked(b)
	o.mu.Unlock()
	if o.s.has(flagBlocked) {
		o.reviewBlock()
	}
}

func (o *outbox) accountLocked(b *sendq.Batch) {
	p := b.Progress()
	if p.Calls > 0 {
		o.s.count.Writes.Add(uint64(p.Calls))
		o.s.count.BytesWritten.Add(uint64(p.Taken))
		o.s.count.PkgsWritten.Add(uint64(p.Pkgs))
		o.s.clock.wrote()
	}
	o.gone.Add(uint64(p.Gone))
}

// writeFailed ends the session after a write error: everything queued is unsent. Once we have
// closed the descriptor ourselves, the error says nothing but that.
func (o *outbox) writeFailed(b *sendq.Batch, err error) {
	if !o.s.has(flagHard) {
		o.s.life.fail(err)
	}
	o.discardBatch(b)
	o.mu.Lock()
	o.releaseLocked()
	o.mu.Unlock()
}

// discardBatch counts what is left of b as unsent and tells who waits for it.
func (o *outbox) discardBatch(b *sendq.Batch) {
	b.Took(0)
	o.account(b)
	rest := b.Left()
	pkgs, bytes := b.Fail(o.s.life.closedBy())
	o.s.count.Unsent.Add(uint64(pkgs))
	o.s.count.UnsentBytes.Add(uint64(bytes))
	o.gone.Add(uint64(rest))
	b.Free()
}

// maxControl bounds the control frames that wait for a flush. Of the answers beyond it only the
// latest is kept, as RFC 6455, section 5.5.3, allows; others, our own pings, are dropped: they have
// become pointless.
const maxControl = 4 << 10

// queueControl queues bytes that are no package: a control frame. An answer is never dropped for
// want of room, unless a later one takes its place.
func (o *outbox) queueControl(p []byte, answer bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused != nil {
		return
	}
	switch side := o.sideLocked(); {
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
func (o *outbox) refuse(err error) { o.refuseWith(err, nil) }

// refuseWith is refuse with last bytes to send, which nothing can follow.
func (o *outbox) refuseWith(err error, last []byte) {
	o.s.setFlag(flagRefuse)
	o.mu.Lock()
	if o.refused == nil {
		o.refused = err
		if last != nil {
			side := o.sideLocked()
			side.answer()
			side.control = append(side.control, last...)
		}
	}
	o.dissolveLineLocked(err)
	o.changed.Broadcast()
	o.mu.Unlock()
}

// awaitFlushed returns when a closing session's queue is empty and its FIN is sent, or when the
// descriptor is being closed.
func (o *outbox) awaitFlushed() {
	o.mu.Lock()
	for !o.s.has(flagHard) && (o.flushing || !o.finSent) {
		o.changed.Wait()
	}
	o.mu.Unlock()
}

// discardQueue waits for the flush token, which is soon free once the descriptor is closed, keeps
// it, and counts what was never sent. Like a callback, an encoder that is at work is waited for.
func (o *outbox) discard() {
	o.mu.Lock()
	for o.flushing {
		o.changed.Wait()
	}
	o.flushing = true
	o.mu.Unlock()

	o.encMu.Lock()
	o.mu.Lock()
	b := o.takeQueue()
	o.mu.Unlock()
	o.encMu.Unlock()
	if b != nil {
		o.discardBatch(b)
	}
}

// onTheWay returns how many bytes a flush has taken and the kernel has not.
func (o *outbox) onTheWay() uint64 {
	gone := o.gone.Load() // first, since it never overtakes the other
	return o.detached.Load() - gone
}

// lookAgainAfter makes the clock look what the peer takes when n more bytes are written.
func (o *outbox) lookAgainAfter(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lookAfter = o.s.count.BytesWritten.Load() + n
}

// sizes returns the size of the largest package and how many bytes were written that belong to
// none. The session has ended.
func (o *outbox) sizes() (largest, control uint64) {
	o.encMu.Lock()
	largest = uint64(max(o.largest, 1))
	o.encMu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	return largest, o.controls
}

// hasSentEnd reports whether the end of the stream was sent.
func (o *outbox) hasSentEnd() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.finSent
}

// wake wakes all who wait for a change of the session.
func (o *outbox) wake() {
	o.mu.Lock()
	o.changed.Broadcast()
	o.mu.Unlock()
}

// waitWhile waits while held, which looks at what is announced by wake, is true.
func (o *outbox) waitWhile(held func() bool) {
	o.mu.Lock()
	for held() {
		o.changed.Wait()
	}
	o.mu.Unlock()
}

// late is called about every millisecond while the session is watched. It reports that a package
// has waited since the previous call, for which it keeps the flushes that it saw in *seen. idle
// reports that nothing is queued.
func (o *outbox) late(seen *uint64) (late, idle bool) {
	if !o.s.has(flagQueued) {
		return false, true
	}
	flushes := o.detached.Load()
	late = *seen == flushes
	*seen = flushes
	if !late {
		return false, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flushing && !o.gathering { // it sees to what is queued when it has written
		return false, !o.s.turn.inProgress()
	}
	return true, false
}
