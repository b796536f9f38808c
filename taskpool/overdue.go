// SPDX-License-Identifier: Apache-2.0

package taskpool

import "time"

// Items that a worker took along wait behind the one it runs. If that takes long, they must not
// wait while other workers run what came later. So a timer, which runs only while some worker has
// items in its batch, looks at all batches every millisecond, and puts those back to the front of
// their queue whose worker has not come to claim the next item in between. Tasks pay nothing for
// it: a worker that takes more than one item along reads one word.

// overdueAfter is how long an item waits at least, and for about twice as long at most, behind a
// task that runs, before other workers may take it.
const overdueAfter = time.Millisecond

// watchOverdue makes sure that the timer runs.
func (g *engine[E]) watchOverdue() {
	if !g.overdue.Load() && g.overdue.CompareAndSwap(false, true) {
		g.armOverdue()
	}
}

// armOverdue makes a new timer each time, a thousand in a second at most: one that is kept could
// fire before its maker had stored it.
func (g *engine[E]) armOverdue() { time.AfterFunc(overdueAfter, g.lookOverdue) }

// lookOverdue is called by the timer, and by nobody else while overdue is set.
func (g *engine[E]) lookOverdue() {
	if g.putBackOverdue() {
		g.armOverdue()
		return
	}
	g.overdue.Store(false)
	// A worker that filled its batch after the look, and saw overdue set, relies on it.
	for i := range int(g.width.Load()) {
		if b := g.carrier(i); b != nil && b.len() > 0 {
			g.watchOverdue()
			return
		}
	}
}

// putBackOverdue puts back what is overdue, and reports whether there are batches to look at again.
func (g *engine[E]) putBackOverdue() (again bool) {
	for i := range int(g.width.Load()) {
		b := g.carrier(i)
		if b == nil {
			continue
		}
		overdue, some := b.overdue()
		again = again || some
		if overdue && b.putBack() {
			g.c.notify()
		}
	}
	return again
}
