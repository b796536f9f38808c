// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"math"
	"math/bits"
)

// The arithmetic of the wheel.
//
// Time is counted in ticks. A slot of level n covers 64^n ticks and begins at a multiple of
// that; it is known by its number tick>>6n and lives at index number&63. A timer that is d
// ticks away goes to the level n with 64^n <= d < 64^(n+1), so its slot is 1 to 64 slots
// ahead of the one the level is in: every index stands for exactly one number, and index
// "here" means 64 ahead. When the clock reaches the beginning of a slot, its timers move to
// lower levels or are due. cur moves only to the beginning of the earliest occupied slot, or
// to any tick before it, so no slot is passed unseen.
//
// 64^11 > 2^63: the levels reach as far as a time.Duration can say, whatever the tick.
const (
	slotBits  = 6
	slotCount = 1 << slotBits
	slotMask  = slotCount - 1
	maxLevels = 11

	never int64 = math.MaxInt64 // the beginning of no slot
)

// What Timer.level says when the timer is in no level.
const (
	levelNone = 0xff // in no list; the zero Timer is told apart by its nil shard
	levelDue  = 0xfe // in the list of due timers
)

type level struct {
	occupied uint64 // bit i: slot[i] is not empty
	slot     [slotCount]list
}

// levels holds timers by the tick in which they want to be looked at. It knows no clock and no
// lock, and of a Timer only its links and its place.
type levels struct {
	cur   int64 // everything that wanted an earlier tick, or this one, has been taken
	depth int   // levels at and above depth were never used
	lv    [maxLevels]*level
}

// levelFor returns the level for a timer that is delta >= 1 ticks away.
func levelFor(delta int64) int {
	return (bits.Len64(uint64(delta)) - 1) / slotBits
}

// put stores t for tick > cur. If t is in a level already, it moves, unless it is in that slot.
func (ls *levels) put(t *Timer, tick int64) {
	n := levelFor(tick - ls.cur)
	shift := n * slotBits
	number := tick >> shift
	i := number & slotMask
	if int(t.level) < maxLevels {
		if int(t.level) == n && int64(t.slot) == i {
			return // an index stands for one number: it is this slot
		}
		ls.remove(t)
	}
	lv := ls.lv[n]
	if lv == nil {
		// Most wheels never use the high levels, of a KiB each.
		lv = new(level)
		ls.lv[n] = lv
		ls.depth = max(ls.depth, n+1)
	}
	lv.slot[i].push(t) // at the end: timers of a slot keep their order
	lv.occupied |= 1 << i
	t.level, t.slot = uint8(n), uint8(i)
}

// remove takes t, which is in a level, out of it.
func (ls *levels) remove(t *Timer) {
	lv := ls.lv[t.level]
	l := &lv.slot[t.slot]
	l.remove(t)
	if l.head == nil {
		lv.occupied &^= 1 << t.slot
	}
	t.level = levelNone
}

// first returns the earliest occupied slot of level n and its beginning, which is after cur, or
// nil and never.
func (ls *levels) first(n int) (l *list, begin int64) {
	lv := ls.lv[n]
	if lv == nil || lv.occupied == 0 {
		return nil, never
	}
	// Rotated so that the slot after the current one is bit 0: the first set bit is the slot
	// that comes next, around the end of the level.
	shift := n * slotBits
	here := ls.cur >> shift
	ahead := bits.TrailingZeros64(bits.RotateLeft64(lv.occupied, -int((here+1)&slotMask)))
	number := here + 1 + int64(ahead)
	return &lv.slot[number&slotMask], number << shift
}

// next returns the beginning of the earliest occupied slot, or never.
func (ls *levels) next() int64 {
	next := never
	for n := range ls.depth {
		_, begin := ls.first(n)
		next = min(next, begin)
	}
	return next
}

// takeCurrent removes and returns a timer from a slot that begins at cur, highest level
// first, or nil when all of them are empty. Until it has returned nil, cur must not move.
//
// Whatever is inserted meanwhile, by the caller or by others between two calls, never lands in
// such a slot: cur is a multiple of 64^n, so a tick less than 64^(n+1) away is at most 63
// slots ahead.
func (ls *levels) takeCurrent() *Timer {
	for n := ls.depth - 1; n >= 0; n-- {
		shift := n * slotBits
		if ls.cur&(1<<shift-1) != 0 {
			continue // inside a slot of this level: its index stands for the one 64 ahead
		}
		lv := ls.lv[n]
		if lv == nil {
			continue
		}
		if t := lv.slot[(ls.cur>>shift)&slotMask].head; t != nil {
			ls.remove(t)
			return t
		}
	}
	return nil
}

// takeAny removes and returns a timer, or nil when there is none.
func (ls *levels) takeAny() *Timer {
	for _, lv := range ls.lv[:ls.depth] {
		if lv != nil && lv.occupied != 0 {
			t := lv.slot[bits.TrailingZeros64(lv.occupied)].head
			ls.remove(t)
			return t
		}
	}
	return nil
}

// coarseTick moves tick, which is delta >= 1 ticks away, to the next multiple of the largest
// power of two that is at most delta/8. What is that round usually begins a slot, and fires
// from there.
func coarseTick(tick, delta int64) int64 {
	grain := int64(1) << max(bits.Len64(uint64(delta))-4, 0)
	if rounded := (tick + grain - 1) &^ (grain - 1); rounded >= tick {
		return rounded
	}
	return tick // the last ticks before the end of time
}
