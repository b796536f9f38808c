// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func (k *keyMap) len() (n int) {
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		n += len(s.boxes)
		s.mu.Unlock()
	}
	return n
}

// TestIdleKeys: a key that is not used costs nothing after one and a half idle timeouts, one that
// is in use keeps its mailbox and with it its order, and no count is lost with a mailbox.
func TestIdleKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewOrdered(Config{Workers: 4, IdleTimeout: time.Minute})
		bg := context.Background()
		submit := func(key Key, f Task) { require.NoError(t, p.SubmitKey(bg, key, f)) }
		const keys = 1000
		for k := range keys {
			submit(Key(k), func() {})
		}
		synctest.Wait()
		require.Equal(t, keys, p.keys.len())

		// One key has a task that lasts, one is used now and then.
		block := make(chan struct{})
		var got []int
		submit(1, func() { <-block; got = append(got, 1) })
		for i := range 9 {
			time.Sleep(20 * time.Second)
			submit(2, func() {})
			synctest.Wait()
			if p.keys.len() == 2 {
				require.Greater(t, i, 1, "not before an idle timeout")
				break
			}
			require.Equal(t, keys, p.keys.len(), "all are removed at one time")
		}
		require.Equal(t, 2, p.keys.len())
		require.NotNil(t, p.keys.shards[Key(1).mix()>>(64-keyShardBits)].boxes[1], "a mailbox in use stays")
		accepted := p.Stats().Accepted
		require.Greater(t, accepted, uint64(keys))

		submit(1, func() { got = append(got, 2) })
		synctest.Wait()
		require.Empty(t, got, "the second task waits for the first")
		time.Sleep(10 * time.Minute)
		require.Equal(t, 1, p.keys.len())
		close(block)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Equal(t, []int{1, 2}, got)
		require.Zero(t, p.keys.len())
		require.Equal(t, accepted+1, p.Stats().Accepted)
		require.Zero(t, p.Stats().Workers)
		time.Sleep(24 * time.Hour) // no timer left
		require.NoError(t, p.Close())
	})
}

// TestKeySweepAlone: the map is swept also while every worker is busy and nobody is idle to run the
// timer.
func TestKeySweepAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewOrdered(Config{Workers: 1, IdleTimeout: time.Minute})
		block := make(chan struct{})
		require.NoError(t, p.Submit(context.Background(), func() { <-block }))
		synctest.Wait()
		require.NoError(t, p.SubmitKey(context.Background(), 1, func() {}))
		require.True(t, p.c.timer != nil, "a key is reason enough to sweep")
		time.Sleep(10 * time.Minute)
		require.Equal(t, 1, p.keys.len(), "its task waits")
		close(block)
		time.Sleep(10 * time.Minute)
		require.Zero(t, p.keys.len())
		require.NoError(t, p.Close())
	})
}

// TestBatchClaims: every item of a batch is claimed once, by its owner, another worker or the end.
func TestBatchClaims(t *testing.T) {
	q := queue[int]{line: new(line[int])}
	b := newBatch[int](batchLen)
	for i := range 20 {
		q.putLocked(i, nil)
	}
	require.Equal(t, 15, b.fill(&q, 15))
	e, ok := b.take()
	require.True(t, ok)
	require.Zero(t, e)
	var dst [batchLen]int
	b.mu.Lock()
	n := b.claimLocked(dst[:], true)
	b.mu.Unlock()
	require.Equal(t, []int{8, 9, 10, 11, 12, 13, 14}, dst[:n], "another worker takes the newer half")
	require.Equal(t, []int{1, 2, 3, 4, 5, 6, 7}, b.close())
	_, ok = b.take()
	require.False(t, ok)
	require.Zero(t, b.fill(&q, 15), "a closed batch takes nothing")
	require.Equal(t, []int{15, 16, 17, 18, 19}, q.drain(), "and nothing is lost")
}

// TestQueueAll: bulk and single operations agree, across growth and wrap.
func TestQueueAll(t *testing.T) {
	q := queue[int]{watched: true, line: new(line[int])}
	var want []int
	next := 0
	for step := range 500 {
		n := step * 7 % 23
		var es []int
		for range n {
			es = append(es, next)
			next++
		}
		if step%2 == 0 {
			q.putAllLocked(es)
		} else {
			for _, e := range es {
				q.putLocked(e, nil)
			}
		}
		want = append(want, es...)
		require.Equal(t, len(want) > 0, q.some.Load())
		got := make([]int, step*5%29)
		k := q.popLocked(got)
		require.Equal(t, append([]int{}, want[:k]...), got[:k])
		want = want[k:]
		if e, ok := q.popOneLocked(); ok {
			require.Equal(t, want[0], e)
			want = want[1:]
		} else {
			require.Empty(t, want)
		}
		require.Equal(t, len(want) > 0, q.some.Load())
		require.Equal(t, len(want), q.lenLocked())
	}
	require.EqualValues(t, next, q.accepted)
}
