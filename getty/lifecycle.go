// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/netx"
	"github.com/gostkit/kit/taskpool"
)

// A transport moves the bytes or messages of one session. Its methods are called by the session only.
type transport interface {
	// serve reads on the session's goroutine until the input ends and hands what it read to the
	// session; the result is io.EOF at the peer's end of stream between packages, else the cause.
	serve(s *session) error
	// encode encodes pkg and queues it (stream) or sends it (datagram). encMu is held.
	encode(s *session, pkg any, w *waiter) (int, error)
	// encodeRaw is encode for what is encoded already: one package, or more.
	encodeRaw(s *session, one []byte, more [][]byte) (int, error)
	// queues reports whether encode queues bytes for write.
	queues() bool
	// write gives b to the kernel and notes in it what was taken. Without wait it returns errWouldBlock
	// instead of blocking; with wait it calls session.account as it goes. Only the holder of the flush
	// token calls it.
	write(s *session, b *batch, wait bool) error
	// farewell returns the last bytes to queue when the session begins to end; they follow everything
	// that was accepted.
	farewell(s *session) []byte
	// discard reads and forgets until the peer ends its stream, and returns io.EOF then. serve has
	// returned.
	discard(s *session) error
	// closeWrite tells the peer that nothing more comes. The flush token is held, the queue empty.
	closeWrite(s *session) error
	// close frees the descriptor and wakes serve and write.
	close() error
	// netConn returns the connection, nil if the session has none of its own.
	netConn() net.Conn
	localAddr() net.Addr
	remoteAddr() net.Addr
}

// A failer is a transport that can tell its peer why a session fails.
type failer interface {
	// failing ends the session gracefully, with a farewell that fits err, and reports whether it could;
	// else the descriptor is closed at once. It does not wait.
	failing(s *session, err error) bool
	// dismiss is failing for a session that did not open. It is called on the session's goroutine and
	// returns when the peer has ended too, or after a short time.
	dismiss(s *session, err error)
}

// session implements Session. One goroutine owns it: it prepares the session, reads until the input ends
// and runs the end. Everything else that touches a session (writers, handlers, the flusher, the wheel)
// is named in docs/architecture.md.
type session struct {
	id     uint64
	bornAt int64
	ep     *endpoint
	tr     transport
	framed framing         // tr, if it cuts the packages out of the stream itself
	opts   *SessionOptions // the endpoint's, never changed

	attributes
	name atomicString

	// Set before OnOpen, constant afterwards.
	listener EventListener
	reader   Reader
	resumer  ResumingReader // reader, if it is one
	writer   Writer
	appender AppendWriter // writer, if it is one
	dispatch Dispatch
	box      *mailbox // nil in inline sessions
	started  atomic.Bool

	// Changed by setters at any time.
	maxMsgLen    atomic.Int64
	writeTimeout atomic.Int64
	waitTime     atomic.Int64

	flags atomic.Uint32
	tasks atomic.Int32 // handlers of unordered packages at work
	clock clock

	queues bool // what is written is queued: tr.queues
	outbound

	endMu sync.Mutex
	cause error         // guarded by endMu: the first reason to end
	done  chan struct{} // guarded by endMu: made by the first Done
	over  bool          // guarded by endMu: OnClose has returned
}

var sessionIDs atomic.Uint64

func newSession(ep *endpoint, tr transport, opts *SessionOptions) *session {
	s := &session{id: sessionIDs.Add(1), bornAt: now(), ep: ep, tr: tr, opts: opts, dispatch: opts.Dispatch, queues: tr.queues()}
	s.framed, _ = tr.(framing)
	s.qCond.L = &s.qMu
	s.hint = 256
	s.lookAfter = smallBacklog
	s.maxMsgLen.Store(int64(opts.MaxMsgLen))
	s.writeTimeout.Store(nanos(opts.WriteTimeout))
	s.waitTime.Store(nanos(opts.WaitTime))
	s.clock.init(s)
	return s
}

// run is the session's goroutine.
func (s *session) run(prepare NewSessionCallback) {
	opened, returned := false, false
	defer func() {
		// A callback, or a user's net.Conn, may have ended this goroutine with Goexit; the session still needs
		// its end. The callback's has a cause already.
		if !returned && opened {
			s.spawn(func() { s.conclude(&PanicError{Where: "net.Conn.Read"}) })
		} else if !returned {
			s.abandon(s.failure())
		}
	}()
	err := s.start(prepare)
	if opened = err == nil; opened {
		err = s.tr.serve(s)
	}
	returned = true
	if opened {
		s.conclude(err)
	} else {
		s.abandon(err)
	}
}

// start runs the user's preparation and OnOpen.
func (s *session) start(prepare NewSessionCallback) (err error) {
	s.beginTurn()
	where, done := "NewSessionCallback", false
	defer func() {
		if !done {
			err = s.panicked(where, recover())
		}
		if err != nil {
			s.setFlag(flagClosing) // so that the turn's end runs no callback
		}
		s.endTurn(0, false)
	}()
	if err = prepare(s); err == nil {
		err = s.prepared()
	}
	if err == nil {
		where = "OnOpen"
		err = s.listener.OnOpen(s)
	}
	if err == nil {
		s.ep.opened(s)
		s.clock.start()
		if s.box != nil && s.has(flagDrain) {
			s.drain() // Shutdown came before there was a mailbox to wait for
		}
	}
	done = true
	return err
}

// prepared checks what the user's preparation set and makes what it needs.
func (s *session) prepared() error {
	switch {
	case s.listener == nil:
		return errors.New("getty: the new-session callback set no event listener")
	case s.reader == nil:
		return fmt.Errorf("%w: the new-session callback set no Reader", ErrBadReader)
	}
	if s.dispatch != Inline {
		s.box = newMailbox(s.opts.MailboxLen, s.opts.MailboxBytes)
		s.box.hard = make(chan struct{})
		s.box.pool = s.ep.taskPool()
		s.box.strand.Init(s.box.pool, s.handleBatch)
		s.box.strand.OnDrop(func() { s.fail(fmt.Errorf("getty: task pool: %w", taskpool.ErrClosed)) })
	}
	s.started.Store(true)
	return nil
}

// mailbox returns the session's mailbox for those who may come while it is still being prepared.
func (s *session) mailbox() *mailbox {
	if !s.started.Load() {
		return nil
	}
	return s.box
}

// abandon ends a session that never opened: no callback runs any more.
func (s *session) abandon(err error) {
	s.setCause(err)
	if f, ok := s.tr.(failer); ok {
		f.dismiss(s, err)
	}
	s.setFlag(flagClosing | flagEnded)
	s.refuse(ErrSessionClosed)
	s.closeHard()
	s.discardQueue()
	s.awaitClosed()
	s.clock.stop()
	s.ep.refused(s, err)
	s.finished()
}

// conclude is the end of a session that was opened. err is why the input ended.
func (s *session) conclude(err error) {
	s.clearFlag(flagReading)
	called := false
	defer func() {
		// A callback may have ended this goroutine with Goexit, and the session with that.
		if !called {
			s.spawn(func() { s.conclude(err) })
		}
	}()
	switch {
	case s.has(flagHard | flagExpired):
	case !s.has(flagClosing):
		// The peer has ended its stream or broken it: what it sent before is handled, and what that
		// answers is flushed.
		s.handleRest()
		if err == io.EOF {
			s.awaitLastWrites()
		}
		if !s.has(flagClosing) {
			s.setCause(err)
		}
		s.shut()
	case err != io.EOF && err != io.ErrUnexpectedEOF:
		s.setCause(err) // a closing peer answers our end with a reset
	}
	called = true
	// What still comes is read, since closing over it would destroy our last bytes with a reset.
	if !s.has(flagHard) {
		end := s.tr.discard(s)
		s.awaitFlushed()
		if end == io.EOF {
			s.awaitAcked()
		}
	}
	s.setFlag(flagClosing)
	s.refuse(ErrSessionClosed)
	s.countUnacked()
	s.closeHard()
	s.discardQueue()
	s.awaitClosed()
	s.clock.stop()
	s.ep.freed(s)
	s.callbacksOfEnd()
}

// handleRest returns when everything that was decoded is handled, or the session is closed
// meanwhile.
func (s *session) handleRest() {
	if s.box == nil {
		return
	}
	if s.dispatch == Unordered {
		for s.box.waits() { // the pool may be one that drops tasks
			s.handleOne()
		}
	}
	s.box.awaitHandled()
}

// awaitLastWrites lets a listener that wants to go on writing after the peer's end do so, until it
// closes the session or the time for that is over.
func (s *session) awaitLastWrites() {
	l, ok := s.listener.(ReadEndListener)
	if !ok || s.flags.Or(flagReadEnd)&(flagClosing|flagDrain) != 0 {
		return
	}
	s.readEnded(l)
	over := false // guarded by qMu
	if limit := s.opts.HalfClose; limit > 0 {
		t := s.ep.wheel.AfterFunc(time.Duration(nanos(limit)), func() {
			s.qMu.Lock()
			over = true
			s.qCond.Broadcast()
			s.qMu.Unlock()
		})
		defer t.Stop()
	}
	s.qMu.Lock()
	for !over && !s.has(flagClosing) {
		s.qCond.Wait()
	}
	s.qMu.Unlock()
}

// readEnded is the turn of OnReadEnd.
func (s *session) readEnded(l ReadEndListener) {
	s.beginTurn()
	done := false
	defer func() {
		if !done {
			s.panicked("OnReadEnd", recover())
		}
		s.endTurn(0, false)
	}()
	if !s.has(flagClosing) {
		l.OnReadEnd(s)
	}
	done = true
}

// callbacksOfEnd waits for the callback that may be running, and runs the last ones. All of it is
// deferred, so that neither a panic nor a Goexit in one of them leaves a step out.
func (s *session) callbacksOfEnd() {
	s.beginTurn()
	if s.box != nil {
		s.tally(&s.count.Undelivered, s.box.clear())
	}
	s.settleCause()
	s.setFlag(flagEnded)
	defer s.finished()
	defer s.ep.ended(s)
	defer s.endTurn(0, false)
	defer s.guard("OnClose", func() { s.listener.OnClose(s) })
	if err := s.Err(); !s.cleanEnd(err) {
		s.guard("OnError", func() { s.listener.OnError(s, err) })
	}
}

// guard runs one of the last callbacks. A panic in it can only be logged.
func (s *session) guard(where string, f func()) {
	done := false
	defer func() {
		if !done {
			_ = s.panicked(where, recover())
		}
	}()
	f()
	done = true
}

// settleCause fixes what Err returns, and the last counts.
func (s *session) settleCause() {
	st := s.Stats()
	if st.UnackedBytes > 0 {
		s.settleUnacked()
	}
	switch {
	case !s.has(flagOwnClose):
	case st.Unsent > 0:
		s.setCause(fmt.Errorf("%w: closed with %d packages unsent", ErrWriteTimeout, st.Unsent))
	case st.UnackedBytes > 0:
		s.setCause(fmt.Errorf("%w: %d bytes", ErrUnacknowledged, st.UnackedBytes))
	}
}

// settleUnacked counts the packages that the unacknowledged bytes belong to. Where their bounds lay
// is not known any more; there are at least as many as there would be if all were as large as the
// largest.
func (s *session) settleUnacked() {
	s.encMu.Lock()
	largest := uint64(max(s.largest, 1))
	s.encMu.Unlock()
	s.qMu.Lock()
	defer s.qMu.Unlock()
	c := &s.count
	none := s.controls // bytes that belong to no package
	if socketOf(s.tr.netConn()) == nil {
		none += 128 // such as the close_notify of TLS
	}
	pkgs := (c.UnackedBytes - min(c.UnackedBytes, none) + largest - 1) / largest
	if c.Unsent > 0 && pkgs > 0 {
		pkgs-- // it may be the package of which the rest is unsent
	}
	c.Unacked = min(pkgs, c.PkgsWritten)
	c.Unsent += c.Unacked
	c.UnsentBytes += c.UnackedBytes
}

// cleanEnd reports whether a session that ended with err needs no OnError.
func (s *session) cleanEnd(err error) bool {
	return (err == nil || err == io.EOF || err == ErrSessionClosed) && s.Stats().Unsent == 0
}

// Close implements [Session].
func (s *session) Close() {
	if !s.setFlag(flagOwnClose) {
		return
	}
	s.shut()
}

// shut begins the graceful end: nothing more in either direction, flush, end of stream.
func (s *session) shut() {
	s.setFlag(flagClosing)
	s.refuseWith(ErrSessionClosed, s.tr.farewell(s))
	if box := s.mailbox(); box != nil {
		box.interrupt()
	}
	wait := time.Duration(s.waitTime.Load())
	if wait > 0 && !s.has(flagHard) {
		s.clock.drain()
	}
	s.flush()
	if wait <= 0 {
		s.expire()
	}
}

// A lastGiver is a transport that has something left to do when WaitTime is over.
type lastGiver interface{ giveLast(s *session) }

// expire is the end of a graceful end whose WaitTime is over.
func (s *session) expire() {
	if t, ok := s.tr.(lastGiver); ok && !s.has(flagHard) {
		s.setFlag(flagExpired) // the reader may miss what is taken from it
		t.giveLast(s)
	}
	s.countUnacked()
	s.closeHard()
}

// countUnacked notes how much the peer of a session that closes by itself has not acknowledged:
// nobody will know whether it came, once the descriptor is closed.
func (s *session) countUnacked() {
	n := s.unacked()
	s.qMu.Lock()
	s.count.UnackedBytes = max(s.count.UnackedBytes, n)
	s.qMu.Unlock()
}

// unacked returns how many bytes the peer of a session that closes by itself has not acknowledged,
// 0 if nobody can tell.
func (s *session) unacked() uint64 {
	if !s.queues || !s.has(flagOwnClose) || s.has(flagHard) {
		return 0
	}
	n, err := sendQueue(s.tr.netConn())
	if err != nil {
		return 0
	}
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.finSent {
		n-- // the end of the stream is counted like a byte
	}
	return min(uint64(max(n, 0)), s.count.BytesWritten)
}

// awaitAcked returns when the peer has acknowledged everything or can do so no more, for at most
// WaitTime. The kernel does not tell when that is the case, so it is asked. Mostly it need not be:
// a peer's end comes after all it has read.
func (s *session) awaitAcked() {
	for pause := time.Millisecond; s.unacked() > 0; pause = min(2*pause, 8*time.Millisecond) {
		if st, err := alive(s.tr.netConn()); err != nil || st == netx.Broken {
			return
		}
		time.Sleep(pause)
	}
}

// drain is the end that Shutdown wants: what was read is handled first.
func (s *session) drain() {
	if s.flags.Or(flagDrain)&flagReading == 0 { // else the reader sees flagDrain at the read's end
		s.drained()
	}
}

// drained closes a session that is to drain when what was decoded is handled. Nothing more is read.
func (s *session) drained() {
	box := s.mailbox()
	if box == nil {
		if !s.has(flagTurn) { // else the turn's end sees the flag
			s.Close()
		}
		return
	}
	if s.setFlag(flagDraining) {
		s.spawn(func() {
			box.awaitHandled()
			s.Close()
		})
	}
}

// CloseNow implements [Session].
func (s *session) CloseNow() { s.fail(ErrSessionClosed) }

// fail ends the session at once; err is the cause unless there was one before. It blocks only for as long
// as it takes to wake who waits on the descriptor.
func (s *session) fail(err error) {
	s.setCause(err)
	if f, ok := s.tr.(failer); ok && f.failing(s, err) {
		return
	}
	s.setFlag(flagClosing)
	s.refuse(ErrSessionClosed)
	s.closeHard()
}

// closeHard closes the descriptor and wakes everybody who waits for it.
func (s *session) closeHard() {
	if !s.setFlag(flagHard) {
		return
	}
	s.qMu.Lock()
	s.qCond.Broadcast()
	s.qMu.Unlock()
	if box := s.mailbox(); box != nil {
		box.interrupt()
		close(box.hard)
	}
	_ = s.tr.close()
}

// untilHard is a context that ends when the session's descriptor is closed.
type untilHard struct{ *session }

func (c untilHard) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c untilHard) Done() <-chan struct{}       { return c.box.hard }
func (c untilHard) Value(any) any               { return nil }
func (c untilHard) Err() error {
	if c.has(flagHard) {
		return ErrSessionClosed
	}
	return nil
}

func (s *session) setCause(err error) {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if s.cause == nil && !s.has(flagEnded) {
		s.cause = err
	}
}

// failure returns the cause, for callers who must return some error.
func (s *session) failure() error {
	if err := s.Err(); err != nil {
		return err
	}
	return ErrSessionClosed
}

// closedBy is the error of a package that the session's end overtook. It matches ErrSessionClosed, as
// that of a later write does, and the cause.
func (s *session) closedBy() error {
	err := s.failure()
	if errors.Is(err, ErrSessionClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrSessionClosed, err)
}

// finished announces that the last callback has returned.
func (s *session) finished() {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	s.over = true
	if s.done != nil {
		close(s.done)
	}
}

// Done implements [Session].
func (s *session) Done() <-chan struct{} {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.over {
			close(s.done)
		}
	}
	return s.done
}

// Err implements [Session].
func (s *session) Err() error {
	s.endMu.Lock()
	defer s.endMu.Unlock()
	return s.cause
}

// IsClosed implements [Session].
func (s *session) IsClosed() bool { return s.has(flagRefuse) }

// spawn runs f on a goroutine that the endpoint waits for.
func (s *session) spawn(f func()) { s.ep.spawn(f) }

// ID implements [Session].
func (s *session) ID() uint64 { return s.id }

// EndPoint implements [Session].
func (s *session) EndPoint() EndPoint { return s.ep.self }

// Conn implements [Session].
func (s *session) Conn() net.Conn { return s.tr.netConn() }

// LocalAddr implements [Session].
func (s *session) LocalAddr() string { return addrText(s.tr.localAddr()) }

// RemoteAddr implements [Session].
func (s *session) RemoteAddr() string { return addrText(s.tr.remoteAddr()) }

func addrText(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}

// GetActive implements [Session].
func (s *session) GetActive() time.Time { return s.clock.active() }

// UpdateActive implements [Session].
func (s *session) UpdateActive() { s.clock.touch() }

// SetPkgHandler implements [Session].
func (s *session) SetPkgHandler(rw ReadWriter) error {
	if err := s.SetReader(rw); err != nil {
		return err
	}
	return s.SetWriter(rw)
}

// SetReader implements [Session].
func (s *session) SetReader(r Reader) error {
	if s.started.Load() {
		return ErrSessionStarted
	}
	s.reader = r
	s.resumer, _ = r.(ResumingReader)
	return nil
}

// SetWriter implements [Session].
func (s *session) SetWriter(w Writer) error {
	if s.started.Load() {
		return ErrSessionStarted
	}
	s.writer = w
	s.appender, _ = w.(AppendWriter)
	return nil
}

// SetEventListener implements [Session].
func (s *session) SetEventListener(l EventListener) error {
	if s.started.Load() {
		return ErrSessionStarted
	}
	s.listener = l
	return nil
}

// SetDispatch implements [Session].
func (s *session) SetDispatch(d Dispatch) error {
	if s.started.Load() {
		return ErrSessionStarted
	}
	if d < Inline || d > Unordered {
		return fmt.Errorf("getty: unknown dispatch %d", int(d))
	}
	s.dispatch = d
	return nil
}

// SetName implements [Session].
func (s *session) SetName(name string) { s.name.Store(name) }

// SetMaxMsgLen implements [Session].
func (s *session) SetMaxMsgLen(n int) {
	if n <= 0 {
		n = DefaultMaxMsgLen
	}
	s.maxMsgLen.Store(int64(n))
}

// MaxMsgLen implements [Session].
func (s *session) MaxMsgLen() int { return int(s.maxMsgLen.Load()) }

// SetReadTimeout implements [Session].
func (s *session) SetReadTimeout(d time.Duration) {
	if d == 0 {
		d = DefaultReadTimeout
	}
	s.clock.setLimit(&s.clock.readLimit, d)
}

// SetIdleTimeout implements [Session].
func (s *session) SetIdleTimeout(d time.Duration) { s.clock.setLimit(&s.clock.idleLimit, d) }

// SetWriteTimeout implements [Session].
func (s *session) SetWriteTimeout(d time.Duration) {
	if d == 0 {
		d = DefaultWriteTimeout
	}
	s.writeTimeout.Store(nanos(d))
	s.clock.review() // a write may be waiting
}

// SetWaitTime implements [Session].
func (s *session) SetWaitTime(d time.Duration) {
	if d == 0 {
		d = DefaultWaitTime
	}
	s.waitTime.Store(nanos(d))
	if s.clock.drainAt.Load() != 0 {
		s.clock.review() // it limits an end that has begun
	}
}

// SetCronPeriod implements [Session].
func (s *session) SetCronPeriod(d time.Duration) { s.clock.setLimit(&s.clock.cronPeriod, d) }
