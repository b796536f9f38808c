// SPDX-License-Identifier: Apache-2.0

package taskpool

import "context"

var (
	_ Pool = (*Shared)(nil)
	_ Pool = (*Stealing)(nil)
	_ Pool = (*Sharded)(nil)
	_ Pool = (*Elastic)(nil)
)

// tasks is the engine of pools of Task.
type tasks struct{ engine[Task] }

func (p *tasks) init(cfg Config, queues int, pick picker) {
	p.engine.init(cfg, queues, pick, func(t Task) { t() }, func(t Task) Task { return t })
}

// Shared is one queue and N workers, and no worker is idle while a task waits. Workers take tasks
// in the order of submission, up to 16 at a time; so one worker starts them in that order, and
// several about in that order: a task may start before up to 15 older ones of each other worker. A
// task that waits for longer than about a millisecond behind a running one goes to the next free
// worker, and while tasks take that long workers take one at a time. It is the pool to begin with.
// Create it with [NewShared]; all methods may be called from any goroutine.
type Shared struct{ tasks }

// NewShared returns a pool of cfg.Workers workers on one queue.
func NewShared(cfg Config) *Shared {
	p := new(Shared)
	p.init(cfg.filled(procs()), 1, pickFirst)
	return p
}

// Stealing is N queues and N workers without order: a producer prefers the queue of an idle worker,
// and a worker whose queue is empty steals. It is for many producers on many processors whose
// workers are often idle: a task goes where a worker will be woken, and there is no lock that all
// producers need. A task in a longer queue waits longer than one that came later, which [Shared]
// avoids. Create it with [NewStealing]; all methods may be called from any goroutine.
type Stealing struct{ tasks }

// NewStealing returns a pool of cfg.Workers workers with a queue each. Resize does not change the
// number of queues.
func NewStealing(cfg Config) *Stealing {
	cfg = cfg.filled(procs())
	p := new(Stealing)
	// A worker looks through all queues before it parks, so there are no more of them than it can
	// look through.
	p.init(cfg, min(cfg.Workers, maxCarriers), pickRandom)
	return p
}

// Sharded is M queues and N workers: producers take the queues in turn, and the next one if that is
// full; workers look at all of them, beginning with one of their own. It is for many producers that
// keep their queues full: the queues stay equally long, which those of [Stealing] do not. Create it
// with [NewSharded]; all methods may be called from any goroutine.
type Sharded struct{ tasks }

// NewSharded returns a pool of cfg.Workers workers on cfg.Queues queues.
func NewSharded(cfg Config) *Sharded {
	cfg = cfg.filled(procs())
	if cfg.Queues <= 0 {
		cfg.Queues = min(cfg.Workers, maxCarriers)
	}
	p := new(Sharded)
	p.init(cfg, cfg.Queues, pickRobin)
	return p
}

// Elastic starts workers as tasks arrive and keeps them, with their grown stacks, for
// Config.IdleTimeout. It shrinks to nothing and has no goroutine of its own. Without Config.Workers
// it has no limit and never makes anyone wait: use it for tasks that block. Without limit it also
// takes the tasks of any pool of this package for its own when they call Shutdown or Close: neither
// waits then. Create it with [NewElastic]; all methods may be called from any goroutine.
type Elastic struct{ tasks }

// NewElastic returns an elastic pool with at most cfg.Workers workers; zero means no limit.
func NewElastic(cfg Config) *Elastic {
	cfg = cfg.filled(noLimit)
	if cfg.Workers == noLimit {
		// A worker can always be started, so a limit of the queue would only make producers wait
		// for the start of goroutines.
		cfg.QueueLen = -1
	}
	p := new(Elastic)
	p.c.unlimited = true
	p.init(cfg, 1, pickFirst)
	// Its tasks are expected to block. An item that was taken along would wait for one of them,
	// while a new worker could be started for it.
	p.carriers, p.take = nil, 1
	return p
}

// Do runs t on the pool and waits for its end. It returns nil, a *[PanicError] if t panicked
// (OnPanic is not told), [ErrGoexit], the cause of ctx, [ErrNilTask] or [ErrClosed]. If ctx or the
// pool ends before t has started, t never runs, and its place in the queue is free at once; if t
// has started, Do returns the cause of ctx and t goes on. Called from a task of this pool, Do runs
// t at once on a goroutine of its own, because there may be no other worker.
func (p *tasks) Do(ctx context.Context, t Task) error {
	return p.do(ctx, t, func(t Task) Task { return t }, p.submit)
}
