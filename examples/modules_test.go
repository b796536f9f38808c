// SPDX-License-Identifier: Apache-2.0

package examples_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/netx"
	"github.com/gostkit/kit/ringbuffer"
	"github.com/gostkit/kit/taskpool"
	"github.com/gostkit/kit/timerwheel"
	"github.com/gostkit/kit/xorlist"
)

// README.md shows the bodies of these functions, one per module; see
// TestReadmeSnippets.

func Example_taskpool() {
	ctx := context.Background()
	pool := taskpool.NewOrdered(taskpool.Config{})
	key := taskpool.StringKey("account 7")
	_ = pool.SubmitKey(ctx, key, func() { fmt.Println("deposit") })
	_ = pool.SubmitKey(ctx, key, func() { fmt.Println("withdraw") }) // after it, beside every other key
	_, _ = pool.Shutdown(ctx)

	// Output:
	// deposit
	// withdraw
}

func Example_bytespool() {
	b := bytespool.Get(1500) // 1500 bytes, content undefined
	n := copy(b, "a datagram")
	fmt.Println(string(b[:n]), len(b))
	bytespool.Put(b) // from here on b belongs to its next user

	// Output: a datagram 1500
}

func Example_ringbuffer() {
	q := ringbuffer.NewSPSC[int](1024)
	go func() {
		defer q.Close()
		_ = q.Push(context.Background(), 42)
	}()
	for v := range q.Receive(context.Background()) {
		fmt.Println(v)
	}

	// Output: 42
}

func Example_timerwheel() {
	wheel := timerwheel.New(timerwheel.Config{})
	defer wheel.Close()
	idle := make(chan struct{})
	timer := wheel.AfterFunc(time.Minute, func() { close(idle) })
	timer.Reset(time.Millisecond) // on each request; allocates nothing
	<-idle
	fmt.Println("idle, never early")

	// Output: idle, never early
}

func Example_netx() {
	ctx := context.Background()
	ln, _ := netx.ListenRandom(ctx, "tcp", "127.0.0.1", netx.PortRange{Min: 20000, Max: 30000})
	defer ln.Close()
	conn, _ := net.Dial("tcp", ln.Addr().String())
	defer conn.Close()
	state, _ := netx.Alive(conn) // takes no byte away, even while another goroutine reads
	fmt.Println(state)

	// Output: open
}

func Example_xorlist() {
	var l xorlist.List[string] // ready to use
	l.PushBack("b")
	l.PushBack("c")
	l.PushFront("a")
	l.Reverse() // constant time
	fmt.Println(slices.Collect(l.All()))

	// Output: [c b a]
}
