// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gostkit/kit/taskpool"
)

// Defaults of [SessionOptions].
const (
	DefaultMaxMsgLen    = 1 << 20
	DefaultReadTimeout  = 2 * time.Minute
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
	// Inline runs OnMessage on the goroutine that reads. It costs least; a slow handler stops
	// reading.
	Inline
	// Ordered runs OnMessage on a pool, the packages of one session one after the other in the
	// order of the wire. A slow handler delays its own session only.
	Ordered
	// Unordered runs each package as a task of its own: OnMessage and OnCron of one session may
	// overlap. OnOpen still precedes them all, OnError and OnClose follow when all have returned.
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

// SlowConsumer says what happens to a package written with timeout 0 while the queue is at the high
// mark.
type SlowConsumer int

const (
	// SlowReject refuses the package with [ErrSessionBlocked]; the session lives.
	SlowReject SlowConsumer = iota
	// SlowClose refuses the package and closes the session at once, with ErrSessionBlocked as the
	// cause.
	SlowClose
)

// SessionOptions are the limits and policies that every session of an endpoint starts with. The
// zero value of each field means its default. The durations, MaxMsgLen and CronPeriod can be
// changed for one session with its setters.
type SessionOptions struct {
	// MaxMsgLen is the largest package in bytes, before and after decompression. It bounds what is
	// buffered for an incomplete package, whatever the Reader answers. 0 or negative:
	// DefaultMaxMsgLen.
	MaxMsgLen int

	// ReadTimeout is the time from the first byte of a package (on WebSocket: a message) to its
	// last. A session that needs longer ends with ErrReadTimeout. A package that keeps arriving
	// gets more: each of its bytes puts the end off by ReadTimeout/1024, but by no more than 1/256
	// s, and never to more than ReadTimeout from now. So a peer that sends 1 KiB of its package in
	// each ReadTimeout, or 256 bytes a second if that is more, is never cut, and one that pauses
	// for ReadTimeout always is. Silence between packages is not limited. Datagrams have no such
	// limit. 0: DefaultReadTimeout; negative: no limit.
	ReadTimeout time.Duration

	// IdleTimeout is how long the peer may give no sign of life before the session ends with
	// ErrIdleTimeout. Signs of life are bytes that it sent, and bytes that it took of more than 4
	// KiB that waited for it: that it acknowledged, where the system can tell, or that the
	// connection took in pieces of at most 64 KiB. The latter are looked for in each quarter of the
	// time. What this side sends is none, pings and heartbeats included; a WebSocket session with a
	// PingPeriod asks its peer after half of the time at the latest. A session that finds its time
	// over only because this process did not run, looks once more, asks its peer (by a ping, or
	// else by an OnCron ahead of its time) and waits for half of the time. 0 or negative: no limit.
	IdleTimeout time.Duration

	// WriteTimeout is how long queued bytes may wait without the peer taking any of them:
	// acknowledging them, where the system can tell, which is looked for in each quarter of the
	// time; else the connection taking them in pieces of at most 64 KiB. A session whose peer takes
	// nothing for so long ends with ErrWriteTimeout. It is also the limit of a WritePkg with a
	// negative timeout. 0: DefaultWriteTimeout; negative: no limit.
	WriteTimeout time.Duration

	// WaitTime is how long Close flushes what is queued, and then how long it waits for the peer's
	// end of stream, before the descriptor is closed anyway. A peer that vanished while it took
	// nothing may use up all of it. If the goodbye of TLS or WebSocket has not left by then, the
	// session ends with [ErrWriteTimeout]. 0: DefaultWaitTime; negative: no wait, so that even what
	// is on its way to the peer counts as [ErrUnacknowledged].
	WaitTime time.Duration

	// HalfClose is how long a session stays open for writing after its peer has ended its stream,
	// if its listener is a [ReadEndListener]; all others flush and close. 0: DefaultHalfClose;
	// negative: until it is closed.
	HalfClose time.Duration

	// CronPeriod is the time between two OnCron callbacks; the first comes after a random part of
	// it. 0 or negative: no OnCron.
	CronPeriod time.Duration

	// HighWater is the number of queued bytes at which no further package is accepted and reading
	// stops; LowWater, which must be smaller, is where both begin again. A queue never holds more
	// than HighWater plus one package. 0: DefaultHighWater and DefaultLowWater (or a quarter of
	// HighWater).
	HighWater, LowWater int

	// ReadWhileBlocked keeps reading above the high mark. The default, false, makes a peer that
	// floods and never reads stop itself.
	ReadWhileBlocked bool

	// SlowConsumer is the policy for packages written with timeout 0 at the high mark.
	SlowConsumer SlowConsumer

	// ReadRate limits what each session reads. Its zero value is no limit.
	ReadRate ReadRate

	// MemoryBudget bounds the bytes that all sessions of the endpoint hold together: queued for
	// their peers, in mailboxes, and of packages that are not complete. From seven eighths of it
	// until a quarter is free no session reads, and where queues and incomplete packages use it up,
	// the sessions with the largest ones end with [ErrMemoryBudget]. What handlers keep is not
	// counted. 0 or negative: no limit.
	MemoryBudget int64

	// MaxLifetime is after how long a session drains, as in a Shutdown of its own: what was read is
	// handled, answers are flushed, and the session closes clean (WebSocket: with code 1001). So
	// load balancers get their turn, and new certificates come into use. Each session ends up to an
	// eighth of it earlier, by chance. 0 or negative: no limit.
	MaxLifetime time.Duration

	// Compress compresses a byte stream, before TLS encrypts it. Both ends must be set to the same
	// method; an end that finds the other one different ends with [ErrCompression]. Limits and Stats
	// count bytes as they are without compression. WebSocket has an option of its own.
	Compress CompressType

	// Trace is told of connections and packages on their way. nil: nobody is.
	Trace *Trace

	// TimeCallbacks counts how long OnMessage takes, in classes; see CallbackTimes in
	// [EndPointStats]. It costs two readings of the clock for each package.
	TimeCallbacks bool

	// SlowHandler is how long OnMessage may take before that is counted and logged, with the stack
	// of its goroutine at that moment. It costs some microseconds for each package, and a stop of
	// the whole process for the stack. 0 or negative: no limit.
	SlowHandler time.Duration

	// ProfileLabels labels the goroutines that run callbacks, for CPU profiles and for tasks that
	// they start: "getty" is the endpoint as logs name it, "dispatch" the dispatch.
	ProfileLabels bool

	// Dispatch says where OnMessage runs.
	Dispatch Dispatch

	// Pool runs the handlers of Ordered and Unordered sessions. It must outlive the endpoint. nil:
	// with such a dispatch the endpoint makes an elastic pool of its own, and stops it when it has
	// ended.
	Pool taskpool.Pool

	// MailboxLen and MailboxBytes bound what is decoded and not yet handled in Ordered and
	// Unordered sessions, in packages and in bytes of the wire. A full mailbox stops reading;
	// nothing is dropped on a stream. 0: DefaultMailboxLen, DefaultMailboxBytes.
	MailboxLen, MailboxBytes int

	// Logger gets what has no other way out, as warnings and errors: panics, a session that did not
	// open (a forgotten codec or listener, an error of a callback), refused connections, failed
	// accepts and dials, datagrams that no [PacketErrorListener] hears of. A record has the
	// endpoint, such as "server-3", and the peer's address; what a peer may have put into a text is
	// quoted and cut. An endpoint writes at most ten records of one message at once, and one more
	// each second; the next tells how many were suppressed. Packages are never logged. nil:
	// slog.Default() as it is when the endpoint is made; slog.New(slog.DiscardHandler) is silent.
	Logger *slog.Logger
}

// An optionSet is a ServerOptions or a ClientOptions.
type optionSet interface {
	// complete replaces zero fields by their defaults, and slices and maps by copies, since what
	// was checked must not change any more.
	complete(k kind)
	// check reports what cannot be. The defaults are there.
	check(k kind) error
}

// settle makes the options of an endpoint, once: what the user's functions set, then the defaults
// of what they left, then the checks. The options are complete after an error too, since the
// endpoint has its other methods all the same.
func settle[O optionSet, F ~func(O)](o O, k kind, functions []F) error {
	for _, f := range functions {
		if f != nil {
			f(o)
		}
	}
	unused := unusedOption(k, o) // looked for before defaults make every option look set
	o.complete(k)
	return cmp.Or(unused, o.check(k))
}

func (o *SessionOptions) complete() {
	if o.MaxMsgLen <= 0 { // as SetMaxMsgLen
		o.MaxMsgLen = DefaultMaxMsgLen
	}
	o.ReadTimeout = cmp.Or(o.ReadTimeout, DefaultReadTimeout)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, DefaultWriteTimeout)
	o.WaitTime = cmp.Or(o.WaitTime, DefaultWaitTime)
	o.HalfClose = cmp.Or(o.HalfClose, DefaultHalfClose)
	if o.ReadRate.on() {
		o.ReadRate.Burst = cmp.Or(o.ReadRate.Burst, DefaultBurst)
	}
	o.HighWater = cmp.Or(o.HighWater, DefaultHighWater)
	o.LowWater = cmp.Or(o.LowWater, min(DefaultLowWater, o.HighWater/4))
	o.MailboxLen = cmp.Or(o.MailboxLen, DefaultMailboxLen)
	o.MailboxBytes = cmp.Or(o.MailboxBytes, DefaultMailboxBytes)
	if o.Dispatch == DispatchAuto {
		o.Dispatch = Inline
		if o.Pool != nil {
			o.Dispatch = Ordered
		}
	}
}

func (o *SessionOptions) check() error {
	switch {
	case o.HighWater < 0 || o.LowWater < 0 || o.LowWater >= o.HighWater:
		return fmt.Errorf("getty: water marks: want 0 <= LowWater < HighWater, have %d and %d",
			o.LowWater, o.HighWater)
	case o.MailboxLen < 0:
		return errors.New("getty: MailboxLen is negative")
	case o.MailboxBytes < 0:
		return errors.New("getty: MailboxBytes is negative")
	case o.Dispatch < Inline || o.Dispatch > Unordered:
		return fmt.Errorf("getty: Dispatch: unknown dispatch %d", int(o.Dispatch))
	case o.SlowConsumer != SlowReject && o.SlowConsumer != SlowClose:
		return fmt.Errorf("getty: SlowConsumer: unknown policy %d", int(o.SlowConsumer))
	case o.ReadRate.check() != nil:
		return o.ReadRate.check()
	case o.Compress.check() != nil:
		return o.Compress.check()
	case o.Pool != nil && isNilPointer(o.Pool):
		return fmt.Errorf("getty: Pool is a nil %T", o.Pool)
	}
	return nil
}
