// SPDX-License-Identifier: Apache-2.0

// Package timerwheel runs any number of timers on one goroutine, at a cost that does not depend
// on how many there are, with the contract of the timers of package time.
//
// Use it where timers are many and most never fire: idle limits, write deadlines, retries and
// heartbeats of a server. Do not use it for a few timers, or for deadlines finer than a
// millisecond: package time needs no goroutine and rounds nothing.
//
//	w := timerwheel.New(timerwheel.Config{})
//	defer w.Close()
//	idle := w.AfterFunc(30*time.Second, func() { conn.Close() })
//	...
//	idle.Reset(30 * time.Second) // on each request: one clock reading, one atomic instruction
//	idle.Stop()
//
// A [Wheel] is made by [New]; [Default] returns a shared one. The zero [Timer] can be a field
// of a larger value, prepared by [Wheel.InitFunc]. Everything may be used by any number of
// goroutines at once, and from callbacks.
//
// A timer never fires early. Its deadline is rounded up to a sixteenth of Config.Tick, which is
// 62.5 microseconds by default, and it fires as soon as the machine gives the Wheel's goroutine
// a processor. The clock is monotonic: setting the system's time changes nothing. The goroutine
// starts with the first timer, sleeps until the next one, and ends with [Wheel.Close]. A
// pending timer belongs to the Wheel; one that was stopped or has fired is free at once.
//
// Starting, stopping and moving a timer takes constant time. AfterFunc allocates once, Stop and
// Reset never.
//
// It is a hierarchical timing wheel as in Varghese and Lauck, "Hashed and Hierarchical Timing
// Wheels" (1987), with a bit for each occupied slot.
//
// Differences from package time: a channel has capacity 1 and shows a fired value in its len;
// a pending timer that nobody refers to is not collected before it fires; Ticker.Stop returns a
// bool; a panic in a callback is reported (Config.OnPanic) and does not end the process;
// Sleep and receivers are released by Close.
package timerwheel
