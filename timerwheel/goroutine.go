// SPDX-License-Identifier: Apache-2.0

package timerwheel

import "runtime"

// A callback that runs on the Wheel's goroutine may call Close, and Close waits until no
// callback runs there any more. Such a call must not wait for itself, so Close has to know
// whether it is on that goroutine. A flag "a callback is running" cannot tell: it is also set
// when another goroutine calls Close meanwhile, and that call has to wait. Go offers the number
// of the current goroutine only in the text of a stack trace, whose first line has had the form
// "goroutine 7 [running]:" since Go 1.0. Only Close and the start of the goroutine read it.

// goroutineID returns the number of the current goroutine, in about a microsecond.
func goroutineID() (id uint64) {
	var buf [40]byte
	for _, c := range buf[len("goroutine "):runtime.Stack(buf[:], false)] {
		if c < '0' || c > '9' {
			break
		}
		id = id*10 + uint64(c-'0')
	}
	return id
}
