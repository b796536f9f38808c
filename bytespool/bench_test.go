// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"fmt"
	"testing"
)

var benchSizes = []int{64, 1000, 4096, 60000}

// One op is a Get and a Put on one goroutine.
func BenchmarkGetPut(b *testing.B) {
	for _, n := range benchSizes {
		b.Run(fmt.Sprintf("size=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Put(Get(n))
			}
		})
	}
}
