// SPDX-License-Identifier: Apache-2.0

package bytespool_test

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gostkit/kit/bytespool"
)

func Example() {
	b := bytespool.Get(1500)
	n, _ := strings.NewReader("hello").Read(b)
	fmt.Printf("%s, length %d, capacity %d\n", b[:n], len(b), cap(b))
	bytespool.Put(b)
	// Output: hello, length 1500, capacity 1536
}

func ExampleGrow() {
	b := bytespool.Get(0)
	for _, word := range strings.Fields("room is made as it is needed") {
		b = bytespool.Grow(b, len(word))
		b = append(b, word...)
	}
	fmt.Printf("%s\n", b)
	bytespool.Put(b)
	// Output: roomismadeasitisneeded
}

func ExampleClassSize() {
	for _, n := range []int{1, 65, 1500, 60000} {
		fmt.Print(bytespool.ClassSize(n), " ")
	}
	// Output: 64 80 1536 65536
}

func ExampleNew() {
	pool, err := bytespool.New(bytespool.Config{
		MaxSize:   64 << 10,
		MaxIdle:   4 << 20, // at most 4 MiB idle in each class
		ZeroOnPut: true,    // the buffers hold credentials
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	b := pool.Get(100)
	copy(b, "password")
	pool.Put(b)
	b = pool.Get(100)
	fmt.Println(b[0])
	pool.Put(b)
	_, err = bytespool.New(bytespool.Config{MaxSize: -1})
	fmt.Println(err)
	// Output:
	// 0
	// bytespool: Config.MaxSize -1 is not within 0 to 1073741824
}

func ExamplePool_Stats() {
	pool, _ := bytespool.New(bytespool.Config{Stats: true, MaxIdle: 1 << 20})
	b := pool.Get(1000)
	pool.Put(b)
	b = pool.Get(1000)
	pool.Put(b[10:]) // a part: refused
	fmt.Printf("%+v\n", pool.Stats().Classes)
	pool.Put(b)
	// Output: [{Size:1024 Hits:1 Misses:1 Refused:1 Dropped:0 Outstanding:1}]
}

func ExamplePool_Histogram() {
	pool, _ := bytespool.New(bytespool.Config{Histogram: true})
	for _, n := range []int{40, 50, 1400, 1450, 1500, 9000} {
		pool.Put(pool.Get(n))
	}
	for _, bucket := range pool.Histogram() {
		fmt.Printf("up to %5d: %d\n", bucket.UpTo, bucket.Count)
	}
	// Output:
	// up to    64: 2
	// up to  1536: 3
	// up to 10240: 1
}

func ExampleObjects() {
	type request struct {
		name string
		args []string
	}
	requests := bytespool.Objects[request]{
		Reset: func(r *request) {
			clear(r.args) // or the strings stay reachable
			r.name, r.args = "", r.args[:0]
		},
		Size:    func(r *request) int { return cap(r.args) * 16 },
		MaxSize: 4 << 10,
	}
	r := requests.Get()
	r.name, r.args = "get", append(r.args, "key")
	fmt.Println(r.name, r.args)
	requests.Put(r)
	// Output: get [key]
}

func ExampleBuffer() {
	var b bytespool.Buffer
	defer b.Release()
	fmt.Fprintf(&b, "%04d%s", 5, "hello")
	b.WriteString("0003abc")
	for b.Len() > 0 {
		var n int
		fmt.Sscanf(string(b.Next(4)), "%d", &n)
		fmt.Printf("%d %s\n", n, b.Next(n))
	}
	// Output:
	// 5 hello
	// 3 abc
}

func ExampleBuffer_Buffers() {
	var b bytespool.Buffer
	defer b.Release()
	b.WriteString("one write ")
	b.WriteString("for all")
	v := b.Buffers() // one writev on a TCP connection
	n, err := v.WriteTo(os.Stdout)
	fmt.Println()
	b.Discard(int(n))
	fmt.Println(n, err, b.Len())
	// Output:
	// one write for all
	// 17 <nil> 0
}

func ExampleBuffer_TakeChunk() {
	var in, out bytespool.Buffer
	io.Copy(&in, strings.NewReader("moved, not copied"))
	for in.Len() > 0 {
		out.AddChunk(in.TakeChunk())
	}
	out.WriteTo(os.Stdout)
	in.Release()
	out.Release()
	// Output: moved, not copied
}

func ExampleChunk() {
	b := bytespool.Get(100)
	n := copy(b, "read from somewhere")
	c := bytespool.NewChunk(nil, b[:n]) // b belongs to the chunk now
	fmt.Printf("%s\n", c.Bytes())
	c.Release()
	// Output: read from somewhere
}

func ExampleLeaks() {
	// Empty without the build tag bytespooldebug, whatever happened.
	for _, l := range bytespool.Leaks() {
		fmt.Printf("%d bytes lent at\n%s", l.Size, l.Stack)
	}
	fmt.Println("done")
	// Output: done
}
