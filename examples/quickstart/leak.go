// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"time"
)

func countGoroutines() int { return runtime.NumGoroutine() }

// leftOver returns the stacks of all goroutines if after a while there are still
// more than before, else "".
func leftOver(before int) string {
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		if runtime.NumGoroutine() <= before {
			return ""
		}
		time.Sleep(time.Millisecond) // a goroutine that has returned is still counted for an instant
	}
	stacks := make([]byte, 1<<20)
	return string(stacks[:runtime.Stack(stacks, true)])
}
