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
	// Tick is the resolution: a timer fires at the first multiple of Tick, counted from
	// the making of the Wheel, that is not before its deadline. Zero means [DefaultTick].
	// A negative Tick, or one of more than a day, makes [New] panic.
	Tick time.Duration

	// Executor runs the callbacks of AfterFunc, TickFunc and their kin. Nil starts a
	// goroutine for each, as package time does; [Inline] runs them one after another on
	// the goroutine of the Wheel. Anything else is called on that goroutine with the
	// callback to run, and must neither block nor lose it: hand it to a pool that has
	// room, or start a goroutine. Values for channels do not pass through the Executor.
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

func logPanic(value any, stack []byte) {
	slog.Error("timerwheel: panic in callback", "value", value, "stack", string(stack))
}

// shardsPerProc keeps the chance small that two processors meet at one lock, at about 1.5 KiB
// a shard and one atomic load for each shard when the Wheel wakes.
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
