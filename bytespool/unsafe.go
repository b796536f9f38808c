// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package bytespool

import "unsafe"

// box returns a pointer to the first byte of b as an interface value. cap(b) > 0.
func box(b []byte) any {
	// A slice in an interface would be a new 24-byte header on the heap at each Put. A pointer fits
	// the interface word itself, and the class knows the capacity. unsafe_not.go does without.
	return unsafe.SliceData(b)
}

// unbox undoes box for a buffer of the given capacity and returns its first n bytes, or false for
// a nil v. 0 <= n <= size.
func unbox(v any, n, size int) ([]byte, bool) {
	p, ok := v.(*byte)
	// unsafe.Slice(p, size)[:n] would check again what class and n guarantee.
	h := header{p, n, size}
	return *(*[]byte)(unsafe.Pointer(&h)), ok
}

// header is what a slice is made of.
type header struct {
	data     *byte
	len, cap int
}
