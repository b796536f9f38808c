// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// long enables campaigns that take more than a second.
var long = os.Getenv("GOSTKIT_LONG") != ""

// TestMain fails the run if a goroutine of this package is left.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftGoroutines(); code == 0 && left != "" {
		fmt.Fprintln(os.Stderr, "leaked goroutines:\n"+left)
		code = 1
	}
	os.Exit(code)
}

// leftGoroutines returns the stacks that mention this package, once they stay.
func leftGoroutines() (left string) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); {
		buf := make([]byte, 1<<20)
		left = ""
		for i, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if i > 0 && // the first stack is ours
				strings.Contains(g, "/timerwheel.") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
		time.Sleep(10 * time.Millisecond)
	}
	return left
}
