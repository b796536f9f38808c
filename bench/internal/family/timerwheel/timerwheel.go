// SPDX-License-Identifier: Apache-2.0

// Package timerwheel compares timers.
//
// All wheels tick every millisecond, except where a peer has a tick of its own (antlabs and gost:
// 10 ms). Pending timers are an hour and up to ten seconds away, as the peers' own benchmarks
// have them; the timers that are made and stopped are a second away. Callback timers throughout:
// a channel timer of package time enters no heap until somebody receives.
package timerwheel

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	rl "github.com/RussellLuo/timingwheel"
	antlabs "github.com/antlabs/timer"
	gxtime "github.com/dubbogo/gost/time"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/timerwheel"
)

const (
	modAntlabs = "github.com/antlabs/timer"
	modRussell = "github.com/RussellLuo/timingwheel"
	modGost    = "github.com/dubbogo/gost"
)

// Family returns the comparison.
func Family() harness.Family {
	var cases []harness.Case
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		cases = append(cases,
			harness.Case{Name: fmt.Sprintf("start-stop/pending=%d", n), Unit: "ns/op", Subjects: startStop(n, serial)},
			harness.Case{Name: fmt.Sprintf("start-stop-parallel/pending=%d", n), Unit: "ns/op", Subjects: startStop(n, parallel)},
		)
	}
	cases = append(cases,
		harness.Case{Name: "reset/pending=1000000", Unit: "ns/op", Subjects: resets(1_000_000, func(int) time.Duration { return time.Hour })},
		harness.Case{Name: "reset-earlier/pending=1000000", Unit: "ns/op", Subjects: resets(1_000_000, func(i int) time.Duration {
			return 1000*time.Hour - time.Duration(i)*time.Millisecond
		})},
		harness.Case{Name: "memory/pending=1000000", Unit: "B/timer", Subjects: memory(1_000_000)},
		harness.Case{Name: "idle/pending=1000000", Unit: "cpu-%", Subjects: idle(1_000_000)},
		harness.Case{Name: "fire-all/timers=100000", Unit: "ns/op", Subjects: fireAll(100_000)},
		harness.Case{Name: "fire/rate=10000", Unit: "cpu-%", Brief: true, Subjects: rate(10_000)},
	)
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		cases = append(cases, harness.Case{
			Name: fmt.Sprintf("late/pending=%d", n), Unit: "p50-us", Brief: true, Subjects: late(n),
		})
	}
	return harness.Family{
		Name:  "timerwheel",
		Doc:   "AfterFunc and Stop, Reset, memory, idle CPU, firing and lateness, beside pending timers",
		Cases: cases,
	}
}

func nop() {}

// far is the time to the i-th pending timer.
func far(i int) time.Duration { return time.Hour + time.Duration(i%10_000)*time.Millisecond }

// peer is a kind of timers: open makes a set of its own, which close gives back as well as the
// package can.
type peer struct {
	name, module string
	open         func() set
}

type set struct {
	start func(d time.Duration, f func()) // fire and forget
	cycle func()                          // make a timer for a second from now, and stop it
	close func()
}

var peers = []peer{
	{"ours", "", func() set {
		w := timerwheel.New(timerwheel.Config{})
		return set{
			start: func(d time.Duration, f func()) { w.AfterFunc(d, f) },
			cycle: func() { w.AfterFunc(time.Second, nop).Stop() },
			close: w.Close,
		}
	}},
	{"std", "", func() set {
		var all []*time.Timer
		return set{
			start: func(d time.Duration, f func()) { all = append(all, time.AfterFunc(d, f)) },
			cycle: func() { time.AfterFunc(time.Second, nop).Stop() },
			close: func() {
				for _, t := range all {
					t.Stop()
				}
			},
		}
	}},
	{"antlabs", modAntlabs, func() set {
		w := antlabs.NewTimer()
		go w.Run()
		return set{
			start: func(d time.Duration, f func()) { w.AfterFunc(d, f) },
			cycle: func() { w.AfterFunc(time.Second, nop).Stop() },
			close: w.Stop,
		}
	}},
	{"russellluo", modRussell, func() set {
		w := rl.NewTimingWheel(time.Millisecond, 20)
		w.Start()
		return set{
			start: func(d time.Duration, f func()) { w.AfterFunc(d, f) },
			cycle: func() { w.AfterFunc(time.Second, nop).Stop() },
			close: w.Stop,
		}
	}},
}

func fill(s set, n int) {
	for i := range n {
		s.start(far(i), nop)
	}
}

func serial(cycle func(), n int) {
	for range n {
		cycle()
	}
}

func parallel(cycle func(), n int) {
	procs := runtime.GOMAXPROCS(0)
	var group sync.WaitGroup
	for p := range procs {
		group.Go(func() { serial(cycle, (n+p)/procs) })
	}
	group.Wait()
}

func startStop(pending int, drive func(cycle func(), n int)) []harness.Subject {
	var subjects []harness.Subject
	for _, p := range peers {
		subjects = append(subjects, harness.Prepared(p.name, p.module, func() (func(int), func(), error) {
			s := p.open()
			fill(s, pending)
			return func(n int) { drive(s.cycle, n) }, s.close, nil
		}))
	}
	return append(subjects, gost(pending, drive))
}

// gost starts and stops timers by messages that it drops when its queue is full, and inserts and
// deletes by walking a list. It gets one wheel for the whole run and a second to take the pending
// timers; what it does not manage is its own failure. Then its wheel is stopped at once, while
// it is busy: it would go on inserting for minutes, beside the others' measurements.
func gost(pending int, drive func(cycle func(), n int)) harness.Subject {
	var once sync.Once
	var w *gxtime.TimerWheel
	var failed error
	start := func(d time.Duration, until time.Time) *gxtime.Timer {
		for {
			if t := w.AfterFunc(d, nop); t != nil || time.Now().After(until) {
				return t
			}
			runtime.Gosched() // "queue is full"
		}
	}
	awaitPending := func(what string) error {
		for until := time.Now().Add(time.Second); w.TimerNumber() != pending; runtime.Gosched() {
			if time.Now().After(until) {
				return harness.Failed("%s: %d timers in the wheel, want %d", what, w.TimerNumber(), pending)
			}
		}
		return nil
	}
	return harness.Prepared("gost", modGost, func() (func(int), func(), error) {
		once.Do(func() {
			defer func() {
				if failed != nil {
					w.Stop()
				}
			}()
			w = gxtime.NewTimerWheel()
			until := time.Now().Add(time.Second)
			for i := range pending {
				if start(far(i), until) == nil {
					failed = harness.Failed("%d of %d timers accepted in a second", i, pending)
					return
				}
			}
			failed = awaitPending("after a second of filling")
		})
		return func(n int) {
			until := time.Now().Add(5 * time.Second)
			drive(func() {
				t := start(time.Second, until)
				if t == nil {
					panic("timer queue is full for seconds")
				}
				t.Stop()
			}, n)
			// The work is done when the wheel has taken every message.
			if err := awaitPending("Stop loses timers"); err != nil {
				failed = err
				w.Stop()
				panic(err.Error())
			}
		}, nil, failed
	})
}

// resets moves one pending timer among many. gap(i) is the duration of the i-th Reset.
func resets(pending int, gap func(i int) time.Duration) []harness.Subject {
	return []harness.Subject{
		harness.Prepared("ours", "", func() (func(int), func(), error) {
			w := timerwheel.New(timerwheel.Config{})
			for i := range pending {
				w.AfterFunc(far(i), nop)
			}
			t := w.AfterFunc(2000*time.Hour, nop)
			t.Reset(gap(0))
			return func(n int) {
				for i := range n {
					t.Reset(gap(i))
				}
			}, w.Close, nil
		}),
		harness.Prepared("std", "", func() (func(int), func(), error) {
			s := peers[1].open()
			fill(s, pending)
			t := time.AfterFunc(2000*time.Hour, nop)
			return func(n int) {
					for i := range n {
						t.Reset(gap(i))
					}
				}, func() {
					t.Stop()
					s.close()
				}, nil
		}),
		harness.Prepared("clock", "", func() (func(int), func(), error) {
			w := timerwheel.New(timerwheel.Config{})
			return func(n int) {
				for range n {
					w.Elapsed()
				}
			}, w.Close, nil
		}),
	}
}

// memory is the growth of the heap by one pending timer, in bytes, whoever holds it. That of
// package time includes about ten bytes for the slice by which they are stopped in the end.
func memory(pending int) []harness.Subject {
	live := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	var subjects []harness.Subject
	for _, p := range peers {
		subjects = append(subjects, harness.Number(p.name, p.module, "B/timer", func(*harness.Run) (float64, error) {
			s := p.open()
			defer s.close()
			fill(s, 1) // levels and slots are made once
			before := live()
			fill(s, pending)
			grown := live() - before
			return math.Round(grown/float64(pending)*10) / 10, nil
		}))
	}
	return subjects
}

// idle is the processor time of the process while its timers are all far away, in per cent of
// one processor to one decimal. It is to be that of the timers alone: the collector is off, the
// memory it freed is back with the system, and a second passes before the window opens, in
// which background work that this started comes to its end.
func idle(pending int) []harness.Subject {
	var subjects []harness.Subject
	for _, p := range peers {
		subjects = append(subjects, harness.Number(p.name, p.module, "cpu-%", func(*harness.Run) (float64, error) {
			s := p.open()
			defer s.close()
			fill(s, pending)
			return idleCPU()
		}))
	}
	return append(subjects, harness.Number("nothing", "", "cpu-%", func(*harness.Run) (float64, error) {
		return idleCPU()
	}))
}

func idleCPU() (percent float64, err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	debug.FreeOSMemory()
	time.Sleep(time.Second)
	const span = time.Second
	before, err := harness.CPUTime()
	if err != nil {
		return 0, err
	}
	time.Sleep(span)
	after, err := harness.CPUTime()
	return math.Round(float64(after-before)/float64(span)*1000) / 10, err
}

// fireAll is the cost of a timer that fires: n are started for the same short time and awaited.
func fireAll(n int) []harness.Subject {
	var subjects []harness.Subject
	for _, p := range peers {
		subjects = append(subjects, harness.Number(p.name, p.module, "ns/op", func(*harness.Run) (float64, error) {
			s := p.open()
			defer s.close()
			runtime.GC()
			var group sync.WaitGroup
			group.Add(n)
			before, err := harness.CPUTime()
			if err != nil {
				return 0, err
			}
			for range n {
				s.start(200*time.Millisecond, group.Done)
			}
			group.Wait()
			after, err := harness.CPUTime()
			return float64(after-before) / float64(n), err
		}))
	}
	return subjects
}

// rate is the processor time of the process, in per cent of one processor, while perSecond timers
// expire in each second: so many timers, each of which sets itself again for a second later.
func rate(perSecond int) []harness.Subject {
	var subjects []harness.Subject
	for _, p := range peers {
		subjects = append(subjects, harness.Number(p.name, p.module, "cpu-%", func(*harness.Run) (float64, error) {
			s := p.open()
			defer s.close()
			var ended atomic.Bool
			defer ended.Store(true)
			var again func()
			again = func() {
				if !ended.Load() {
					s.start(time.Second, again)
				}
			}
			for i := range perSecond {
				s.start(time.Second*time.Duration(i)/time.Duration(perSecond), again)
			}
			return idleCPU()
		}))
	}
	return subjects
}

// late is how long after its deadline a callback begins, in microseconds: of a thousand timers
// that expire within half a second, beside others that do not. Peers with a tick of 10 ms are
// left out: they fire early as well as late.
func late(pending int) []harness.Subject {
	const probes = 1000
	var subjects []harness.Subject
	for _, p := range peers[:2] {
		subjects = append(subjects, harness.Subject{
			Name: p.name, Module: p.module,
			Measure: func(*harness.Run) (harness.Sample, error) {
				s := p.open()
				defer s.close()
				fill(s, pending)
				runtime.GC()
				all := make([]float64, probes)
				var group sync.WaitGroup
				group.Add(probes)
				for i := range probes {
					d := time.Duration(i+1) * 500 * time.Microsecond
					due := time.Now().Add(d)
					s.start(d, func() {
						all[i] = float64(time.Since(due)) / float64(time.Microsecond)
						group.Done()
					})
				}
				group.Wait()
				slices.Sort(all)
				return harness.Sample{}.
					Add("p50-us", math.Round(all[probes/2])).
					Add("p99-us", math.Round(all[probes*99/100])).
					Add("worst-us", math.Round(all[probes-1])), nil
			},
		})
	}
	return subjects
}
