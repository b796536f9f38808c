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

// A life is how a session ends: gracefully, at once, or first the one and then the other. The first
// reason is the cause; later ones change nothing.
//
// The graceful end: nothing is accepted or delivered any more, what is queued is flushed, the peer
// is told the end of the stream, and what it still sends is discarded until it ends too. WaitTime
// limits the flush, and again the wait for the peer. The hard end closes the descriptor, which
// wakes every goroutine that waits for it.
type life struct {
	s        *session
	waitTime atomic.Int64

	mu    sync.Mutex
	cause error         // guarded by mu: the first reason to end
	done  chan struct{} // guarded by mu: made by the first Done
	over  bool          // guarded by mu: OnClose and the endings have returned

	extras *extras // guarded by mu: made when first needed
}

// abandon ends a session that never opened: no callback runs any more.
func (l *life) abandon(err error) {
	s := l.s
	l.setCause(err)
	if f, ok := s.proto.(failer); ok {
		f.dismiss(err) // first, while the peer can still be told
	}
	s.setFlag(flagClosing | flagEnded)
	s.outbox.refuse(ErrSessionClosed)
	l.free()
	s.clock.stop()
	s.ep.refused(s, err)
	l.finished()
}

// conclude brings a session that was opened to where only its last callbacks are to run. err is why
// its input ended. The order of its steps: handle the packages that were read, flush the answers,
// read to the peer's end, and only then close the descriptor.
func (l *life) conclude(err error) {
	s := l.s
	// A Shutdown must not wait for this reader any more; see drain.
	s.clearFlag(flagReading)
	called := false
	defer func() {
		// A callback below has ended this goroutine with Goexit, which also fails the session. It
		// still needs its end, on another goroutine.
		if !called {
			s.spawn(func() { s.end(err) })
		}
	}()
	switch {
	case s.has(flagHard | flagExpired): // the descriptor is closed or about to be
	case !s.has(flagClosing):
		// The peer has ended its stream or broken it. Handlers come first: shut discards what they
		// have not got and refuses their answers.
		if s.inbox != nil {
			s.inbox.handleRest()
		}
		if err == io.EOF {
			l.awaitLastWrites()
		}
		// A handler may have closed the session meanwhile. Then its Close is the end that Err
		// tells.
		if !s.has(flagClosing) {
			l.setCause(err)
		}
		l.shut()
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		// We are closing, and the peer broke the connection before it took everything. A mere end
		// of its stream is the answer that we wait for.
		l.setCause(err)
	}
	called = true
	if !s.has(flagHard) {
		// The peer's last bytes are read first: a descriptor that is closed over unread input sends
		// a reset, and the peer loses the bytes of ours that it has not yet read. Reading also lets
		// a peer go on that reads nothing before it has sent everything.
		end := s.proto.discard()
		s.outbox.awaitFlushed()
		if end == io.EOF {
			l.awaitAcked()
		}
	}
	// Not every way above has done this.
	s.setFlag(flagClosing)
	s.outbox.refuse(ErrSessionClosed)
	// The kernel tells only as long as the descriptor is open.
	l.countUnacked()
	l.free()
	s.clock.stop() // the limits applied up to here
	s.stopPacing()
	s.ep.freed(s) // last: a client may dial for the place at once
}

// free ends the session hard and returns when its descriptor is free and nothing is written any
// more.
func (l *life) free() {
	l.closeHard()
	// Again: while a callback ran below the link's Run, the connection was only shut down. That
	// callback has returned, and the descriptor can be closed.
	_ = l.s.proto.close()
	l.s.outbox.discard()
	l.s.awaitClosed()
}

// awaitLastWrites serves a [ReadEndListener]: it returns when the listener has closed the session,
// or when HalfClose is over.
func (l *life) awaitLastWrites() {
	s := l.s
	listener, ok := s.turn.listener.(ReadEndListener)
	// A session that is to end anyway does not stay open for it, nor one that has ended its own
	// stream already.
	if !ok || s.swapIn(flagReadEnd)&(flagClosing|flagDrain|flagRefuse) != 0 {
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
// OnError, nil after a clean end. The session's token is held.
func (l *life) settle() error {
	s := l.s
	if s.inbox != nil { // the handlers had their chance in conclude
		s.count.undelivered(s.inbox.clear())
	}
	unsent, unacked := s.count.look().Unsent.Load(), s.count.look().UnackedBytes.Load()
	if unacked > 0 {
		l.settleUnacked()
	}
	switch {
	case !s.has(flagOwnClose): // there is another cause
	case unsent > 0:
		l.setCause(fmt.Errorf("%w: closed with %d packages unsent", ErrWriteTimeout, unsent))
	case unacked > 0:
		l.setCause(fmt.Errorf("%w: %d bytes", ErrUnacknowledged, unacked))
	case s.has(flagExpired) && !s.saidGoodbye():
		// The peer got everything, but takes the end for a cut.
		l.setCause(fmt.Errorf("%w: closed before the end of the stream was sent", ErrWriteTimeout))
	}
	// From here on the cause stays as it is: OnError, OnClose and Err tell the same.
	s.setFlag(flagEnded)
	err := l.err()
	clean := err == nil || err == io.EOF || err == ErrSessionClosed
	if clean && s.count.look().Unsent.Load() == 0 {
		return nil
	}
	return l.failure()
}

// settleUnacked counts the packages that the unacknowledged bytes belong to. The bounds between
// packages that were written are not kept, so it counts as many as there are at least: all are
// taken to be as large as the largest one.
func (l *life) settleUnacked() {
	s := l.s
	largest, none := s.outbox.sizes()
	if wire.Socket(s.proto.netConn()) == nil {
		// A connection of the user's may send bytes of its own, such as the close_notify of TLS.
		none += 128
	}
	c := s.count.rarely()
	unacked := c.UnackedBytes.Load()
	pkgs := (unacked - min(unacked, none) + largest - 1) / largest
	if c.Unsent.Load() > 0 && pkgs > 0 {
		pkgs-- // it may be the package of which the rest is unsent
	}
	pkgs = min(pkgs, s.count.PkgsWritten.Load())
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
		m.interrupt() // the reader may be waiting for room, and no package is handled any more
	}
	wait := time.Duration(l.waitTime.Load())
	if wait > 0 && !s.has(flagHard) {
		s.clock.drain()
	}
	// Also when nothing is queued: the flush that finds the queue empty ends the stream.
	s.outbox.flush(wire.Try)
	if wait <= 0 {
		l.expire()
	}
}

// expire ends a session hard whose graceful end has come to its WaitTime.
func (l *life) expire() {
	s := l.s
	if t, ok := s.proto.(lastGiver); ok && !s.has(flagHard) {
		// giveLast takes input away from the reader. If that is in a callback it might find half a
		// package afterwards, which the flag keeps from becoming the cause.
		s.setFlag(flagExpired)
		t.giveLast()
	}
	l.countUnacked()
	l.closeHard()
}

// countUnacked notes how much the peer of a session that closes by itself has not acknowledged.
// Once the descriptor is closed that cannot be found out any more.
func (l *life) countUnacked() {
	if n := l.unacked(); n > l.s.count.look().UnackedBytes.Load() {
		l.s.count.rarely().UnackedBytes.Store(n)
	}
}

// unacked returns how many bytes the peer of a session that closes by itself has not acknowledged,
// 0 if the system cannot tell.
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
		if t, ok := s.proto.(interface{ lastWords() int }); ok {
			n -= t.lastWords()
		}
	}
	return min(uint64(max(n, 0)), s.count.BytesWritten.Load())
}

// awaitAcked returns when the peer has acknowledged everything or can do so no more, for at most
// WaitTime.
func (l *life) awaitAcked() {
	// No event tells when everything is acknowledged, so the kernel is asked again and again.
	// Mostly once is enough: a peer ends its stream after it has read ours.
	for pause := time.Millisecond; l.unacked() > 0; pause = min(2*pause, 8*time.Millisecond) {
		if st, err := alive(l.s.proto.netConn()); err != nil || st == netx.Broken {
			return
		}
		if t, ok := l.s.proto.(interface{ broke() bool }); ok && t.broke() {
			return // its error has been taken from the socket, which looks sound again
		}
		time.Sleep(pause)
	}
}

// drain begins the end that Shutdown wants: what was read is handled first.
func (l *life) drain() {
	// If a read is in progress, its end sees flagDrain and calls drained: what it has brought is to
	// be handled too.
	if l.s.swapIn(flagDrain)&flagReading == 0 {
		l.drained()
	}
}

// drained closes a session that is to drain as soon as what was decoded is handled. Nothing more is
// read.
func (l *life) drained() {
	s := l.s
	m := s.inboxIfStarted()
	if m == nil {
		if !s.has(flagTurn) { // else the end of the turn sees flagDrain and closes
			l.close()
		}
		return
	}
	// On a goroutine of its own: Shutdown has other sessions to drain, and must not wait for the
	// handlers of this one here.
	if s.setFlag(flagDraining) {
		s.spawn(func() {
			m.awaitHandled()
			l.close()
		})
	}
}

// fail ends the session at once, or with a farewell that fits err where the protocol has one; err
// is the cause unless there was one before. It does not wait for the peer or for callbacks.
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

// closeHard closes the descriptor and wakes every goroutine that waits for the session.
func (l *life) closeHard() {
	s := l.s
	// Before the descriptor is closed: a goroutine that meets the error of a closed descriptor must
	// find flagHard set, or it would take that error for the cause.
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

// failure returns the cause, or ErrSessionClosed where there is none.
func (l *life) failure() error {
	if err := l.err(); err != nil {
		return err
	}
	return ErrSessionClosed
}

// closedBy returns the error for a package that could not be sent before the session ended. It
// matches ErrSessionClosed, like the error of a later write, and the cause.
func (l *life) closedBy() error {
	err := l.failure()
	if errors.Is(err, ErrSessionClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSessionClosed, err)
}

// finished runs the endings, now that OnClose has returned, and announces the end.
func (l *life) finished() {
	// Deferred, so that an ending that ends this goroutine with Goexit keeps nothing from Done.
	if list := l.takeEndings(); list != nil {
		defer l.finished() // perhaps more were added meanwhile
		l.runEndings(list)
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
