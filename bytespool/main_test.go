// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// long turns on longer stress.
var long = os.Getenv("GOSTKIT_LONG") != ""

// goroutines stands between VerifyTestMain and the tests, so that both checks run.
type goroutines struct{ m *testing.M }

// Run fails if the tests leave a goroutine behind.
func (g goroutines) Run() int {
	before := runtime.NumGoroutine()
	code := g.m.Run()
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if code == 0 && runtime.NumGoroutine() > before {
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s", stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	return code
}

func TestMain(m *testing.M) { VerifyTestMain(goroutines{m}) }
