// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"math"
	"sync"
	"time"

	"github.com/gostkit/kit/timerwheel"
)

// watchPeriod is how often a flushWatch looks at its sessions.
const watchPeriod = time.Millisecond

// watchIdle is how often in a row a session must be found idle before it leaves the list. A busy
// session has an empty queue at most of the looks, and joining the list again costs more than being
// looked at a few times for nothing.
const watchIdle = 4

// A flushWatch flushes queues that a long turn would hold back. Packages that are queued within a
// turn leave with its end; a session that queues some joins the list, and about every millisecond
// the watch flushes the queues that have not moved since it last looked. It belongs to an endpoint.
//
// One timer serves all sessions of the endpoint, and only while the list is not empty. With a timer
// for each of them, every busy session would set and fire one a thousand times a second, mostly to
// find that its turn is over and its queue has gone.
type flushWatch struct {
	mu    sync.Mutex
	list  []watched         // guarded by mu
	timer *timerwheel.Timer // guarded by mu; made when first needed
}

// A watched session has had packages queued in a turn.
type watched struct {
	s    *session
	seen uint64 // for outbox.late
	idle int    // how often in a row it was found idle
}

// add puts s on the list, unless it is there already.
func (w *flushWatch) add(s *session) {
	if !s.setFlag(flagWatched) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, watched{s: s, seen: math.MaxUint64})
	if len(w.list) > 1 {
		return // the timer is set
	}
	if w.timer == nil {
		w.timer = s.ep.wheel.AfterFunc(watchPeriod, w.look)
	} else {
		w.timer.Reset(watchPeriod)
	}
}

// look is run by the timer.
func (w *flushWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	keep := w.list[:0]
	for _, e := range w.list {
		late, idle := e.s.outbox.late(&e.seen)
		if late {
			// Not here: a flush makes a system call, and the timers of all endpoints of the
			// process wait until this function returns.
			e.s.spawn(e.s.outbox.flushLate)
		}
		if !idle {
			e.idle = 0
		} else if e.idle++; e.idle >= watchIdle {
			// A writer that queued before the flag was cleared saw no need to join, so the queue is
			// looked at once more. If it is not empty s stays, unless it has just joined again.
			e.s.clearFlag(flagWatched)
			if _, idle = e.s.outbox.late(&e.seen); idle || !e.s.setFlag(flagWatched) {
				continue
			}
		}
		keep = append(keep, e)
	}
	clear(w.list[len(keep):]) // the sessions that left must not be kept alive
	w.list = keep
	if len(keep) > 0 {
		w.timer.Reset(watchPeriod)
	}
}

// stop stops the timer. No session is left.
func (w *flushWatch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}
