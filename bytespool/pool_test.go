// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"bytes"
	"encoding/binary"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	gcdebug "runtime/debug"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// allocator is what packages that take a Pool ask for.
type allocator interface {
	Get(n int) []byte
	Put(b []byte)
}

var _ allocator = (*Pool)(nil)

// pools returns a Pool of each kind of storage and option.
func pools(t testing.TB) map[string]*Pool {
	configs := map[string]Config{
		"small":     {MaxSize: 1 << 10},
		"large":     {MaxSize: 8 << 20},
		"limited":   {MaxIdle: 256 << 10},
		"zeroing":   {ZeroOnPut: true},
		"counting":  {Stats: true},
		"histogram": {Histogram: true},
		"all":       {MaxSize: 100_000, MaxIdle: 1 << 20, ZeroOnPut: true, Stats: true, Histogram: true},
	}
	made := map[string]*Pool{"zero": new(Pool)}
	for name, c := range configs {
		p, err := New(c)
		require.NoError(t, err, name)
		made[name] = p
	}
	return made
}

// acceptance: B02
func TestGetLengthAndCapacity(t *testing.T) {
	for name, p := range pools(t) {
		for _, n := range []int{
			0, 1, 63, 64, 65, 1000, 1024, 4095, 4096, 4097, 5000, 60_000, 65_537, 99_999,
			1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20,
		} {
			b := p.Get(n)
			require.NotNil(t, b, "%s: Get(%d)", name, n)
			require.Len(t, b, n, "%s: Get(%d)", name, n)
			if n <= p.MaxSize() {
				require.Equal(t, ClassSize(n), cap(b), "%s: Get(%d)", name, n)
			} else {
				require.GreaterOrEqual(t, cap(b), n)
			}
			p.Put(b)
		}
	}
}

func TestMaxSize(t *testing.T) {
	require.Equal(t, DefaultMaxSize, new(Pool).MaxSize())
	for c, want := range map[int]int{
		0: DefaultMaxSize, 1: 64, 64: 64, 65: 80, 5000: 6144, MaxSize: MaxSize, 1 << 21: 1 << 21,
	} {
		p, err := New(Config{MaxSize: c})
		require.NoError(t, err)
		require.Equal(t, want, p.MaxSize(), "Config.MaxSize %d", c)
	}
}

// acceptance: B02
func TestBadInput(t *testing.T) {
	for _, c := range []Config{{MaxSize: -1}, {MaxSize: MaxSize + 1}, {MaxIdle: -1}} {
		p, err := New(c)
		require.Error(t, err, "%+v", c)
		require.Nil(t, p)
	}
	_, err := New(Config{MaxSize: -5})
	require.EqualError(t, err, "bytespool: Config.MaxSize -5 is not within 0 to 1073741824")
	for name, p := range pools(t) {
		for _, n := range []int{-1, math.MinInt} {
			require.PanicsWithValue(t, "bytespool: Get of a negative size", func() { p.Get(n) }, name)
			require.PanicsWithValue(t, "bytespool: Grow by a negative size", func() { p.Grow(nil, n) }, name)
		}
		require.PanicsWithValue(t, "bytespool: Grow beyond the largest size",
			func() { p.Grow(make([]byte, 1), math.MaxInt) }, name)
		require.NotPanics(t, func() {
			p.Put(nil)
			p.Put([]byte{})
			p.Put(make([]byte, 0, 100))
			p.Put(make([]byte, 10)[10:])
			p.Put(make([]byte, 2<<20))
		}, name)
	}
}

// Whatever Put does not like must not come out of Get again.
func TestPutRefuses(t *testing.T) {
	for name, p := range pools(t) {
		b := p.Get(1000)
		p.Put(b[1:])
		p.Put(b[:10:1001])
		p.Put(make([]byte, 1023))
		p.Put(make([]byte, 63))
		p.Put(make([]byte, 1))
		for range 100 {
			other := p.Get(1000)
			require.Equal(t, 1024, cap(other), name)
			require.NotSame(t, &b[0], &other[0], name)
			defer p.Put(other)
		}
		p.Put(b)
	}
}

func TestStats(t *testing.T) {
	p, err := New(Config{Stats: true, MaxSize: 4096, MaxIdle: 2048})
	require.NoError(t, err)
	require.Empty(t, p.Stats().Classes)
	a, b, c := p.Get(1000), p.Get(1024), p.Get(901)
	p.Put(a)
	p.Put(b)
	p.Put(c) // MaxIdle has room for two
	a = p.Get(1000)
	p.Put(a[1:])   // capacity 1023 would belong to the same class
	d := p.Get(65) // another class
	p.Put(p.Get(5000))
	require.Equal(t, Stats{
		Classes: []ClassStats{
			{Size: 80, Misses: 1, Outstanding: 1},
			{Size: 1024, Hits: 1, Misses: 3, Refused: 1, Dropped: 1, Outstanding: 1},
		},
		Oversize: 1,
		Refused:  1,
	}, p.Stats())
	p.Put(a)
	p.Put(d)
	for _, c := range p.Stats().Classes {
		require.Zero(t, c.Outstanding)
	}
	p.Put(make([]byte, 2400)) // above 2304, which is the third quarter step moved down
	last := p.Stats().Classes[2]
	require.Equal(t, ClassStats{Size: ClassSize(2400), Refused: 1}, last)
	require.Zero(t, new(Pool).Stats())
}

func TestHistogram(t *testing.T) {
	p, err := New(Config{Histogram: true, MaxSize: 1024})
	require.NoError(t, err)
	require.Nil(t, p.Histogram())
	for _, n := range []int{0, 1, 64, 65, 1024, 1025, 5000} {
		p.Put(p.Get(n))
	}
	require.Equal(t, []Bucket{{64, 3}, {80, 1}, {1024, 1}, {1280, 1}, {6144, 1}}, p.Histogram())
	p.histogram.observe(MaxSize + 1)
	require.Equal(t, Bucket{math.MaxInt, 1}, p.Histogram()[5])
	require.Nil(t, new(Pool).Histogram())
}

// The limit is exact, last in is first out, and a class larger than the limit keeps nothing.
func TestMaxIdle(t *testing.T) {
	p, err := New(Config{MaxIdle: 10_000})
	require.NoError(t, err)
	var lent [][]byte
	for range 5 {
		lent = append(lent, p.Get(4096))
	}
	large := p.Get(16_384)
	p.Put(large)
	for _, b := range lent {
		p.Put(b)
	}
	require.Equal(t, 2*4096, p.Trim())
	require.Zero(t, p.Trim())
	require.Zero(t, new(Pool).Trim())
	a, b := p.Get(4096), p.Get(4096)
	p.Put(a)
	p.Put(b)
	c := p.Get(4096)
	require.Same(t, &b[0], &c[0])
	p.Put(c)
}

// A limit that counts must not go wrong when the garbage collector empties the pool.
//
// acceptance: B01
func TestReuseAfterGC(t *testing.T) {
	for name, p := range pools(t) {
		if p.MaxSize() < 4096 {
			continue
		}
		var lent [][]byte
		for range 4000 {
			lent = append(lent, p.Get(4096))
		}
		for _, b := range lent {
			p.Put(b)
		}
		clear(lent)
		runtime.GC()
		runtime.GC()
		reused := 0
		for range 1000 {
			a := p.Get(4096)
			first := &a[0]
			p.Put(a)
			b := p.Get(4096)
			if &b[0] == first {
				reused++
			}
			p.Put(b)
		}
		if raceEnabled && p.shelves == nil {
			require.Greater(t, reused, 100, name) // sync.Pool drops one in four at random
		} else {
			require.Greater(t, reused, 900, name)
		}
	}
}

// acceptance: B02
func TestZeroOnPut(t *testing.T) {
	for _, name := range []string{"zeroing", "all"} {
		p := pools(t)[name]
		for range 100 {
			b := p.Get(1000)
			require.Equal(t, make([]byte, 1024), b[:1024], "%s: content of a buffer", name)
			for i := range b[:1024] {
				b[:1024][i] = 'x'
			}
			p.Put(b[:3])
		}
	}
}

func TestGrow(t *testing.T) {
	for name, p := range pools(t) {
		b := p.Get(0)
		var model []byte
		moves := 0
		for i := range 10_000 {
			before := cap(b)
			b = p.Grow(b, 1+i%5)
			require.GreaterOrEqual(t, cap(b)-len(b), 1+i%5, name)
			if cap(b) != before {
				moves++
			}
			b = append(b, byte(i))
			model = append(model, byte(i))
		}
		equal(t, model, b, "%s: Grow", name)
		require.Less(t, moves, 40, "%s: Grow must be geometric", name)
		p.Put(b)
		// Within the capacity nothing moves.
		b = p.Get(100)
		require.Same(t, &b[0], &p.Grow(b, 12)[0])
		p.Put(b)
	}
	// Above the maximum too.
	p, err := New(Config{MaxSize: 64})
	require.NoError(t, err)
	moves := 0
	var b []byte
	for range 1 << 20 {
		before := cap(b)
		b = append(p.Grow(b, 1), 1)
		if cap(b) != before {
			moves++
		}
	}
	require.Less(t, moves, 60)
}

// acceptance: B02
func TestAllocs(t *testing.T) {
	if raceEnabled || debug {
		t.Skip("sync.Pool drops at random under -race, debug builds allocate")
	}
	for name, p := range pools(t) {
		for _, n := range []int{1, 64, 1000, 4096, 60_000, DefaultMaxSize} {
			if n > p.MaxSize() || p.shelves != nil && p.shelves[classOf(n)].limit == 0 {
				continue
			}
			allocs := testing.AllocsPerRun(200, func() { p.Put(p.Get(n)) })
			require.Zero(t, int(allocs), "%s: Get(%d) and Put", name, n)
		}
	}
}

// AllocsPerRun runs on one processor; here Get and Put happen on two goroutines that may run at
// once.
//
// acceptance: B02
func TestAllocsAcrossGoroutines(t *testing.T) {
	if raceEnabled || debug {
		t.Skip("sync.Pool drops at random under -race, debug builds allocate")
	}
	defer gcdebug.SetGCPercent(gcdebug.SetGCPercent(-1))
	for name, p := range pools(t) {
		const rounds = 50_000
		lent := make(chan []byte, 64)
		done := make(chan struct{})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		go func() {
			defer close(done)
			for b := range lent {
				p.Put(b)
			}
		}()
		for range rounds {
			lent <- p.Get(1000)
		}
		close(lent)
		<-done
		runtime.ReadMemStats(&after)
		require.Less(t, after.Mallocs-before.Mallocs, uint64(rounds/50),
			"%s: allocations of %d rounds", name, rounds)
	}
}

// owned is a buffer and what its owner wrote.
type owned struct {
	b    []byte
	mark uint64
}

// stamp fills the whole capacity of o with a mark of its own.
func (o owned) stamp() {
	whole := o.b[:cap(o.b)]
	binary.LittleEndian.PutUint64(whole, o.mark)
	for filled := 8; filled < len(whole); filled *= 2 {
		copy(whole[filled:], whole[:filled])
	}
}

// intact reports whether nobody else wrote to o.
func (o owned) intact() bool {
	whole := o.b[:cap(o.b)]
	return binary.LittleEndian.Uint64(whole) == o.mark && bytes.Equal(whole[8:], whole[:len(whole)-8])
}

// Buffers travel between goroutines, and in between the garbage collector runs. No two owners may
// ever have the same memory.
func TestNoSharedMemoryUnderStress(t *testing.T) {
	const workers = 4
	rounds := 3000
	if raceEnabled {
		rounds = 400
	}
	if long {
		rounds *= 50
	}
	shared := slices.Collect(maps.Values(pools(t)))
	belt := make(chan owned, 32)
	failed := make(chan int, workers)
	for w := range workers {
		go func() {
			bad := 0
			rng := rand.New(rand.NewPCG(uint64(w), 7))
			for i := range rounds {
				p := shared[rng.IntN(len(shared))]
				switch rng.IntN(4) {
				case 0, 1:
					// Capacities that are no multiple of 8 would complicate the stamp; there are none.
					n := 1 + rng.IntN(1<<(3+rng.IntN(14)))
					o := owned{p.Get(n), uint64(w)<<32 | uint64(i)}
					o.stamp()
					select {
					case belt <- o:
					default:
						p.Put(o.b)
					}
				case 2:
					select {
					case o := <-belt:
						if !o.intact() {
							bad++
						}
						p.Put(o.b) // not always where it came from
					default:
					}
				case 3:
					if i%500 == 3 {
						runtime.GC()
					}
				}
			}
			failed <- bad
		}()
	}
	for range workers {
		require.Zero(t, <-failed, "buffers that somebody else wrote to")
	}
	close(belt)
	for o := range belt {
		require.True(t, o.intact())
		Put(o.b)
	}
}

func TestVerifyPassesOnExitCode(t *testing.T) {
	var report bytes.Buffer
	require.Zero(t, verify(exitCode(0), &report, 0), &report)
	require.Equal(t, 3, verify(exitCode(3), &report, 0))
	require.Empty(t, report.String())
	require.Empty(t, Leaks())
}

type exitCode int

func (c exitCode) Run() int { return int(c) }
