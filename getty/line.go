// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// Writers that find the queue at the high mark wait in line. When it has fallen to the low mark the
// first of them is admitted, and when that one has queued its package it admits the next, until the
// queue is at the high mark again. So they are served in the order in which they came, and none can
// be overtaken for ever. While there is a line, writers that come later join it or, with timeout 0,
// are refused.
//
// Nobody is left in line, because of one rule: where the queue is below the high mark and somebody
// waits, one of them is admitted and has not written yet. It is kept under qMu by those who change
// one of the three: unblocked, after the queue fell; admitNext, after the one that was admitted has
// written or given up; joinLine, for whom comes.

// An entry is how a writer comes to the queue.
type entry int8

const (
	newcomer entry = iota // it waits where it must
	hasty                 // it does not wait
	admitted              // it has waited, and is the only one that may write
)

// behindLine reports whether a writer has to let others go first. OnMessage that may not wait need
// not: its answers would be lost whenever other goroutines keep the queue full.
func (o *outbox) behindLine(as entry) bool {
	return as != admitted && o.s.has(flagLine) && !(as == hasty && (o.s.has(flagMessage) || o.s.turn.tasks.Load() > 0))
}

// awaitRoom waits until a writer that was refused at the high mark may try again, and returns as
// what.
func (o *outbox) awaitRoom(as entry, p patience) (entry, error) {
	w := o.s.ep.waiters.New()
	if !o.joinLine(w, as) {
		w.Free()
		return as, nil
	}
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

// joinLine lets w wait, and reports false where it need not. Who was admitted and found the queue
// full again, by callbacks that did not wait, keeps its place.
func (o *outbox) joinLine(w *sendq.Waiter, as entry) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused != nil || !o.s.has(flagBlocked) && (as == admitted || !o.s.has(flagLine)) {
		return false
	}
	side := o.sideLocked()
	if as == admitted {
		side.admitted = false
		side.line = append([]*sendq.Waiter{w}, side.line...)
	} else {
		side.line = append(side.line, w)
	}
	o.s.setFlag(flagLine)
	return true
}

// admitNext passes the right to write on.
func (o *outbox) admitNext() {
	o.mu.Lock()
	o.admitLocked()
	o.mu.Unlock()
}

// admitLocked admits the first in line, if the queue is below the high mark. Nobody else is
// admitted now.
func (o *outbox) admitLocked() {
	side := o.sideLocked()
	side.admitted = false
	for len(side.line) > 0 && !o.s.has(flagBlocked) && !side.admitted {
		w := side.line[0]
		side.line[0] = nil
		side.line = side.line[1:]
		side.admitted = w.Fail(nil) // else its time was over just now
	}
	if len(side.line) == 0 {
		side.line = nil
		if !side.admitted {
			o.s.clearFlag(flagLine)
		}
	}
}

// dissolveLineLocked tells all in line that nothing is accepted any more, and why.
func (o *outbox) dissolveLineLocked(err error) {
	if o.side == nil {
		return
	}
	for _, w := range o.side.line {
		w.Fail(err)
	}
	o.side.line = nil
}
