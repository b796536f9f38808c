// SPDX-License-Identifier: Apache-2.0

package xorlist

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// long turns on longer stress.
var long = os.Getenv("GOSTKIT_LONG") != ""

// TestMain fails if the package leaves a goroutine behind: it promises to start none.
func TestMain(m *testing.M) {
	code := m.Run()
	deadline := time.Now().Add(5 * time.Second)
	left := strays()
	for len(left) > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
		left = strays()
	}
	if code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// strays returns the stacks of goroutines other than this one that run code of this package.
func strays() []string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var found []string
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i > 0 && strings.Contains(stack, "/kit/xorlist") {
			found = append(found, stack)
		}
	}
	return found
}
