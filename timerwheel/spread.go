// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package timerwheel

import "unsafe"

// spread returns the shard number for a new timer. Each processor allocates small objects
// from spans of 8 KiB of its own; the span's address thus tells the processors apart without
// asking which one this is, and a timer made and stopped on one processor meets a lock that is
// in its cache. A timer that is part of something larger is spread the same way.
func spread(t *Timer, shift uint8) uint64 {
	return (uint64(uintptr(unsafe.Pointer(t))) >> 13 * 0x9E3779B97F4A7C15) >> shift
}
