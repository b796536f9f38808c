// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

const patience = 30 * time.Second // for what must happen; never for what must not

func receive[T any](t *testing.T, c <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		require.FailNow(t, "timed out", what)
	}
	return v
}

// submitter is the keyed part of Keyed and Ordered.
type submitter func(ctx context.Context, key taskpool.Key, t taskpool.Task) error

// TestOrder: eight producers share keys; what one of them submits for a key runs in its order, and
// one at a time, also while workers come and go and tasks panic or call Goexit.
// acceptance: Y05
// fault: 125
func TestOrder(t *testing.T) {
	check := func(t *testing.T, submit submitter, resize func(int), shutdown func(context.Context) ([]taskpool.Task, error)) {
		const producers, keys, each = 8, 10, 60
		var inside [keys]atomic.Int32
		var last [keys][producers]int // guarded by the order under test
		var wrong atomic.Int32
		var wg sync.WaitGroup
		for p := range producers {
			wg.Go(func() {
				for i := 1; i <= each; i++ {
					for k := range keys {
						err := submit(context.Background(), taskpool.Key(k), func() {
							if inside[k].Add(1) != 1 || last[k][p] != i-1 {
								wrong.Add(1)
							}
							last[k][p] = i
							if i%7 == 0 {
								runtime.Gosched()
							}
							inside[k].Add(-1)
							switch (i + k) % 31 {
							case 0:
								panic("task")
							case 1:
								runtime.Goexit()
							}
						})
						if err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		for n := range 20 {
			resize(1 + n%5)
			runtime.Gosched()
		}
		wg.Wait()
		left, err := shutdown(context.Background())
		require.NoError(t, err)
		require.Empty(t, left)
		require.Zero(t, wrong.Load(), "tasks out of order or at the same time")
		for k := range keys {
			for p := range producers {
				require.Equal(t, each, last[k][p])
			}
		}
	}
	for _, limit := range []int{2, 1024} {
		cfg := taskpool.Config{Workers: 4, QueueLen: limit, OnPanic: func(taskpool.PanicInfo) {}}
		t.Run("ordered", func(t *testing.T) {
			p := taskpool.NewOrdered(cfg)
			check(t, p.SubmitKey, p.Resize, p.Shutdown)
		})
		t.Run("keyed", func(t *testing.T) {
			p := taskpool.NewKeyed(cfg)
			check(t, p.Submit, p.Resize, p.Shutdown)
		})
	}
}

// TestSlowKey: one key blocks a worker. In Ordered the others finish meanwhile; in Keyed those of
// the same worker cannot, which is the documented difference.
// acceptance: Y05
func TestSlowKey(t *testing.T) {
	const keys = 32
	cfg := taskpool.Config{Workers: 2}
	block := make(chan struct{})
	started := make(chan struct{})
	slow := func() { close(started); <-block }

	ordered := taskpool.NewOrdered(cfg)
	require.NoError(t, ordered.SubmitKey(context.Background(), 0, slow))
	receive(t, started, "the slow task")
	var wg sync.WaitGroup
	for k := 1; k < keys; k++ {
		wg.Add(1)
		require.NoError(t, ordered.SubmitKey(context.Background(), taskpool.Key(k), wg.Done))
	}
	all := make(chan struct{})
	go func() { wg.Wait(); close(all) }()
	receive(t, all, "the other keys of Ordered")
	close(block)
	require.NoError(t, ordered.Close())

	keyed := taskpool.NewKeyed(cfg)
	block, started = make(chan struct{}), make(chan struct{})
	require.NoError(t, keyed.Submit(context.Background(), 0, slow))
	receive(t, started, "the slow task")
	var same, other taskpool.Key
	for k := taskpool.Key(1); same == 0 || other == 0; k++ {
		if (keyed.Queue(k)-keyed.Queue(0))%2 == 0 {
			same = k
		} else {
			other = k
		}
	}
	var stuck atomic.Bool
	done := make(chan struct{})
	require.NoError(t, keyed.Submit(context.Background(), same, func() { stuck.Store(true) }))
	require.NoError(t, keyed.Submit(context.Background(), other, func() { close(done) }))
	receive(t, done, "the other worker's key")
	require.False(t, stuck.Load(), "a key shares its worker with the slow one")
	close(block)
	_, err := keyed.Shutdown(context.Background())
	require.NoError(t, err)
	require.True(t, stuck.Load())
}

// TestManyKeys: 1e5 live keys cost no goroutines, and skew is shed by stealing.
func TestManyKeys(t *testing.T) {
	const workers, keys = 4, 100_000
	base := runtime.NumGoroutine()
	p := taskpool.NewOrdered(taskpool.Config{Workers: workers})
	gate := make(chan struct{})
	var ran atomic.Int64
	for k := range keys {
		require.NoError(t, p.SubmitKey(context.Background(), taskpool.Key(k), func() { <-gate; ran.Add(1) }))
	}
	require.LessOrEqual(t, runtime.NumGoroutine()-base, workers+4)
	s := p.Stats()
	require.Len(t, s.Queues, workers)
	sum := 0
	for _, n := range s.Queues {
		require.Positive(t, n, "mailboxes wait in every list")
		sum += n
	}
	require.GreaterOrEqual(t, sum, keys-workers)
	close(gate)
	left, err := p.Shutdown(context.Background())
	require.NoError(t, err)
	require.Empty(t, left)
	require.EqualValues(t, keys, ran.Load())
	require.EqualValues(t, keys, p.Stats().Accepted)
}

// TestSkew: all mailboxes belong to one list, the workers of the other lists steal them.
func TestSkew(t *testing.T) {
	p := taskpool.NewOrdered(taskpool.Config{Workers: 2})
	defer p.Close()
	var boxes []*taskpool.Mailbox
	for range 8 {
		boxes = append(boxes, p.NewMailbox(0))
		p.NewMailbox(0) // takes the place in the other list
	}
	// Two tasks that wait for each other, in mailboxes of one list, need both workers.
	meet := make(chan struct{})
	var wg sync.WaitGroup
	for i := range boxes {
		wg.Add(1)
		require.NoError(t, boxes[i].Post(func() {
			if i%2 == 0 {
				meet <- struct{}{}
			} else {
				<-meet
			}
			wg.Done()
		}))
	}
	wg.Wait()
	require.Positive(t, p.Stats().Steals)
	require.NoError(t, p.Close())
	require.Positive(t, p.Stats().Steals, "counters outlive the workers")
}

// TestKeys: hashes are the documented ones, and placement depends on nothing else.
func TestKeys(t *testing.T) {
	require.Equal(t, taskpool.Key(0xef46db3751d8e999), taskpool.StringKey(""), "XXH64 of nothing")
	require.Equal(t, taskpool.Key(0x44bc2cf5ad770999), taskpool.StringKey("abc"), "XXH64 of abc")
	require.Equal(t, taskpool.StringKey("abc"), taskpool.BytesKey([]byte("abc")))
	type pair struct {
		a int
		b string
	}
	require.Equal(t, taskpool.KeyOf(pair{1, "x"}), taskpool.KeyOf(pair{1, "x"}))
	require.NotEqual(t, taskpool.KeyOf(pair{1, "x"}), taskpool.KeyOf(pair{2, "x"}))
	a := taskpool.NewKeyed(taskpool.Config{Workers: 3, Queues: 16})
	b := taskpool.NewKeyed(taskpool.Config{Workers: 5, Queues: 16})
	for _, s := range []string{"", "a", "b", "user-1"} {
		require.Equal(t, a.Queue(taskpool.StringKey(s)), b.Queue(taskpool.StringKey(s)), "placement is a matter of the key")
	}
}
