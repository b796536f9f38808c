// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// drivePool interprets program as Gets, Puts and Grows, two bytes a call, and checks that no two
// lent buffers overlap.
func drivePool(t testing.TB, p *Pool, program []byte) {
	var lent []owned
	defer func() {
		for _, o := range lent {
			p.Put(o.b)
		}
	}()
	for len(program) >= 2 {
		op, v := program[0]%4, int(program[1])
		program = program[2:]
		switch {
		case op <= 1 || len(lent) == 0:
			n := v * v * (1 + int(op))
			b := p.Get(n)
			require.Len(t, b, n)
			for _, o := range lent {
				require.False(t, overlap(o.b, b), "two owners of %d bytes", n)
			}
			lent = append(lent, owned{b, uint64(len(program))})
			lent[len(lent)-1].stamp()
		case op == 2:
			i := v % len(lent)
			o := lent[i]
			lent[i] = lent[len(lent)-1]
			lent = lent[:len(lent)-1]
			require.True(t, o.intact())
			p.Put(o.b[:v%(len(o.b)+1)])
		case op == 3:
			o := &lent[v%len(lent)]
			before := string(o.b)
			o.b = p.Grow(o.b, v*10)
			require.Equal(t, before, string(o.b), "Grow(%d)", v*10)
			require.GreaterOrEqual(t, cap(o.b)-len(o.b), v*10)
			o.stamp()
		}
	}
	for _, o := range lent {
		require.True(t, o.intact())
	}
}

func overlap(a, b []byte) bool {
	startA := uintptr(unsafe.Pointer(unsafe.SliceData(a)))
	startB := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return startA < startB+uintptr(cap(b)) && startB < startA+uintptr(cap(a))
}

func FuzzPool(f *testing.F) {
	f.Add([]byte{0, 10, 1, 200, 3, 100, 2, 0, 0, 10, 2, 1}, byte(0))
	f.Add([]byte{1, 255, 3, 255, 3, 255, 2, 7, 1, 255, 1, 255}, byte(31))
	f.Fuzz(func(t *testing.T, program []byte, options byte) {
		if len(program) > 400 {
			return
		}
		c := Config{ZeroOnPut: options&1 != 0, Stats: options&2 != 0, Histogram: options&4 != 0}
		if options&8 != 0 {
			c.MaxIdle = 100_000
		}
		if options&16 != 0 {
			c.MaxSize = 10_000
		}
		p, err := New(c)
		require.NoError(t, err)
		drivePool(t, p, program)
		for _, cs := range p.Stats().Classes {
			require.Zero(t, cs.Outstanding, "class %d", cs.Size)
		}
	})
}
