// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"math"
	"slices"
)

// Series is the summary of one metric of one subject over all rounds.
type Series struct {
	// Values are the samples in the order of the rounds.
	Values []float64 `json:"values"`
	// Median is the middle of the values.
	Median float64 `json:"median"`
	// Spread is the distance between the quartiles, as a fraction of the median. It is zero
	// for fewer than two values: one sample says nothing about noise.
	Spread float64 `json:"spread"`
}

// summarise computes a Series; it keeps values.
func summarise(values []float64) Series {
	s := Series{Values: values}
	if len(values) == 0 {
		s.Median = math.NaN()
		return s
	}
	sorted := slices.Sorted(slices.Values(values))
	s.Median = quantile(sorted, 0.5)
	if width := quantile(sorted, 0.75) - quantile(sorted, 0.25); width > 0 && s.Median != 0 {
		s.Spread = width / math.Abs(s.Median)
	}
	return s
}

// quantile interpolates linearly in a sorted, non-empty slice.
func quantile(sorted []float64, q float64) float64 {
	pos := q * float64(len(sorted)-1)
	low := int(pos)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (pos-float64(low))*(sorted[low+1]-sorted[low])
}
