// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// levelsModel runs levels beside a map from timer to wanted tick.
type levelsModel struct {
	t    *testing.T
	ls   levels
	want map[*Timer]int64
	all  []*Timer // what may still be there, for choosing one to remove
}

func newLevelsModel(t *testing.T, cur int64) *levelsModel {
	return &levelsModel{t: t, ls: levels{cur: cur}, want: map[*Timer]int64{}}
}

func (m *levelsModel) insert(tick int64) {
	tm := &Timer{level: levelNone}
	m.ls.put(tm, tick)
	m.want[tm] = tick
	m.all = append(m.all, tm)
}

func (m *levelsModel) removeSome(i uint64) {
	for len(m.all) > 0 {
		k := int(i % uint64(len(m.all)))
		tm := m.all[k]
		m.all[k] = m.all[len(m.all)-1]
		m.all = m.all[:len(m.all)-1]
		if _, ok := m.want[tm]; ok {
			m.ls.remove(tm)
			delete(m.want, tm)
			return
		}
	}
}

// first returns the earliest wanted tick.
func (m *levelsModel) first() int64 {
	first := never
	for _, tick := range m.want {
		first = min(first, tick)
	}
	return first
}

// advance moves the clock to the tick to, as shard.advance does it, and checks that each timer
// comes out exactly at its tick, in order.
func (m *levelsModel) advance(to int64) {
	for {
		for tm := m.ls.takeCurrent(); tm != nil; tm = m.ls.takeCurrent() {
			tick := m.want[tm]
			if tick < m.ls.cur {
				m.t.Fatalf("timer for %d taken at %d", tick, m.ls.cur)
			}
			if tick > m.ls.cur {
				m.ls.put(tm, tick)
				continue
			}
			delete(m.want, tm)
		}
		next := m.ls.next()
		if first := m.first(); next > first || (next == never) != (first == never) {
			m.t.Fatalf("at %d: next() = %d, the first timer is at %d", m.ls.cur, next, first)
		}
		if next > to {
			m.ls.cur = max(m.ls.cur, to)
			break
		}
		if next <= m.ls.cur {
			m.t.Fatalf("next() = %d at %d does not go on", next, m.ls.cur)
		}
		m.ls.cur = next
	}
	require.Greater(m.t, m.first(), m.ls.cur, "a timer was passed")
}

// Every boundary of every level, from clocks at every boundary: 64^k-1, 64^k, 64^k+1, slots
// that wrap, and the end of time.
func TestLevelsBoundaries(t *testing.T) {
	var edges []int64
	for k := range maxLevels {
		p := int64(1) << (k * slotBits)
		for _, f := range []int64{1, 2, 63} {
			if f > never/p {
				continue
			}
			edges = append(edges, f*p-1, f*p, f*p+1)
		}
	}
	edges = append(edges, never/2, never-1)
	for _, cur := range edges {
		m := newLevelsModel(t, cur)
		for _, delta := range edges {
			if delta > 0 && delta < never-cur {
				m.insert(cur + delta)
			}
		}
		for i := 0; len(m.want) > 0; i++ {
			if i%2 == 0 {
				m.advance(m.first() - 1) // one before: nothing may come out
			}
			m.advance(m.first())
		}
	}
}

func TestLevelForAndHorizon(t *testing.T) {
	require.Equal(t, 0, levelFor(1), "levelFor(1)")
	for k := 1; k < maxLevels; k++ {
		p := int64(1) << (k * slotBits)
		require.Equal(t, k-1, levelFor(p-1), "levelFor(64^%d-1)", k)
		require.Equal(t, k, levelFor(p), "levelFor(64^%d)", k)
	}
	require.Equal(t, maxLevels-1, levelFor(never), "the largest number of ticks has a level")
}

func TestCoarseTickBound(t *testing.T) {
	for range 100_000 {
		delta := rand.Int64() >> rand.IntN(62)
		if delta == 0 {
			continue
		}
		tick := delta + rand.Int64N(never-delta)
		got := coarseTick(tick, delta)
		if got < tick || got-tick > delta/8 {
			t.Fatalf("coarseTick(%d, %d) = %d", tick, delta, got)
		}
	}
	require.Equal(t, never, coarseTick(never, never), "the end of time")
}

// runLevels interprets data as operations.
func runLevels(t *testing.T, data []byte) {
	if len(data) < 9 {
		return
	}
	cur := int64(binary.LittleEndian.Uint64(data) >> 2)
	m := newLevelsModel(t, cur>>(data[8]%62))
	for data = data[9:]; len(data) >= 9; data = data[9:] {
		x := binary.LittleEndian.Uint64(data[1:])
		// Spread over all magnitudes; the low bits of x choose which.
		delta := int64(x>>1)>>(x%62) + 1
		if delta <= 0 || delta >= never-m.ls.cur {
			delta = 1
		}
		switch data[0] % 4 {
		case 0, 1:
			m.insert(m.ls.cur + delta)
		case 2:
			m.removeSome(x)
		case 3:
			if first := m.first(); x&64 == 0 && first != never {
				m.advance(first)
			} else {
				m.advance(m.ls.cur + delta)
			}
		}
	}
	m.advance(never - 1)
	require.Empty(t, m.want, "left over")
}

func TestLevelsRandom(t *testing.T) {
	rounds := 300
	if long {
		rounds = 30_000
	}
	for seed := range rounds {
		r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
		data := make([]byte, 9*200)
		r.Read(data)
		runLevels(t, data)
	}
}

func FuzzLevels(f *testing.F) {
	f.Add([]byte("a few bytes that do a few things: insert, remove, advance, and so on to the end"))
	f.Fuzz(runLevels)
}
