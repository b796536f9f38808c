// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"log/slog"
	"runtime/debug"
)

// Tasks that do not return, and tasks that run on goroutines other than workers.

// report tells OnPanic, or the log, about a task that did not return. v is nil after Goexit.
func (c *crew) report(v any) {
	c.panics.Add(1)
	info := PanicInfo{Pool: c.cfg.Name, Value: v, Goexit: v == nil, Stack: debug.Stack()}
	if c.cfg.OnPanic == nil {
		c.log("taskpool: task did not return", info)
		return
	}
	defer func() {
		if v := recover(); v != nil {
			c.log("taskpool: OnPanic panicked", PanicInfo{Pool: c.cfg.Name, Value: v, Stack: debug.Stack()})
		}
	}()
	c.cfg.OnPanic(info)
}

func (c *crew) log(msg string, info PanicInfo) {
	defer func() { _ = recover() }() // of the logger's handler: there is nobody left to tell
	logger := c.cfg.Logger
	if logger == nil {
		logger = slog.Default()
	}
	logger.Error(msg, "pool", info.Pool, "panic", info.Value, "goexit", info.Goexit, "stack", string(info.Stack))
}

// guarded runs t on a goroutine that is not a worker.
func (c *crew) guarded(t Task) {
	returned := false
	defer func() {
		if !returned {
			c.report(recover())
		}
	}()
	t()
	returned = true
}

// spawn runs t on a goroutine of its own, by policy Spawn.
func (c *crew) spawn(t Task) error {
	c.mu.Lock()
	if c.closing.Load() {
		c.mu.Unlock()
		return ErrClosed
	}
	c.goroutines++
	c.spawned.Add(1)
	c.mu.Unlock()
	go c.stray(t)
	return nil
}

// stray is the goroutine of a spawned task.
func (c *crew) stray(t Task) {
	defer c.gone()
	if c.tracked {
		defer c.enroll()()
	}
	c.guarded(t)
}
