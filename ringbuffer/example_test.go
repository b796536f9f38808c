// SPDX-License-Identifier: Apache-2.0

package ringbuffer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/gostkit/kit/ringbuffer"
)

// A producer and a consumer, each in a goroutine of its own.
func ExampleSPSC() {
	ctx := context.Background()
	q := ringbuffer.NewSPSC[string](4)
	go func() {
		defer q.Close()
		for _, word := range []string{"one", "two", "three", "four", "five", "six"} {
			if err := q.Push(ctx, word); err != nil {
				return
			}
		}
	}()
	for word := range q.Receive(ctx) {
		fmt.Println(word)
	}
	// Output:
	// one
	// two
	// three
	// four
	// five
	// six
}

// Batches cost one atomic write each.
func ExampleSPSC_PopN() {
	q := ringbuffer.NewSPSC[int](8)
	n, err := q.PushN([]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	fmt.Println(n, err)
	batch := make([]int, 5)
	n, err = q.PopN(batch)
	fmt.Println(batch[:n], err)
	// Output:
	// 8 ringbuffer: full
	// [1 2 3 4 5] <nil>
}

// Several workers share the items of several producers.
func ExampleMPMC() {
	ctx := context.Background()
	q := ringbuffer.NewMPMC[int](16)
	var producers, workers sync.WaitGroup
	sums := make([]int, 3)
	for w := range sums {
		workers.Go(func() {
			for v := range q.Receive(ctx) {
				sums[w] += v
			}
		})
	}
	for range 4 {
		producers.Go(func() {
			for v := range 100 {
				_ = q.Push(ctx, v)
			}
		})
	}
	producers.Wait()
	_ = q.Close() // the workers drain it
	workers.Wait()
	fmt.Println(sums[0] + sums[1] + sums[2])
	// Output: 19800
}

// Where an unbounded channel would be used: no goroutine in between, an end, and a bound unless
// it is waived.
func ExampleMPSC() {
	q := ringbuffer.NewMPSC[string](1000)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { _ = q.TryPush("event") })
	}
	wg.Wait()
	_ = q.Close()
	fmt.Println(q.TryPush("too late"))
	for v := range q.Drain() {
		fmt.Println(v)
	}
	// Output:
	// ringbuffer: closed
	// event
	// event
	// event
}

// The result tells an empty moment from the end.
func ExampleMPSC_TryPop() {
	q := ringbuffer.NewMPSC[int](ringbuffer.Unbounded)
	_, err := q.TryPop()
	fmt.Println(err)
	_ = q.TryPush(7)
	_ = q.Close()
	v, err := q.TryPop()
	fmt.Println(v, err)
	_, err = q.TryPop()
	fmt.Println(err)
	// Output:
	// ringbuffer: empty
	// 7 <nil>
	// ringbuffer: closed
}

// Bytes is a pipe with a buffer.
func ExampleBytes() {
	b := ringbuffer.NewBytes(16)
	go func() {
		fmt.Fprintln(b, "longer than the ring is large")
		_ = b.CloseWithError(errors.New("the line went dead"))
	}()
	_, err := io.Copy(os.Stdout, b)
	fmt.Println(err)
	// Output:
	// longer than the ring is large
	// the line went dead
}

// Bytes are filled in and read out in place; what wraps around comes as two slices.
func ExampleBytes_ReadSlices() {
	b := ringbuffer.NewBytes(8)
	_, _ = b.TryWrite([]byte("123456"))
	_, _, _ = b.ReadSlices()
	b.Advance(5)
	_, _ = b.TryWrite([]byte("789ab"))
	first, second, err := b.ReadSlices()
	fmt.Printf("%s %s %v\n", first, second, err)
	// Output: 678 9ab <nil>
}

// Frames of known size and lines of unknown size, in place as far as possible.
func ExampleLinked() {
	l, err := ringbuffer.NewLinked(ringbuffer.LinkedConfig{MaxBytes: 1 << 20})
	if err != nil {
		panic(err)
	}
	fmt.Fprint(l, "HEAD body\nnext")

	head, _ := l.Slice(4) // lives on after the bytes were passed
	_, _ = l.Discard(1)
	line, _ := l.Until('\n')
	fmt.Printf("%q\n", line)
	_, _ = l.Discard(len(line))
	_, err = l.Until('\n')
	fmt.Println(err)

	fmt.Printf("%q\n", head.AppendTo(nil))
	head.Release()
	// Output:
	// "body\n"
	// ringbuffer: fewer bytes are buffered than asked for
	// "HEAD"
}

// WriteSlice lends a piece of a chunk, for encoders and system calls.
func ExampleLinked_WriteSlice() {
	l, _ := ringbuffer.NewLinked(ringbuffer.LinkedConfig{MaxBytes: 100})
	p, err := l.WriteSlice(5)
	if err != nil {
		panic(err)
	}
	_ = l.Commit(copy(p, "hello"))
	_ = l.Close()
	_, _ = l.WriteTo(os.Stdout)
	// Output: hello
}
