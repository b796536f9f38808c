// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// script is a source whose looks for work can be interrupted: the moments in which wakeups get lost
// are too short to be hit by chance, so they are made. Everything runs on one worker, under
// synctest.
type script struct {
	c     workers
	tasks int
	ran   int
	looks int
	at    func(look int) // called at each look of a worker, before the look's answer is known
	after func(look int) // the same, after it is known
}

func (s *script) attach(*worker)  {}
func (s *script) crashed(*worker) {}
func (s *script) trim() bool      { return false }

func (s *script) work(w *worker) {
	for s.tasks > 0 && !s.c.over.Load() {
		s.tasks--
		s.c.found(w, s.tasks > 0)
		s.ran++
	}
}

func (s *script) pending(*worker) bool {
	s.looks++
	look := s.looks
	if s.at != nil {
		s.at(look)
	}
	found := s.tasks > 0
	if s.after != nil {
		s.after(look)
	}
	return found
}

func (s *script) add() {
	s.tasks++
	s.c.notify()
}

func newScript(workers int) *script {
	s := new(script)
	s.c.spins = 2
	s.c.init(Config{Workers: workers, IdleTimeout: time.Minute}, s)
	return s
}

func (s *script) close(t *testing.T) {
	s.at, s.after = nil, nil
	s.c.close()
	require.NoError(t, s.c.wait(context.Background()))
}

// TestParkLooksAgain: a producer that sees a searching worker wakes nobody; that worker may have
// looked a moment before, and must look again after it has said that it does not search any more.
func TestParkLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(1)
		s.after = func(look int) {
			// The first is the producer's wakeOne; then the worker looks before it parks.
			if s.ran == 1 && s.tasks == 0 && s.c.searching.Load() == 1 && look >= s.c.spins {
				s.after = nil
				s.add()
			}
		}
		s.add()
		synctest.Wait()
		require.Nil(t, s.after, "the moment did not come")
		require.Equal(t, 2, s.ran, "the task of the moment between look and sleep")
		s.close(t)
	})
}

// TestParkDuringClose: the work that kept a worker from leaving a closing pool may be gone when it
// looks again; then nobody will wake it.
func TestParkDuringClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(1)
		closing, kept := false, false
		s.at = func(int) {
			if s.c.searching.Load() == 1 && !closing && s.ran == 1 {
				closing = true
				s.c.close() // as if just before the worker takes the lock
				return
			}
			if closing && s.c.mu.TryLock() {
				s.c.mu.Unlock()
				s.tasks = 0
			} else if closing && !kept {
				kept = true
				s.tasks = 1 // under the lock: there was something, which another worker has taken since
			}
		}
		s.add()
		synctest.Wait()
		require.True(t, kept, "the moment did not come")
		select {
		case <-s.c.done:
		default:
			require.Fail(t, "the worker sleeps in a closed pool")
		}
	})
}

// TestLeaverLooks: a worker that was idle, and is sent home before its second look, hands over what
// it sees then.
func TestLeaverLooks(t *testing.T) {
	for name, send := range map[string]func(s *script){
		"resize": func(s *script) { s.c.resize(1) },
		"retire": func(s *script) { s.c.ticks += expireTicks; s.c.expire() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(2)
				sent := false
				s.at = func(int) {
					if s.c.nIdle == 1 && !sent {
						sent = true
						s.tasks++ // by a producer that saw it searching
						if name == "resize" {
							s.c.live++ // another worker, busy for long
							s.c.spare.Add(-1)
						}
						send(s)
						if name == "resize" {
							s.c.live--
							s.c.spare.Add(1)
						}
					}
				}
				s.add()
				synctest.Wait()
				require.True(t, sent)
				require.Equal(t, 2, s.ran, "the task was handed over")
				s.close(t)
			})
		})
	}
}

// TestBooks: workers that leave give back their slot and their place in the snapshot, over any
// number of generations.
func TestBooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewShared(Config{Workers: 3, IdleTimeout: time.Second})
		for range 20 {
			block := make(chan struct{})
			for range 3 {
				require.NoError(t, p.TrySubmit(func() { <-block }))
			}
			ids := func() int {
				synctest.Wait()
				p.c.mu.Lock()
				defer p.c.mu.Unlock()
				return len(p.c.ids)
			}
			require.Equal(t, 3, ids())
			require.Len(t, everyOf(&p.c), 3)
			seen := map[int]bool{}
			for _, w := range everyOf(&p.c) {
				seen[w.slot] = true
			}
			require.Equal(t, map[int]bool{0: true, 1: true, 2: true}, seen)
			close(block)
			time.Sleep(time.Minute)
			require.Zero(t, ids())
			require.Empty(t, everyOf(&p.c))
			require.EqualValues(t, 3, p.c.spare.Load())
			require.Zero(t, p.c.searching.Load())
		}
		require.NoError(t, p.Close())
		require.ErrorIs(t, p.spawn(func() { t.Error("ran") }), ErrClosed)
	})
}

// TestInside: who counts as a task of a pool, at any depth of the stack and after Goexit.
func TestInside(t *testing.T) {
	p, q := NewShared(Config{Workers: 1, OnPanic: func(PanicInfo) {}}), NewShared(Config{Workers: 1})
	free := NewElastic(Config{})
	type answers struct{ p, q, free bool }
	ask := func() answers { return answers{p.c.inside(), q.c.inside(), free.c.inside()} }
	var deep func(n int) answers
	deep = func(n int) answers {
		if n == 0 {
			return ask()
		}
		return deep(n - 1)
	}
	on := func(pool Pool, f func() answers) (a answers) {
		done := make(chan answers)
		require.NoError(t, pool.Submit(context.Background(), func() { done <- f() }))
		return <-done
	}
	require.Equal(t, answers{}, ask())
	require.Equal(t, answers{}, deep(1000))
	for _, depth := range []int{0, 1, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 250, 10_000} {
		f := func() answers { return deep(depth) }
		require.Equal(t, answers{p: true, free: true}, on(p, f), "depth %d", depth)
		require.Equal(t, answers{q: true, free: true}, on(q, f), "depth %d", depth)
		require.Equal(t, answers{free: true}, on(free, f), "depth %d", depth)
	}
	for range 3 {
		// The deferred call runs while the goroutine ends; the next task is on another goroutine.
		done := make(chan answers, 1)
		require.NoError(t, p.TrySubmit(func() {
			defer func() { done <- ask() }()
			runtime.Goexit()
		}))
		require.Equal(t, answers{p: true, free: true}, <-done)
		require.Equal(t, answers{p: true, free: true}, on(p, ask))
	}
	// A goroutine that a task starts is none of its pool's.
	require.Equal(t, answers{}, on(p, func() answers {
		done := make(chan answers)
		go func() { done <- ask() }()
		return <-done
	}))
	done := make(chan answers)
	require.NoError(t, p.spawn(func() { done <- ask() }))
	require.Equal(t, answers{p: true, free: true}, <-done)
	for _, c := range []interface{ Close() error }{p, q, free} {
		require.NoError(t, c.Close())
	}
	require.Empty(t, p.c.ids, "ids do not outlive their goroutines")
}
