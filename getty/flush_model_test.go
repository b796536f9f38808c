// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFlushProtocol plays the steps of the flush protocol (flush.go) in every order that the locks allow: two
// writers, a turn that writes, Close or not, and the flusher that they may start. In every end each accepted
// package was sent, before the FIN, and nobody waits. It is a model, so it checks the rules and not the code that
// follows them; but each rule is shown to be needed: without it some order leaves a package behind.
func TestFlushProtocol(t *testing.T) {
	for _, close := range []bool{false, true} {
		states, bad := explore(close, 0)
		require.Empty(t, bad)
		require.Greater(t, states, 5_000)
	}
	for rule, what := range map[int]string{
		ruleTurnEnd:  "the turn's end looks at flagQueued in the step that gives up flagTurn",
		ruleLook:     "the token's holder looks at the queue before it gives the token back",
		ruleUnlocked: "an encoder looks at flagWant after it has unlocked",
		ruleTwice:    "who finds an encoder at work leaves flagWant and tries once more",
		ruleRefuse:   "an encoder looks at flagRefuse once it has the lock",
		ruleDrained:  "a closing session is drained only when encMu could be taken",
	} {
		_, open := explore(false, rule)
		_, closed := explore(true, rule)
		require.NotEmpty(t, open+closed, "without the rule that %s", what)
	}
}

const (
	ruleTurnEnd = iota + 1
	ruleLook
	ruleUnlocked
	ruleTwice
	ruleRefuse
	ruleDrained
)

// The actors of the model.
const (
	writer1 = iota
	writer2
	turn
	closer
	flusher
	actors
	free = -1
)

// An actor is in a step of its own, and perhaps in one of a flush that it has called.
type actor struct{ step, flush, took int8 }

type flushState struct {
	a                            [actors]actor
	encMu, qMu                   int8
	want, queued, inTurn, refuse bool // flags
	token, refused, fin          bool
	out, accepted, sent          int8
	sentAfterFIN                 bool
}

// Steps. Those of a flush are the functions of flush.go, split wherever somebody without qMu could come between.
const (
	done int8 = iota
	begin
	lockEnc
	lookRefuse
	appendPkg
	setQueued
	unlockEnc
	lookWant
	lookTurn
	endTurn
	clearTurn
	flushRefused
)

const (
	idle int8 = iota
	lockQ
	takeToken
	tryEnc
	tryAgain
	takeOut
	freeEnc
	send
	lockAgain
	proceed
)

func explore(close bool, without int) (states int, bad string) {
	first := flushState{encMu: free, qMu: free, inTurn: true}
	for _, who := range []int{writer1, writer2, turn, closer} {
		first.a[who].step = begin
	}
	if !close {
		first.a[closer].step = done
	}
	seen := map[flushState]bool{first: true}
	for todo := []flushState{first}; len(todo) > 0; {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		stuck := true
		for who := range actors {
			next := s
			if next.play(who, without) {
				stuck = false
				if !seen[next] {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
		if stuck && (s.wrong() || s.fin != close) && bad == "" {
			bad = fmt.Sprintf("%+v", s)
		}
	}
	return len(seen), bad
}

// wrong judges a state in which free can move.
func (s *flushState) wrong() bool {
	return s.a != [actors]actor{} || s.accepted != s.sent || s.out != 0 || s.sentAfterFIN || s.token
}

// play takes one step of an actor, and reports whether it could.
func (s *flushState) play(who, without int) bool {
	a := &s.a[who]
	if a.flush != idle {
		return s.playFlush(who, without)
	}
	switch a.step {
	case done:
		return false
	case begin:
		a.step = lockEnc
		if who == closer {
			s.refuse = true
			a.step = flushRefused
		} else if s.refuse {
			a.step = done
			if who == turn {
				a.step = endTurn
			}
		}
	case lockEnc:
		if s.encMu != free {
			return false
		}
		s.encMu, a.step = int8(who), lookRefuse
	case lookRefuse:
		a.step = appendPkg
		if s.refuse && without != ruleRefuse {
			a.step = unlockEnc
		}
	case appendPkg:
		s.out++
		s.accepted++
		a.step = setQueued
	case setQueued:
		s.queued, a.step = true, unlockEnc
	case unlockEnc:
		s.encMu, a.step = free, lookWant
	case lookWant:
		if s.want && without != ruleUnlocked {
			a.flush = lockQ
		}
		a.step = lookTurn
		if who == turn {
			a.step = endTurn
		}
	case lookTurn:
		if !s.inTurn {
			a.flush = lockQ
		}
		a.step = done
	case endTurn:
		if s.queued {
			a.flush = lockQ
		}
		a.step = clearTurn
	case clearTurn:
		s.inTurn, a.step = false, done
		if s.queued && without != ruleTurnEnd {
			a.flush = lockQ
		}
	case flushRefused:
		if s.qMu != free {
			return false
		}
		s.refused, a.step, a.flush = true, done, lockQ
	}
	return true
}

func (s *flushState) playFlush(who, without int) bool {
	a := &s.a[who]
	switch a.flush {
	case lockQ, lockAgain:
		if s.qMu != free {
			return false
		}
		s.qMu = int8(who)
		switch {
		case a.flush == lockAgain:
			a.flush = proceed
		case who == flusher:
			a.flush = tryEnc // it has the token from who started it
		default:
			a.flush = takeToken
		}
	case takeToken:
		if s.token {
			s.want = true
			s.leave(a)
			break
		}
		s.token, a.flush = true, tryEnc
	case tryEnc, tryAgain:
		switch {
		case s.encMu == free:
			s.encMu, a.flush = int8(who), takeOut
		case a.flush == tryEnc && without != ruleTwice:
			s.want, a.flush = true, tryAgain
		default:
			s.token = false
			s.leave(a)
		}
	case takeOut:
		a.took, s.out, s.queued, a.flush = s.out, 0, false, freeEnc
	case freeEnc:
		s.encMu = free
		if a.took > 0 {
			s.qMu, a.flush = free, send
			break
		}
		s.drained(a)
	case send:
		s.sent += a.took
		s.sentAfterFIN = s.sentAfterFIN || s.fin
		a.took, a.flush = 0, lockAgain
	case proceed:
		switch {
		case without == ruleLook:
			s.token = false
			s.leave(a)
		case !s.queued && (!s.refused || without == ruleDrained):
			s.drained(a)
		case who == flusher || !s.queued:
			a.flush = tryEnc
		case !s.refused && s.inTurn && !s.want:
			s.token = false
			s.leave(a)
		default:
			s.a[flusher].flush = lockQ
			s.leave(a)
		}
	}
	return true
}

func (s *flushState) drained(a *actor) {
	s.want, s.token = false, false
	s.fin = s.fin || s.refused
	s.leave(a)
}

// leave returns from a flush.
func (s *flushState) leave(a *actor) { s.qMu, a.flush = free, idle }
