// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"math"
	"runtime"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// The flush token is the right to write to the kernel. Its holder takes the whole queue, and what
// is queued meanwhile forms the next batch. Four rules see to it that no package is left behind:
//
//   - A goroutine that queues outside a turn asks for a flush afterwards. A writer inside a turn
//     need not: the end of the turn clears flagTurn and reads flagQueued in one atomic operation.
//   - The holder of the token looks at the queue, with mu held, before it gives the token back. A
//     goroutine that finds the token taken sets flagWant, so that the holder does not leave the
//     rest of the queue to the end of a turn.
//   - A holder that finds an encoder at work sets flagWant, tries once more, and gives the token
//     back. The encoder looks at flagWant after it has unlocked encMu. flagReview does the same for
//     a goroutine that cannot look whether the queue has fallen to the low mark.
//   - A closing session is drained when its queue is empty and encMu could be taken: then no
//     encoder is at work, and every later one sees flagRefuse.
//
// TestFlushProtocol plays these steps in every order.
//
// The functions that decide run with mu held and return a step; writeOut does it with mu released.

// A step is how a flush goes on.
type step int8

const (
	stepNone     step = iota // the token belongs to another goroutine, which was asked to flush
	stepWrite                // the token is held: write the batch
	stepReturned             // the token was given back
	stepEnd                  // the token is held, the queue is empty: send the end of the stream
	stepHandOver             // the token is held: a flusher takes it over
)

// flush offers what is queued to the kernel and never blocks. If the token is taken, its holder is
// asked to write also what was queued since.
func (o *outbox) flush(how wire.Mode) {
	o.mu.Lock()
	b, next := o.claimLocked(false)
	o.mu.Unlock()
	o.writeOut(b, next, how)
}

// flushLate is flush for a queue that has waited too long or grown large. It takes the token also
// from a goroutine that lets others write first; see offer.
func (o *outbox) flushLate() {
	o.mu.Lock()
	b, next := o.claimLocked(true)
	o.mu.Unlock()
	o.writeOut(b, next, wire.Try)
}

// offer is flush for a package that was written outside a turn. Where many goroutines write to a
// session, the one that gets the token lets those that are ready to run write first, so that their
// packages leave in one system call.
func (o *outbox) offer(large bool) {
	o.mu.Lock()
	takeOver := large
	o.tries++
	// Gathering costs a writer that is alone a pass through the scheduler for nothing. So it goes
	// on only while it has joined packages lately, and is tried anew every 64th time.
	if pays := o.gain > 0 || o.tries%64 == 0; pays && !large && !o.flushing {
		o.flushing, o.gathering = true, true
		o.mu.Unlock()
		// Without the watch the package would wait for as long as the scheduler keeps this
		// goroutine from running.
		o.s.ep.watch.add(o.s)
		runtime.Gosched()
		o.mu.Lock()
		if !o.gathering {
			// The queue grew large or the watch found it late: another goroutine has taken the
			// token over and flushes this package too.
			o.mu.Unlock()
			return
		}
		takeOver = true
	}
	b, next := o.claimLocked(takeOver)
	o.mu.Unlock()
	o.writeOut(b, next, wire.Try)
}

// claimLocked takes the token, with takeOver also from a goroutine that gathers, and decides what
// to do with it.
func (o *outbox) claimLocked(takeOver bool) (*sendq.Batch, step) {
	if o.flushing && !(o.gathering && takeOver) {
		// Without the flag the holder would leave what is queued now to the end of a turn, which
		// may be far away.
		o.s.setFlag(flagWant)
		return nil, stepNone
	}
	gathered := o.gathering
	o.flushing, o.gathering = true, false
	b, next := o.nextLocked()
	if gathered && b != nil {
		if b.Packages() > 1 {
			o.gain = 64
		} else if o.gain > 0 {
			o.gain--
		}
	}
	return b, next
}

// flusher runs on a goroutine of its own and waits for the kernel, which flush and offer do not. It
// is started by the holder of the token and takes the token over, so there is at most one per
// session.
func (o *outbox) flusher() {
	o.mu.Lock()
	b, next := o.nextLocked()
	o.mu.Unlock()
	o.writeOut(b, next, wire.Wait)
}

// nextLocked takes the queue for the holder of the token, to be written, or gives the token back.
func (o *outbox) nextLocked() (*sendq.Batch, step) {
	b, busy := o.detachLocked()
	switch {
	case b != nil:
		return b, stepWrite
	case busy:
		// The encoder flushes when it is done. To wait for it would let the user's Writer hold up
		// every goroutine that needs the token.
		o.releaseLocked()
		return nil, stepReturned
	}
	return nil, o.drainedLocked()
}

// detachLocked takes the queue; nil is an empty one. If an encoder is at work the queue cannot be
// taken. The token is held.
func (o *outbox) detachLocked() (b *sendq.Batch, busy bool) {
	if !o.tryEncoder(flagWant) {
		return nil, true
	}
	b = o.takeQueueLocked()
	o.encMu.Unlock()
	return b, false
}

// takeQueueLocked takes what is queued out of the session, in the order of the wire: packages, then
// control frames. encMu is held too.
func (o *outbox) takeQueueLocked() *sendq.Batch {
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
			o.s.ep.budget.add(len(side.control))
			o.controls += uint64(len(side.control))
			if o.queuedBytes() >= uint64(o.s.opts.HighWater) {
				// Writers compare the bytes with the mark and are refused from here on. Without
				// the flag no review would ever tell them that these bytes have gone.
				o.stall()
			}
		}
		// Marks come last, so that they wait for everything that was queued before them.
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

// releaseLocked gives the token back.
func (o *outbox) releaseLocked() {
	o.flushing = false
	if o.refused != nil {
		o.changed.Broadcast() // the session's end may be waiting for the token
	}
}

// writeOut does next, and goes on until the token is given back or handed over. A goroutine that
// came with a package of its own (how is not [wire.Wait]) writes no batch after that package's.
func (o *outbox) writeOut(b *sendq.Batch, next step, how wire.Mode) {
	if next == stepNone {
		return
	}
	flusher := how == wire.Wait
	for {
		switch next {
		case stepEnd:
			o.sendEnd()
		case stepHandOver:
			o.s.spawn(o.flusher)
		}
		// Also when nothing was written: the flag may have been set since the last write, and then
		// this is the flush that has to look whether it is still right.
		if o.s.has(flagBlocked) {
			o.reviewBlock()
		}
		if next != stepWrite {
			return
		}
		if o.s.has(flagHard) {
			// A batch of marks has no bytes, so that no write would fail, and Flush would report
			// success for packages whose write failed before.
			o.writeFailed(b, ErrSessionClosed)
			return
		}
		if flusher {
			// For each batch anew: the progress of the one before says nothing about this one.
			o.s.clock.stalled()
		}
		err := o.s.proto.write(b, how)
		if err == wire.ErrWouldBlock {
			o.account(b)
			stuck := b // a copy, so that b itself does not escape to the heap
			o.s.spawn(func() { o.writeOut(stuck, stepWrite, wire.Wait) })
			return
		}
		if err != nil {
			o.writeFailed(b, err)
			return
		}
		o.s.clock.unstalled()
		o.mu.Lock()
		taken := o.accountLocked(b)
		much := o.s.count.BytesWritten.Load() > o.lookAfter && o.s.clock.idleLimit.Load() > 0
		if much {
			o.lookAfter = math.MaxUint64 // until the clock has looked
		}
		written := b
		b, next = o.proceedLocked(flusher)
		o.mu.Unlock()
		o.s.traceFlushed(taken)
		written.Free()
		if much {
			o.s.clock.sentMuch()
		}
	}
}

// proceedLocked decides how it goes on when a batch is written.
func (o *outbox) proceedLocked(flusher bool) (*sendq.Batch, step) {
	empty := o.emptyLocked()
	switch {
	case empty && o.refused == nil:
		// An encoder may be at work, but it flushes for itself: nothing is lost without a look at
		// encMu, and the usual flush saves one.
		return nil, o.drainedLocked()
	case empty, flusher:
		// A closing session may send its end only when no encoder can still add a package, so here
		// even an empty queue is taken under encMu: else that package would come after the FIN. A
		// flusher just goes on with the next batch.
		return o.nextLocked()
	case o.refused == nil && o.s.turn.inProgress() && !o.s.has(flagWant):
		// The rest was queued within the turn and leaves with its end. To write it now would cost a
		// system call for each part of the turn.
		o.releaseLocked()
		return nil, stepReturned
	}
	// Others queued while this goroutine wrote. Without a flusher it would write for them for as
	// long as they go on, and its own caller would never return.
	return nil, stepHandOver
}

// emptyLocked reports whether nothing is queued. An encoder may be about to queue something.
func (o *outbox) emptyLocked() bool {
	return !o.s.has(flagQueued) && o.side.empty()
}

// drainedLocked gives the token back when the queue is empty, unless this is the moment to end the
// stream.
func (o *outbox) drainedLocked() step {
	if o.s.has(flagWant) {
		o.s.clearFlag(flagWant) // the packages that it was set for are gone
	}
	if o.refused == nil || o.finSent || o.s.has(flagHard) {
		o.releaseLocked()
		return stepReturned
	}
	o.finSent = true
	return stepEnd
}

// sendEnd ends our stream and gives the token back. It keeps the token while it does so, since
// awaitFlushed takes finSent with a free token for an end that has been sent.
func (o *outbox) sendEnd() {
	err := o.s.proto.closeWrite()
	if err == nil && o.s.life.waitTime.Load() > 0 && o.s.has(flagClosing) {
		o.s.clock.drain() // WaitTime begins again, for the peer to end its stream
	}
	o.mu.Lock()
	o.releaseLocked()
	o.mu.Unlock()
	if err != nil {
		o.s.life.fail(err)
	}
}

// account counts what the kernel took of b since the previous call. The token is held.
func (o *outbox) account(b *sendq.Batch) {
	o.mu.Lock()
	taken := o.accountLocked(b)
	o.mu.Unlock()
	o.s.traceFlushed(taken)
	if o.s.has(flagBlocked) {
		o.reviewBlock()
	}
}

// accountLocked is account with mu held, and returns how many bytes the kernel took.
func (o *outbox) accountLocked(b *sendq.Batch) (taken int) {
	p := b.Progress()
	if p.Calls > 0 {
		o.s.count.Writes.Add(uint64(p.Calls))
		o.s.count.BytesWritten.Add(uint64(p.Taken))
		o.s.count.PkgsWritten.Add(uint64(p.Pkgs))
		o.s.clock.wrote()
	}
	o.gone.Add(uint64(p.Gone))
	o.s.ep.budget.add(-p.Gone)
	return p.Taken
}

// writeFailed ends the session after a write error: everything queued is unsent.
func (o *outbox) writeFailed(b *sendq.Batch, err error) {
	if !o.s.has(flagHard) {
		// Else the descriptor was closed by ourselves, and that is all that the error says.
		o.s.life.fail(err)
	}
	o.discardBatch(b)
	o.mu.Lock()
	o.releaseLocked()
	o.mu.Unlock()
}

// discardBatch counts what is left of b as unsent and fails the callers that wait for it.
func (o *outbox) discardBatch(b *sendq.Batch) {
	b.Took(0)    // packages that were offered and not written can be withdrawn again
	o.account(b) // before Fail: what was written has to be counted as such
	rest := b.Left()
	pkgs, bytes := b.Fail(o.s.life.closedBy())
	if pkgs > 0 || bytes > 0 {
		o.s.count.rarely().Unsent.Add(uint64(pkgs))
		o.s.count.rarely().UnsentBytes.Add(uint64(bytes))
	}
	o.gone.Add(uint64(rest))
	o.s.ep.budget.add(-rest)
	b.Free()
}

// refuse makes the session accept no more packages; err is what writers get.
func (o *outbox) refuse(err error) { o.refuseWith(err, nil) }

// refuseWith is refuse with last bytes to send, which nothing can follow.
func (o *outbox) refuseWith(err error, last []byte) {
	// Before the lock, since encoders look at the flag with only encMu held.
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
	o.s.life.endContext()
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

// discard takes the flush token for good and counts what was never sent. It waits for the token,
// which is soon free once the descriptor is closed, and for an encoder at work.
func (o *outbox) discard() {
	o.mu.Lock()
	for o.flushing {
		o.changed.Wait()
	}
	o.flushing = true // never given back: nothing is written any more
	o.mu.Unlock()

	// Like a callback, an encoder is waited for: OnClose must not run beside the user's Writer.
	o.encMu.Lock()
	o.mu.Lock()
	b := o.takeQueueLocked()
	o.mu.Unlock()
	o.encMu.Unlock()
	if b != nil {
		o.discardBatch(b)
	}
}

// onTheWay returns how many bytes a flush has taken and the kernel has not.
func (o *outbox) onTheWay() uint64 {
	// gone never overtakes detached. Read in the other order, it might by the time it is read, and
	// the difference would wrap around.
	gone := o.gone.Load()
	return o.detached.Load() - gone
}

// lookAgainAfter lets n more bytes be written before the clock looks again what the peer takes.
func (o *outbox) lookAgainAfter(n uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lookAfter = o.s.count.BytesWritten.Load() + n
}

// sizes returns the size of the largest package, and how many bytes were taken by a flush that
// belong to no package. The session has ended.
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

// wake wakes all goroutines that wait for a change of the session.
func (o *outbox) wake() {
	o.mu.Lock()
	o.changed.Broadcast()
	o.mu.Unlock()
}

// waitWhile waits while held is true. Every change that held looks at is followed by wake.
func (o *outbox) waitWhile(held func() bool) {
	o.mu.Lock()
	for held() {
		o.changed.Wait()
	}
	o.mu.Unlock()
}

// late is called about every millisecond while the session is watched (watch.go). late reports that
// a package has waited since the previous call and no flush is running; idle that the session need
// not be watched. *seen keeps what the previous call saw.
func (o *outbox) late(seen *uint64) (late, idle bool) {
	if !o.s.has(flagQueued) {
		return false, true
	}
	// Every flush that takes packages changes detached: the same value twice means that what was
	// queued at the previous call is still there.
	flushes := o.detached.Load()
	late = *seen == flushes
	*seen = flushes
	if !late {
		return false, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.flushing && !o.gathering {
		// The holder of the token writes, or waits for the peer, and takes the queue afterwards. A
		// slow peer can take for ever, and the session need not be watched for as long.
		return false, !o.s.turn.inProgress()
	}
	return true, false
}
