// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import "testing"

// FuzzAccounting drives the rounds of TestAccounting with other seeds.
func FuzzAccounting(f *testing.F) {
	f.Add(uint64(1), uint8(0))
	f.Fuzz(func(t *testing.T, seed uint64, which uint8) {
		accountingRound(t, kinds[int(which)%len(kinds)], seed)
	})
}
