// SPDX-License-Identifier: Apache-2.0

package timerwheel

import "fmt"

// check panics if the links, bits, counters and deadlines of a Wheel at rest contradict each
// other.
func (w *Wheel) check() {
	for i := range w.shards {
		w.shards[i].check()
	}
}

// linked returns how many timers are in lists.
func (w *Wheel) linked() (n int) {
	for i := range w.shards {
		sh := &w.shards[i]
		sh.mu.Lock()
		for t := sh.due.head; t != nil; t = t.next {
			n++
		}
		for _, lv := range sh.levels.lv {
			if lv == nil {
				continue
			}
			for i := range lv.slot {
				for t := lv.slot[i].head; t != nil; t = t.next {
					n++
				}
			}
		}
		sh.mu.Unlock()
	}
	return n
}

func (sh *shard) check() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n, first := 0, never
	walk := func(l *list, level, slot uint8) {
		var prev *Timer
		for t := l.head; t != nil; prev, t = t, t.next {
			n++
			if t.prev != prev || t.level != level || level != levelDue && t.slot != slot {
				panic(fmt.Sprintf("timer in level %d slot %d has wrong links or place", level, slot))
			}
			if t.deadline.Load() == 0 {
				panic("listed timer is not pending")
			}
			if level != levelDue {
				first = min(first, sh.tickOf(t.deadline.Load()))
			}
		}
		if l.tail != prev {
			panic("tail is not the last")
		}
	}
	walk(&sh.due, levelDue, 0)
	for k, lv := range sh.levels.lv {
		if lv == nil {
			continue
		}
		for i := range lv.slot {
			if (lv.slot[i].head != nil) != (lv.occupied>>i&1 == 1) {
				panic(fmt.Sprintf("bit of level %d slot %d is wrong", k, i))
			}
			walk(&lv.slot[i], uint8(k), uint8(i))
		}
	}
	if sh.closed {
		if sh.pending != 0 || sh.next.Load() != never {
			panic(fmt.Sprintf("closed: %d counted, next is %d", sh.pending, sh.next.Load()))
		}
		return
	}
	if n != sh.pending {
		panic(fmt.Sprintf("%d timers listed, %d counted", n, sh.pending))
	}
	if next := sh.next.Load(); next > first || next > 0 && sh.due.head != nil {
		panic(fmt.Sprintf("next is %d, after the first timer at %d", next, first))
	}
}
