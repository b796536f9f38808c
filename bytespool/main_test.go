// SPDX-License-Identifier: Apache-2.0

package bytespool

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

// goroutines stands between VerifyTestMain and the tests, so that both checks run.
type goroutines struct{ m *testing.M }

// Run fails if the tests leave a goroutine behind.
func (g goroutines) Run() int {
	code := g.m.Run()
	deadline := time.Now().Add(5 * time.Second)
	left := ours()
	for len(left) > 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
		left = ours()
	}
	if code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "goroutines left behind:\n%s\n", strings.Join(left, "\n\n"))
		code = 1
	}
	return code
}

// ours returns the stacks of the goroutines that run code of this package, except for the one
// that asks. The testing package has some of its own while fuzzing.
func ours() []string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var found []string
	for i, stack := range strings.Split(string(stacks), "\n\n") {
		if i > 0 && strings.Contains(stack, "/kit/bytespool") {
			found = append(found, stack)
		}
	}
	return found
}

func TestMain(m *testing.M) { VerifyTestMain(goroutines{m}) }
