// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package bytespool

import "unsafe"

// A sync.Pool stores interface values. A slice in an interface is a fresh 24-byte header on the
// heap at each Put; a pointer to its first byte fits the interface word, and the class knows the
// capacity. unsafe_not.go does the same without unsafe.

// box returns the first byte of b as an interface value without allocating. cap(b) > 0.
func box(b []byte) any { return unsafe.SliceData(b) }

// unbox undoes box for a buffer of the given capacity. It returns nil for a nil v.
func unbox(v any, n, size int) []byte {
	p, ok := v.(*byte)
	if !ok {
		return nil
	}
	return unsafe.Slice(p, size)[:n]
}
