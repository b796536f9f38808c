// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"iter"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty/internal/wire"
)

// PendingTimers returns how many timers the wheel of the process holds.
func PendingTimers() int {
	wheelUse.Lock()
	defer wheelUse.Unlock()
	if wheelUse.wheel == nil {
		return 0
	}
	return wheelUse.wheel.Stats().Pending
}

// Now returns the time of sessions.
var Now = now

// WheelRuns reports whether the process has a timer wheel, which is so while any endpoint runs.
func WheelRuns() bool {
	wheelUse.Lock()
	defer wheelUse.Unlock()
	return wheelUse.wheel != nil
}

// NewDialedClient returns a client of plain streams whose connections come from dial.
func NewDialedClient(dial func(context.Context) (net.Conn, error), opts ...ClientOption) *Client {
	return newClient(opts, func(ctx context.Context, _ *ClientOptions) (protocol, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return newStream(conn, CompressNone), nil
	}, tcpClient)
}

// Held tells which memory a session of a byte stream holds. It races with a session that is not idle.
func Held(ss Session) (readBuffer, batch, mailQueues bool) {
	s := ss.(*session)
	if s.inbox != nil {
		s.inbox.mu.Lock()
		mailQueues = s.inbox.in != nil || s.inbox.cur != nil
		s.inbox.mu.Unlock()
	}
	return streamOf(s).in.Held() != 0, HoldsBatch(ss), mailQueues
}

func streamOf(s *session) *stream {
	if ws, ok := s.proto.(*webSocket); ok {
		return ws.stream
	}
	return s.proto.(*stream)
}

// HoldsBatch tells whether a session holds memory for packages to be sent.
func HoldsBatch(ss Session) bool {
	s := ss.(*session)
	s.outbox.encMu.Lock()
	defer s.outbox.encMu.Unlock()
	return s.outbox.out != nil
}

// AwaitsReview reports whether it was left to the holder of the encoder lock to look whether the queue has fallen.
func AwaitsReview(ss Session) bool { return ss.(*session).has(flagReview) }

// KeptBuffer returns the size of the buffer that holds an incomplete package.
func KeptBuffer(ss Session) int { return ss.(*session).proto.(*stream).in.Held() }

// ControlHeld returns how many bytes of control frames wait for a flush.
func ControlHeld(ss Session) int {
	s := ss.(*session)
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	return len(s.outbox.sideLocked().control)
}

// BackOff returns the longest wait of a client that has failed so often.
func BackOff(interval, most time.Duration, failures int) time.Duration {
	return backOff(&ClientOptions{ReconnectInterval: interval, ReconnectMax: most}, failures)
}

// MarksHeld returns how many callers of Flush a session knows of.
func MarksHeld(ss Session) int {
	s := ss.(*session)
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	return len(s.outbox.sideLocked().marks)
}

// InLine returns how many writers wait for the queue to fall.
func InLine(ss Session) int {
	s := ss.(*session)
	s.outbox.mu.Lock()
	defer s.outbox.mu.Unlock()
	return len(s.outbox.sideLocked().line)
}

// WasAway makes a session's clock believe that this process did not run for d, and has its timer fire.
func WasAway(ss Session, d time.Duration) {
	s := ss.(*session)
	c := &s.clock
	back := func(p *int64) {
		if *p != 0 {
			*p -= int64(d)
		}
	}
	c.mu.Lock()
	for !ss.IsClosed() && (c.due == 0 || s.turn.inProgress() || s.inboxIfStarted() != nil && s.inbox.waiting()) {
		c.mu.Unlock() // it has not begun, or a callback is at work, which is a sign of life
		time.Sleep(time.Millisecond)
		c.mu.Lock()
	}
	for _, p := range []*atomic.Int64{&c.heardAt, &c.begunAt, &c.stalledAt, &c.drainAt} {
		if at := p.Load(); at != 0 {
			p.Store(at - int64(d))
		}
	}
	for _, p := range []*int64{&c.due, &c.cronAt, &c.pingAt, &c.askedAt} {
		back(p)
	}
	if l := c.looks; l != nil {
		back(&l.backlog.since)
		back(&l.backlog.again)
		for i := range l.reprieve {
			back(&l.reprieve[i].at)
		}
	}
	c.mu.Unlock()
	c.review()
}

// PackageBegun reports whether the clock runs for an incomplete package, WriteStalled whether it does for a write.
func PackageBegun(ss Session) bool { return ss.(*session).clock.begunAt.Load() != 0 }
func WriteStalled(ss Session) bool { return ss.(*session).clock.stalledAt.Load() != 0 }

// Places returns how many places for sessions are taken.
func Places(e EndPoint) int64 {
	switch e := e.(type) {
	case *Server:
		return e.ep.places.taken.Load()
	case *WSEndPoint:
		return e.ep.places.taken.Load()
	}
	panic("a client has no places")
}

// AddrsKnown returns how many addresses an endpoint counts the places of.
func AddrsKnown(e EndPoint) int {
	p := &e.(interface{ endpoint() *endpoint }).endpoint().places
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.byAddr)
}

func (s *Server) endpoint() *endpoint { return s.ep }

// Neighbourhood returns what counts as the address of a peer.
func Neighbourhood(a net.Addr) string {
	if p := neighbourhood(a); p.IsValid() {
		return p.String()
	}
	return ""
}

// IsPaced reports whether reading pauses for ReadRate.
func IsPaced(ss Session) bool { return ss.(*session).paced() }

// Renew has the reader of a session replaced when it next waits.
func Renew(ss Session) { ss.(*session).proto.(renewer).renew() }

// A FakeWriter is the writing half of a UDP socket whose outcomes are the test's.
type FakeWriter struct {
	Write func(b []byte) error
	Room  func() error
}

func (f FakeWriter) TryWrite(b []byte, _ netip.AddrPort, _ netip.Addr) error { return f.Write(b) }
func (f FakeWriter) AwaitWritable() error                                    { return f.Room() }

// Fake puts f in the place of the writing half of a UDP session's socket.
func Fake(ss Session, f FakeWriter) {
	s := ss.(*session)
	s.outbox.encMu.Lock()
	defer s.outbox.encMu.Unlock()
	s.proto.(*datagrams).out = f
}

// Limits returns what MaxMsgLen, ReadTimeout, IdleTimeout, WriteTimeout, WaitTime and CronPeriod mean for a session;
// all that is negative, or not positive, means the same.
func Limits(ss Session) [6]int64 {
	s := ss.(*session)
	return [6]int64{
		s.maxMsgLen.Load(), max(s.clock.readLimit.Load(), 0), max(s.clock.idleLimit.Load(), 0),
		max(s.outbox.writeTimeout.Load(), 0), max(s.life.waitTime.Load(), 0), max(s.clock.cronPeriod.Load(), 0),
	}
}

// NewLogger returns the logger of an endpoint with the given name.
var NewLogger = newLogger

// OptionNames returns the options that optionuse.go lists.
func OptionNames() []string { return slices.Collect(maps.Keys(optionUse)) }

// OptionsIn yields the options in what o points to, by the names that users write.
func OptionsIn(o any) iter.Seq2[string, reflect.Value] {
	return optionsIn(reflect.ValueOf(o).Elem(), "")
}

// HasFreed reports whether a session's descriptor is closed, or about to be.
func HasFreed(ss Session) bool { return ss.(*session).has(flagHard) }

// FlushLate is Flush of a session that end ends between its two steps: the mark is queued before, and the flush comes
// when the flusher has met the end. The caller is a callback of the session, so that its own end has to wait.
func FlushLate(ss Session, end func()) error {
	o := &ss.(*session).outbox
	w := o.s.ep.waiters.New()
	if wait, err := o.enqueueMark(w); !wait {
		return err
	}
	end()
	o.mu.Lock()
	for o.flushing {
		o.changed.Wait()
	}
	o.mu.Unlock()
	o.flush(wire.Try)
	_, _, err := o.await(w, patience{})
	return err
}
