// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync/atomic"
	"time"
)

// What users ask to be told beside Stats. All of it is off by default, and costs a comparison then.

// A Trace has functions that are called at the stations of a connection and its packages, in the
// manner of net/http/httptrace. Each may be nil. They run on the goroutine that is at work, whose
// time they take: they count, or note, and return. They may ask a session for addresses, name and
// attributes, and must not write to it, close it, or ask for its Stats. A panic in one is logged,
// and the connection goes on. None is ever given a package: it may have been released.
type Trace struct {
	Accepted  func(peer net.Addr)                 // a connection was accepted, before Admit
	Refused   func(peer string, err error)        // it became no session
	Opened    func(s Session)                     // OnOpen has returned nil
	Read      func(s Session, bytes int)          // a read brought so many bytes
	Decoded   func(s Session, pkgs int)           // so many packages were found in them
	Delivered func(s Session, took time.Duration) // OnMessage has returned
	Queued    func(s Session, bytes int)          // a package was accepted, of so many bytes on the wire
	Flushed   func(s Session, bytes int)          // the kernel took so many bytes
	Ended     func(s Session, err error)          // before OnClose; err is the cause
}

// traced calls a function of a Trace.
func (e *endpoint) traced(where string, call func()) {
	defer func() {
		if v := recover(); v != nil {
			e.log.Error("getty: a function of Trace panicked", "where", where,
				"panic", limitString(fmt.Sprint(v)))
		}
	}()
	call()
}

// The first half of each of these is small enough to be inlined, so that without a Trace there is
// only the comparison.

func (s *session) traceRead(n int) {
	if s.opts.Trace != nil {
		s.tellRead(n)
	}
}

func (s *session) tellRead(n int) {
	if f := s.opts.Trace.Read; f != nil {
		s.ep.traced("Read", func() { f(s, n) })
	}
}

func (s *session) traceDecoded(pkgs int) {
	if s.opts.Trace != nil && pkgs > 0 {
		s.tellDecoded(pkgs)
	}
}

func (s *session) tellDecoded(pkgs int) {
	if f := s.opts.Trace.Decoded; f != nil {
		s.ep.traced("Decoded", func() { f(s, pkgs) })
	}
}

func (s *session) traceQueued(n int) {
	if s.opts.Trace != nil && n > 0 {
		s.tellQueued(n)
	}
}

func (s *session) tellQueued(n int) {
	if f := s.opts.Trace.Queued; f != nil {
		s.ep.traced("Queued", func() { f(s, n) })
	}
}

func (s *session) traceFlushed(n int) {
	if s.opts.Trace != nil && n > 0 {
		s.tellFlushed(n)
	}
}

func (s *session) tellFlushed(n int) {
	if f := s.opts.Trace.Flushed; f != nil {
		s.ep.traced("Flushed", func() { f(s, n) })
	}
}

func (s *session) traceOpened() {
	if t := s.opts.Trace; t != nil && t.Opened != nil {
		s.ep.traced("Opened", func() { t.Opened(s) })
	}
}

func (s *session) traceEnded(err error) {
	if t := s.opts.Trace; t != nil && t.Ended != nil {
		s.ep.traced("Ended", func() { t.Ended(s, err) })
	}
}

func (e *endpoint) traceAccepted(peer net.Addr) {
	if t := e.opts.Trace; t != nil && t.Accepted != nil {
		e.traced("Accepted", func() { t.Accepted(peer) })
	}
}

func (e *endpoint) traceRefused(peer string, err error) {
	if t := e.opts.Trace; t != nil && t.Refused != nil {
		e.traced("Refused", func() { t.Refused(peer, err) })
	}
}

// CallbackTimes are how many OnMessage calls took how long, where TimeCallbacks is set.
type CallbackTimes struct {
	Below100us uint64 // shorter than 100 microseconds
	Below1ms   uint64 // from there to a millisecond, and so on
	Below10ms  uint64
	Below100ms uint64
	Below1s    uint64
	Longer     uint64 // a second or more
	Slow       uint64 // longer than SlowHandler, those at work included
}

// callbackCounts count CallbackTimes.
type callbackCounts struct {
	classes [6]atomic.Uint64
	slow    atomic.Uint64
}

func (c *callbackCounts) count(took time.Duration) {
	class := 0
	for limit := 100 * time.Microsecond; class < len(c.classes)-1 && took >= limit; class++ {
		limit *= 10
	}
	c.classes[class].Add(1)
}

func (c *callbackCounts) snapshot() CallbackTimes {
	n := func(i int) uint64 { return c.classes[i].Load() }
	return CallbackTimes{n(0), n(1), n(2), n(3), n(4), n(5), c.slow.Load()}
}

// observed runs OnMessage and sees how long it takes.
func (t *turn) observed(pkg any) {
	s := t.s
	begun := time.Now()
	if limit := s.opts.SlowHandler; limit > 0 {
		mine := goroutineID()
		timer := s.ep.wheel.AfterFunc(limit, func() {
			s.ep.spawn(func() { s.tellSlow(mine, limit) }) // the wheel must not wait for a stack
		})
		defer timer.Stop()
	}
	defer func() { // also after a panic
		took := time.Since(begun)
		if s.opts.TimeCallbacks {
			s.ep.stats.callbacks.count(took)
		}
		if tr := s.opts.Trace; tr != nil && tr.Delivered != nil {
			s.ep.traced("Delivered", func() { tr.Delivered(s, took) })
		}
	}()
	t.listener.OnMessage(s, pkg)
}

// tellSlow logs a handler that has been at work for limit, with the stack of its goroutine.
func (s *session) tellSlow(goroutine uint64, limit time.Duration) {
	s.ep.stats.callbacks.slow.Add(1)
	s.ep.log.Warn("getty: slow handler", "session", s.id, "peer", peerText(s.proto.remoteAddr),
		"longer than", limit, "stack", stackOf(goroutine))
}

// goroutineID returns the number of this goroutine as stacks tell it. It takes about a microsecond,
// which only a SlowHandler pays for.
func goroutineID() uint64 {
	var buf [64]byte
	text := bytes.TrimPrefix(buf[:runtime.Stack(buf[:], false)], []byte("goroutine "))
	number, _, _ := bytes.Cut(text, []byte(" "))
	id, _ := strconv.ParseUint(string(number), 10, 64)
	return id
}

// maxStacks bounds the text in which the stack of one goroutine is looked for.
const maxStacks = 4 << 20

// stackOf returns the stack of another goroutine, "" if it is over.
func stackOf(goroutine uint64) string {
	buf := make([]byte, maxStacks)
	text := buf[:runtime.Stack(buf, true)]
	for one := range bytes.SplitSeq(text, []byte("\n\n")) {
		if bytes.HasPrefix(one, fmt.Appendf(nil, "goroutine %d ", goroutine)) {
			return string(one[:min(len(one), 4<<10)])
		}
	}
	return ""
}

// labelled runs f with the profiler labels of the session, where ProfileLabels is set: getty, the
// endpoint, and dispatch.
func (s *session) labelled(f func()) {
	labels := pprof.Labels("getty", s.ep.name, "dispatch", s.dispatch.String())
	pprof.Do(context.Background(), labels, func(context.Context) { f() })
}

// read is serve of the protocol.
func (s *session) read() error {
	if !s.opts.ProfileLabels {
		return s.proto.serve()
	}
	return s.readLabelled() // apart, since the stack of a reader that waits is to be small
}

//go:noinline
func (s *session) readLabelled() (err error) {
	s.labelled(func() { err = s.proto.serve() })
	return err
}

// beginLabelled is begin with labels, where they are wanted.
func (s *session) beginLabelled(newSession NewSessionCallback) (err error) {
	if !s.opts.ProfileLabels {
		return s.begin(newSession)
	}
	s.labelled(func() { err = s.begin(newSession) })
	return err
}

// batchLabelled is runBatch with labels.
func (m *inbox) batchLabelled() (more bool) {
	m.s.labelled(func() { more = m.runBatch() })
	return more
}
