// SPDX-License-Identifier: Apache-2.0

package bytespool

// getSlow is Get with everything that Get itself leaves out: zero and bad sizes, sizes above the
// maximum, the first use, options, and the checks of debug builds.
func (p *Pool) getSlow(n int) []byte {
	if n < 0 {
		panic("bytespool: Get of a negative size")
	}
	p.begin()
	if p.histogram != nil { // also what is above the maximum: it says whether that is too low
		p.histogram.observe(n)
	}
	if n > p.MaxSize() {
		if p.counters != nil {
			p.overflow.misses.Add(1)
		}
		return make([]byte, n)
	}
	c := classOf(n)
	size := classSizes[c]
	b, hit := p.take(c)
	if !hit {
		b = make([]byte, size)
	}
	// At full length up to here: the debug build looks at every byte.
	if p.counters != nil {
		p.counters[c].got(hit)
	}
	if debug {
		debugGot(b, hit)
		if p.zeroOnPut {
			clear(b) // what debugPut filled it with would break the promise of ZeroOnPut
		}
	}
	return b[:n]
}

// putSlow is Put with everything that Put itself leaves out.
func (p *Pool) putSlow(b []byte) {
	p.begin()
	size := cap(b)
	switch {
	case size == 0:
		return
	case size > p.MaxSize():
		if p.counters != nil {
			p.overflow.refused.Add(1)
		}
		if debug && size <= MaxSize && classSizes[slotOf(size)] == size {
			// Lent by a Pool with a larger maximum. It is not kept here, but it is no leak.
			debugPut(b[:size])
		}
		return
	}
	c := slotOf(size)
	if classSizes[c] != size {
		if p.counters != nil { // on the class that would serve a request of that size
			p.counters[classOf(size)].refused.Add(1)
		}
		return
	}
	b = b[:size]
	kept := true
	if debug {
		kept = debugPut(b) // before anything is written: b may be no buffer of ours
	}
	if p.zeroOnPut && !(debug && kept) { // a debug build has filled what it keeps
		clear(b)
	}
	if kept {
		kept = p.keep(c, b)
	}
	if p.counters != nil {
		p.counters[c].put(kept)
	}
}

// begin lets Get and Put serve later calls by themselves, if this Pool has no option.
func (p *Pool) begin() {
	// Several goroutines may do so at once; they store the same value.
	if !p.options && p.limit.Load() == 0 {
		p.limit.Store(uintptr(p.MaxSize()))
	}
}

// take returns an idle buffer of class c at its full length, or false.
func (p *Pool) take(c int) ([]byte, bool) {
	if p.shelves != nil {
		return p.shelves[c].take()
	}
	return unbox(p.idle[c].Get(), classSizes[c], classSizes[c])
}

// keep makes b idle in class c. It reports false if the class is full.
func (p *Pool) keep(c int, b []byte) bool {
	if p.shelves != nil {
		return p.shelves[c].keep(b)
	}
	p.idle[c].Put(box(b))
	return true
}
