// SPDX-License-Identifier: Apache-2.0

package taskpool

import "time"

// Items that a worker took along wait behind the one it runs. If that takes long, they must not
// wait while other workers run later ones. So a timer, which runs only while some worker has
// items in its batch, looks at all batches every millisecond, and puts those back to the front of
// their queue whose worker has not come to claim the next item in between. Tasks pay nothing for
// it: a worker that takes more than one item along reads one word.

// overdueAfter is how long an item waits at least, and for about twice as long at most, behind a
// task that runs, before other workers may take it.
const overdueAfter = time.Millisecond

// watchOverdue makes sure that the timer runs.
func (g *engine[E]) watchOverdue() {
	// Read before the compare-and-swap: every worker that takes items along comes here, and the
	// timer nearly always runs.
	if !g.overdue.Load() && g.overdue.CompareAndSwap(false, true) {
		g.armOverdue()
	}
}

// armOverdue makes a new timer each time, a thousand in a second at most: one that is kept could
// fire before its maker had stored it.
func (g *engine[E]) armOverdue() { time.AfterFunc(overdueAfter, g.lookOverdue) }

// lookOverdue is called by the timer, and by nothing else while overdue is set.
func (g *engine[E]) lookOverdue() {
	// One look at a time: only this goroutine writes batch.seen and begun, which need no lock
	// therefore.
	waiting, late := g.putBackOverdue()
	if g.longTasks(late) || waiting {
		g.armOverdue()
		return
	}
	g.overdue.Store(false)
	// A worker that filled its batch after the look saw overdue set and started no timer. Either
	// it is seen here, or it filled its batch after the store and starts the timer itself.
	for i := range int(g.width.Load()) {
		if b := g.carrier(i); b != nil && b.len() > 0 {
			g.watchOverdue()
			return
		}
	}
}

// longTasks decides whether workers may take items along until the next look; late reports that an
// item had to be put back. Putting back alone is not enough: with tasks of two milliseconds each
// worker would take items along again, and those would wait again, while later ones overtake them.
func (g *engine[E]) longTasks(late bool) bool {
	if !late && !g.long.Load() {
		return false // the usual case costs no walk over the workers
	}
	begun := uint64(0)
	width := int(g.width.Load())
	for i := range width {
		if w := g.carriers[i].Load(); w != nil {
			begun += w.begun.Load()
		}
	}
	// Compared as elapsed time per worker and not per processor, because an item waits for the
	// elapsed time. A worker that is replaced starts its count anew, so the sum may fall; that only
	// keeps items in the queue for another millisecond.
	short := begun > g.begun && begun-g.begun >= uint64(batchLen*width)
	g.begun = begun
	// Without work there is nothing to decide, and the timer must be able to stop.
	long := late || !short && g.some()
	g.long.Store(long)
	return long
}

// putBackOverdue puts back overdue items, and reports whether there are batches to look at again
// and whether it has put back anything.
func (g *engine[E]) putBackOverdue() (waiting, late bool) {
	for i := range int(g.width.Load()) {
		b := g.carrier(i)
		if b == nil {
			continue
		}
		overdue, some := b.overdue()
		waiting = waiting || some
		// The worker may claim an item between the two calls. Then putBack returns the rest: they
		// have waited all the same.
		if overdue && b.putBack() {
			late = true
			g.c.notify()
		}
	}
	return waiting, late
}
