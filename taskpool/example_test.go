// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"context"
	"fmt"

	"github.com/gostkit/kit/taskpool"
)

func ExampleOrdered() {
	pool := taskpool.NewOrdered(taskpool.Config{Workers: 4})
	ctx := context.Background()
	var anna, bert []int // each is touched by one task at a time
	for i := range 3 {
		_ = pool.SubmitKey(ctx, taskpool.StringKey("anna"), func() { anna = append(anna, i) })
		_ = pool.SubmitKey(ctx, taskpool.StringKey("bert"), func() { bert = append(bert, i) })
	}
	left, err := pool.Shutdown(ctx)
	fmt.Println(anna, bert, len(left), err)
	// Output: [0 1 2] [0 1 2] 0 <nil>
}

func ExampleMailbox() {
	pool := taskpool.NewOrdered(taskpool.Config{})
	box := pool.NewMailbox(100)
	err := box.Post(
		func() { fmt.Println("first") },
		func() { fmt.Println("second") },
	)
	_, _ = pool.Shutdown(context.Background())
	fmt.Println(err)
	// Output:
	// first
	// second
	// <nil>
}

func ExampleShared_Do() {
	pool := taskpool.NewShared(taskpool.Config{Workers: 2})
	defer pool.Close()
	err := pool.Do(context.Background(), func() { panic("oops") })
	p, ok := err.(*taskpool.PanicError)
	fmt.Println(ok, p.Value)
	// Output: true oops
}

func ExampleNewFunc() {
	sum := 0
	pool := taskpool.NewFunc(taskpool.Config{Workers: 1}, func(n int) { sum += n })
	_, _ = pool.SubmitN(context.Background(), 1, 2, 3)
	_, _ = pool.Shutdown(context.Background())
	fmt.Println(sum)
	// Output: 6
}

func ExampleAsync() {
	pool := taskpool.NewElastic(taskpool.Config{})
	defer pool.Close()
	f, _ := taskpool.Async(context.Background(), pool, func() (int, error) { return 6 * 7, nil })
	fmt.Println(f.Wait(context.Background()))
	// Output: 42 <nil>
}
