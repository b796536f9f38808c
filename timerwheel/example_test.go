// SPDX-License-Identifier: Apache-2.0

package timerwheel_test

import (
	"context"
	"fmt"
	"time"

	"github.com/gostkit/kit/timerwheel"
)

func Example() {
	w := timerwheel.New(timerwheel.Config{})
	defer w.Close()
	done := make(chan struct{})
	idle := w.AfterFunc(time.Hour, func() { fmt.Println("idle for too long"); close(done) })
	fmt.Println("still pending:", idle.Reset(5*time.Millisecond))
	<-done
	fmt.Println("stopped:", idle.Stop())
	// Output:
	// still pending: true
	// idle for too long
	// stopped: false
}

// A struct with a timer in it: no allocation and no closure for either.
func ExampleInitFuncArg() {
	type session struct {
		name string
		idle timerwheel.Timer
		gone chan string
	}
	w := timerwheel.New(timerwheel.Config{Executor: timerwheel.Inline})
	defer w.Close()
	s := &session{name: "a", gone: make(chan string, 1)}
	timerwheel.InitFuncArg(w, &s.idle, func(s *session) { s.gone <- s.name }, s)
	s.idle.SetCoarse(true)
	s.idle.Reset(3 * time.Millisecond)
	fmt.Println(<-s.gone)
	// Output: a
}

func ExampleWheel_NewTicker() {
	w := timerwheel.New(timerwheel.Config{})
	defer w.Close()
	tk := w.NewTicker(2 * time.Millisecond)
	for range 3 {
		<-tk.C
		fmt.Println("tick")
	}
	tk.Stop()
	// Output:
	// tick
	// tick
	// tick
}

func ExampleWheel_Context() {
	w := timerwheel.New(timerwheel.Config{})
	defer w.Close()
	ctx, cancel := w.Context(context.Background(), 2*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	fmt.Println(ctx.Err())
	// Output: context deadline exceeded
}

func ExampleWheel_Close() {
	w := timerwheel.New(timerwheel.Config{})
	c := w.After(time.Hour)
	w.Close()
	_, ok := <-c
	fmt.Println(ok, w.Stats().Pending)
	// Output: false 0
}
