// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"log/slog"
	"math/bits"
	"reflect"
	"runtime"
	"time"
)

// DefaultTick is the tick of a [Wheel] whose Config names none.
const DefaultTick = time.Millisecond

// maxTick leaves 292 years less a day to the deadlines.
const maxTick = 24 * time.Hour

// Config describes a [Wheel]. The zero Config is the usual choice.
type Config struct {
	// Tick is how late a timer may fire on an idle machine. The Wheel rounds deadlines up
	// to a sixteenth of it (to an eighth of 8 ns, to all of 17 ns: to the smallest part that
	// goes without remainder), counted from the making of the Wheel, and wakes no more often
	// than that. Zero means [DefaultTick]. A negative Tick, or one of more than a day, makes
	// [New] panic.
	Tick time.Duration

	// Executor runs the callbacks of AfterFunc, TickFunc and their kin. Nil starts a
	// goroutine for each, as package time does; [Inline] runs them one after another on
	// the goroutine of the Wheel. Anything else is called on that goroutine with the
	// callback to run, and must neither block nor lose it: hand it to a pool that has
	// room, or start a goroutine. Values for channels do not pass through the Executor.
	// Callbacks see no profiler labels but their own: the Wheel's goroutine inherits none,
	// and drops those that a callback or the Executor left on it.
	Executor func(f func())

	// OnPanic is told of a panic in a callback or in the Executor, with the value and
	// the stack, on the goroutine where it happened. The Wheel and its other timers go
	// on. Nil reports to [slog.Default] at level Error. OnPanic itself must not panic.
	OnPanic func(value any, stack []byte)
}

// Inline, as Config.Executor, runs callbacks on the goroutine of the Wheel, one after another
// and without an allocation. It is for callbacks that take microseconds and never wait for
// anything: as long as one runs, no other timer of the Wheel fires.
func Inline(f func()) { f() }

// isInline reports whether f is Inline itself. It only saves the closure that an Executor
// would be given: a function that merely behaves like Inline works the same.
func isInline(f func(func())) bool {
	return f != nil && reflect.ValueOf(f).Pointer() == reflect.ValueOf(Inline).Pointer()
}

// fineTick returns the tick that the wheel counts in, in nanoseconds. Were it Tick itself, the
// rounding alone would use up what Tick allows, and the operating system comes on top. It is a
// divisor, so that what is set to multiples of Tick, as in tests, fires at multiples of Tick.
func fineTick(tick int64) int64 {
	n := int64(16)
	for tick%n != 0 {
		n--
	}
	return tick / n
}

func logPanic(value any, stack []byte) {
	slog.Error("timerwheel: panic in callback", "value", value, "stack", string(stack))
}

// shardsPerProc keeps the chance small that two processors meet at one lock. A shard takes 256
// bytes, and a KiB for each level that was ever used; when the goroutine wakes, it reads one
// word of each. There are as many again for timers with a channel or a Context.
const (
	shardsPerProc = 8
	maxShards     = 128
)

// defaultShards returns a power of two.
func defaultShards() int {
	n := runtime.GOMAXPROCS(0)
	if n == 1 {
		return 1
	}
	return min(1<<bits.Len(uint(n*shardsPerProc-1)), maxShards)
}
