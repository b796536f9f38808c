// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// TestTurns: with one worker, mailboxes take turns in bounded batches, and a task that panics costs
// its mailbox no turn and wins it none.
func TestTurns(t *testing.T) {
	for _, bad := range []bool{false, true} {
		p, release := stuck(t, kinds[5], taskpool.Config{QueueLen: -1, OnPanic: func(taskpool.PanicInfo) {}})
		o := p.(*taskpool.Ordered)
		boxes := []*taskpool.Mailbox{o.NewMailbox(-1), o.NewMailbox(-1)}
		var turns []int
		var lens []int
		const each = 100
		for i, m := range boxes {
			for j := range each {
				require.NoError(t, m.Post(func() {
					if n := len(turns); n > 0 && turns[n-1] == i {
						lens[n-1]++
					} else {
						turns, lens = append(turns, i), append(lens, 1)
					}
					if bad && j%5 == 4 {
						panic("task")
					}
				}))
			}
		}
		release()
		_, err := o.Shutdown(context.Background())
		require.NoError(t, err)
		require.Equal(t, []int{0, 1, 0, 1}, turns[:4])
		sum := 0
		for i, n := range lens {
			sum += n
			require.LessOrEqual(t, n, 16, "turn %d", i)
			if i < 8 {
				require.Equal(t, 16, n, "turn %d", i)
			}
		}
		require.Equal(t, 2*each, sum)
	}
}

// TestLoose: tasks without key get their turn while strands keep every worker busy, and the other
// way round.
func TestLoose(t *testing.T) {
	p := taskpool.NewOrdered(taskpool.Config{Workers: 1})
	var s taskpool.Strand
	var stop atomic.Bool
	s.Init(p, func() bool { return !stop.Load() })
	require.NoError(t, s.TryWake())
	done := make(chan struct{})
	require.NoError(t, p.Submit(context.Background(), func() { close(done) }))
	receive(t, done, "a task without key beside a strand that never rests")

	var again func()
	again = func() {
		if !stop.Load() {
			_ = p.Submit(context.Background(), again)
		}
	}
	require.NoError(t, p.Submit(context.Background(), again))
	done = make(chan struct{})
	require.NoError(t, p.SubmitKey(context.Background(), 1, func() { close(done) }))
	receive(t, done, "a key beside tasks that never end")
	stop.Store(true)
	_, err := p.Shutdown(context.Background())
	require.NoError(t, err)
}

// TestOversize: an empty mailbox takes a batch of any size, and a full line is not overtaken.
func TestOversize(t *testing.T) {
	p, release := stuck(t, kinds[5], taskpool.Config{})
	m := p.(*taskpool.Ordered).NewMailbox(4)
	var got []int
	add := func(i int) taskpool.Task { return func() { got = append(got, i) } }
	batch := make([]taskpool.Task, 50)
	for i := range batch {
		batch[i] = add(i)
	}
	require.NoError(t, m.Post(batch...))
	require.ErrorIs(t, m.Post(add(50)), taskpool.ErrFull)
	require.Equal(t, 50, m.Len())
	require.Equal(t, 50, p.Stats().Queued)
	release()
	_, err := p.Shutdown(context.Background())
	require.NoError(t, err)
	require.Len(t, got, 50)
	for i, v := range got {
		require.Equal(t, i, v)
	}
}
