// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"math"
	"sync/atomic"
)

// Stats is a snapshot of a Pool with Config.Stats. The counters are read one after the other
// while others may change them.
type Stats struct {
	// Classes has an entry for each class of the Pool that was used, in ascending order.
	Classes []ClassStats

	// Oversize counts Gets above the maximum of the Pool, Refused the Puts above it.
	Oversize, Refused uint64
}

// ClassStats counts what happened to one class.
type ClassStats struct {
	// Size is the capacity in bytes of the buffers of the class.
	Size int

	// Hits counts Gets that were served by an idle buffer, Misses those that made one.
	Hits, Misses uint64

	// Refused counts Puts of slices whose capacity is not that of a class; a slice is counted in the
	// class that would serve a request of its capacity. Dropped counts Puts that Config.MaxIdle had
	// no room for.
	Refused, Dropped uint64

	// Outstanding is the number of Gets minus the number of Puts that were not refused. It does
	// not return to zero if buffers are never put back, are put back into another Pool, or come
	// from one.
	Outstanding int64
}

// counters holds the numbers of one class. The padding keeps two classes, which different
// goroutines may use, off a common cache line.
type counters struct {
	hits, misses, puts, refused, dropped atomic.Uint64
	_                                    [24]byte
}

func (c *counters) got(hit bool) {
	if hit {
		c.hits.Add(1)
	} else {
		c.misses.Add(1)
	}
}

func (c *counters) put(kept bool) {
	c.puts.Add(1)
	if !kept {
		c.dropped.Add(1)
	}
}

// Stats returns the counters of the Pool. Without Config.Stats they are all zero.
func (p *Pool) Stats() Stats {
	// A snapshot of each counter and not of all at one moment, which would need a lock in Get and Put.
	s := Stats{Oversize: p.overflow.misses.Load(), Refused: p.overflow.refused.Load()}
	for i := range p.counters {
		c := &p.counters[i]
		// Puts before Gets, so that a buffer lent and returned in between does not make Outstanding
		// negative.
		puts := c.puts.Load()
		cs := ClassStats{
			Size:    classSizes[i],
			Hits:    c.hits.Load(),
			Misses:  c.misses.Load(),
			Refused: c.refused.Load(),
			Dropped: c.dropped.Load(),
		}
		if cs.Hits|cs.Misses|cs.Refused|puts == 0 {
			continue
		}
		cs.Outstanding = int64(cs.Hits + cs.Misses - puts)
		s.Classes = append(s.Classes, cs)
	}
	return s
}

// Bucket counts the requests of one range of sizes.
type Bucket struct {
	// UpTo is the largest size in bytes that the bucket counts. The smallest is one more than
	// that of the class below.
	UpTo int

	// Count is the number of requests.
	Count uint64
}

// histogram counts requested sizes by the class that would serve them if there were no maximum.
// The last count is for sizes above the largest class. Nothing acts on it: a pool that tunes itself
// by the past fits badly as soon as the load changes, and nobody sees why.
type histogram [numClasses + 1]atomic.Uint64

func (h *histogram) observe(n int) {
	switch {
	case n == 0:
		h[0].Add(1)
	case n > MaxSize:
		h[numClasses].Add(1)
	default:
		h[classOf(n)].Add(1)
	}
}

// Histogram returns how often which sizes were asked for, in ascending order and without empty
// buckets, sizes above the maximum of the Pool included. Without Config.Histogram it is nil.
func (p *Pool) Histogram() []Bucket {
	if p.histogram == nil {
		return nil
	}
	var buckets []Bucket
	for c := range p.histogram {
		n := p.histogram[c].Load()
		if n == 0 {
			continue
		}
		upTo := math.MaxInt // of the last one, which has no class
		if c < numClasses {
			upTo = classSizes[c]
		}
		buckets = append(buckets, Bucket{UpTo: upTo, Count: n})
	}
	return buckets
}
