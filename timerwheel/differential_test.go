// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A schedule is executed twice in the same bubble, step by step: with package time and with a
// Wheel. Every observable is noted: results of Stop and Reset, what is received and when it
// was sent, when callbacks run. The notes must be equal.

// event is one side of a pair: a timer of either package.
type event struct {
	stop   func() bool
	reset  func(time.Duration) bool
	c      <-chan time.Time
	ticker bool
}

type side interface {
	afterFunc(d time.Duration, f func()) event
	newTimer(d time.Duration) event
	newTicker(d time.Duration) event
}

type stdSide struct{}

func (stdSide) afterFunc(d time.Duration, f func()) event {
	t := time.AfterFunc(d, f)
	return event{stop: t.Stop, reset: t.Reset}
}

func (stdSide) newTimer(d time.Duration) event {
	t := time.NewTimer(d)
	return event{stop: t.Stop, reset: t.Reset, c: t.C}
}

func (stdSide) newTicker(d time.Duration) event {
	t := time.NewTicker(d)
	return event{c: t.C, ticker: true,
		stop:  func() bool { t.Stop(); return false },
		reset: func(d time.Duration) bool { t.Reset(d); return false }}
}

type kitSide struct{ w *Wheel }

func (s kitSide) afterFunc(d time.Duration, f func()) event {
	t := s.w.AfterFunc(d, f)
	return event{stop: t.Stop, reset: t.Reset}
}

func (s kitSide) newTimer(d time.Duration) event {
	t := s.w.NewTimer(d)
	return event{stop: t.Stop, reset: t.Reset, c: t.C}
}

func (s kitSide) newTicker(d time.Duration) event {
	t := s.w.NewTicker(d)
	return event{c: t.C, ticker: true,
		stop:  func() bool { t.Stop(); return false },
		reset: func(d time.Duration) bool { t.Reset(d); return false }}
}

// player executes one side's part of each step and keeps its notes.
type player struct {
	side
	events [6]event
	notes  []string

	mu    sync.Mutex // for the race detector: callbacks and steps take turns anyway
	fired [6][]time.Time
}

func (p *player) fire(k int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fired[k] = append(p.fired[k], time.Now())
}

// calls returns when callbacks ran, of all events.
func (p *player) calls() (all [6][]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range all {
		all[k] = slices.Clone(p.fired[k])
	}
	return all
}

func (p *player) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

func (p *player) step(op byte, k int, d time.Duration) {
	e := &p.events[k]
	switch {
	case e.stop == nil || op == 0:
		if e.stop != nil {
			e.stop()
		}
		switch op % 3 {
		case 0:
			*e = p.afterFunc(d, func() { p.fire(k) })
		case 1:
			*e = p.newTimer(d)
		case 2:
			*e = p.newTicker(tickerPeriod(d))
		}
	case op <= 2:
		p.note("%d: Stop = %v", k, e.stop())
	case op <= 5:
		if e.ticker {
			d = tickerPeriod(d)
		}
		p.note("%d: Reset(%v) = %v", k, d, e.reset(d))
	default:
		select {
		case v := <-e.c:
			p.note("%d: received %v", k, v.UnixNano())
		default:
			p.note("%d: nothing", k)
		}
	}
}

// tickerPeriod makes few ticks out of any d.
func tickerPeriod(d time.Duration) time.Duration {
	return time.Millisecond + 3*(d&(64*time.Millisecond-1)).Truncate(time.Millisecond)
}

func runDifferential(t *testing.T, data []byte) {
	synctest.Test(t, func(t *testing.T) {
		w := New(Config{})
		defer w.Close()
		std, kit := &player{side: stdSide{}}, &player{side: kitSide{w}}
		settle := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
			require.Equal(t, std.calls(), kit.calls(), "callbacks")
			w.check()
		}
		for ; len(data) >= 3; data = data[3:] {
			op, k := data[0]%12, int(data[1]%6)
			// 0 and negative, one tick, the boundaries of levels, and long.
			d := time.Duration(int8(data[2])) * time.Millisecond
			if data[2] >= 64 && data[2] < 128 {
				d = time.Duration(data[2]-63) * time.Duration(data[2]-63) * 64 * time.Millisecond
			}
			if op >= 9 {
				if d > time.Second {
					d /= 64 // seconds: minutes of tickers take long even here
				}
				settle(max(d, 0) + time.Millisecond)
				continue
			}
			std.step(op, k, d)
			kit.step(op, k, d)
			require.Equal(t, std.notes, kit.notes, "after step %d of event %d", op, k)
			if d <= 0 {
				// Due at once: package time fires when the bubble next sleeps, a Wheel
				// when its goroutine gets there.
				settle(time.Millisecond)
			}
		}
		for k := range std.events {
			if std.events[k].stop != nil {
				std.step(1, k, 0)
				kit.step(1, k, 0)
			}
		}
		require.Equal(t, std.notes, kit.notes, "at the end")
	})
}

// acceptance: T04 T08 T10 T13
func TestDifferential(t *testing.T) {
	rounds := 1000
	if long {
		rounds = 30_000
	}
	for seed := range rounds {
		r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
		data := make([]byte, 3*120)
		r.Read(data)
		runDifferential(t, data)
	}
}

func FuzzDifferential(f *testing.F) {
	f.Add([]byte{0, 0, 10, 3, 0, 20, 9, 0, 5, 1, 0, 0, 1, 1, 7, 9, 9, 70, 8, 1, 0})
	f.Fuzz(func(t *testing.T, data []byte) { runDifferential(t, data[:min(len(data), 1200)]) })
}
