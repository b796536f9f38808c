// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWaits is the latency cases in virtual time, in which nothing but the rule of each pool decides
// how long a task waits: no other process, no slow timer. Run with -v it prints the table of the
// documentation.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, load := range []int{50, 80, 95} {
			p99 := map[string]float64{}
			for _, p := range latencyPools() {
				open := p.open
				if p.name == "pond" {
					// It would stop through another pool in a package variable, which must not keep
					// channels of this bubble. Its workers end without that when they have no task.
					open = func(workers int) target {
						return target{p.open(workers).submit, func() {}}
					}
				}
				wait := waits(open, arrivals(load, 4*time.Second, 0))
				p99[p.name] = quantile(wait, 0.99)
				t.Logf("load=%d %-20s p50 %6.2f p99 %6.2f worst %6.2f ms",
					load, p.name, quantile(wait, 0.5), p99[p.name], quantile(wait, 1))
			}
			best := min(p99["channel"], p99["ants"], p99["pond"], p99["gopool"])
			require.LessOrEqual(t, p99["ours-shared"], 1.1*best+0.1, "load=%d", load)
			require.Less(t, p99["ours-keyed-ordered"], p99["keyed-channels"]/2, "load=%d", load)
		}
	})
}
