// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// eachProcs runs a test with 1, 2 and 8 processors. A ring that is made inside knows the number.
func eachProcs(t *testing.T, test func(t *testing.T)) {
	for _, procs := range []int{1, 2, 8} {
		t.Run(fmt.Sprintf("procs=%d", procs), func(t *testing.T) {
			old := runtime.GOMAXPROCS(procs)
			defer runtime.GOMAXPROCS(old)
			test(t)
		})
	}
}

// watch fails the test with all stacks if work is not done in time: a lost wakeup is a goroutine
// that sleeps for ever.
func watch(t *testing.T, work func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); work() }()
	limit := 3 * time.Minute
	if long {
		limit = time.Hour
	}
	select {
	case <-done:
	case <-time.After(limit):
		stacks := make([]byte, 1<<20)
		panic(fmt.Sprintf("%s hangs:\n%s", t.Name(), stacks[:runtime.Stack(stacks, true)]))
	}
}

// tag is an item that knows who pushed it and as which one.
type tag struct {
	producer, serial int
}

// sides returns how many goroutines a kind takes for a side, n if it takes many.
func (k kind) sides(n int) (producers, consumers int) {
	producers, consumers = 1, 1
	if k.producers {
		producers = n
	}
	if k.consumers {
		consumers = n
	}
	return producers, consumers
}

// TestStressTransfer moves many items through small rings, by all forms, and checks that each
// arrives once and those of one producer in order.
func TestStressTransfer(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		eachKind(t, func(t *testing.T, k kind) {
			for _, capacity := range []int{1, 2, 16, 1024} {
				watch(t, func() { transfer(t, k, capacity, 4, scaled(12_000)) })
			}
		})
	})
}

func transfer(t *testing.T, k kind, capacity, crowd, items int) {
	ctx := t.Context()
	q := newQueue[tag](k, capacity)
	producers, consumers := k.sides(crowd)
	each := items / producers
	var pushing, popping sync.WaitGroup
	for p := range producers {
		pushing.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(p), uint64(capacity)))
			batch := make([]tag, 0, 40)
			for i := 0; i < each; {
				switch rnd.IntN(3) {
				case 0:
					if q.Push(ctx, tag{p, i}) != nil {
						t.Error("Push failed on an open queue")
						return
					}
					i++
				case 1:
					if q.TryPush(tag{p, i}) == nil {
						i++
					}
				case 2:
					batch = batch[:0]
					for j := range min(1+rnd.IntN(40), each-i) {
						batch = append(batch, tag{p, i + j})
					}
					n, _ := q.PushN(batch)
					i += n
				}
			}
		})
	}
	seen := make([][]int, producers) // by producer: how often each serial was seen
	for p := range seen {
		seen[p] = make([]int, each)
	}
	var mu sync.Mutex
	for c := range consumers {
		popping.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(c), 99))
			last := make([]int, producers)
			got := make([]tag, 0, items/consumers+1)
			buf := make([]tag, 40)
			for {
				n, err := 0, error(nil)
				switch rnd.IntN(3) {
				case 0:
					buf[0], err = q.Pop(ctx)
					n = 1
				case 1:
					buf[0], err = q.TryPop()
					n = 1
				case 2:
					n, err = q.PopN(buf[:1+rnd.IntN(40)])
				}
				if err == ErrClosed {
					break
				}
				if err == nil {
					got = append(got, buf[:n]...)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, v := range got {
				seen[v.producer][v.serial]++
				if v.serial < last[v.producer] {
					t.Errorf("consumer %d got %v after serial %d", c, v, last[v.producer])
				}
				last[v.producer] = v.serial
			}
		})
	}
	pushing.Wait()
	_ = q.Close()
	popping.Wait()
	for p := range seen {
		for i, n := range seen[p] {
			if n != 1 {
				t.Fatalf("item %d of producer %d came %d times", i, p, n)
			}
		}
	}
}

// TestStressWakeups makes everybody park all the time: pairs of queues of one slot play
// ping-pong, so each item needs a wakeup, and one that is lost stops the game.
func TestStressWakeups(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		eachKind(t, func(t *testing.T, k kind) {
			watch(t, func() {
				ping, pong := newQueue[int](k, 1), newQueue[int](k, 1)
				_, players := k.sides(3)
				rounds := scaled(4000)
				var callers, echoes sync.WaitGroup
				for range players {
					echoes.Go(func() {
						for v := range ping.Receive(t.Context()) {
							_ = pong.Push(t.Context(), v)
						}
					})
					callers.Go(func() {
						for i := range rounds / players {
							_ = ping.Push(t.Context(), i)
							_, _ = pong.Pop(t.Context())
						}
					})
				}
				callers.Wait()
				_ = ping.Close()
				echoes.Wait()
			})
		})
	})
}

// TestStressCancel ends contexts at every moment of a wait. Whatever Push and Pop report must
// be what happened: every item pushed with a nil error arrives exactly once, none of the others.
func TestStressCancel(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		eachKind(t, func(t *testing.T, k kind) {
			watch(t, func() {
				q := newQueue[tag](k, 2)
				producers, consumers := k.sides(4)
				var pushed, popped atomic.Int64
				var pushing, popping sync.WaitGroup
				for p := range producers {
					pushing.Go(func() {
						rnd := rand.New(rand.NewPCG(uint64(p), 7))
						for i := range scaled(4000) / producers {
							ctx, stop := brief(rnd)
							err := q.Push(ctx, tag{p, i})
							stop()
							if err == nil {
								pushed.Add(1)
							} else if !errors.Is(err, ctx.Err()) {
								t.Errorf("Push: %v", err)
							}
						}
					})
				}
				for c := range consumers {
					popping.Go(func() {
						rnd := rand.New(rand.NewPCG(uint64(c), 8))
						last := make([]int, producers)
						for {
							ctx, stop := brief(rnd)
							v, err := q.Pop(ctx)
							stop()
							switch {
							case err == ErrClosed:
								return
							case err == nil:
								popped.Add(1)
								if v.serial < last[v.producer] {
									t.Errorf("order: %v after %d", v, last[v.producer])
								}
								last[v.producer] = v.serial
							}
						}
					})
				}
				pushing.Wait()
				_ = q.Close()
				popping.Wait()
				require.Equal(t, pushed.Load(), popped.Load())
			})
		})
	})
}

// brief returns a context that ends very soon, or not at all.
func brief(rnd *rand.Rand) (context.Context, context.CancelFunc) {
	switch rnd.IntN(3) {
	case 0:
		return context.WithTimeout(context.Background(), time.Duration(rnd.IntN(20_000)))
	case 1:
		ctx, cancel := context.WithCancel(context.Background())
		turns := rnd.IntN(4)
		go func() {
			for range turns {
				runtime.Gosched()
			}
			cancel()
		}()
		return ctx, cancel
	}
	return context.WithTimeout(context.Background(), time.Minute)
}

// TestStressClose closes at every moment: what was accepted comes out, what was refused does not,
// and nobody goes on sleeping.
func TestStressClose(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		eachKind(t, func(t *testing.T, k kind) {
			watch(t, func() {
				rnd := rand.New(rand.NewPCG(3, 4))
				for range scaled(300) {
					closeRound(t, k, 1+rnd.IntN(40), rnd.IntN(200))
				}
			})
		})
	})
}

func closeRound(t *testing.T, k kind, capacity, delay int) {
	q := newQueue[int](k, capacity)
	producers, consumers := k.sides(3)
	var accepted, taken atomic.Int64
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := 0; ; i++ {
				n, err := 1, error(nil)
				if (i+p)%3 == 0 {
					n, err = q.PushN([]int{1, 2, 3, 4, 5})
				} else if err = q.Push(context.Background(), i); err != nil {
					n = 0
				}
				accepted.Add(int64(n))
				if err == ErrClosed {
					if q.TryPush(0) != ErrClosed {
						t.Error("the queue was closed and is open again")
					}
					return
				}
			}
		})
	}
	for range consumers {
		wg.Go(func() {
			for range q.Receive(context.Background()) {
				taken.Add(1)
			}
			// Closed and drained: nothing may come any more.
			if _, err := q.TryPop(); err != ErrClosed {
				t.Errorf("after the end: %v", err)
			}
		})
	}
	for range delay {
		runtime.Gosched()
	}
	_ = q.Close()
	wg.Wait()
	if accepted.Load() != taken.Load() {
		t.Fatalf("%d accepted, %d taken", accepted.Load(), taken.Load())
	}
}

// TestWaitersPark proves, in a bubble where time only passes when everybody sleeps, that
// waiting is sleeping, and that a context ends it.
func TestWaitersPark(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		synctest.Test(t, func(t *testing.T) {
			q := newQueue[int](k, 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			start := time.Now()
			_, err := q.Pop(ctx)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, time.Hour, time.Since(start))

			require.NoError(t, q.TryPush(1))
			ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			require.ErrorIs(t, q.Push(ctx, 2), context.DeadlineExceeded)
			require.Equal(t, 2*time.Hour, time.Since(start))

			pushed := make(chan error)
			go func() { pushed <- q.Push(t.Context(), 3) }()
			synctest.Wait() // the producer sleeps
			for _, want := range []int{1, 3} {
				v, err := q.Pop(t.Context())
				require.NoError(t, err)
				require.Equal(t, want, v)
			}
			require.NoError(t, <-pushed)

			go func() { time.Sleep(time.Minute); _ = q.Close() }()
			_, err = q.Pop(t.Context())
			require.Equal(t, ErrClosed, err)
			require.Equal(t, 2*time.Hour+time.Minute, time.Since(start))
		})
	})
}

// TestEveryFormWakes: each form that publishes or makes room wakes one who sleeps, the bulk forms
// too.
func TestEveryFormWakes(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		synctest.Test(t, func(t *testing.T) {
			q := newQueue[int](k, 2)
			done := make(chan error)
			pop := func() { _, err := q.Pop(t.Context()); done <- err }
			push := func() { done <- q.Push(t.Context(), 9) }
			for _, publish := range []func() error{
				func() error { return q.TryPush(1) },
				func() error { _, err := q.PushN([]int{1}); return err },
				func() error { // all but one do not fit
					if n, err := q.PushN([]int{1, 2, 3}); n != 2 || err != ErrFull {
						return err
					}
					_, err := q.TryPop()
					return err
				},
			} {
				go pop()
				synctest.Wait()
				require.NoError(t, publish())
				require.NoError(t, <-done) // a deadlock of the bubble if nobody woke it
			}
			for _, take := range []func() error{
				func() error { _, err := q.TryPop(); return err },
				func() error { _, err := q.PopN(make([]int, 1)); return err },
				func() error { _, err := q.PopN(make([]int, 9)); return err },
			} {
				for q.TryPush(1) == nil {
				}
				go push()
				synctest.Wait()
				require.NoError(t, take())
				require.NoError(t, <-done)
			}
			for q.TryPush(1) == nil {
			}
			go push()
			synctest.Wait()
			require.NoError(t, q.Close())
			require.Equal(t, ErrClosed, <-done)
		})
	})
}

// TestBulkWakesAll: a bulk form gives one token for what serves several sleepers; each one that
// wakes must pass it on while there is something left.
func TestBulkWakesAll(t *testing.T) {
	eachKind(t, func(t *testing.T, k kind) {
		synctest.Test(t, func(t *testing.T) {
			q := newQueue[int](k, 4)
			producers, consumers := k.sides(3)
			var wg sync.WaitGroup
			for range consumers {
				wg.Go(func() { _, _ = q.Pop(t.Context()) })
			}
			synctest.Wait()
			n, err := q.PushN(make([]int, consumers))
			require.NoError(t, err)
			require.Equal(t, consumers, n)
			wg.Wait()

			_, err = q.PushN(make([]int, 4))
			require.NoError(t, err)
			for range producers {
				wg.Go(func() { _ = q.Push(t.Context(), 1) })
			}
			synctest.Wait()
			n, err = q.PopN(make([]int, 4))
			require.NoError(t, err)
			require.Equal(t, 4, n)
			wg.Wait()
			require.Equal(t, producers, q.Len())
		})
	})
}

// TestGatePassesTokens: a token given to a waiter that leaves otherwise must reach the next one.
func TestGatePassesTokens(t *testing.T) {
	var g gate
	first, second := g.announce(), g.announce()
	require.EqualValues(t, 2, g.sleepers.Load())
	g.wake() // first has it
	g.retract(first)
	select {
	case <-second.token:
	default:
		t.Fatal("the token was burnt")
	}
	g.recycle(second)
	require.Zero(t, g.sleepers.Load())

	for range 3 { // leaving from the middle, the front and the back
		ws := []*waiter{g.announce(), g.announce(), g.announce()}
		g.retract(ws[1])
		g.retract(ws[0])
		g.retract(ws[2])
		require.Zero(t, g.sleepers.Load())
		require.Nil(t, g.line().first)
	}
	crowd := make([]*waiter, 100)
	for i := range crowd {
		crowd[i] = g.announce()
	}
	g.wakeAll()
	for _, w := range crowd {
		<-w.token
		g.recycle(w)
	}
	require.EqualValues(t, maxSpare, g.line().spare)
}

// TestMPMCOutOfOrder is the case that burns tokens: the slot behind the head is published
// first, its token wakes a consumer who finds nothing, and then the head slot is published.
// One token for two items; the consumer that wakes must pass it on.
func TestMPMCOutOfOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewMPMC[int](4)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				_, err := q.Pop(t.Context())
				require.NoError(t, err)
			})
		}
		synctest.Wait()
		require.True(t, q.tail.CompareAndSwap(0, 1)) // a producer claims slot 0 and is preempted
		require.NoError(t, q.TryPush(2))             // another one publishes slot 1
		synctest.Wait()                              // its token is spent on nothing
		require.EqualValues(t, 2, q.notEmpty.sleepers.Load())
		_, err := q.TryPop()
		require.Equal(t, ErrEmpty, err, "slot 0 is not published")
		q.slots[0] = 1
		q.groups[0].full.Add(1)
		q.notEmpty.wake()
		wg.Wait() // a bubble whose goroutines sleep for ever fails the test

		// The mirror image: two producers sleep, and the slots are freed in the wrong order.
		_, err = q.PushN([]int{1, 2, 3, 4})
		require.NoError(t, err)
		for range 2 {
			wg.Go(func() { require.NoError(t, q.Push(t.Context(), 5)) })
		}
		synctest.Wait()
		h := q.head.Load()
		require.True(t, q.head.CompareAndSwap(h, h+1)) // a consumer claims and is preempted
		_, err = q.TryPop()
		require.NoError(t, err)
		synctest.Wait()
		require.EqualValues(t, 2, q.notFull.sleepers.Load())
		require.Equal(t, ErrFull, q.TryPush(9), "the slot has not been let go of")
		i := h & 3
		q.slots[i] = 0
		q.groups[0].full.Add(-(uint32(1) << i))
		q.notFull.wake()
		wg.Wait()
		require.Equal(t, 4, q.Len())
	})
}

// TestMPMCCloseWhilePushing: all consumers wake for Close, find an item that is still being pushed
// and sleep again; the one that gets it must let the others see the end.
func TestMPMCCloseWhilePushing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewMPMC[int](4)
		var wg sync.WaitGroup
		var got atomic.Int64
		for range 3 {
			wg.Go(func() {
				for range q.Receive(t.Context()) {
					got.Add(1)
				}
			})
		}
		synctest.Wait()
		require.True(t, q.tail.CompareAndSwap(0, 1)) // a producer claims slot 0 and is preempted
		require.NoError(t, q.Close())
		synctest.Wait()
		require.EqualValues(t, 3, q.notEmpty.sleepers.Load())
		q.groups[0].full.Add(1)
		q.notEmpty.wake()
		wg.Wait()
		require.EqualValues(t, 1, got.Load())
	})
}

// TestMPSCOutOfOrder: the consumer sees nothing before the oldest slot is published, and
// ErrClosed not before a slot that was claimed in time is there.
func TestMPSCOutOfOrder(t *testing.T) {
	q := NewMPSC[int](Unbounded)
	s := q.last()
	s.claims.Add(1) // a producer claims slot 0 and is preempted
	require.NoError(t, q.TryPush(2))
	_, err := q.TryPop()
	require.Equal(t, ErrEmpty, err)
	require.NoError(t, q.Close())
	require.Equal(t, ErrClosed, q.TryPush(3))
	_, err = q.TryPop()
	require.Equal(t, ErrEmpty, err, "closed, but two accepted items are not out yet")
	n, err := q.PopN(make([]int, 5))
	require.Zero(t, n)
	require.Equal(t, ErrEmpty, err)
	s.set(0, 1)
	dst := make([]int, 5)
	n, err = q.PopN(dst)
	require.NoError(t, err)
	require.Equal(t, []int{1, 2}, dst[:n])
	_, err = q.TryPop()
	require.Equal(t, ErrClosed, err)
}
