// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAllocs(t *testing.T) {
	if raceEnabled || debugging {
		t.Skip("the race detector and the checks allocate")
	}
	ctx := context.Background()
	zero := func(what string, f func()) {
		t.Helper()
		run := func() float64 { return testing.AllocsPerRun(1000, f) }
		require.Zero(t, min(run(), run(), run()), what) // other goroutines allocate too
	}
	eachKind(t, func(t *testing.T, k kind) {
		q := newQueue[int](k, 64)
		in, out := make([]int, 16), make([]int, 16)
		zero("TryPush, TryPop", func() { _ = q.TryPush(1); _, _ = q.TryPop() })
		zero("Push, Pop", func() { _ = q.Push(ctx, 1); _, _ = q.Pop(ctx) })
		if k.name != "MPSC" { // a segment for 16 items, as documented
			zero("PushN, PopN", func() { _, _ = q.PushN(in); _, _ = q.PopN(out) })
		}
		zero("Pop that waits", func() { _, _ = q.Pop(canceled) })
		for q.TryPush(1) == nil {
		}
		zero("Push that waits", func() { _ = q.Push(canceled, 1) })
	})
	t.Run("Bytes", func(t *testing.T) {
		b := NewBytes(1024)
		p := make([]byte, 700)
		zero("Write, Read", func() { _, _ = b.Write(p); _, _ = b.Read(p) })
		zero("Read that waits", func() { _, _ = b.ReadContext(canceled, p) })
		zero("slices", func() {
			_, _, _ = b.WriteSlices()
			_ = b.Commit(9)
			_, _, _ = b.ReadSlices()
			b.Advance(9)
		})
	})
	t.Run("Linked", func(t *testing.T) {
		l, err := NewLinked(LinkedConfig{MaxBytes: 1 << 20, Allocator: &keeper{}})
		require.NoError(t, err)
		p := make([]byte, 700)
		zero("Write, Peek, Discard", func() {
			_, _ = l.Write(p)
			_, _ = l.Peek(700)
			_, _ = l.Discard(700)
		})
	})
}

// keeper is the smallest allocator that keeps what comes back.
type keeper struct{ idle [][]byte }

func (k *keeper) Get(n int) []byte {
	if i := len(k.idle) - 1; i >= 0 && len(k.idle[i]) >= n {
		b := k.idle[i]
		k.idle = k.idle[:i]
		return b
	}
	return make([]byte, n)
}

func (k *keeper) Put(b []byte) { k.idle = append(k.idle, b) }

// TestMPSCIdleCost: 100,000 queues that hold nothing now cost at most 256 bytes each, both those
// that were never used and those that have passed an item on.
func TestMPSCIdleCost(t *testing.T) {
	if raceEnabled || debugging {
		t.Skip("the race detector and the checks change sizes")
	}
	const n = 100_000
	for _, used := range []bool{false, true} {
		queues := make([]*MPSC[uint64], n)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools kept of other tests goes with the second
		runtime.ReadMemStats(&before)
		for i := range queues {
			q := NewMPSC[uint64](Unbounded)
			if used {
				_ = q.TryPush(1)
				_, _ = q.TryPop()
			}
			queues[i] = q
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		each := (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / n
		t.Logf("used=%v: %.1f bytes each", used, each)
		require.LessOrEqual(t, each, 256.0)
		runtime.KeepAlive(queues)
	}
}
