// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Strand is a closure-free unit of work that runs on at most one worker at a time. Its owner embeds
// it, keeps the work itself in a structure of its own, and calls Wake when there is some. On an
// [Ordered] pool waking is an intrusive push of one entry, without allocation and without blocking.
// Before use it needs Init; it must not be copied. All other methods may be called from any
// goroutine.
//
// A strand whose Wake returned nil runs afterwards, even if Shutdown began in between. If
// Shutdown's ctx ends or Close is called before, it does not, and its drop function (see OnDrop) is
// called instead, once. The drop function is called by Shutdown or Close, before that call
// returns; or, if the strand was running and wanted to run again, by its worker when that run ends,
// for which Close waits.
type Strand struct {
	_ noCopy

	// state is, in its lower bits, one of the values below, and above them the number of times that
	// the strand has entered a list. A mailbox keeps its own, and leaves this one alone.
	state atomic.Uint32
	home  uint32
	next  *Strand // belongs to the goroutine that pushes the strand, then to the list

	pool *Ordered // nil on any other Pool
	run  func() bool
	drop func()
	mail *Mailbox // set if the strand is that of a mailbox

	other *foreignStrand
}

type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

const (
	strandIdle     uint32 = iota
	strandEntering        // a waker has yet to learn whether the list takes it
	strandQueued
	strandRunning
	strandAgain // running, and woken meanwhile

	strandMask  uint32 = 1<<3 - 1
	strandEntry uint32 = 1 << 3
)

// Init prepares s to run on p. A worker calls run; if it returns true, s goes to the end of the
// line again, so that a long job gives way to others after every part. If run panics or calls
// Goexit, OnPanic is told, the worker survives, and s stays usable: it runs again when it is woken,
// or at once if it was woken meanwhile.
//
// On a Pool other than Ordered, Wake submits a task that was allocated here; run may then be called
// once more than needed, and Shutdown returns that task like any other instead of calling the drop
// function. If that pool drops the task by policy DropOldest and OnDrop does not run it, s never
// runs again.
//
// There, a run that was promised while another was in progress may follow it in the same task, also
// when the pool has been stopped meanwhile.
//
// Init panics if p or run is nil.
func (s *Strand) Init(p Pool, run func() (more bool)) {
	if p == nil || run == nil {
		panic("taskpool: Strand.Init without a pool or a function")
	}
	s.run = run
	if o, ok := p.(*Ordered); ok {
		s.pool = o
		s.home = o.nextHome()
		return
	}
	s.other = &foreignStrand{s: s, pool: p}
	// Allocated once: a method value allocates each time that it is evaluated.
	s.other.task = s.other.work
}

// OnDrop sets the function that is called if the pool ends before s could run; see Strand. It must
// be set before the first Wake, and must not block. It may stop the pool.
func (s *Strand) OnDrop(f func()) { s.drop = f }

// Wake makes s run: not at all now if it is waiting to run already, once more afterwards if it is
// running. Everything that the caller did before is visible to that run. It returns nil or
// [ErrClosed]; on a Pool other than Ordered it may wait for room, and return the cause of ctx.
func (s *Strand) Wake(ctx context.Context) error {
	if s.pool == nil {
		return s.other.wake(func(t Task) error { return s.other.pool.Submit(ctx, t) })
	}
	return s.TryWake()
}

// TryWake is Wake that never blocks; on a Pool other than Ordered it may return [ErrFull].
func (s *Strand) TryWake() error {
	if s.pool == nil {
		return s.other.wake(s.other.pool.TrySubmit)
	}
	for {
		v := s.state.Load()
		switch v & strandMask {
		case strandQueued, strandAgain:
			// A load would not be enough: it does not order the writes of the caller before the run
			// that it relies on. The worker that begins the run swaps the same word.
			if s.state.CompareAndSwap(v, v) {
				return nil
			}
		case strandRunning:
			// A running strand that is woken needs another turn, which a closing pool does not
			// promise. One that was queued before still runs.
			if s.pool.c.closing.Load() {
				return ErrClosed
			}
			// Not pushed: another worker could then run s beside this one. Its worker puts it in
			// line at the end of the run.
			if s.state.CompareAndSwap(v, v-strandRunning+strandAgain) {
				return nil
			}
		case strandEntering:
			// The winner is a few instructions from knowing. Yield, because it may need this
			// processor for them.
			runtime.Gosched()
		default:
			// The winner pushes. Its state of its own lets others tell "accepted" from "not known
			// yet": if they returned nil and the list then refused, a wake would be lost.
			if entering := v + strandEntry + strandEntering; s.state.CompareAndSwap(v, entering) {
				return s.enter(entering)
			}
		}
	}
}

// enter is the end of TryWake by the caller that has made the state entering.
func (s *Strand) enter(entering uint32) error {
	e, ok := s.pool.push(s)
	if !ok {
		// Callers that waited see idle, try again and get the same answer.
		s.set(strandIdle)
		return ErrClosed
	}
	// Unless a worker was faster. It may even have made room for another waker; the number of
	// entries tells the two apart.
	s.state.CompareAndSwap(entering, entering-strandEntering+strandQueued)
	e.tell()
	return nil
}

// place returns which of so many lists s belongs to.
func (s *Strand) place(width uint32) int {
	// A division costs more than this, and is needed only after a Keyed pool has become smaller.
	if s.home < width {
		return int(s.home)
	}
	return int(s.home % width)
}

// set changes the state of a strand that the caller owns; others may only say Queued or Again
// meanwhile.
func (s *Strand) set(to uint32) {
	// Swap rather than Store: a store would cut the chain of atomic writes, and the next run might
	// not see the memory of a caller of Wake that wrote to state before.
	s.state.Swap(s.state.Load()&^strandMask | to)
}

// begin makes s, which the caller has taken from a list, a running one; false if the pool was
// stopped meanwhile.
func (s *Strand) begin() bool {
	for {
		v := s.state.Load()
		// Entering: the waker has pushed s, and has not come to saying so.
		if m := v & strandMask; m != strandQueued && m != strandEntering {
			return false
		}
		// The end of the pool may cancel s at this moment; one of the two gets it.
		if s.state.CompareAndSwap(v, v&^strandMask|strandRunning) {
			return true
		}
	}
}

// cancel makes s, which waits or was taken to be run, an idle one; false if it has begun, or was
// cancelled before, or cur, if not nil, is no longer s. The caller that succeeds calls the drop
// function.
func (s *Strand) cancel(cur *atomic.Pointer[Strand]) bool {
	for {
		v := s.state.Load()
		switch v & strandMask {
		case strandQueued:
			// A strand that its worker has put back in line is queued as well. cur tells the two
			// apart: that worker clears it before.
			if cur != nil && cur.Load() != s {
				return false
			}
			if s.state.CompareAndSwap(v, v&^strandMask) { // idle, after as many entries
				return true
			}
		case strandEntering:
			// If its waker finds the list shut, Wake returns ErrClosed, and nothing was dropped.
			runtime.Gosched()
		default:
			return false
		}
	}
}

// end ends a run, and returns false if s was woken meanwhile.
func (s *Strand) end() bool {
	// Compared, because a Wake during the run must not be overwritten: it was promised a run.
	v := s.state.Load()
	return v&strandMask == strandRunning && s.state.CompareAndSwap(v, v&^strandMask)
}

// foreignStrand is a strand's state on a Pool that knows nothing of strands.
type foreignStrand struct {
	s    *Strand
	pool Pool
	task Task

	mu      sync.Mutex
	running bool
	again   bool
	// entries is how many tasks were accepted, as far as noted, minus how many have started. If it
	// is positive, at least one has yet to start. It is negative for a moment if one starts before
	// its acceptance is noted.
	entries int
}

func (f *foreignStrand) wake(submit func(Task) error) error {
	f.mu.Lock()
	if f.running {
		f.again = true
		f.mu.Unlock()
		return nil
	}
	// A task of this strand is on its way, and will see the work of this caller.
	if f.entries > 0 {
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	// Without the lock, because Submit may wait for room, and the task that would make room needs
	// it. Two callers may both submit; the second task then finds nothing to do.
	if err := submit(f.task); err != nil {
		return err
	}
	f.mu.Lock()
	f.entries++
	f.mu.Unlock()
	return nil
}

func (f *foreignStrand) work() {
	f.mu.Lock()
	f.entries--
	// Two tasks of one strand, on two workers. The other one does the run that this one stands for.
	if f.running {
		f.again = true
		f.mu.Unlock()
		return
	}
	f.running = true
	f.mu.Unlock()
	for f.once() {
	}
}

// once runs the strand. It returns true if the strand is to run again at once, because the pool has
// no room for it at the end of the line.
func (f *foreignStrand) once() (again bool) {
	returned, more := false, false
	defer func() {
		if again = f.settle(more); again && !returned {
			// The panic or Goexit goes on to the worker, but first the wakes that were promised a
			// run get it.
			for f.once() {
			}
		}
	}()
	more = f.s.run()
	returned = true
	return
}

// settle ends a run. It returns true if the strand must run again and this goroutine has to do it.
func (f *foreignStrand) settle(more bool) bool {
	f.mu.Lock()
	more = more || f.again
	f.running, f.again = false, false
	f.mu.Unlock()
	if !more {
		return false
	}
	// To the end of the line, so that a strand that always has more gives way to others. Waiting
	// for room on a worker could wait forever.
	if f.pool.TrySubmit(f.task) == nil {
		f.note()
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running { // by a task that was submitted meanwhile
		f.again = true
		return false
	}
	f.running = true
	return true
}

func (f *foreignStrand) note() {
	f.mu.Lock()
	f.entries++
	f.mu.Unlock()
}
