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
// together held more than MemoryBudget, and it held the most.
var ErrMemoryBudget = errors.New("getty: the endpoint's memory budget is used up")

// A budget counts the bytes that the sessions of an endpoint hold: queued for the peer, decoded and
// not handled, and read and not decoded. Above its limit no session reads. What only the peers can
// change is cut: the sessions with the largest queues and incomplete packages end.
//
// Every count is one atomic addition, and there is no budget where none was asked for.
type budget struct {
	ep    *endpoint
	limit int64

	used atomic.Int64
	over atomic.Bool // reading pauses, until used has fallen by an eighth of the limit

	cutting, resuming atomic.Bool // a goroutine is at it
}

// low is where reading begins again.
func (b *budget) low() int64 { return b.limit - b.limit/8 }

// add counts n bytes more, or less. A nil budget counts nothing.
func (b *budget) add(n int) {
	if b == nil || n == 0 {
		return
	}
	used := b.used.Add(int64(n))
	switch {
	case used > b.limit:
		b.over.Store(true)
		if !b.cutting.Swap(true) {
			b.ep.spawn(b.cut) // not here: the caller may hold locks
		}
	case n < 0 && used <= b.low() && b.over.Load():
		if !b.resuming.Swap(true) {
			b.ep.spawn(b.resume)
		}
	}
}

// exceeded reports whether reading pauses.
func (b *budget) exceeded() bool { return b != nil && b.over.Load() }

// resume ends the pause of all sessions.
func (b *budget) resume() {
	all := b.ep.snapshot()
	for _, s := range all {
		s.clock.resumed()
	}
	b.over.Store(false)
	b.resuming.Store(false)
	for _, s := range all {
		s.outbox.wake()
	}
	if b.used.Load() > b.limit {
		b.add(1) // it was exceeded again meanwhile, and nobody has noted it
		b.add(-1)
	}
}

// An inputHolder is a protocol that holds the beginning of a package.
type inputHolder interface{ inputHeld() int64 }

func (t *stream) inputHeld() int64 { return t.noted.Load() }

// cutPause is how long cut waits for the memory of what it has ended.
const cutPause = 5 * time.Millisecond

// cut ends the sessions that hold most, until reading may go on.
func (b *budget) cut() {
	defer b.cutting.Store(false)
	// The package that was too much is still being queued, and its session might look empty.
	time.Sleep(time.Millisecond)
	for b.used.Load() > b.low() && b.cutSome() {
		time.Sleep(cutPause)
	}
}

// cutSome ends as many sessions as it takes now. It reports false if there is none to end: what
// waits for handlers goes by itself.
func (b *budget) cutSome() (some bool) {
	type holder struct {
		s     *session
		holds int64
	}
	excess := b.used.Load() - b.low()
	var all []holder
	for _, s := range b.ep.snapshot() {
		n := int64(s.outbox.tryQueuedBytes())
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
