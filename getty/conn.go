// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// session implements Session. It is made of parts that own their state, and only forwards to them:
//
//	life    how it ends, and why
//	turn    the user's callbacks, one after the other
//	codec   the user's Reader and Writer
//	inbox   decoded packages that a pool has not handled (Ordered and Unordered dispatch)
//	outbox  encoded packages that the kernel has not taken
//	clock   every limit on time
//	proto   bytes to packages and back, over a link that moves the bytes
//
// Its three entries are in pump.go. docs/architecture.md tells which goroutines call them.
type session struct {
	id     uint64
	bornAt int64
	ep     *endpoint
	opts   *SessionOptions // the endpoint's, never changed

	state
	started atomic.Bool // codec, listener and dispatch are set, the inbox is made
	attributes
	name      atomicString
	maxMsgLen atomic.Int64
	dispatch  Dispatch // constant after OnOpen
	place     place
	pacer     *pacer // used by the goroutine that reads; made when first needed

	life   life
	turn   turn
	codec  sessionCodec
	inbox  *inbox // nil in inline sessions
	outbox outbox
	clock  clock
	count  counters
	proto  protocol
}

var sessionIDs atomic.Uint64

func newSession(ep *endpoint, proto protocol, opts *SessionOptions) *session {
	s := &session{
		id: sessionIDs.Add(1), bornAt: now(), ep: ep, proto: proto, opts: opts,
		dispatch: opts.Dispatch,
	}
	s.life.s, s.turn.s, s.codec.s = s, s, s
	s.codec.framing, _ = proto.(framing)
	s.outbox.init(s, proto.queues())
	s.clock.init(s)
	s.maxMsgLen.Store(int64(opts.MaxMsgLen))
	s.life.waitTime.Store(nanos(opts.WaitTime))
	proto.attach(s)
	return s
}

// inboxIfStarted returns the session's inbox, nil while the session is still being prepared. Other
// goroutines than that of the preparation must not look at the inbox before.
func (s *session) inboxIfStarted() *inbox {
	if !s.started.Load() {
		return nil
	}
	return s.inbox
}

// Close implements [Session].
func (s *session) Close() { s.life.close() }

// CloseNow implements [Session].
func (s *session) CloseNow() { s.life.fail(ErrSessionClosed) }

// Done implements [Session].
func (s *session) Done() <-chan struct{} { return s.life.doneCh() }

// Err implements [Session].
func (s *session) Err() error { return s.life.err() }

// IsClosed implements [Session].
func (s *session) IsClosed() bool { return s.has(flagRefuse) }

// spawn runs f on a goroutine that the endpoint waits for.
func (s *session) spawn(f func()) { s.ep.spawn(f) }

// WritePkg implements [Session].
func (s *session) WritePkg(pkg any, timeout time.Duration) (total, sent int, err error) {
	return s.outbox.writePkg(pkg, timeout)
}

// WritePkgContext implements [Session].
func (s *session) WritePkgContext(ctx context.Context, pkg any) (total, sent int, err error) {
	return s.outbox.writePkgContext(ctx, pkg)
}

// WriteBytes implements [Session].
func (s *session) WriteBytes(b []byte) (int, error) { return s.outbox.writeRaw(b, nil) }

// WriteBytesContext implements [Session].
func (s *session) WriteBytesContext(ctx context.Context, b []byte) (int, error) {
	return s.outbox.writeBytesContext(ctx, b)
}

// WriteBytesArray implements [Session].
func (s *session) WriteBytesArray(pkgs ...[]byte) (int, error) {
	if len(pkgs) == 0 {
		return 0, nil
	}
	return s.outbox.writeRaw(nil, pkgs)
}

// Flush implements [Session].
func (s *session) Flush(ctx context.Context) error { return s.outbox.flushAll(ctx) }

// ID implements [Session].
func (s *session) ID() uint64 { return s.id }

// EndPoint implements [Session].
func (s *session) EndPoint() EndPoint { return s.ep.self }

// Conn implements [Session].
func (s *session) Conn() net.Conn { return s.proto.netConn() }

// LocalAddr implements [Session].
func (s *session) LocalAddr() string { return addrText(s.proto.localAddr()) }

// RemoteAddr implements [Session].
func (s *session) RemoteAddr() string { return addrText(s.proto.remoteAddr()) }

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
	s.codec.setReader(r)
	return nil
}

// SetWriter implements [Session].
func (s *session) SetWriter(w Writer) error {
	if s.started.Load() {
		return ErrSessionStarted
	}
	s.codec.setWriter(w)
	return nil
}

// SetEventListener implements [Session].
func (s *session) SetEventListener(l EventListener) error {
	if s.started.Load() {
		return ErrSessionStarted
	}
	s.turn.listener = l
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
	s.outbox.writeTimeout.Store(nanos(d))
	s.clock.review() // a write may be waiting
}

// SetWaitTime implements [Session].
func (s *session) SetWaitTime(d time.Duration) {
	if d == 0 {
		d = DefaultWaitTime
	}
	s.life.waitTime.Store(nanos(d))
	if s.clock.drainAt.Load() != 0 {
		s.clock.review() // it limits an end that has begun already
	}
}

// SetCronPeriod implements [Session].
func (s *session) SetCronPeriod(d time.Duration) { s.clock.setLimit(&s.clock.cronPeriod, d) }
