// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain fails when goroutines are left over: none belongs to a ring, so each one that is still
// there was not woken.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			fmt.Printf("leaked goroutines:\n%s\n", stacks[:runtime.Stack(stacks, true)])
			code = 1
			break
		}
		time.Sleep(time.Millisecond)
	}
	os.Exit(code)
}

// long reports whether the campaigns that take minutes were asked for.
var long = os.Getenv("GOSTKIT_LONG") != ""

// scaled returns n, less under the race detector, and more in a long run.
func scaled(n int) int {
	if raceEnabled {
		n /= 8
	}
	if long {
		n *= 100
	}
	return n
}
