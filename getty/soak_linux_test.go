// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// Connections that end in every way, one after the other and beside each other, for long: each ledger balances,
// and nothing grows. The long form takes half an hour.
//
// fault: 138
func TestSoak(t *testing.T) {
	length := 3 * time.Second
	if os.Getenv("GOSTKIT_LONG") != "" {
		length = 30 * time.Minute
	}
	var rounds atomic.Int64
	soak := func(length time.Duration) {
		var wg sync.WaitGroup
		for begun, workers := time.Now(), 4; workers > 0; workers-- {
			wg.Go(func() {
				for time.Since(begun) < length && !t.Failed() {
					f := ledgerFaults[rand.IntN(len(ledgerFaults))]
					d := []getty.Dispatch{getty.Inline, getty.Ordered, getty.Unordered}[rand.IntN(3)]
					seed := rand.Uint64()
					var wrong []string
					if rand.IntN(4) == 0 {
						c := carriers[rand.IntN(len(carriers))]
						if c.name == "udp" {
							continue
						}
						wrong = stallRound(t, c, d, rand.New(rand.NewPCG(seed, 1)))
					} else {
						wrong = ledgerRound(t, f, d, seed)
					}
					if len(wrong) > 0 {
						t.Errorf("%s, %v, seed %d: %s", f.name, d, seed, strings.Join(wrong, "\n"))
					}
					rounds.Add(1)
				}
			})
		}
		wg.Wait()
	}
	soak(length / 10) // what pools keep is there then
	before := measure(t)
	warm := rounds.Load()
	soak(length)
	var after resources
	eventually(t, "all is as before", func() bool {
		after = measure(t)
		return after.descriptors <= before.descriptors && after.goroutines <= before.goroutines && after.timers == 0
	})
	t.Logf("%d rounds and then %d: before %+v, after %+v", warm, rounds.Load()-warm, before, after)
	require.Less(t, after.heap, before.heap+before.heap/4+4<<20)
}
