// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"log/slog"
	"runtime/debug"
)

// Tasks that do not return are reported here.

// report tells OnPanic, or the log, about a task that did not return. v is nil after Goexit.
func (c *workers) report(v any) {
	c.panics.Add(1)
	// The stack is taken here, in a deferred function: it still shows where the task failed.
	info := PanicInfo{Pool: c.cfg.Name, Value: v, Goexit: v == nil, Stack: debug.Stack()}
	if c.cfg.OnPanic == nil {
		c.log("taskpool: task did not return", info)
		return
	}
	// A panic in OnPanic would end the process, because the recover that protects workers is
	// running already.
	defer func() {
		if v := recover(); v != nil {
			c.log("taskpool: OnPanic panicked", PanicInfo{Pool: c.cfg.Name, Value: v, Stack: debug.Stack()})
		}
	}()
	c.cfg.OnPanic(info)
}

func (c *workers) log(msg string, info PanicInfo) {
	defer func() { _ = recover() }() // of the logger's handler, the last one that could be told
	logger := c.cfg.Logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.Error(msg, "pool", info.Pool, "panic", info.Value, "goexit", info.Goexit,
		"stack", string(info.Stack))
}

// guarded runs t on a goroutine that is not a worker.
func (c *workers) guarded(t Task) {
	returned := false
	defer func() {
		// A flag, since recover returns nil both for a normal return and for Goexit.
		if !returned {
			c.report(recover())
		}
	}()
	t()
	returned = true
}

// guardedEach runs f for each number below n, all of them even if one panics or calls Goexit.
func (c *workers) guardedEach(n int, f func(i int)) {
	i := 0
	defer func() {
		if i < n { // Goexit in f: the goroutine ends, but only when its deferred calls have
			c.guardedEach(n-i, func(k int) { f(i + k) })
		}
	}()
	for i < n {
		i++
		c.guarded(func() { f(i - 1) })
	}
}
