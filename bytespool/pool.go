// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Config describes a Pool. The zero Config describes the zero Pool.
type Config struct {
	// MaxSize is the largest capacity in bytes that is kept, rounded up to a class; what is
	// larger is made by each Get and left to the garbage collector by each Put.
	// Zero means DefaultMaxSize; negative or above MaxSize is an error.
	MaxSize int

	// MaxIdle limits the bytes that may be idle in each class. A class larger than MaxIdle keeps
	// nothing. Zero means no limit: idle buffers live until the garbage collector has run twice.
	// With a limit they live until used or until Trim, each class has a lock, and a Put that
	// would exceed the limit drops the buffer. Negative is an error.
	MaxIdle int

	// ZeroOnPut clears the whole capacity of each buffer that is put back, so that nothing is
	// carried from one user to the next. Buffers from such a Pool start zeroed.
	ZeroOnPut bool

	// Stats turns on the counters behind Pool.Stats.
	Stats bool

	// Histogram turns on the count of requested sizes behind Pool.Histogram.
	Histogram bool
}

// Pool lends byte slices in size classes. The zero Pool keeps buffers of up to DefaultMaxSize
// and has no options on; New makes others. All methods may be called concurrently. A Pool must
// not be copied after first use. Buffers may be put back into any Pool, not only the one that
// lent them.
type Pool struct {
	// limit is the largest size that Get and Put serve by themselves. What is larger goes through
	// getSlow and putSlow, and everything does while limit is zero: in Pools with an option, and in
	// a zero Pool before first use.
	limit atomic.Uintptr

	max       int  // largest class size kept; 0 means DefaultMaxSize
	options   bool // any of those below
	zeroOnPut bool
	shelves   []shelf    // by class, nil without MaxIdle; replaces idle
	counters  []counters // by class, nil without Stats
	overflow  counters   // what is above max, with Stats
	histogram *histogram // nil without Histogram

	idle [classMask + 1]sync.Pool
}

// defaultPool serves the package functions.
var defaultPool Pool

// New returns a Pool described by c, or an error that names the field that is out of range.
func New(c Config) (*Pool, error) {
	if c.MaxSize < 0 || c.MaxSize > MaxSize {
		return nil, fmt.Errorf("bytespool: Config.MaxSize %d is not within 0 to %d", c.MaxSize, MaxSize)
	}
	if c.MaxIdle < 0 {
		return nil, fmt.Errorf("bytespool: Config.MaxIdle %d is negative", c.MaxIdle)
	}
	p := &Pool{max: DefaultMaxSize, zeroOnPut: c.ZeroOnPut}
	if c.MaxSize > 0 {
		p.max = ClassSize(c.MaxSize)
	}
	// Only the classes in use, since a class costs memory with these options.
	classes := slotOf(p.max) + 1
	if c.MaxIdle > 0 {
		p.shelves = makeShelves(classes, c.MaxIdle)
	}
	if c.Stats {
		p.counters = make([]counters, classes)
	}
	if c.Histogram {
		p.histogram = new(histogram)
	}
	p.options = c.MaxIdle > 0 || c.ZeroOnPut || c.Stats || c.Histogram
	return p, nil
}

// Get returns a buffer of length n from the Pool that the package shares. See [Pool.Get].
func Get(n int) []byte { return defaultPool.Get(n) }

// Put returns a buffer to the Pool that the package shares. See [Pool.Put].
func Put(b []byte) { defaultPool.Put(b) }

// Grow makes room for n more bytes with the Pool that the package shares. See [Pool.Grow].
func Grow(b []byte, n int) []byte { return defaultPool.Grow(b, n) }

// Get returns a buffer of length n that the caller owns until Put. Its capacity is that of the
// class, see [ClassSize]. Its content is undefined: it may hold what an earlier user left there.
// Above the maximum of the Pool it is made anew. Get(0) is not nil. Get panics if n is negative.
func (p *Pool) Get(n int) []byte {
	// As unsigned, n-1 is large for zero and negative sizes too: one comparison finds them all.
	if debug || uintptr(n-1) >= p.limit.Load() {
		return p.getSlow(n)
	}
	// classOf, written out: as a call it would cost as much as all of this.
	var c int
	if n <= smallSize {
		c = smallClassOf(n)
	} else if c = slotOf(n) & classMask; n > classSizes[c] {
		c = (c + 1) & classMask
	}
	size := classSizes[c]
	if b, ok := unbox(p.idle[c].Get(), n, size); ok {
		return b
	}
	return make([]byte, n, size)
}

// Put gives b back; only its capacity matters, not its length. The caller must not use b or any
// slice of the same memory afterwards. A buffer whose capacity is not exactly that of a class or
// is above the maximum, in most cases a foreign one or one whose front was cut off, is left to
// the garbage collector. Put(nil) does nothing.
//
// That test is cheap and not complete: a foreign slice whose capacity happens to be a class size
// is taken in, and so is a slice of the inside of a buffer. Builds with the tag bytespooldebug
// leave the former alone and panic with a [*Misuse] on the latter and on a second Put.
func (p *Pool) Put(b []byte) {
	size := cap(b)
	if debug || uintptr(size-1) >= p.limit.Load() {
		p.putSlow(b)
		return
	}
	var c int
	if size <= smallSize {
		c = smallClassOf(size)
	} else {
		c = slotOf(size) & classMask
	}
	// Any other capacity would be lent as the size of its class, which it is not.
	if classSizes[c] == size {
		p.idle[c].Put(box(b))
	}
}

// Grow returns b with room for at least n more bytes, like [slices.Grow]: same length, same
// content. If b has the room it is returned as it is. Otherwise the content moves to a larger
// buffer and b is put back, so that only the result may be used. The capacity grows by at least
// a quarter, so appending piece by piece copies each byte a bounded number of times. Grow panics
// if n is negative or the sum overflows.
func (p *Pool) Grow(b []byte, n int) []byte {
	if n < 0 {
		panic("bytespool: Grow by a negative size")
	}
	if n <= cap(b)-len(b) {
		return b
	}
	need := len(b) + n // may wrap around
	if need < 0 {
		panic("bytespool: Grow beyond the largest size")
	}
	// In steps of at least a quarter, so that appending byte by byte stays linear.
	grown := p.Get(max(need, cap(b)+cap(b)/4))[:len(b)]
	copy(grown, b)
	p.Put(b)
	return grown
}

// MaxSize returns the largest capacity in bytes that the Pool keeps.
func (p *Pool) MaxSize() int {
	if p.max == 0 {
		return DefaultMaxSize
	}
	return p.max
}
