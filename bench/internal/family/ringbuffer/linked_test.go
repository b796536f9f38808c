// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"bytes"
	"io"
	"testing"

	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/ringbuffer"
)

// A pool of bytespool is an allocator as it is; neither module imports the other.
var _ ringbuffer.Allocator = (*bytespool.Pool)(nil)

// TestLinkedWithBytespool sends a stream through a Linked whose chunks come from a real pool, reads
// part of it as views that outlive the buffer, and counts what the pool lent and got back.
func TestLinkedWithBytespool(t *testing.T) {
	pool, err := bytespool.New(bytespool.Config{Stats: true})
	if err != nil {
		t.Fatal(err)
	}
	l, err := ringbuffer.NewLinked(ringbuffer.LinkedConfig{MaxBytes: 10_000, ChunkSize: 1000, Allocator: pool})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 1<<20)
	for i := range want {
		want[i] = byte(i ^ i>>8*7)
	}
	done := make(chan error, 1)
	go func() {
		defer l.Close()
		_, err := l.Write(want)
		done <- err
	}()

	var got []byte
	var views []*ringbuffer.View
	for len(got) < len(want)/2 {
		if err := l.WaitReadable(t.Context(), 3000); err != nil {
			t.Fatal(err)
		}
		p, err := l.Peek(3000) // joins chunks in a buffer of the pool
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, want[len(got):len(got)+len(p)]) {
			t.Fatalf("wrong bytes behind %d", len(got))
		}
		v, err := l.Slice(3000)
		if err != nil {
			t.Fatal(err)
		}
		if got = v.AppendTo(got); len(views) < 10 {
			views = append(views, v)
		} else {
			v.Release()
		}
	}
	rest, err := io.ReadAll(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(got, rest...), want) {
		t.Fatal("the stream came out changed")
	}
	for i, v := range views {
		if !bytes.Equal(v.AppendTo(nil), want[i*3000:(i+1)*3000]) {
			t.Fatalf("view %d changed after the buffer was drained", i)
		}
		v.Release()
	}
	for _, c := range pool.Stats().Classes {
		t.Logf("class of %d: %d hits, %d misses", c.Size, c.Hits, c.Misses)
		if c.Outstanding != 0 || c.Refused != 0 {
			t.Errorf("class of %d: %d not given back, %d refused", c.Size, c.Outstanding, c.Refused)
		}
	}
}
