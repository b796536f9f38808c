// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gostkit/kit/taskpool"
)

// Defaults of [SessionOptions].
const (
	DefaultMaxMsgLen    = 1 << 20
	DefaultWriteTimeout = 10 * time.Second
	DefaultWaitTime     = 3 * time.Second
	DefaultHighWater    = 1 << 20
	DefaultLowWater     = 256 << 10
	DefaultMailboxLen   = 1024
	DefaultMailboxBytes = 1 << 20
	DefaultHalfClose    = time.Minute
)

// Dispatch says where a session's OnMessage runs.
type Dispatch int

const (
	// DispatchAuto is Ordered where a Pool is set, else Inline. WebSocket servers take Ordered.
	DispatchAuto Dispatch = iota
	// Inline runs OnMessage on the goroutine that reads. It costs least; a slow handler stops reading.
	Inline
	// Ordered runs OnMessage on a pool, the packages of one session one after the other in the order
	// of the wire. A slow handler delays its own session only.
	Ordered
	// Unordered runs each package as a task of its own: OnMessage and OnCron of one session may overlap.
	// OnOpen still precedes them all, OnError and OnClose follow when all have returned.
	Unordered
)

// String names the dispatch.
func (d Dispatch) String() string {
	switch d {
	case DispatchAuto:
		return "auto"
	case Inline:
		return "inline"
	case Ordered:
		return "ordered"
	case Unordered:
		return "unordered"
	}
	return fmt.Sprintf("Dispatch(%d)", int(d))
}

// SlowConsumer says what happens to a package written with timeout 0 while the queue is at the high mark.
type SlowConsumer int

const (
	// SlowReject refuses the package with [ErrSessionBlocked]; the session lives.
	SlowReject SlowConsumer = iota
	// SlowClose refuses the package and closes the session at once, with ErrSessionBlocked as the cause.
	SlowClose
)

// SessionOptions are the limits and policies that every session of an endpoint starts with. The zero
// value of each field means its default. The durations, MaxMsgLen and CronPeriod can be changed for
// one session with its setters.
type SessionOptions struct {
	// MaxMsgLen is the largest package in bytes, before and after decompression. It bounds what is
	// buffered for an incomplete package, whatever the Reader answers. 0: DefaultMaxMsgLen.
	MaxMsgLen int

	// ReadTimeout is the time from the first byte of a package to its last. A session that needs longer
	// ends with ErrReadTimeout. It does not limit silence between packages. On WebSocket the
	// time begins when the header of a message's first frame is complete. 0: no limit.
	ReadTimeout time.Duration

	// IdleTimeout is how long a session may be without traffic in either direction before it ends
	// with ErrIdleTimeout. 0: no limit.
	IdleTimeout time.Duration

	// WriteTimeout is how long queued bytes may wait without the kernel taking any of them. A session
	// whose peer takes nothing for so long ends with ErrWriteTimeout; one that acknowledged something in the
	// second half of that time goes on, where the system can tell. WriteTimeout is also the limit of a WritePkg
	// with a negative timeout. 0: DefaultWriteTimeout; negative: no limit.
	WriteTimeout time.Duration

	// WaitTime is how long Close flushes what is queued, and then how long it waits for the peer's
	// end of stream, before the descriptor is closed anyway. 0: DefaultWaitTime; negative: no wait,
	// so that even what is on its way to the peer counts as [ErrUnacknowledged].
	WaitTime time.Duration

	// HalfClose is how long a session stays open for writing after its peer has ended its stream,
	// if its listener is a [ReadEndListener]; all others flush and close. 0: DefaultHalfClose;
	// negative: until it is closed.
	HalfClose time.Duration

	// CronPeriod is the time between two OnCron callbacks; the first comes after a random part of it.
	// 0: no OnCron.
	CronPeriod time.Duration

	// HighWater is the number of queued bytes at which no further package is accepted and reading
	// stops; LowWater, which must be smaller, is where both begin again. A queue never holds more than
	// HighWater plus one package. 0: DefaultHighWater and DefaultLowWater (or a quarter of HighWater).
	HighWater, LowWater int

	// ReadWhileBlocked keeps reading above the high mark. The default, false, makes a peer that floods
	// and never reads stop itself.
	ReadWhileBlocked bool

	// SlowConsumer is the policy for packages written with timeout 0 at the high mark.
	SlowConsumer SlowConsumer

	// Dispatch says where OnMessage runs.
	Dispatch Dispatch

	// Pool runs the handlers of Ordered and Unordered sessions. It must outlive the endpoint. nil: with
	// such a dispatch the endpoint makes an elastic pool of its own, and stops it when it has ended.
	Pool taskpool.Pool

	// MailboxLen and MailboxBytes bound what is decoded and not yet handled in Ordered and Unordered
	// sessions, in packages and in bytes of the wire. A full mailbox stops reading; nothing is dropped
	// on a stream. 0: DefaultMailboxLen, DefaultMailboxBytes.
	MailboxLen, MailboxBytes int

	// Logger gets what has no other way out: panics in callbacks, refused connections, failed accepts,
	// failed dials. Packages are never logged. nil: nothing is logged.
	Logger *slog.Logger
}

// fill replaces zero fields by their defaults and reports what cannot be.
func (o *SessionOptions) fill() error {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.MaxMsgLen, DefaultMaxMsgLen)
	def(&o.HighWater, DefaultHighWater)
	def(&o.LowWater, min(DefaultLowWater, o.HighWater/4))
	def(&o.MailboxLen, DefaultMailboxLen)
	def(&o.MailboxBytes, DefaultMailboxBytes)
	if o.WriteTimeout == 0 {
		o.WriteTimeout = DefaultWriteTimeout
	}
	if o.WaitTime == 0 {
		o.WaitTime = DefaultWaitTime
	}
	if o.HalfClose == 0 {
		o.HalfClose = DefaultHalfClose
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dispatch == DispatchAuto {
		o.Dispatch = Inline
		if o.Pool != nil {
			o.Dispatch = Ordered
		}
	}
	switch {
	case o.MaxMsgLen < 0:
		return errors.New("getty: MaxMsgLen is negative")
	case o.HighWater < 0 || o.LowWater < 0 || o.LowWater >= o.HighWater:
		return fmt.Errorf("getty: water marks: want 0 <= LowWater < HighWater, have %d and %d", o.LowWater, o.HighWater)
	case o.MailboxLen < 0 || o.MailboxBytes < 0:
		return errors.New("getty: mailbox limit is negative")
	case o.ReadTimeout < 0 || o.IdleTimeout < 0 || o.CronPeriod < 0:
		return errors.New("getty: ReadTimeout, IdleTimeout or CronPeriod is negative")
	case o.Dispatch < Inline || o.Dispatch > Unordered:
		return fmt.Errorf("getty: unknown dispatch %d", int(o.Dispatch))
	case o.SlowConsumer != SlowReject && o.SlowConsumer != SlowClose:
		return fmt.Errorf("getty: unknown slow-consumer policy %d", int(o.SlowConsumer))
	}
	return nil
}
