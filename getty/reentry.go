// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"reflect"
	"runtime"
)

// An encoder that writes to a session would wait for the encoder lock that it holds itself, for
// ever. Go does not tell which goroutine holds a lock, so a writer that finds the lock taken looks
// at its own stack, once it has waited for a while: if it runs below an encoder, the write is
// refused. Functions are compared by where their code begins, which no renaming or other package
// can imitate.

// insideEncoder reports whether the calling goroutine runs an encoder. own is how many calls of
// encode on its stack are not one at work: 1 for the one that wants the lock.
func insideEncoder(own int) bool {
	// It is never inlined, so that it is on the stack of every encoder.
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
