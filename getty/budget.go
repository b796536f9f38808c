// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"cmp"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// ErrMemoryBudget is the cause of a session that was ended because the sessions of its endpoint
// together had used up their MemoryBudget, and it held the most.
var ErrMemoryBudget = errors.New("getty: the endpoint's memory budget is used up")

// A budget counts the bytes that the sessions of an endpoint hold: queued for the peer, decoded and
// not handled, and read and not decoded. It is short from seven eighths of its limit until a
// quarter is free: no session reads, and what only the peers can change is cut, which means that
// the sessions with the largest queues and incomplete packages end. The last eighth is for what
// comes of the packages that have been read.
//
// Every count is one atomic addition, and there is no budget where none was asked for.
type budget struct {
	ep        *endpoint
	high, low int64 // where it becomes short, and where it is so no longer

	used  atomic.Int64
	short atomic.Bool // relieve runs
}

func newBudget(ep *endpoint, limit int64) *budget {
	return &budget{ep: ep, high: limit - limit/8, low: limit - limit/4}
}

// add counts n bytes more, or less. A nil budget counts nothing.
func (b *budget) add(n int) {
	if b == nil || n == 0 {
		return
	}
	if used := b.used.Add(int64(n)); n > 0 && used > b.high {
		b.exhaust()
	}
}

// exhaust begins a shortage, if there is none.
func (b *budget) exhaust() {
	if !b.short.Load() && !b.short.Swap(true) {
		b.ep.spawn(b.relieve) // not here: the caller may hold locks
	}
}

// exceeded reports whether reading pauses.
func (b *budget) exceeded() bool { return b != nil && b.short.Load() }

// relievePause is how long relieve gives memory to become free, at first.
const relievePause = time.Millisecond

// relieve ends the shortage. It looks instead of being told: whoever frees memory would have to
// know in the same moment whether it is short.
func (b *budget) relieve() {
	for pause := relievePause; b.used.Load() > b.low; pause = min(2*pause, 64*relievePause) {
		if b.cut() {
			pause = relievePause
		}
		time.Sleep(pause)
	}
	for _, s := range b.ep.snapshot() {
		s.clock.resumed() // before they read again: the pause was not theirs
	}
	b.short.Store(false)
	for _, s := range b.ep.snapshot() { // again: a session may have come between
		s.outbox.wake()
	}
	if b.used.Load() > b.high {
		b.exhaust() // what was added before the end of the shortage has begun none
	}
}

// An inputHolder is a protocol that holds the beginning of a package.
type inputHolder interface{ inputHeld() int64 }

func (t *stream) inputHeld() int64 { return t.noted.Load() }

// cut ends as many sessions as it takes now. It reports false if there is none to end: what waits
// for handlers goes by itself.
func (b *budget) cut() (some bool) {
	type holder struct {
		s     *session
		holds int64
	}
	excess := b.used.Load() - b.low
	var all []holder
	for _, s := range b.ep.snapshot() {
		n := s.outbox.held()
		if t, ok := s.proto.(inputHolder); ok {
			n += t.inputHeld()
		}
		switch {
		case n == 0:
		case s.has(flagHard): // it is being cut already
			excess -= n
			some = true
		default:
			all = append(all, holder{s, n})
		}
	}
	slices.SortFunc(all, func(a, b holder) int { return cmp.Compare(b.holds, a.holds) })
	for _, q := range all {
		if excess <= 0 {
			break
		}
		b.ep.stats.cut.Add(1)
		q.s.life.fail(ErrMemoryBudget)
		excess -= q.holds
		some = true
	}
	return some
}
