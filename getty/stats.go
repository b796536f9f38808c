// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"fmt"
	"sync/atomic"
	"time"
)

// SessionStats are the counters of a session. A snapshot is not taken at one instant; each number
// in it is exact once OnClose runs.
type SessionStats struct {
	BytesRead    uint64 // bytes taken from the kernel
	BytesWritten uint64 // bytes taken by the kernel
	Reads        uint64 // successful read calls
	Writes       uint64 // successful write calls
	PkgsRead     uint64 // packages decoded
	PkgsWritten  uint64 // packages taken by the kernel as a whole
	Queued       uint64 // bytes accepted and not yet written; may lag while a package is encoded
	Unsent       uint64 // packages accepted and not taken as a whole, and Unacked; known at the end
	UnsentBytes  uint64 // their remaining bytes, and UnackedBytes
	Unacked      uint64 // the least number of written packages that UnackedBytes can belong to
	UnackedBytes uint64 // not acknowledged by the peer when an own Close was over; may have arrived
	Undelivered  uint64 // packages decoded and not delivered because the session ended
	Withdrawn    uint64 // packages withdrawn because their write expired
	Dropped      uint64 // datagrams dropped: malformed, truncated, or the mailbox was full

	Mailbox      int           // packages decoded and not handled
	MailboxBytes int           // their size on the wire
	Stalls       uint64        // how often the queue reached the high mark
	Paused       time.Duration // how long reading paused: for the queue, ReadRate or MemoryBudget

	// RoundTrip is how long the latest ping that a WebSocket peer has answered took; see
	// WebSocket.PingPeriod. 0: none was answered.
	RoundTrip time.Duration
}

// counters are the numbers behind SessionStats. Counting takes no lock. The busy counters have one
// writer each: the goroutine that reads, or the holder of the flush token.
type counters struct {
	Reads, BytesRead, PkgsRead        atomic.Uint64
	Writes, BytesWritten, PkgsWritten atomic.Uint64

	rare atomic.Pointer[rareCounters]
}

// rareCounters are those that most sessions never count with.
type rareCounters struct {
	Unsent, UnsentBytes             atomic.Uint64
	Unacked, UnackedBytes           atomic.Uint64
	Undelivered, Withdrawn, Dropped atomic.Uint64
	Stalls                          atomic.Uint64
	Paused                          atomic.Int64
}

// rarely returns the rare counters, to count with.
func (c *counters) rarely() *rareCounters {
	if r := c.rare.Load(); r != nil {
		return r
	}
	c.rare.CompareAndSwap(nil, new(rareCounters))
	return c.rare.Load()
}

var nothing rareCounters

// look returns the rare counters, to look at them.
func (c *counters) look() *rareCounters {
	if r := c.rare.Load(); r != nil {
		return r
	}
	return &nothing
}

// read counts a read of n bytes.
func (c *counters) read(n int) {
	c.Reads.Add(1)
	c.BytesRead.Add(uint64(n))
}

// undelivered counts n packages that were decoded and will not be delivered.
func (c *counters) undelivered(n int) {
	if n > 0 {
		c.rarely().Undelivered.Add(uint64(n))
	}
}

func (c *counters) snapshot() SessionStats {
	r := c.look()
	return SessionStats{
		BytesRead: c.BytesRead.Load(), BytesWritten: c.BytesWritten.Load(),
		Reads: c.Reads.Load(), Writes: c.Writes.Load(),
		PkgsRead: c.PkgsRead.Load(), PkgsWritten: c.PkgsWritten.Load(),
		Unsent: r.Unsent.Load(), UnsentBytes: r.UnsentBytes.Load(),
		Unacked: r.Unacked.Load(), UnackedBytes: r.UnackedBytes.Load(),
		Undelivered: r.Undelivered.Load(), Withdrawn: r.Withdrawn.Load(), Dropped: r.Dropped.Load(),
		Stalls: r.Stalls.Load(), Paused: time.Duration(r.Paused.Load()),
	}
}

// Stats implements [Session].
func (s *session) Stats() SessionStats {
	st := s.count.snapshot()
	st.Queued = s.outbox.tryQueuedBytes()
	if m := s.inboxIfStarted(); m != nil {
		st.Mailbox, st.MailboxBytes = m.size()
	}
	if t, ok := s.proto.(*webSocket); ok {
		st.RoundTrip = time.Duration(t.roundTrip.Load())
	}
	return st
}

// Stat implements [Session].
func (s *session) Stat() string {
	st := s.Stats()
	return fmt.Sprintf("session %d %s %s->%s: read %d pkgs %d bytes, "+
		"written %d pkgs %d bytes, queued %d bytes, unsent %d pkgs",
		s.id, s.name.Load(), s.LocalAddr(), s.RemoteAddr(),
		st.PkgsRead, st.BytesRead, st.PkgsWritten, st.BytesWritten, st.Queued, st.Unsent)
}

// add merges the counters of an ended session into an endpoint's totals.
func (t *SessionStats) add(o SessionStats) {
	t.BytesRead += o.BytesRead
	t.BytesWritten += o.BytesWritten
	t.Reads += o.Reads
	t.Writes += o.Writes
	t.PkgsRead += o.PkgsRead
	t.PkgsWritten += o.PkgsWritten
	t.Queued += o.Queued
	t.Unsent += o.Unsent
	t.UnsentBytes += o.UnsentBytes
	t.Unacked += o.Unacked
	t.UnackedBytes += o.UnackedBytes
	t.Undelivered += o.Undelivered
	t.Withdrawn += o.Withdrawn
	t.Dropped += o.Dropped
	t.Mailbox += o.Mailbox
	t.MailboxBytes += o.MailboxBytes
	t.Stalls += o.Stalls
	t.Paused += o.Paused
}

// An atomicString is a string that is set rarely and read from anywhere.
type atomicString struct{ p atomic.Pointer[string] }

func (a *atomicString) Store(s string) { a.p.Store(&s) }

func (a *atomicString) Load() string {
	if p := a.p.Load(); p != nil {
		return *p
	}
	return "-"
}
