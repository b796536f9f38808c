// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// This file is a model of how workers of an unpinned pool park, are woken, retire and are resized
// away, step by step as workers.go does it (except for the end of the pool): one step is one access
// to a word that others see without the lock, or a stretch under workers.mu that touches none.
// TestProtocol tries every order of the steps. The model is kept by hand; it is worth something
// only while each step below can be found in workers.go.

const modelWorkers = 4 // goroutines that may exist at a time; more than any limit below, since leavers overlap with others

// model is one state. It is comparable, so that visited states can be kept in a map.
type model struct {
	tasks     int8 // queued
	spare     int8
	searching int8
	over      bool
	limit     int8
	live      int8
	locked    bool // workers.mu
	blocking  int8 // how many more tasks may never return
	procs     [modelWorkers + 3]modelProc
}

// modelProc is a goroutine: workers first, then the producer, Resize, and the timer that retires.
type modelProc struct {
	pc        modelPC
	ret       modelPC // where wakeOne returns to
	left      int8    // producer: tasks to add; Resize: calls to make; timer: workers to retire
	idle      bool
	searching bool
	retired   bool
	token     bool
	blocks    bool // the task it took will not return
}

type modelPC int8

const (
	absent modelPC = iota
	// worker
	working
	blocked
	foundSpare // found: helpful, first half
	foundSearching
	foundPending
	parkOver
	parkSearch
	parkLook
	parkLock
	parkSpare
	parkLower
	parkUnlock
	parkAgain
	parkRelock
	parkWait
	leaveLower
	leavePending
	leaveSpare
	leaveSearching
	// producer
	produce
	produceSpare
	produceSearching
	// Resize
	resizeLock
	resizeOver
	resizeRetire
	resizePending
	resizeSpare
	resizeSearching
	// timer
	retireLock
	// wakeOne, called by all
	wakeLock
	wakeSearching
	wakePick
	wakeUnlock
)

// modelFault is a mistake to make on purpose: the checker must find it.
type modelFault int

const (
	noFault          modelFault = iota
	leaveEmptyHanded            // a parked worker that is retired does not recheck
	resizeSilently              // a larger limit does not look for waiting tasks
	parkWithoutLook             // no second look after announcing
	findSilently                // found does not wake the next one
)

const (
	theProducer = modelWorkers
	theResizer  = modelWorkers + 1
	theTimer    = modelWorkers + 2
)

// limits are what the calls of Resize ask for, the last call's first.
var modelLimits = [...]int8{2, 1}

// step returns the states that follow s when process i makes its next step; none if it is blocked
// or over.
func (s model) step(i int, fault modelFault) []model {
	p := &s.procs[i]
	wakeOne := func(then modelPC) { p.pc, p.ret = wakeLock, then }
	lock := func(then modelPC) []model {
		if s.locked {
			return nil
		}
		s.locked = true
		p.pc = then
		return []model{s}
	}
	// read continues at yes or no, whichever cond says.
	read := func(cond bool, yes, no modelPC) {
		if p.pc = no; cond {
			p.pc = yes
		}
	}
	switch p.pc {
	case working: // grab
		switch {
		case p.blocks:
			p.pc = blocked
		case s.over || s.tasks == 0:
			p.pc = parkOver
		default:
			s.tasks--
			if p.searching {
				p.searching = false
				s.searching--
			}
			p.pc = foundSpare
			if fault == findSilently {
				p.pc = working
			}
			if s.blocking > 0 {
				t := s
				t.blocking--
				t.procs[i].blocks = true
				return []model{s, t}
			}
		}
	case foundSpare:
		read(s.spare > 0, foundSearching, working)
	case foundSearching:
		read(s.searching < 1, foundPending, working)
	case foundPending:
		if p.pc = working; s.tasks > 0 {
			wakeOne(working)
		}

	case parkOver: // not every pool's workers look before they park
		p.pc = parkLock
		if !s.over {
			t := s
			t.procs[i].pc = parkSearch
			return []model{s, t}
		}
	case parkSearch:
		if !p.searching && s.searching == 0 {
			p.searching = true
			s.searching++
		}
		p.pc = parkLook
	case parkLook:
		read(s.tasks > 0, working, parkLock)
	case parkLock:
		if s.locked {
			return nil
		}
		if s.live > s.limit {
			p.retired = true
			s.live--
			s.spare++
			s.over = s.live > s.limit
			p.pc = leaveLower
		} else {
			s.locked = true
			p.idle = true
			p.pc = parkSpare
		}
	case parkSpare:
		s.spare++
		p.pc = parkLower
	case parkLower:
		if p.searching {
			p.searching = false
			s.searching--
		}
		p.pc = parkUnlock
	case parkUnlock:
		s.locked = false
		p.pc = parkAgain
		if fault == parkWithoutLook {
			p.pc = parkWait
		}
	case parkAgain:
		read(s.tasks > 0, parkRelock, parkWait)
	case parkRelock:
		if s.locked {
			return nil
		}
		if p.pc = parkWait; p.idle {
			p.idle = false
			s.spare--
			p.pc = working
		}
	case parkWait:
		if !p.token {
			return nil
		}
		p.token = false
		read(p.retired, leaveLower, working)
		if p.retired && fault == leaveEmptyHanded {
			*p = modelProc{}
		}

	case leaveLower:
		if p.searching {
			p.searching = false
			s.searching--
		}
		p.pc = leavePending
	case leavePending:
		read(s.tasks > 0, leaveSpare, absent)
	case leaveSpare:
		read(s.spare > 0, leaveSearching, absent)
	case leaveSearching:
		if p.pc = absent; s.searching < 1 {
			wakeOne(absent)
		}

	case produce:
		if p.left == 0 {
			p.pc = absent
			break
		}
		p.left--
		s.tasks++
		p.pc = produceSpare
	case produceSpare:
		read(s.spare > 0, produceSearching, produce)
	case produceSearching:
		if p.pc = produce; s.searching < 1 {
			wakeOne(produce)
		}

	case resizeLock:
		if p.left == 0 {
			p.pc = absent
			break
		}
		if s.locked {
			return nil
		}
		p.left--
		s.locked = true
		s.spare += modelLimits[p.left] - s.limit
		s.limit = modelLimits[p.left]
		p.pc = resizeOver
	case resizeOver:
		s.over = s.live > s.limit
		p.pc = resizeRetire
	case resizeRetire: // any idle worker, one after the other
		var next []model
		for w := range modelWorkers {
			if s.over && s.procs[w].idle {
				t := s
				t.retireIdle(w)
				next = append(next, t)
			}
		}
		if next != nil {
			return next
		}
		s.locked = false
		if p.pc = resizePending; fault == resizeSilently {
			p.pc = resizeLock
		}
	case resizePending:
		read(s.tasks > 0, resizeSpare, resizeLock)
	case resizeSpare:
		read(s.spare > 0, resizeSearching, resizeLock)
	case resizeSearching:
		if p.pc = resizeLock; s.searching < 1 {
			wakeOne(resizeLock)
		}

	case retireLock: // at any time, and perhaps never
		if s.locked || p.left == 0 {
			return nil
		}
		var next []model
		for w := range modelWorkers {
			if s.procs[w].idle {
				t := s
				t.procs[i].left--
				t.retireIdle(w)
				next = append(next, t)
			}
		}
		return next

	case wakeLock:
		return lock(wakeSearching)
	case wakeSearching:
		read(s.searching < 1, wakePick, wakeUnlock)
	case wakePick:
		p.pc = wakeUnlock
		var next []model
		for w := range modelWorkers {
			if s.procs[w].idle {
				t := s
				t.procs[w].idle = false
				t.procs[w].searching = true
				t.procs[w].token = true // sent after the lock is given up; nobody can tell
				t.spare--
				t.searching++
				next = append(next, t)
			}
		}
		if next != nil {
			return next
		}
		if s.live < s.limit {
			w := 0
			for ; s.procs[w].pc != absent; w++ {
				if w == modelWorkers-1 {
					panic("modelWorkers is too small")
				}
			}
			s.live++
			s.spare--
			s.searching++
			s.procs[w] = modelProc{pc: working, searching: true}
		}
	case wakeUnlock:
		s.locked = false
		p.pc = p.ret
	default:
		return nil
	}
	if i < modelWorkers && p.pc == absent {
		*p = modelProc{}
	}
	return []model{s}
}

func (s *model) retireIdle(w int) {
	q := &s.procs[w]
	q.idle, q.retired, q.token = false, true, true
	s.live-- // spare: one idle less, one more to be started
	s.over = s.live > s.limit
}

// lost reports whether, with nothing left to happen, a task waits that a worker could run.
func (s *model) lost() bool {
	busy := int8(0)
	for _, p := range s.procs {
		if p.pc == blocked {
			busy++
		}
	}
	return s.tasks > 0 && busy < s.limit || s.searching != 0 || s.locked
}

// explore visits every state that can be reached from s and returns how many there are, and one in
// which a task is lost.
func explore(s model, fault modelFault) (states int, stuck *model) {
	seen := map[model]bool{s: true}
	todo := []model{s}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		moved := false
		for i := range s.procs {
			for _, next := range s.step(i, fault) {
				moved = moved || i != theTimer // the timer saves nobody
				if !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
		if !moved && s.lost() {
			return len(seen), &s
		}
	}
	return len(seen), nil
}

// TestProtocol: in no interleaving does a task wait while everybody who could run it sleeps; and a
// checker that finds the mistakes of modelFault is able to find one.
func TestProtocol(t *testing.T) {
	start := func(limit, tasks, blocking, resizes, retires int8) model {
		s := model{limit: limit, spare: limit, blocking: blocking}
		s.procs[theProducer] = modelProc{pc: produce, left: tasks}
		s.procs[theResizer] = modelProc{pc: resizeLock, left: resizes}
		s.procs[theTimer] = modelProc{pc: retireLock, left: retires}
		return s
	}
	scenes := []struct {
		name string
		s    model
	}{
		{"park", start(2, 3, 1, 0, 0)},
		{"retire", start(2, 3, 0, 0, 1)},
		{"resize", start(2, 2, 0, 2, 0)},
		{"resize-blocked", start(1, 2, 1, 2, 0)},
		{"resize-retire", start(2, 1, 0, 2, 1)},
	}
	for _, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			states, stuck := explore(c.s, noFault)
			require.Nil(t, stuck)
			t.Logf("%d states", states)
		})
	}
	for fault := leaveEmptyHanded; fault <= findSilently; fault++ {
		t.Run(fmt.Sprintf("fault=%d", fault), func(t *testing.T) {
			for _, c := range scenes {
				if _, stuck := explore(c.s, fault); stuck != nil {
					return
				}
			}
			require.Fail(t, "the checker overlooks a known mistake")
		})
	}
}
