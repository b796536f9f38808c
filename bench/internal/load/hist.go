// SPDX-License-Identifier: Apache-2.0

// Package load generates the traffic of the network comparisons and verifies what comes back.
package load

import (
	"math"
	"math/bits"
	"time"
)

// Histogram counts durations in buckets that are about 3 % wide. Not safe for concurrent use:
// every connection has one, and they are merged.
type Histogram struct {
	counts [64 * 32]int64
	total  int64
}

// Add counts n events of this duration.
func (h *Histogram) Add(d time.Duration, n int64) {
	h.counts[bucket(uint64(max(d, 0)))] += n
	h.total += n
}

// Merge adds another histogram's counts.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
}

// Quantile returns the duration that a fraction q of the events did not exceed, by the upper
// edge of its bucket; zero without events.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	want := int64(math.Ceil(q * float64(h.total)))
	for i, n := range h.counts {
		want -= n
		if want <= 0 {
			return time.Duration(edge(i))
		}
	}
	return 0
}

// bucket maps a value to its bucket: values below 32 have one each, above that every power of
// two is cut into 32.
func bucket(v uint64) int {
	if v < 32 {
		return int(v)
	}
	exp := bits.Len64(v) - 6 // how far v must shift for five bits after the leading one
	return exp*32 + int(v>>exp)
}

// edge is the largest value of a bucket.
func edge(i int) uint64 {
	if i < 64 {
		return uint64(i)
	}
	exp := i/32 - 1
	return uint64(i-exp*32+1)<<exp - 1
}
