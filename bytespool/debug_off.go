// SPDX-License-Identifier: Apache-2.0

//go:build !bytespooldebug

package bytespool

const debug = false

func debugGot([]byte, bool) {}
func debugPut([]byte) bool  { return true }
func leaks() []Leak         { return nil }
func debugIdle() []*Misuse  { return nil }
