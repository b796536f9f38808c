// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"sync"
	"sync/atomic"
)

// Some tasks run on goroutines of their own instead of workers: those of the policies Spawn and
// CallerRuns, and those that a task gives to Do of its own pool. To the pool they are tasks like
// all others: counted, waited for, reported when they panic, and taken back when the pool stops
// before they have begun. A caller waits for its task and does not run it itself, because a Goexit
// in the task would end the caller.

// spawnedSet holds the tasks whose goroutine has been started, and which have not ended.
type spawnedSet[E any] struct {
	mu     sync.Mutex
	tasks  map[*spawnedTask[E]]struct{}
	closed bool
}

type spawnedTask[E any] struct {
	item  E
	state atomic.Int32
	// done is nil if no caller waits. It is closed when the task has ended, or will not run.
	done chan struct{}
}

const (
	spawnedWaiting int32 = iota
	spawnedBegun
	spawnedRefused // the pool was stopped before the task began
)

func (s *spawnedSet[E]) add(t *spawnedTask[E]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Under the lock of drain: a task is refused here or found there.
	if s.closed {
		return false
	}
	// Made on first use, as most pools never spawn.
	if s.tasks == nil {
		s.tasks = make(map[*spawnedTask[E]]struct{})
	}
	s.tasks[t] = struct{}{}
	return true
}

func (s *spawnedSet[E]) remove(t *spawnedTask[E]) {
	s.mu.Lock()
	delete(s.tasks, t)
	s.mu.Unlock()
}

// drain takes back the tasks that have not begun, and lets no more be added. It returns those that
// were accepted; to those with a waiting caller that caller can still say that they were not.
func (s *spawnedSet[E]) drain() (left []E) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for t := range s.tasks {
		// The goroutine is there already and cannot be called back. It finds the state changed, and
		// ends without the task.
		if t.state.CompareAndSwap(spawnedWaiting, spawnedRefused) && t.done == nil {
			left = append(left, t.item)
		}
	}
	return left
}

// spawn runs e on a goroutine of its own.
func (in *intake[E]) spawn(e E) error {
	return in.start(&spawnedTask[E]{item: e}, &in.c.nSpawned)
}

// callerRuns runs e while the calling goroutine waits.
func (in *intake[E]) callerRuns(e E) error {
	t := &spawnedTask[E]{item: e, done: make(chan struct{})}
	if err := in.start(t, &in.c.callerRan); err != nil {
		return err
	}
	<-t.done
	// The task was not accepted after all, and its caller still has it.
	if t.state.Load() == spawnedRefused {
		return ErrClosed
	}
	return nil
}

// doInside runs d for a task of this pool, which may have no other worker than the one that waits.
func (in *intake[E]) doInside(ctx context.Context, d *call, e E) error {
	t := &spawnedTask[E]{item: e, done: make(chan struct{})}
	if err := in.start(t, &in.c.didInside); err != nil {
		return err
	}
	select {
	case <-t.done:
		if t.state.Load() == spawnedRefused {
			return ErrClosed
		}
		return d.err
	// giveUp makes sure that a task that has not begun never will.
	case <-ctx.Done():
		return d.giveUp(ctx)
	}
}

// start runs t on a goroutine of its own and counts it: at once, or, if a caller waits who may yet
// hear that it was refused, when it begins. Both are before its end, and so before Close returns.
func (in *intake[E]) start(t *spawnedTask[E], count *atomic.Uint64) error {
	// Entered before the goroutine starts: otherwise Shutdown could find no goroutine left and
	// return in between.
	if !in.c.enter() {
		return ErrClosed
	}
	if !in.spawned.add(t) {
		// The pool was stopped between the two.
		in.c.gone()
		return ErrClosed
	}
	accepted := t.done == nil
	if accepted {
		count.Add(1)
	}
	go in.c.runSpawned(func() {
		defer in.spawned.remove(t)
		// As the last thing before the call, so that nothing starts after drain has returned.
		if t.state.CompareAndSwap(spawnedWaiting, spawnedBegun) {
			if !accepted {
				count.Add(1)
			}
			in.exec(t.item)
		}
	}, t.done)
	return nil
}

// enter counts a goroutine in that is no worker's; false if the pool is closing.
func (c *workers) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Under mu, which close holds as well: no goroutine is added to a pool that may have ended.
	if c.closing.Load() {
		return false
	}
	c.goroutines++
	return true
}

// runSpawned is the goroutine of a spawned task.
func (c *workers) runSpawned(t Task, done chan struct{}) {
	// Deferred first and so run last: the pool ends only when the waiting caller has its answer.
	defer c.gone()
	if done != nil {
		defer close(done)
	}
	c.resetLabels() // a goroutine inherits those of its creator
	if c.tracked {
		defer c.track()()
	}
	c.guarded(t)
}
