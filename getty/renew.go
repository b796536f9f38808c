// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"time"

	"github.com/gostkit/kit/getty/internal/wire"
)

// The stack of a reader that has run a turn has grown, to 4 KiB or as much as the user's callbacks
// need, and stays so while the session is idle: the runtime shrinks a stack only by halves and only
// when less than a quarter is used, which a goroutine that waits for input never gets below. It is
// the largest part of an idle session. So the reader of a session whose peer has been silent for a
// while is replaced by a fresh goroutine, whose stack is that of one which only waits. That costs
// about ten microseconds (BenchmarkRenew), once in each silence.

// renewAfter is how long a peer must have been silent before the reader is replaced. The clock of a
// session that is not idle looks as often.
const renewAfter = int64(time.Second)

// A renewer is a protocol whose serve can be made to return [wire.ErrInterrupted] between two
// packages, to be called again by another goroutine.
type renewer interface {
	// renew makes serve return. It does not block, and reports whether serve can be made to.
	renew() bool
}

// renew implements renewer.
func (t *stream) renew() bool {
	l, ok := t.link.(wire.Interrupter)
	if ok {
		l.Interrupt()
	}
	return ok
}

// grown notes that the reader runs a turn.
func (s *session) grown() {
	if s.has(flagGrown) {
		return
	}
	s.setFlag(flagGrown)
	if _, ok := s.proto.(renewer); ok {
		s.clock.arm(now() + renewAfter)
	}
}

// renewLocked reports whether the reader is to be replaced at t. If not, it adds to next when that
// may be so.
func (c *clock) renewLocked(t int64, next *soonest) bool {
	s := c.s
	if _, ok := s.proto.(renewer); !ok || s.bits.Load()&(flagGrown|flagClosing) != flagGrown {
		return false
	}
	at := c.heardAt.Load() + renewAfter
	if busy, _ := s.busy(); busy {
		at = t + renewAfter
	}
	if t < at {
		next.add(at)
		return false
	}
	// Before the reader is told: one that reads something instead sets the flag anew.
	s.clearFlag(flagGrown)
	return true
}
