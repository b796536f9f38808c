// SPDX-License-Identifier: Apache-2.0

//go:build ringbufferdebug

package ringbuffer

import "sync/atomic"

// debugging switches the checks of guard on.
const debugging = true

// guard finds two goroutines on a side that belongs to one. It sees overlapping calls, so a side
// that is handed from one goroutine to another in an orderly way is fine. It panics: the ring's
// content is no longer trustworthy.
type guard struct{ busy atomic.Uint32 }

func (g *guard) enter(side string) {
	if !g.busy.CompareAndSwap(0, 1) {
		panic("ringbuffer: two goroutines use the " + side + " side of a single-" + side + " buffer")
	}
}

func (g *guard) leave() { g.busy.Store(0) }
