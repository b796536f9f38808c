// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"reflect"
	"runtime"
	"strconv"
	"strings"
)

// A task that waits for its own pool would wait for itself. The slow paths that wait (a full queue,
// Do, Shutdown, Close) therefore ask whether the calling goroutine belongs to the workers. The
// question is asked by a thousand producers in front of one full queue, so the usual answer, no,
// must be cheap: every goroutine of a pool has workers.run or workers.runSpawned at the root of its
// stack, and unwinding a stack takes a tenth of the time of printing its head, which is the only
// way to learn a goroutine's id.
//
// Only a goroutine of some pool is asked for its id. Pools know the ids of theirs, which costs a
// microsecond when a worker starts. An Elastic pool without limit starts workers too often for
// that, and takes the tasks of other pools for its own: it makes nobody wait for room, so that this
// only decides whether Shutdown and Close wait.

// inside reports whether the calling goroutine is a worker of c, or runs one of its spawned tasks.
func (c *workers) inside() bool {
	// The cheap question first. It settles nearly every call, because a producer is rarely a
	// worker.
	if !c.onWorker() {
		return false
	}
	if !c.tracked {
		return true
	}
	// A worker of some pool. Which one is known only by the id, since all pools start their
	// goroutines at the same function.
	id := goid()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.ids[id]
	return ok
}

// track notes the calling goroutine as one of c, until leave is called.
func (c *workers) track() (leave func()) {
	id := goid()
	c.mu.Lock()
	// Made on first use: most pools start few workers, and some none.
	if c.ids == nil {
		c.ids = make(map[uint64]struct{})
	}
	c.ids[id] = struct{}{}
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		delete(c.ids, id)
		c.mu.Unlock()
	}
}

// roots are the functions that a pool's go statements start.
type roots struct{ run, spawned uintptr }

func (c *workers) findRoots() {
	// Entry addresses and not names: a name is found through a table and compared as text, and
	// another package may have a function of the same name.
	c.roots = roots{
		run:     reflect.ValueOf((*workers).run).Pointer(),
		spawned: reflect.ValueOf((*workers).runSpawned).Pointer(),
	}
}

// onWorker reports whether the calling goroutine belongs to any workers.
func (c *workers) onWorker() bool {
	var near [32]uintptr
	pcs := near[:]
	n := runtime.Callers(2, pcs)
	// The root is what counts, so a stack deeper than the array must be unwound again to its end.
	for n == len(pcs) {
		pcs = make([]uintptr, 8*len(pcs))
		n = runtime.Callers(2, pcs)
	}
	// The last is runtime.goexit. The one before it, or the next if there is a wrapper made by the
	// compiler, is the function of the go statement. One is subtracted because a return address may
	// lie behind the end of its function.
	for i := n - 2; i >= max(0, n-3); i-- {
		f := runtime.FuncForPC(pcs[i] - 1)
		if f != nil && (f.Entry() == c.roots.run || f.Entry() == c.roots.spawned) {
			return true
		}
	}
	return false
}

// goid returns the id of the calling goroutine, from the first line of its stack trace: "goroutine
// 7 [running]:".
func goid() uint64 {
	// Long enough for the word and any number. The runtime stops printing when the buffer is full,
	// so a deep stack costs no more.
	var buf [32]byte
	s := string(buf[:runtime.Stack(buf[:], false)])
	s = strings.TrimPrefix(s, "goroutine ")
	s, _, _ = strings.Cut(s, " ")
	id, _ := strconv.ParseUint(s, 10, 64)
	return id
}
