// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"
)

// Task is one unit of work. A pool runs an accepted task exactly once, or hands it back through
// Shutdown, Close or [Config].OnDrop. A nil Task is refused with [ErrNilTask].
//
// A task leaves its goroutine as it found it. Profiler labels that it sets are reset after it. The
// pool cannot undo the rest: a task that calls runtime.LockOSThread and does
// not unlock keeps its worker on that thread, and so do tasks that follow; one that has spoilt its
// thread should end with runtime.Goexit while locked, which ends thread and goroutine, and the
// worker goes on with new ones.
type Task = func()

// Pool is the interface for code that uses a pool and need not know its kind. [Shared], [Stealing],
// [Sharded], [Elastic], [Ordered] and [Mailbox] satisfy it.
type Pool interface {
	// Submit adds t and waits for room if there is none. It returns nil, the error of ctx, or
	// ErrClosed.
	Submit(ctx context.Context, t Task) error
	// TrySubmit adds t if that is possible at once. It returns nil, ErrFull, or ErrClosed.
	TrySubmit(t Task) error
}

var (
	// ErrFull reports that a task was refused because its queue had no room.
	ErrFull = errors.New("taskpool: queue is full")
	// ErrClosed reports that a task was refused because Shutdown or Close had been called.
	ErrClosed = errors.New("taskpool: pool is closed")
	// ErrNilTask reports that nil was given for a task or function.
	ErrNilTask = errors.New("taskpool: nil task")
	// ErrInTask reports that a task asked its own pool to wait for something that includes the task
	// itself.
	ErrInTask = errors.New("taskpool: a task cannot wait for its own pool")
	// ErrGoexit is reported by Do, Group and Future for a task that ended through runtime.Goexit.
	ErrGoexit = errors.New("taskpool: task called runtime.Goexit")
)

// LeftError is returned by Close when tasks were still queued.
type LeftError[T any] struct {
	// Left holds the tasks that never ran, and never will unless the caller runs them.
	Left []T
}

// Error tells how many tasks were left.
func (e *LeftError[T]) Error() string {
	return fmt.Sprintf("taskpool: closed with %d queued tasks", len(e.Left))
}

// PanicError is a panic turned into an error by Do, Group and Future.
type PanicError struct {
	// Value is the argument of panic.
	Value any
	// Stack is the stack of the panicking goroutine, as runtime/debug.Stack prints it.
	Stack []byte
}

// Error contains the value and the stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("taskpool: task panicked: %v\n\n%s", e.Value, e.Stack)
}

// Unwrap returns Value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// PanicInfo describes a task that did not return: it panicked or called runtime.Goexit.
type PanicInfo struct {
	// Pool is Config.Name.
	Pool string
	// Value is the argument of panic; nil after Goexit.
	Value any
	// Goexit is true if the task called runtime.Goexit, as testing.T.FailNow does.
	Goexit bool
	// Stack is the stack of the goroutine at that moment.
	Stack []byte
}

// Policy decides about a task that Go has no room for. Submit always waits and TrySubmit
// never does, whatever the policy.
type Policy uint8

const (
	// Block waits for room.
	Block Policy = iota
	// Reject returns ErrFull.
	Reject
	// CallerRuns runs the task while the calling goroutine waits, on a goroutine of the pool, so
	// that neither a panic nor a Goexit in it reaches the caller. It would break order: NewKeyed
	// and NewOrdered refuse it.
	CallerRuns
	// DropOldest removes the task that has waited longest in the queue and gives it to OnDrop.
	// Unless OnDrop runs it, a caller that waits for it (Do, Group, Future) waits until ctx or the
	// pool ends, and a Strand on that pool that is not an Ordered stays as it is.
	DropOldest
	// Spawn runs the task on a goroutine of its own, beyond the limit of workers; Shutdown and
	// Close wait for it. The number of such goroutines is not limited. It would break order:
	// NewKeyed and NewOrdered refuse it.
	Spawn
)

// Config configures every kind of pool. The zero value is valid.
type Config struct {
	// Workers is the largest number of worker goroutines. They start when there is work, and end
	// after IdleTimeout without any. Zero or less: GOMAXPROCS for Shared, Keyed, Stealing, Sharded
	// and Func; no limit for Elastic and Ordered.
	Workers int
	// Queues is the number of queues of Sharded, and of Keyed (where it is the largest number that
	// Resize can use). Zero or less: Workers for Sharded (256 at most), four times Workers for
	// Keyed (65536 at most). Others ignore it.
	Queues int
	// QueueLen is how many tasks may wait in one queue: the one of Shared, Elastic and Func, each
	// of the others', each key's or owner's mailbox of Ordered. Tasks in progress do not count, nor
	// do up to QueueLen/8 (16 at most per worker) that workers took along to run next. Zero: 1024.
	// Negative: no limit. An Elastic pool without limit of workers never makes anyone wait, and
	// ignores it.
	QueueLen int
	// Policy decides about tasks that Go has no room for. Zero: Block.
	Policy Policy
	// OnDrop receives tasks removed by DropOldest, which requires it, and those that Close leaves.
	// It is called on the goroutine that called Go or Close and must not block. If it panics,
	// OnPanic is told.
	OnDrop func(Task)
	// OnPanic is told of every task that panicked or called Goexit, on the worker that ran it. Nil:
	// such tasks are logged through Logger.
	OnPanic func(PanicInfo)
	// Logger is used if OnPanic is nil or panics itself. Nil: slog.Default().
	Logger *slog.Logger
	// Name appears in PanicInfo and, unless empty, as pprof label "taskpool" of the workers.
	Name string
	// IdleTimeout is how long a worker without work stays, with its grown stack; it may be up to
	// one and a half times that. Zero: 10 s. Negative: until Close, and so does all that Ordered
	// keeps for a key.
	IdleTimeout time.Duration
}

const (
	defaultQueueLen = 1024
	defaultIdle     = 10 * time.Second
	noLimit         = 1 << 30
)

// filled returns c with zero fields replaced by their defaults; workers is the default of Workers.
func (c Config) filled(workers int) Config {
	if c.Workers <= 0 {
		c.Workers = workers
	}
	c.Workers = min(c.Workers, noLimit)
	if c.QueueLen == 0 {
		c.QueueLen = defaultQueueLen
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = defaultIdle
	}
	if c.Policy > Spawn {
		panic(fmt.Sprintf("taskpool: unknown policy %d", c.Policy))
	}
	if c.Policy == DropOldest && c.OnDrop == nil {
		panic("taskpool: policy DropOldest needs Config.OnDrop")
	}
	return c
}

func procs() int { return runtime.GOMAXPROCS(0) }

// Stats is a snapshot of a pool. Counters never go back; gauges of a busy pool are approximate.
type Stats struct {
	// Workers is how many worker goroutines exist, Idle how many of them wait for work.
	Workers, Idle int
	// Queued is how many tasks wait, also those that a worker took along.
	Queued int
	// Queues has the length of each queue. For Ordered and Keyed it counts runnable mailboxes, not
	// tasks.
	Queues []int
	// Accepted counts tasks that were taken on, including those run by their caller or on a
	// goroutine of their own, but neither those of mailboxes that have an owner
	// (Ordered.NewMailbox) nor runs of strands.
	Accepted uint64
	// Steals counts transfers of work from one worker's queue to another worker.
	Steals uint64
	// Panics counts tasks that panicked or called Goexit.
	Panics uint64
	// Dropped counts tasks that went to OnDrop by policy DropOldest.
	Dropped uint64
	// CallerRan and Spawned count the tasks that the policies of the same name ran.
	CallerRan, Spawned uint64
}
