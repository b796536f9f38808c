// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"sync"
	"sync/atomic"
)

// runList is an intrusive list of strands that wait for a worker, in two parts. The goroutine that
// wakes a strand pushes it to in, a stack, with one compare-and-swap; workers take from out, under
// a lock. A worker that finds out empty moves all of in to it, oldest first. So producers and
// workers meet in one word, once for many strands.
//
// The strands that are moved together are a generation. A worker takes at most the rest of one
// generation before it goes on to the next list, so that a list to which strands keep coming holds
// up the other lists no longer than the strands take that waited in it already.
type runList struct {
	// in is the strand pushed last, linked by next to those before, or shut once the pool is
	// closing. Without mu it only grows.
	in atomic.Pointer[Strand]
	_  [64]byte

	some       atomic.Bool // out has a strand, for looking without the lock
	mu         sync.Mutex
	first      *Strand // of out
	last       *Strand
	generation uint64
	aborted    bool // the pool has been told to stop: out takes no more
	_          [64]byte
}

// shut stands in runList.in of a list that takes no strand that was idle. Those that go on running,
// or waited already, are added to out.
var shut Strand

// visit is a worker's place in its round of the lists.
type visit struct {
	at         int    // the list
	arrived    bool   // and has taken nothing from it yet
	generation uint64 // else: of the strands that it takes
}

// push adds s; false if the list is shut.
func (l *runList) push(s *Strand) bool {
	for {
		head := l.in.Load()
		if head == &shut {
			return false
		}
		// s is not yet in the list, so a plain write is enough: the compare-and-swap publishes it.
		s.next = head
		// No counter against reuse of head is needed. All strands leave the stack in one swap,
		// never one by one; so a head that has left and come back is as good as before.
		if l.in.CompareAndSwap(head, s) {
			return true
		}
	}
}

// receiveLocked empties in, and returns its strands, oldest first. Then in is nil, or shut.
func (l *runList) receiveLocked(then *Strand) (first, last *Strand) {
	// Only close sets shut, under mu, so it cannot appear between this look and the swap. A swap
	// would lose the mark.
	if l.in.Load() == &shut {
		return nil, nil
	}
	// One swap takes all that were pushed. Producers go on with an empty stack and need not wait.
	last = l.in.Swap(then)
	// Reversed here, under mu and outside the word that producers need: the stack has the newest on
	// top, and the oldest must run first.
	for s := last; s != nil; {
		next := s.next
		s.next = first
		first, s = s, next
	}
	return first, last
}

// addLocked adds the strands from first to last, linked, to out.
func (l *runList) addLocked(first, last *Strand) {
	if first == nil {
		return
	}
	if l.last != nil {
		l.last.next = first
	} else {
		l.first = first
		// Only when out was empty: a store is a locked instruction.
		l.some.Store(true)
	}
	l.last = last
}

// any reports whether the list has a strand, without a lock. It may overlook those that a worker is
// moving, which will tell another worker of them as if they were new.
func (l *runList) any() bool {
	head := l.in.Load()
	// in first: a strand moves from in to out. Reading out first could miss it in both.
	return head != nil && head != &shut || l.some.Load()
}

// pop takes the first strand, if it is of the generation that v is at, and stores it in cur. more
// reports whether there are others.
func (l *runList) pop(v *visit, cur *atomic.Pointer[Strand]) (s *Strand, more bool) {
	// Most lists are empty in most rounds, and the lock would be a write to a shared line.
	if !l.any() {
		return nil, false
	}
	l.mu.Lock()
	switch s = l.first; {
	// Only a worker that has just arrived turns in over. One that has taken something goes on to
	// the next list, even if more has come meanwhile.
	case s == nil && v.arrived:
		var last *Strand
		// The first is taken without passing through out, which spares a lone strand the flag and
		// both links.
		if s, last = l.receiveLocked(nil); s != nil && s != last {
			l.addLocked(s.next, last)
		}
		l.generation++
	// One that arrives joins the generation that others are taking from.
	case s != nil && (v.arrived || v.generation == l.generation):
		if l.first = s.next; l.first == nil {
			l.last = nil
			l.some.Store(false)
		}
	// Nothing is left of the generation that v is at: this worker has had its share here.
	default:
		s = nil
	}
	if s == nil {
		l.mu.Unlock()
		return nil, false
	}
	v.arrived, v.generation = false, l.generation
	s.next = nil
	// Before the lock is given up, so that the end of the pool finds s in the list or in cur.
	cur.Store(s)
	l.mu.Unlock()
	return s, l.any()
}

// close refuses strands that were idle; those that wait stay.
func (l *runList) close() {
	l.mu.Lock()
	// Strands that were pushed before stay accepted and move to out, where strands that go on may
	// follow.
	l.addLocked(l.receiveLocked(&shut))
	l.mu.Unlock()
}

// drain removes and returns all strands, linked. With abort the list takes no more.
func (l *runList) drain(abort bool) *Strand {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Under the lock: a worker that wants to go on with a strand sees it, or has added the strand
	// and it is found below.
	l.aborted = l.aborted || abort
	l.addLocked(l.receiveLocked(nil))
	first := l.first
	l.first, l.last = nil, nil
	l.some.Store(false)
	return first
}

// each calls f with all strands that wait, in no particular order.
func (l *runList) each(f func(*Strand)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// in is read while producers push. That is safe, because a strand that is in the stack keeps
	// its next until receiveLocked, which needs mu.
	for _, s := range []*Strand{l.first, l.in.Load()} {
		for ; s != nil && s != &shut; s = s.next {
			f(s)
		}
	}
}
