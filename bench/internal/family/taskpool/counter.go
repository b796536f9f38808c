// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/gostkit/kit/taskpool"
)

// counter counts finished tasks. One word shared by the workers would cost more than most pools; so each goroutine that
// runs tasks counts in a cell of its own, found by the address of its stack. The subject floor shows what is left: one
// uncontended atomic addition and the call.
type counter struct {
	cells [cells]struct {
		done atomic.Int64
		_    [56]byte
	}
	want int64
}

const cells = 64

// add counts a task of the calling goroutine. Two goroutines may share a cell, hence the atomic addition.
func (n *counter) add() {
	var here byte
	// Stacks are at least 2 KiB apart. The address is only a number here, never a pointer again.
	n.cells[uintptr(unsafe.Pointer(&here))>>11*0x9e3779b1>>7%cells].done.Add(1)
}

// tasks returns equal tasks; more than one, because users submit different closures.
func (n *counter) tasks(work func()) []taskpool.Task {
	ts := make([]taskpool.Task, 64)
	for i := range ts {
		ts[i] = func() { work(); n.add() }
	}
	return ts
}

func (n *counter) expect(k int) { n.want += int64(k) }

// await waits until all expected tasks have ended. It never waits on what a task would have to signal.
func (n *counter) await(long bool) {
	for i := 0; ; i++ {
		sum := int64(0)
		for c := range n.cells {
			sum += n.cells[c].done.Load()
		}
		switch {
		case sum == n.want:
			return
		case sum > n.want:
			panic("a task ran twice")
		case long && i > 10:
			time.Sleep(50 * time.Microsecond)
		default:
			runtime.Gosched()
		}
	}
}

// spin uses the processor for about d.
func spin(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}
