// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// The obvious search is the model of the arithmetic.
func TestClassOfEverySize(t *testing.T) {
	check := func(n, c int) {
		if classOf(n) != c {
			t.Fatalf("classOf(%d) = %d (%d bytes), want %d (%d bytes)",
				n, classOf(n), classSizes[classOf(n)], c, classSizes[c])
		}
		if n <= smallSize && smallClassOf(n) != c {
			t.Fatalf("smallClassOf(%d) = %d, want %d", n, smallClassOf(n), c)
		}
	}
	c := 0
	for n := 1; n <= 1<<17; n++ {
		if n > classSizes[c] {
			c++
		}
		check(n, c)
	}
	for ; c < numClasses; c++ {
		check(classSizes[c], c)
		check(classSizes[c]-1, c)
		if c+1 < numClasses {
			check(classSizes[c]+1, c+1)
		}
	}
}

// Put relies on slotOf alone.
func TestSlotOfClassSizeIsItsClass(t *testing.T) {
	for c, size := range classSizes[:numClasses] {
		require.Equal(t, c, slotOf(size), "slotOf(%d)", size)
		if c > 0 {
			require.Greater(t, size, classSizes[c-1], "class %d", c)
		}
	}
	require.Equal(t, MinSize, classSizes[0])
	require.Equal(t, MaxSize, classSizes[numClasses-1])
}

// append rounds up to what the allocator hands out, so a size that it leaves alone loses nothing.
func TestClassesAreAllocatorSizes(t *testing.T) {
	for _, size := range classSizes[:numClasses] {
		if size > 1<<22 { // all page multiples from 32 KiB on
			break
		}
		b := append([]byte(nil), make([]byte, size)...)
		require.Equal(t, size, cap(b), "capacity that Go gives to %d bytes", size)
	}
}

// The documented bounds on unused capacity: a quarter at worst, and the mean that README states.
func TestWaste(t *testing.T) {
	worst, sum, count := 0.0, 0.0, 0
	for n := MinSize; n <= DefaultMaxSize; n++ {
		waste := 1 - float64(n)/float64(ClassSize(n))
		worst = max(worst, waste)
		sum += waste
		count++
	}
	require.LessOrEqual(t, worst, 0.25, "worst waste")
	require.LessOrEqual(t, sum/float64(count), 0.10, "mean waste")
	t.Logf("worst %.4f mean %.4f of capacity", worst, sum/float64(count))
}

func TestClassSizeEnds(t *testing.T) {
	require.Equal(t, 64, ClassSize(0))
	require.Equal(t, 64, ClassSize(1))
	require.Equal(t, 64, ClassSize(64))
	require.Equal(t, 80, ClassSize(65))
	require.Equal(t, MaxSize, ClassSize(MaxSize))
	require.Equal(t, MaxSize+1, ClassSize(MaxSize+1))
	require.Equal(t, math.MaxInt, ClassSize(math.MaxInt))
	require.PanicsWithValue(t, "bytespool: ClassSize of a negative size", func() { ClassSize(-1) })
}
