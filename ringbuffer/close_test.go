// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// closable is a queue or a buffer as a producer in a hurry and Close see it.
type closable struct {
	producers int
	push      []func() (accepted int, err error) // the forms that never wait
	drain     func() (n int, end error)          // until nothing can be taken
	length    func() int
	close     func() error
	refused   error // what a producer gets after Close
	ended     error // what a consumer gets at the end
}

// closables makes one of each type, with room for much, so that a producer publishes all the time
// and is never stopped by a full buffer.
var closables = map[string]func(t testing.TB) closable{
	"SPSC": func(testing.TB) closable { return closableQueue(1, NewSPSC[int](8192)) },
	"MPMC": func(testing.TB) closable { return closableQueue(2, NewMPMC[int](8192)) },
	"MPSC": func(testing.TB) closable { return closableQueue(2, NewMPSC[int](8192)) },
	"MPSC/unbounded": func(testing.TB) closable {
		return closableQueue(2, NewMPSC[int](Unbounded))
	},
	"Bytes": func(testing.TB) closable {
		b := NewBytes(1 << 14)
		return closableBuffer(b, func(n int) error {
			p, _, err := b.WriteSlices()
			if err == nil && len(p) == 0 {
				err = ErrFull
			}
			if err != nil {
				return err
			}
			return b.Commit(n)
		})
	},
	"Linked": func(t testing.TB) closable {
		l, err := NewLinked(LinkedConfig{MaxBytes: 1 << 14, ChunkSize: 4096})
		require.NoError(t, err)
		return closableBuffer(l, func(n int) error {
			if _, err := l.WriteSlice(n); err != nil {
				return err
			}
			return l.Commit(n)
		})
	},
}

func closableQueue(producers int, q queue[int]) closable {
	batch := []int{1, 2, 3}
	return closable{
		producers: producers,
		push: []func() (int, error){
			func() (int, error) {
				err := q.TryPush(1)
				if err != nil {
					return 0, err
				}
				return 1, nil
			},
			func() (int, error) { return q.PushN(batch) },
		},
		drain: func() (n int, err error) {
			for {
				if _, err = q.TryPop(); err != nil {
					return n, err
				}
				n++
			}
		},
		length: q.Len, close: q.Close, refused: ErrClosed, ended: ErrClosed,
	}
}

func closableBuffer(b byteBuffer, fill func(n int) error) closable {
	piece := []byte("ab")
	return closable{
		producers: 1,
		push: []func() (int, error){
			func() (int, error) { return b.TryWrite(piece) },
			func() (int, error) {
				if err := fill(1); err != nil {
					return 0, err
				}
				return 1, nil
			},
		},
		drain: func() (n int, err error) {
			var p [64]byte
			for {
				k, err := b.TryRead(p[:])
				if n += k; err != nil {
					return n, err
				}
			}
		},
		length: b.Len,
		close:  func() error { return b.CloseWithError(errReason) },
		// The reason must be there as soon as the end is seen.
		refused: errReason, ended: errReason,
	}
}

// TestCloseOvertakesPublication closes while producers publish without pause, so that in many
// of the rounds Close falls between a producer's look at the closed bit and its publication.
// The queue must then be closed for good, and hold exactly what was accepted; in every second
// round a consumer is at work too, and must not see the end before the last item.
func TestCloseOvertakesPublication(t *testing.T) {
	for name, fresh := range closables {
		t.Run(name, func(t *testing.T) {
			watch(t, func() {
				rnd := rand.New(rand.NewPCG(21, 22))
				for round := range scaled(600) {
					overtake(t, fresh(t), round, rnd.IntN(4000))
				}
			})
		})
	}
}

func overtake(t *testing.T, c closable, round, turns int) {
	var accepted, taken atomic.Int64
	var wg sync.WaitGroup
	for range c.producers {
		wg.Go(func() {
			push := c.push[round/2%2]
			for range 8192 { // an unbounded queue does not stop it
				n, err := push()
				accepted.Add(int64(n))
				if err != nil && err != c.refused && err != ErrFull {
					t.Errorf("refused with %v", err)
					return
				}
				if err == c.refused || err == ErrFull {
					return
				}
			}
		})
	}
	if round%2 == 1 {
		wg.Go(func() {
			for {
				n, err := c.drain()
				taken.Add(int64(n))
				if err != ErrEmpty {
					if err != c.ended {
						t.Errorf("the end is %v", err)
					}
					return
				}
				runtime.Gosched()
			}
		})
	}
	for turn := 0; accepted.Load() == 0 && turn < 1000; turn++ {
		runtime.Gosched()
	}
	idle(turns)
	_ = c.close()
	wg.Wait()
	for i, push := range c.push {
		if n, err := push(); n != 0 || err != c.refused {
			t.Fatalf("round %d: closed, but form %d accepts %d: %v", round, i, n, err)
		}
	}
	n, end := c.drain()
	taken.Add(int64(n))
	if end != c.ended || accepted.Load() != taken.Load() || c.length() != 0 {
		t.Fatalf("round %d: %d accepted, %d taken, %d left, %v",
			round, accepted.Load(), taken.Load(), c.length(), end)
	}
}

// TestBufferCloseBeforeCommit closes between the loan of room and its commit: nothing of it comes
// out, whatever was filled in.
func TestBufferCloseBeforeCommit(t *testing.T) {
	b := NewBytes(16)
	_, _, err := b.WriteSlices()
	require.NoError(t, err)
	require.NoError(t, b.CloseWithError(errReason))
	require.Equal(t, errReason, b.Commit(4))
	require.Equal(t, errReason, b.Commit(99), "no panic after Close")
	require.Zero(t, b.Len())
	_, _, err = b.ReadSlices()
	require.Equal(t, errReason, err)

	pool := newLender(t)
	l, err := NewLinked(LinkedConfig{MaxBytes: 16, Allocator: pool})
	require.NoError(t, err)
	_, err = l.WriteSlice(4)
	require.NoError(t, err)
	require.NoError(t, l.CloseWithError(errReason))
	require.Equal(t, errReason, l.Commit(4))
	require.Equal(t, errReason, l.Commit(99))
	require.Zero(t, l.Len())
	_, err = l.Peek(1)
	require.Equal(t, errReason, err)
	require.Zero(t, pool.lent())
}
