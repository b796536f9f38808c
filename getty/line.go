// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// Writers that find the queue at the high mark wait in line. When it has fallen to the low mark the
// first of them is admitted. When that one has queued its package it admits the next, until the
// queue is at the high mark again. So they are served in the order in which they came, and none can
// be overtaken for ever. While there is a line, writers that come later join it or, with timeout 0,
// are refused.
//
// No writer is left in line, because of one rule: while the queue is below the high mark and a
// writer waits, one writer is admitted and has not written yet. The rule holds whenever mu is free.
// Three functions keep it: unblocked, after the queue fell; admitNext, after the admitted writer
// has written or given up; joinLine, for a writer that comes.

// An entry is how a writer comes to the queue.
type entry int8

const (
	newcomer entry = iota // it waits where it must
	hasty                 // it does not wait: timeout 0
	admitted              // it has waited, and is the only one that may write
)

// behindLine reports whether a writer has to let the line go first.
func (o *outbox) behindLine(as entry) bool {
	if as == admitted || !o.s.has(flagLine) {
		return false
	}
	// A handler of packages passes the line if it does not wait: as long as other goroutines keep
	// the queue full there is always a line, and all of the handler's answers would be refused.
	handles := o.s.has(flagMessage) || o.s.turn.tasks.Load() > 0
	return as != hasty || !handles
}

// awaitRoom waits until a writer that was refused at the high mark may try again, and returns how
// it comes to the queue then.
func (o *outbox) awaitRoom(as entry, p patience) (entry, error) {
	w := o.s.ep.waiters.New()
	if !o.joinLine(w, as) {
		w.Free()
		return as, nil
	}
	// Nothing falls without a flush, and what fills the queue may be left to the end of a turn.
	o.flush(wire.Try)
	_, gone, err := o.await(w, p)
	if gone {
		o.forget(w)
	}
	if err != nil {
		return newcomer, err
	}
	return admitted, nil
}

// joinLine lets w wait, and reports false where it need not.
func (o *outbox) joinLine(w *sendq.Waiter, as entry) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused != nil || !o.s.has(flagBlocked) && (as == admitted || !o.s.has(flagLine)) {
		return false
	}
	side := o.sideLocked()
	if as == admitted {
		// Handlers that do not wait have filled the queue again. The writer keeps its place: at the
		// end of the line it could be overtaken for ever.
		side.admitted = false
		side.line = append([]*sendq.Waiter{w}, side.line...)
	} else {
		side.line = append(side.line, w)
	}
	o.s.setFlag(flagLine)
	return true
}

// admitNext is called when the admitted writer has written or given up.
func (o *outbox) admitNext() {
	o.mu.Lock()
	o.admitLocked()
	o.mu.Unlock()
}

// admitLocked admits the first in line, if the queue is below the high mark. No other writer is
// admitted when it is called.
func (o *outbox) admitLocked() {
	side := o.sideLocked()
	side.admitted = false
	for len(side.line) > 0 && !o.s.has(flagBlocked) && !side.admitted {
		w := side.line[0]
		side.line[0] = nil
		side.line = side.line[1:]
		side.admitted = w.Fail(nil) // false: its time was over just now, so the next one
	}
	if len(side.line) == 0 {
		side.line = nil
		if !side.admitted {
			o.s.clearFlag(flagLine)
		}
	}
}

// dissolveLineLocked fails all writers in line with err.
func (o *outbox) dissolveLineLocked(err error) {
	if o.side == nil {
		return
	}
	for _, w := range o.side.line {
		w.Fail(err)
	}
	o.side.line = nil
}
