// SPDX-License-Identifier: Apache-2.0

//go:build !bytespooldebug

package bytespool

const debug = false

func debugGot([]byte, bool) {}
func debugPut([]byte) bool  { return true }
func debugIdle() []*Misuse  { return nil }
func leaks() []Leak         { return nil }

type objectGuard[T any] struct{}

func (objectGuard[T]) got(*T)   {}
func (objectGuard[T]) check(*T) {}
func (objectGuard[T]) put(*T)   {}
