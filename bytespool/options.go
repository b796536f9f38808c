// SPDX-License-Identifier: Apache-2.0

package bytespool

// getSlow is Get with everything that the short path leaves out: zero and bad sizes, sizes above
// the maximum, the first use, options, and the checks of debug builds.
func (p *Pool) getSlow(n int) []byte {
	if n < 0 {
		panic("bytespool: Get of a negative size")
	}
	p.begin()
	if p.histogram != nil {
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
	if p.counters != nil {
		p.counters[c].got(hit)
	}
	if debug {
		debugGot(b, hit)
		if p.zeroOnPut {
			clear(b) // the poison would break the promise of ZeroOnPut
		}
	}
	return b[:n]
}

// putSlow is Put with everything that the short path leaves out.
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
			debugPut(b[:size]) // lent by a Pool with a larger maximum; it is put back all the same
		}
		return
	}
	c := slotOf(size)
	if classSizes[c] != size {
		if p.counters != nil {
			p.counters[classOf(size)].refused.Add(1)
		}
		return
	}
	b = b[:size]
	kept := true
	if debug {
		kept = debugPut(b) // before anything is written: b may be somebody else's
	}
	if p.zeroOnPut && !(debug && kept) { // what a debug build keeps is poisoned
		clear(b)
	}
	if kept {
		kept = p.keep(c, b)
	}
	if p.counters != nil {
		p.counters[c].put(kept)
	}
}

// begin opens the short paths for what comes after, if this Pool may use them.
func (p *Pool) begin() {
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
