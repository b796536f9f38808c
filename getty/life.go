// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty/internal/wire"
	"github.com/gostkit/kit/netx"
)

var errNoListener = errors.New("getty: the new-session callback set no event listener")

// A life is how a session ends: gracefully, at once, or one after the other. The first reason is
// the cause; later ones change nothing.
//
// The graceful end: nothing is accepted or delivered any more, what is queued is flushed, the peer
// is told the end of the stream, and what it still sends is discarded until it ends too; WaitTime
// limits each of the two waits. The hard end closes the descriptor, which wakes everybody who waits
// for it.
type life struct {
	s        *session
	waitTime atomic.Int64

	mu    sync.Mutex
	cause error         // guarded by mu: the first reason to end
	done  chan struct{} // guarded by mu: made by the first Done
	over  bool          // guarded by mu: OnClose has returned
}

// abandon ends a session that never opened: no callback runs any more.
func (l *life) abandon(err error) {
	s := l.s
	l.setCause(err)
	if f, ok := s.proto.(failer); ok {
		f.dismiss(err)
	}
	s.setFlag(flagClosing | flagEnded)
	s.outbox.refuse(ErrSessionClosed)
	l.free()
	s.clock.stop()
	s.ep.refused(s, err)
	l.finished()
}

// conclude brings a session that was opened to where only its last callbacks are to run. err is why
// its input ended.
func (l *life) conclude(err error) {
	s := l.s
	s.clearFlag(flagReading)
	called := false
	defer func() {
		// A callback may have ended this goroutine with Goexit, and the session with that.
		if !called {
			s.spawn(func() { s.end(err) })
		}
	}()
	switch {
	case s.has(flagHard | flagExpired):
	case !s.has(flagClosing):
		// The peer has ended its stream or broken it: what it sent before is handled, and what that
		// answers is flushed.
		if s.inbox != nil {
			s.inbox.handleRest()
		}
		if err == io.EOF {
			l.awaitLastWrites()
		}
		if !s.has(flagClosing) {
			l.setCause(err)
		}
		l.shut()
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		l.setCause(err) // a closing peer answers our end with a reset
	}
	called = true
	// What still comes is read, since closing over it would destroy our last bytes with a reset.
	if !s.has(flagHard) {
		end := s.proto.discard()
		s.outbox.awaitFlushed()
		if end == io.EOF {
			l.awaitAcked()
		}
	}
	s.setFlag(flagClosing)
	s.outbox.refuse(ErrSessionClosed)
	l.countUnacked()
	l.free()
	s.clock.stop()
	s.ep.freed(s)
}

// free ends the session hard and returns when its descriptor is free and nobody writes any more.
func (l *life) free() {
	l.closeHard()
	_ = l.s.proto.close() // again: while a callback was at work, the connection was only shut down
	l.s.outbox.discard()
	l.s.awaitClosed()
}

// awaitLastWrites lets a listener that wants to go on writing after the peer's end do so, until it
// closes the session or the time for that is over.
func (l *life) awaitLastWrites() {
	s := l.s
	listener, ok := s.turn.listener.(ReadEndListener)
	if !ok || s.swapIn(flagReadEnd)&(flagClosing|flagDrain) != 0 {
		return
	}
	_ = s.turn.callback("OnReadEnd", func() { listener.OnReadEnd(s) })
	var over atomic.Bool
	if limit := s.opts.HalfClose; limit > 0 {
		t := s.ep.wheel.AfterFunc(time.Duration(nanos(limit)), func() {
			over.Store(true)
			s.outbox.wake()
		})
		defer t.Stop()
	}
	s.outbox.waitWhile(func() bool { return !over.Load() && !s.has(flagClosing) })
}

// settle fixes the last counts and the cause, before the last callbacks. It returns the error for
// OnError, nil after a clean end. The token is held.
func (l *life) settle() error {
	s := l.s
	if s.inbox != nil {
		s.count.undelivered(s.inbox.clear())
	}
	unsent, unacked := s.count.Unsent.Load(), s.count.UnackedBytes.Load()
	if unacked > 0 {
		l.settleUnacked()
	}
	switch {
	case !s.has(flagOwnClose):
	case unsent > 0:
		l.setCause(fmt.Errorf("%w: closed with %d packages unsent", ErrWriteTimeout, unsent))
	case unacked > 0:
		l.setCause(fmt.Errorf("%w: %d bytes", ErrUnacknowledged, unacked))
	}
	s.setFlag(flagEnded)
	err := l.err()
	if clean := err == nil || err == io.EOF || err == ErrSessionClosed; clean && s.count.Unsent.Load() == 0 {
		return nil
	}
	return l.failure()
}

// settleUnacked counts the packages that the unacknowledged bytes belong to. Where their bounds lay
// is not known any more; there are at least as many as there would be if all were as large as the
// largest.
func (l *life) settleUnacked() {
	s := l.s
	largest, none := s.outbox.sizes()
	if wire.Socket(s.proto.netConn()) == nil {
		none += 128 // bytes that belong to no package, such as the close_notify of TLS
	}
	c, unacked := &s.count, s.count.UnackedBytes.Load()
	pkgs := (unacked - min(unacked, none) + largest - 1) / largest
	if c.Unsent.Load() > 0 && pkgs > 0 {
		pkgs-- // it may be the package of which the rest is unsent
	}
	pkgs = min(pkgs, c.PkgsWritten.Load())
	c.Unacked.Store(pkgs)
	c.Unsent.Add(pkgs)
	c.UnsentBytes.Add(unacked)
}

// close is Close of the session.
func (l *life) close() {
	if l.s.setFlag(flagOwnClose) {
		l.shut()
	}
}

// shut begins the graceful end: nothing more in either direction, flush, end of stream.
func (l *life) shut() {
	s := l.s
	s.setFlag(flagClosing)
	s.outbox.refuseWith(ErrSessionClosed, s.proto.farewell())
	if m := s.inboxIfStarted(); m != nil {
		m.interrupt()
	}
	wait := time.Duration(l.waitTime.Load())
	if wait > 0 && !s.has(flagHard) {
		s.clock.drain()
	}
	s.outbox.flush(wire.Try)
	if wait <= 0 {
		l.expire()
	}
}

// expire is the end of a graceful end whose WaitTime is over.
func (l *life) expire() {
	s := l.s
	if t, ok := s.proto.(lastGiver); ok && !s.has(flagHard) {
		s.setFlag(flagExpired) // the reader may miss what is taken from it
		t.giveLast()
	}
	l.countUnacked()
	l.closeHard()
}

// countUnacked notes how much the peer of a session that closes by itself has not acknowledged:
// nobody will know whether it came, once the descriptor is closed.
func (l *life) countUnacked() {
	if n, c := l.unacked(), &l.s.count.UnackedBytes; n > c.Load() {
		c.Store(n)
	}
}

// unacked returns how many bytes the peer of a session that closes by itself has not acknowledged,
// 0 if nobody can tell.
func (l *life) unacked() uint64 {
	s := l.s
	if !s.outbox.queues || !s.has(flagOwnClose) || s.has(flagHard) {
		return 0
	}
	n, err := sendQueue(s.proto.netConn())
	if err != nil {
		return 0
	}
	if s.outbox.hasSentEnd() {
		n-- // the end of the stream is counted like a byte
	}
	return min(uint64(max(n, 0)), s.count.BytesWritten.Load())
}

// awaitAcked returns when the peer has acknowledged everything or can do so no more, for at most
// WaitTime. The kernel does not tell when that is the case, so it is asked. Mostly it need not be:
// a peer's end comes after all it has read.
func (l *life) awaitAcked() {
	for pause := time.Millisecond; l.unacked() > 0; pause = min(2*pause, 8*time.Millisecond) {
		if st, err := alive(l.s.proto.netConn()); err != nil || st == netx.Broken {
			return
		}
		time.Sleep(pause)
	}
}

// drain is the end that Shutdown wants: what was read is handled first.
func (l *life) drain() {
	if l.s.swapIn(flagDrain)&flagReading == 0 { // else the reader sees flagDrain at the read's end
		l.drained()
	}
}

// drained closes a session that is to drain when what was decoded is handled. Nothing more is read.
func (l *life) drained() {
	s := l.s
	m := s.inboxIfStarted()
	if m == nil {
		if !s.has(flagTurn) { // else the turn's end sees the flag
			l.close()
		}
		return
	}
	if s.setFlag(flagDraining) {
		s.spawn(func() {
			m.awaitHandled()
			l.close()
		})
	}
}

// fail ends the session at once, or with a farewell that fits err where the protocol has one; err
// is the cause unless there was one before. It blocks only for as long as it takes to wake who
// waits on the descriptor.
func (l *life) fail(err error) {
	s := l.s
	l.setCause(err)
	if f, ok := s.proto.(failer); ok && f.failing(err) {
		return
	}
	s.setFlag(flagClosing)
	s.outbox.refuse(ErrSessionClosed)
	l.closeHard()
}

// closeHard closes the descriptor and wakes everybody who waits for it.
func (l *life) closeHard() {
	s := l.s
	if !s.setFlag(flagHard) {
		return
	}
	s.outbox.wake()
	if m := s.inboxIfStarted(); m != nil {
		m.interrupt()
		close(m.hard)
	}
	_ = s.proto.close()
}

func (l *life) setCause(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil && !l.s.has(flagEnded) {
		l.cause = err
	}
}

// err is Err of the session.
func (l *life) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// failure returns the cause, for callers who must return some error.
func (l *life) failure() error {
	if err := l.err(); err != nil {
		return err
	}
	return ErrSessionClosed
}

// closedBy is the error of a package that the session's end overtook. It matches ErrSessionClosed, as
// that of a later write does, and the cause.
func (l *life) closedBy() error {
	err := l.failure()
	if errors.Is(err, ErrSessionClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSessionClosed, err)
}

// finished announces that the last callback has returned.
func (l *life) finished() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.done != nil {
		close(l.done)
	}
}

// doneCh is Done of the session.
func (l *life) doneCh() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		l.done = make(chan struct{})
		if l.over {
			close(l.done)
		}
	}
	return l.done
}

// untilHard is a context that ends when the session's descriptor is closed.
type untilHard struct{ *session }

func (c untilHard) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c untilHard) Done() <-chan struct{}       { return c.inbox.hard }
func (c untilHard) Value(any) any               { return nil }
func (c untilHard) Err() error {
	if c.has(flagHard) {
		return ErrSessionClosed
	}
	return nil
}
