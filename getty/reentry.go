// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"reflect"
	"runtime"
)

// An encoder that writes to its session would wait for ever for the encoder lock, which its own
// goroutine holds. Go does not tell which goroutine holds a lock. So a writer that has waited for
// the lock for a while looks at its own stack: if it runs below an encoder, the write is refused.

// insideEncoder reports whether the calling goroutine runs an encoder. own is how many calls of
// outbox.encode on its stack do not run one: 1 for a call that still waits for the lock.
func insideEncoder(own int) bool {
	// encode is never inlined, so that it is on the stack of every encoder. Functions are compared
	// by where their code begins: a user's function may have the same name.
	entry := reflect.ValueOf((*outbox).encode).Pointer()
	pc := make([]uintptr, 64)
	n := runtime.Callers(2, pc)
	for n == len(pc) { // a recursive encoder
		pc = make([]uintptr, 2*len(pc))
		n = runtime.Callers(2, pc)
	}
	for _, p := range pc[:n] {
		// p is where the call returns to, which may be past the end of the function.
		if f := runtime.FuncForPC(p - 1); f != nil && f.Entry() == entry {
			own--
		}
	}
	return own < 0
}
