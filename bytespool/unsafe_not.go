// SPDX-License-Identifier: Apache-2.0

//go:build purego

package bytespool

import "sync"

// headers keeps the slice headers that box needs, so that this form does not allocate in steady
// state either. It costs a second pool operation each way.
var headers sync.Pool

func box(b []byte) any {
	h, ok := headers.Get().(*[]byte)
	if !ok {
		h = new([]byte)
	}
	*h = b
	return h
}

func unbox(v any, n, _ int) ([]byte, bool) {
	h, ok := v.(*[]byte)
	if !ok {
		return nil, false
	}
	b := (*h)[:n]
	*h = nil // an idle header must not keep b alive once its user drops it
	headers.Put(h)
	return b, true
}
