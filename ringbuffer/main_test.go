// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails when goroutines of this package are left over: none belongs to a ring, so each
// one that is still there was not woken.
func TestMain(m *testing.M) {
	code := m.Run()
	for deadline := time.Now().Add(5 * time.Second); len(leaked()) > 0; {
		if time.Now().After(deadline) {
			fmt.Printf("leaked goroutines:\n%s\n", strings.Join(leaked(), "\n\n"))
			code = 1
			break
		}
		time.Sleep(time.Millisecond)
	}
	os.Exit(code)
}

// leaked returns the stacks of the goroutines that are in this package, without the caller's.
func leaked() (stacks []string) {
	buf := make([]byte, 1<<20)
	for _, s := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(s, "kit/ringbuffer.") && !strings.Contains(s, "ringbuffer.TestMain(") {
			stacks = append(stacks, s)
		}
	}
	return stacks
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
