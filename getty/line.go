// SPDX-License-Identifier: Apache-2.0

package getty

import "github.com/gostkit/kit/getty/internal/sendq"

// Writers that find the queue at the high mark wait in line. When it has fallen to the low mark the first of
// them is admitted, and when that one has queued its package it admits the next, until the queue is at the high
// mark again. So they are served in the order in which they came, and none can be overtaken for ever. While
// there is a line, writers that come later join it or, with timeout 0, are refused.
//
// Nobody is left in line, because of one rule: where the queue is below the high mark and somebody waits, one
// of them is admitted and has not written yet. It is kept under qMu by those who change one of the three:
// unblocked, after the queue fell; admitNext, after the one that was admitted has written or given up;
// joinLine, for whom comes.

// An entry is how a writer comes to the queue.
type entry int8

const (
	newcomer entry = iota // it waits where it must
	hasty                 // it does not wait
	admitted              // it has waited, and is the only one that may write
)

// behindLine reports whether a writer has to let others go first. OnMessage that may not wait need not: its
// answers would be lost whenever other goroutines keep the queue full.
func (s *session) behindLine(as entry) bool {
	return as != admitted && s.has(flagLine) && !(as == hasty && (s.has(flagMessage) || s.tasks.Load() > 0))
}

// awaitRoom waits until a writer that was refused at the high mark may try again, and returns as what.
func (s *session) awaitRoom(as entry, p patience) (entry, error) {
	w := sendq.NewWaiter()
	if !s.joinLine(w, as) {
		w.Free()
		return as, nil
	}
	s.flush()
	_, gone, err := s.await(w, p)
	if gone {
		s.forget(w)
	}
	if err != nil {
		return newcomer, err
	}
	return admitted, nil
}

// joinLine lets w wait, and reports false where it need not. Who was admitted and found the queue full again, by
// callbacks that did not wait, keeps its place.
func (s *session) joinLine(w *sendq.Waiter, as entry) bool {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.refused != nil || !s.has(flagBlocked) && (as == admitted || !s.has(flagLine)) {
		return false
	}
	side := s.sideLocked()
	if as == admitted {
		side.admitted = false
		side.line = append([]*sendq.Waiter{w}, side.line...)
	} else {
		side.line = append(side.line, w)
	}
	s.setFlag(flagLine)
	return true
}

// admitNext passes the right to write on.
func (s *session) admitNext() {
	s.qMu.Lock()
	s.admitLocked()
	s.qMu.Unlock()
}

// admitLocked admits the first in line, if the queue is below the high mark. Nobody else is admitted now.
func (s *session) admitLocked() {
	side := s.sideLocked()
	side.admitted = false
	for len(side.line) > 0 && !s.has(flagBlocked) && !side.admitted {
		w := side.line[0]
		side.line[0] = nil
		side.line = side.line[1:]
		side.admitted = w.Fail(nil) // else its time was over just now
	}
	if len(side.line) == 0 {
		side.line = nil
		if !side.admitted {
			s.clearFlag(flagLine)
		}
	}
}

// dissolveLineLocked tells all in line that nothing is accepted any more, and why.
func (s *session) dissolveLineLocked(err error) {
	if s.side == nil {
		return
	}
	for _, w := range s.side.line {
		w.Fail(err)
	}
	s.side.line = nil
}
