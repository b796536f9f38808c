// SPDX-License-Identifier: Apache-2.0

package bytespool

import "math/bits"

const (
	minShift = 6 // the smallest class is 64 B: below it a class would save less than it costs to keep
	maxShift = 30

	// MinSize is the capacity in bytes of the smallest class.
	MinSize = 1 << minShift

	// MaxSize is the largest value in bytes that Config.MaxSize may have.
	MaxSize = 1 << maxShift

	// DefaultMaxSize is the largest capacity in bytes that a Pool keeps unless told otherwise.
	DefaultMaxSize = 1 << 20

	numClasses = (maxShift-minShift)*4 + 1

	// classMask spares Get and Put the bounds checks of arrays that have an element for each value
	// up to it.
	classMask = 127

	// smallSize is the largest size that smallClasses knows, smallStep the greatest common divisor
	// of the class sizes up to it.
	smallSize = 4 << 10
	smallStep = 16
)

// classSizes holds the capacity of each class in ascending order, see [ClassSize], and zeros.
var classSizes = makeClassSizes()

// smallClasses holds the class of each size up to smallSize, one element for each smallStep bytes.
// A look-up costs less than slotOf; the table is kept small since it lives in the same cache as the
// caller's data.
var smallClasses = makeSmallClasses()

// makeClassSizes divides each power of two into four steps.
func makeClassSizes() (sizes [classMask + 1]int) {
	for c := range numClasses {
		power := MinSize << (c / 4)
		sizes[c] = power + power/4*(c%4)
		// These four are no sizes of Go's allocator, which would round them up and lose the
		// difference (2560 to 2688, 3584 to 4096, 5120 to 5376, 7168 to 8192). They move down to the
		// next allocator size, and not up: classOf relies on that.
		switch sizes[c] {
		case 2560:
			sizes[c] = 2304
		case 3584:
			sizes[c] = 3456
		case 5120:
			sizes[c] = 4864
		case 7168:
			sizes[c] = 6912
		}
	}
	return sizes
}

func makeSmallClasses() (classes [smallSize / smallStep]uint8) {
	for i := range classes {
		classes[i] = uint8(classOf((i + 1) * smallStep))
	}
	return classes
}

// smallClassOf is classOf for 1 <= n <= smallSize.
func smallClassOf(n int) int {
	return int(smallClasses[uint(n-1)/smallStep%uint(len(smallClasses))]) & classMask
}

// slotOf returns the quarter step that n falls into, for 1 <= n <= MaxSize. For the size of a class
// that is the class. For other sizes it is the class that holds n bytes or, near the four steps
// that makeClassSizes moved down, the one below it.
func slotOf(n int) int {
	// Len32 and not Len, because on amd64 it needs no test for zero.
	x := uint32(max(n-1, MinSize-1))
	l := bits.Len32(x)
	// The position of the top bit is the power of two. The three highest bits, top bit included, are
	// 4 to 7: the quarter. So one count and one shift yield the class, without a loop.
	return l*4 + int(x>>((l-3)&31)) - (minShift+2)*4 + 1
}

// classOf returns the smallest class that holds n bytes, for 1 <= n <= MaxSize.
func classOf(n int) int {
	c := slotOf(n)
	if n > classSizes[c] {
		c++
	}
	return c
}

// ClassSize returns the capacity in bytes of the class that serves a request of n bytes: the
// next of 64, 80, 96, 112, 128, 160, 192, 224, 256 and so on up to [MaxSize], four steps between
// two powers of two, all of them sizes that Go's allocator hands out whole. Of a request of 64 B
// or more at most a quarter of the capacity is unused. For n above MaxSize it returns n. It
// panics if n is negative.
func ClassSize(n int) int {
	switch {
	case n < 0:
		panic("bytespool: ClassSize of a negative size")
	case n == 0:
		return MinSize
	case n > MaxSize:
		return n
	}
	return classSizes[classOf(n)]
}
