// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"runtime"
	"strconv"
	"strings"
)

// A task that waits for its own pool would wait for itself. The slow paths that wait (a full queue, Do, Shutdown,
// Close) therefore ask whether the calling goroutine is a worker. Crews with a limit of workers know the goroutine ids
// of theirs, which costs a microsecond when a worker starts. Crews without limit start workers too often for that; they
// look for the frame of a worker at the root of the stack, and so take the tasks of other pools for their own. For
// them this only decides whether Shutdown and Close wait.

// inside reports whether the calling goroutine is a worker of c.
func (c *crew) inside() bool {
	if !c.tracked {
		return onWorker()
	}
	id := goid()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.ids[id]
	return ok
}

// goid returns the id of the calling goroutine, from the first line of its stack trace: "goroutine 7 [running]:".
func goid() uint64 {
	var buf [32]byte
	s := string(buf[:runtime.Stack(buf[:], false)])
	s = strings.TrimPrefix(s, "goroutine ")
	s, _, _ = strings.Cut(s, " ")
	id, _ := strconv.ParseUint(s, 10, 64)
	return id
}

// onWorker reports whether the calling goroutine is a worker of any crew.
func onWorker() bool {
	var pcs [64]uintptr
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if strings.HasSuffix(f.Function, "taskpool.(*crew).run") {
				return true
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}
