// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"bytes"
	"context"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// labels returns the profile of all goroutines that have profiler labels.
func labels(t *testing.T) string {
	var b bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&b, 1))
	var labeled []string
	for _, g := range strings.Split(b.String(), "\n\n") {
		if strings.Contains(g, "# labels:") {
			labeled = append(labeled, g)
		}
	}
	return strings.Join(labeled, "\n\n")
}

// TestLabels: the Wheel's goroutine has neither the profiler labels of the goroutine that made
// the first timer nor those that an earlier callback set, and so gives them to nobody.
//
// case: 7
func TestLabels(t *testing.T) {
	executors := map[string]func(func()){
		"goroutines": nil,
		"Inline":     Inline,
		"Executor":   func(f func()) { f() },
	}
	for name, executor := range executors {
		t.Run(name, func(t *testing.T) {
			w := New(Config{Executor: executor})
			defer w.Close()
			seen := make(chan string)
			look := func() { seen <- labels(t) }
			var first *Timer
			pprof.Do(t.Context(), pprof.Labels("who", "first"), func(context.Context) {
				first = w.AfterFunc(time.Hour, look)
			})
			first.Reset(0) // only now, when this goroutine has no label any more
			require.NotContains(t, <-seen, "first", "inherited from the first to use the Wheel")

			if executor == nil {
				return // each callback has a goroutine of its own, and its labels end with that
			}
			w.AfterFunc(0, func() {
				set := pprof.WithLabels(context.Background(), pprof.Labels("who", "callback"))
				pprof.SetGoroutineLabels(set)
			})
			w.AfterFunc(5*ms, look)
			require.NotContains(t, <-seen, "callback", "left behind by an earlier callback")
			w.AfterFunc(ms, func() { go look() })
			require.NotContains(t, <-seen, "callback", "inherited from the Wheel")
		})
	}
}
