// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// queue is what the three queues of T have in common.
type queue[T any] interface {
	TryPush(v T) error
	PushN(vs []T) (int, error)
	Push(ctx context.Context, v T) error
	TryPop() (T, error)
	PopN(dst []T) (int, error)
	Pop(ctx context.Context) (T, error)
	Drain() iter.Seq[T]
	Receive(ctx context.Context) iter.Seq[T]
	Len() int
	Cap() int
	Close() error
}

var (
	_ queue[int] = (*SPSC[int])(nil)
	_ queue[int] = (*MPSC[int])(nil)
	_ queue[int] = (*MPMC[int])(nil)
)

// kind names a constructor and says how many goroutines its sides take.
type kind struct {
	name      string
	producers bool // many
	consumers bool // many
	exact     bool // capacities are not rounded
}

var kinds = []kind{
	{name: "SPSC"},
	{name: "MPSC", producers: true, exact: true},
	{name: "MPMC", producers: true, consumers: true},
}

func newQueue[T any](k kind, capacity int) queue[T] {
	switch k.name {
	case "SPSC":
		return NewSPSC[T](capacity)
	case "MPSC":
		return NewMPSC[T](capacity)
	}
	return NewMPMC[T](capacity)
}

// eachKind runs a test for all three.
func eachKind(t *testing.T, test func(t *testing.T, k kind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { test(t, k) })
	}
}

// runModel interprets script as operations on a queue and on a slice, and compares the two after
// each step. The first bytes choose the queue.
func runModel(t *testing.T, script []byte) {
	next := func() int {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return int(b)
	}
	k := kinds[next()%len(kinds)]
	capacity := 1 + next()
	if k.name == "MPSC" && capacity%4 == 0 {
		capacity = Unbounded
	}
	q := newQueue[*int](k, capacity)
	switch {
	case k.exact:
		require.Equal(t, capacity, q.Cap())
	default:
		require.GreaterOrEqual(t, q.Cap(), capacity)
		require.Less(t, q.Cap(), 2*capacity)
		require.Zero(t, q.Cap()&(q.Cap()-1))
	}
	capacity = q.Cap()

	var model []*int
	closed, serial := false, 0
	item := func() *int { serial++; v := serial; return &v }
	fullErr := func() error {
		switch {
		case closed:
			return ErrClosed
		case len(model) >= capacity:
			return ErrFull
		}
		return nil
	}
	emptyErr := func() error {
		switch {
		case len(model) > 0:
			return nil
		case closed:
			return ErrClosed
		}
		return ErrEmpty
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for step := 0; len(script) > 0; step++ {
		op := next()
		what := fmt.Sprintf("%s/%d step %d op %d", k.name, capacity, step, op%8)
		switch op % 8 {
		case 0, 1:
			v, want := item(), fullErr()
			require.Equal(t, want, q.TryPush(v), what)
			if want == nil {
				model = append(model, v)
			}
		case 2:
			vs := make([]*int, next())
			for i := range vs {
				vs[i] = item()
			}
			want := min(len(vs), capacity-len(model))
			var wantErr error
			if closed && len(vs) > 0 {
				want, wantErr = 0, ErrClosed
			} else if want < len(vs) {
				wantErr = ErrFull
			}
			n, err := q.PushN(vs)
			require.Equal(t, wantErr, err, what)
			require.Equal(t, want, n, what)
			model = append(model, vs[:n]...)
		case 3:
			want := emptyErr()
			v, err := q.TryPop()
			require.Equal(t, want, err, what)
			if want == nil {
				require.Same(t, model[0], v, what)
				model = model[1:]
			} else {
				require.Nil(t, v, what)
			}
		case 4:
			dst := make([]*int, next())
			want := min(len(dst), len(model))
			var wantErr error
			if len(dst) > 0 {
				wantErr = emptyErr()
			}
			n, err := q.PopN(dst)
			require.Equal(t, wantErr, err, what)
			require.Equal(t, want, n, what)
			require.True(t, slices.Equal(model[:n], dst[:n]), what)
			model = model[n:]
		case 5: // a context that has ended matters only to one who has to wait
			v, want := item(), fullErr()
			if want == ErrFull {
				want = context.Canceled
			}
			require.Equal(t, want, q.Push(ended, v), what)
			if want == nil {
				model = append(model, v)
			}
		case 6:
			want := emptyErr()
			if want == ErrEmpty {
				want = context.Canceled
			}
			v, err := q.Pop(ended)
			require.Equal(t, want, err, what)
			if err == nil {
				require.Same(t, model[0], v, what)
				model = model[1:]
			}
		case 7:
			if op > 240 {
				require.NoError(t, q.Close())
				closed = true
			}
		}
		require.Equal(t, len(model), q.Len(), what)
	}
	got := slices.Collect(q.Drain())
	require.True(t, slices.Equal(model, got), "Drain yields %d items, want %d", len(got), len(model))
	require.Zero(t, q.Len())
}

func TestQueueModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range scaled(1500) {
		script := make([]byte, 2+rnd.IntN(400))
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		runModel(t, script)
	}
}

func FuzzQueue(f *testing.F) {
	f.Add([]byte{0, 3, 0, 0, 0, 0, 0, 3, 3, 3, 247, 0, 3, 3, 3})
	f.Add([]byte{1, 7, 2, 40, 4, 40, 2, 200, 4, 255, 247, 2, 3})
	f.Add([]byte{2, 31, 2, 31, 4, 7, 2, 7, 4, 33, 5, 6, 247, 3})
	f.Fuzz(func(t *testing.T, script []byte) { runModel(t, script) })
}

func TestQueueBadCapacity(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		require.Panics(t, func() { newQueue[int](k, 0) })
		require.Panics(t, func() { newQueue[int](k, -1) })
		if !k.exact {
			require.Panics(t, func() { newQueue[int](k, maxCapacity+1) })
			require.Panics(t, func() { newQueue[int](k, Unbounded) })
		}
	})
}

func TestQueueZeroValue(t *testing.T) {
	for _, q := range []queue[int]{new(SPSC[int]), new(MPSC[int]), new(MPMC[int])} {
		require.Zero(t, q.Cap())
		require.Equal(t, ErrFull, q.TryPush(1))
		n, err := q.PushN([]int{1, 2})
		require.Zero(t, n)
		require.Equal(t, ErrFull, err)
		_, err = q.TryPop()
		require.Equal(t, ErrEmpty, err)
		n, err = q.PopN(make([]int, 2))
		require.Zero(t, n)
		require.Equal(t, ErrEmpty, err)
		require.NoError(t, q.Close())
		require.Equal(t, ErrClosed, q.TryPush(1))
		_, err = q.TryPop()
		require.Equal(t, ErrClosed, err)
		require.Zero(t, q.Len())
	}
}

// TestQueueClears looks into the slots: an item that was taken, or that was refused because of
// Close, must not be kept reachable.
//
// acceptance: B07
func TestQueueClears(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		q := newQueue[*int](k, 64)
		left := func() (n int) {
			var slots []*int
			switch q := q.(type) {
			case *SPSC[*int]:
				slots = q.slots
			case *MPMC[*int]:
				slots = q.slots
			case *MPSC[*int]:
				for s := q.head.Load(); s != nil; s = s.next.Load() {
					for i := range s.blocks {
						slots = append(slots, s.blocks[i].slots[:]...)
					}
				}
			}
			for _, p := range slots {
				if p != nil {
					n++
				}
			}
			return n
		}
		vs := make([]*int, 40)
		for i := range vs {
			vs[i] = new(int)
		}
		for range 5 { // goes around the ring
			_, err := q.PushN(vs)
			require.NoError(t, err)
			require.NoError(t, q.TryPush(vs[0]))
			require.Equal(t, 41, left())
			_, err = q.TryPop()
			require.NoError(t, err)
			require.Equal(t, 40, left())
			for want := 38; want >= 0; want -= 2 { // by twos: also within a segment and around the end
				n, err := q.PopN(make([]*int, 2))
				require.NoError(t, err)
				require.Equal(t, 2, n)
				require.Equal(t, want, left())
			}
			_, err = q.PushN(vs)
			require.NoError(t, err)
			n, err := q.PopN(make([]*int, 50))
			require.NoError(t, err)
			require.Equal(t, 40, n)
			require.Zero(t, left())
		}
		require.NoError(t, q.Close())
		require.Equal(t, ErrClosed, q.TryPush(vs[0]))
		_, err := q.PushN(vs)
		require.Equal(t, ErrClosed, err)
		require.Zero(t, left())
	})
}

func TestQueueAllStopsEarly(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		q := newQueue[int](k, 8)
		_, err := q.PushN([]int{1, 2, 3})
		require.NoError(t, err)
		for v := range q.Drain() {
			require.Equal(t, 1, v)
			break
		}
		require.Equal(t, 2, q.Len(), "what was yielded is gone, the rest is not")
		require.NoError(t, q.Close())
		require.Equal(t, []int{2, 3}, slices.Collect(q.Receive(t.Context())))
	})
}

// TestQueueReceiveEnds: a loop over a queue in which there is always something ends with its
// context, and what was not yielded stays.
func TestQueueReceiveEnds(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		q := newQueue[int](k, 8)
		_, err := q.PushN([]int{1, 2, 3})
		require.NoError(t, err)
		for range q.Receive(canceled) {
			require.Fail(t, "yielded after the end of its context")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for v := range q.Receive(ctx) {
			require.Equal(t, 1, v, "the loop goes on")
			cancel()
		}
		require.Equal(t, 2, q.Len())
	})
}

// TestQueueLen looks at a queue that never holds more than one item, while many pass: what comes
// and goes between two looks must not count.
func TestQueueLen(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		q := newQueue[int](k, 64)
		longest := watchLen(q.Len, func() { _ = q.TryPush(1); _, _ = q.TryPop() })
		require.LessOrEqual(t, longest, 1)
	})
}

// watchLen returns the largest result of length while pass runs again and again.
func watchLen(length func() int, pass func()) int {
	longest := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range scaled(200_000) {
			pass()
		}
	}()
	for {
		select {
		case <-done:
			return longest
		default:
			longest = max(longest, length())
		}
	}
}

// TestMPSCReplacesUnboundedChannel is the job for which people take an unbounded channel: one hop,
// no goroutine, an end, and a bound that must be waived by name.
//
// acceptance: B06
func TestMPSCReplacesUnboundedChannel(t *testing.T) {
	q := NewMPSC[int](Unbounded)
	for i := range 100_000 {
		require.NoError(t, q.TryPush(i)) // nobody receives: no goroutine is there to get stuck
	}
	require.Equal(t, 100_000, q.Len())
	require.NoError(t, q.Close())
	require.Equal(t, ErrClosed, q.TryPush(0))
	want := 0
	for v := range q.Receive(t.Context()) {
		require.Equal(t, want, v)
		want++
	}
	require.Equal(t, 100_000, want)

	bounded := NewMPSC[int](1000)
	n, err := bounded.PushN(make([]int, 1001))
	require.Equal(t, 1000, n)
	require.Equal(t, ErrFull, err)
}

// TestMPSCSegments follows the sizes: 16 slots first, twice as many each time up to 1024 while
// the consumer is away, and back down when it keeps up.
func TestMPSCSegments(t *testing.T) {
	q := NewMPSC[int](Unbounded)
	require.Nil(t, q.head.Load(), "no slots before the first item")
	for i := range 5000 {
		require.NoError(t, q.TryPush(i))
	}
	var sizes []int
	for s := q.head.Load(); s != nil; s = s.next.Load() {
		sizes = append(sizes, int(s.size()))
	}
	require.Equal(t, []int{16, 32, 64, 128, 256, 512, 1024, 1024, 1024, 1024}, sizes)
	last := q.tail.Load()
	require.Nil(t, last.next.Load(), "producers do not walk through old segments")
	q.grow(q.head.Load()) // a producer that was away since the first segment
	q.begin()
	require.Same(t, last, q.tail.Load(), "and do not go back to them")
	for i := range 5000 {
		v, err := q.TryPop()
		require.NoError(t, err)
		require.Equal(t, i, v)
	}
	for i := range 5000 {
		require.NoError(t, q.TryPush(i))
		v, err := q.TryPop()
		require.NoError(t, err)
		require.Equal(t, i, v)
	}
	require.EqualValues(t, 16, q.head.Load().size())

	// A batch claims no more than a segment holds, however large it is.
	q = NewMPSC[int](Unbounded)
	s := q.last()
	n, err := q.PushN(make([]int, 1<<16))
	require.NoError(t, err)
	require.Equal(t, 1<<16, n)
	require.LessOrEqual(t, s.claims.Load(), 2*s.size())
}

// TestMPSCCloseOnBoundary closes with the last segment empty, partly filled and exactly full.
func TestMPSCCloseOnBoundary(t *testing.T) {
	for n := range 70 {
		q := NewMPSC[int](Unbounded)
		for i := range n {
			require.NoError(t, q.TryPush(i))
		}
		require.NoError(t, q.Close())
		require.NoError(t, q.Close())
		for range 3 {
			require.Equal(t, ErrClosed, q.TryPush(-1))
			k, err := q.PushN(make([]int, 20))
			require.Zero(t, k)
			require.Equal(t, ErrClosed, err)
		}
		require.Equal(t, n, q.Len())
		for i := range n {
			v, err := q.TryPop()
			require.NoError(t, err)
			require.Equal(t, i, v)
		}
		_, err := q.TryPop()
		require.Equal(t, ErrClosed, err)
		_, err = q.PopN(make([]int, 4))
		require.Equal(t, ErrClosed, err)
	}
}

// TestMPSCBoundIsExact: producers that race for the last places get as many as there are, also when
// places come back meanwhile.
func TestMPSCBoundIsExact(t *testing.T) {
	watch(t, func() {
		for round := range scaled(300) {
			q := NewMPSC[int](500)
			var accepted atomic.Int64
			var wg sync.WaitGroup
			for p := range 4 {
				wg.Go(func() {
					for {
						n, err := 1, error(nil)
						if p%2 == 0 {
							err = q.TryPush(1)
						} else {
							n, err = q.PushN([]int{1, 2, 3})
						}
						if err == nil || p%2 == 1 {
							accepted.Add(int64(n))
						}
						if err != nil {
							return
						}
					}
				})
			}
			taken := 0
			if round%2 == 1 {
				for range 300 {
					n, _ := q.PopN(make([]int, 2))
					taken += n
				}
			}
			wg.Wait()
			for q.TryPush(1) == nil {
				accepted.Add(1)
			}
			if held := int(accepted.Load()) - taken; held != 500 || q.Len() != 500 {
				t.Fatalf("round %d: %d items, Len %d within a bound of 500", round, held, q.Len())
			}
		}
	})
}

// TestMPSCTurnedAway: a refused push takes its claims and places back. Otherwise the claims of
// producers that go on knocking would in the end run into the count that tells the consumer
// where the queue ends.
func TestMPSCTurnedAway(t *testing.T) {
	for _, bound := range []int{Unbounded, 1000} {
		q := NewMPSC[int](bound)
		for i := range 10 {
			require.NoError(t, q.TryPush(i))
		}
		require.NoError(t, q.Close())
		claims, admitted := q.last().claims.Load(), q.room.admitted.Load()
		for range 3 {
			require.Equal(t, ErrClosed, q.TryPush(-1))
			n, err := q.PushN(make([]int, 40)) // more than the segment has
			require.Zero(t, n)
			require.Equal(t, ErrClosed, err)
			require.Equal(t, claims, q.last().claims.Load())
			require.Equal(t, admitted, q.room.admitted.Load())
		}
	}
}

// TestMPSCFirstItemBesideClose: a consumer that looks before there is a first segment, and again
// after one item was pushed and the queue closed, must not take that for the end.
func TestMPSCFirstItemBesideClose(t *testing.T) {
	q := NewMPSC[int](Unbounded)
	b, i := q.oldest()
	require.Nil(t, b)
	require.NoError(t, q.TryPush(1))
	require.NoError(t, q.Close())
	require.Equal(t, ErrEmpty, q.emptyOrClosed(i))
	v, err := q.TryPop()
	require.NoError(t, err)
	require.Equal(t, 1, v)
	_, err = q.TryPop()
	require.Equal(t, ErrClosed, err)
}

// TestMPSCStaleAdmit gives a producer a count of admitted items that others and the consumer have
// long passed: under the largest bound, too, that is no full queue.
func TestMPSCStaleAdmit(t *testing.T) {
	for _, bound := range []uint64{1, Unbounded - 1} {
		r := quota{bound: bound}
		r.taken.Store(5) // admitted, as seen, is 0
		require.EqualValues(t, 1, r.admit(1))
	}
}

// TestPositionsBeyond32Bits lets every ring go round where positions leave 32 bits, also on
// machines whose int has no more.
func TestPositionsBeyond32Bits(t *testing.T) {
	const start = 1<<32 - 20
	spsc, mpmc, mpsc := NewSPSC[int](8), NewMPMC[int](8), NewMPSC[int](8)
	spsc.tail.Store(start)
	spsc.head.Store(start)
	spsc.headSeen, spsc.tailSeen = start, start
	mpmc.tail.Store(start)
	mpmc.head.Store(start)
	mpsc.room.admitted.Store(start)
	mpsc.room.taken.Store(start)
	for _, q := range []queue[int]{spsc, mpmc, mpsc} {
		for i := range 10 {
			n, err := q.PushN([]int{i, 1, 2, 3, 4, 5, 6, 7, 8})
			require.Equal(t, 8, n)
			require.Equal(t, ErrFull, err)
			require.Equal(t, 8, q.Len())
			out := make([]int, 9)
			n, err = q.PopN(out)
			require.NoError(t, err)
			require.Equal(t, []int{i, 1, 2, 3, 4, 5, 6, 7}, out[:n])
		}
	}
	ring := NewBytes(8)
	ring.tail.Store(start)
	ring.head.Store(start)
	ring.headSeen, ring.tailSeen = start, start
	linked, err := NewLinked(LinkedConfig{MaxBytes: 8, ChunkSize: 5})
	require.NoError(t, err)
	linked.written.Store(start)
	linked.read.Store(start)
	linked.readSeen = start
	for _, b := range []byteBuffer{ring, linked} {
		for range 10 {
			n, err := b.TryWrite([]byte("a long word"))
			require.Equal(t, 8, n)
			require.Equal(t, ErrFull, err)
			require.Equal(t, 8, b.Len())
			p := make([]byte, 9)
			n, err = b.TryRead(p)
			require.NoError(t, err)
			require.Equal(t, "a long w", string(p[:n]))
		}
	}
}
