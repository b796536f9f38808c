// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRecheck: producers wake nobody while a worker is searching. If that worker leaves instead, as
// Resize may tell it to, it must send another. The moment is too short to be hit by chance, so it
// is made.
func TestRecheck(t *testing.T) {
	ran := make(chan struct{}, 1)
	task := func() { ran <- struct{}{} }
	wait := func(what string) {
		t.Helper()
		select {
		case <-ran:
		case <-time.After(30 * time.Second):
			require.FailNow(t, "timed out", what)
		}
	}

	p := NewShared(Config{Workers: 1})
	p.c.searching.Store(1)
	require.NoError(t, p.TrySubmit(task))
	require.Zero(t, p.Stats().Workers, "somebody is searching")
	p.c.recheck(&worker{searching: true})
	wait("a worker of Shared")
	require.NoError(t, p.Close())

	k := NewKeyed(Config{Workers: 1})
	k.o.c.bySlot[0].busy.Store(true)
	require.NoError(t, k.TrySubmit(1, task))
	require.Zero(t, k.Stats().Workers, "its worker is busy")
	k.o.c.bySlot[0].busy.Store(false)
	k.o.c.recheck(&worker{slot: 0})
	wait("the worker of a key")
	require.NoError(t, k.Close())
}

// TestTrim: an idle pool gives back the memory of a queue that was long, and never one that holds
// something.
func TestTrim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewShared(Config{Workers: 1, QueueLen: -1, IdleTimeout: time.Minute})
		block := make(chan struct{})
		require.NoError(t, p.TrySubmit(func() { <-block }))
		synctest.Wait()
		ran := 0
		for range 1000 {
			require.NoError(t, p.TrySubmit(func() { ran++ }))
		}
		p.intake.trim()
		close(block)
		synctest.Wait()
		require.Equal(t, 1000, ran)
		size := func() int {
			q := &p.queues[0]
			q.mu.Lock()
			defer q.mu.Unlock()
			return len(q.ring)
		}
		require.Equal(t, 1024, size())
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Zero(t, size())
		require.NoError(t, p.Close())
	})
}

// TestClosedBatch: a worker whose batch the end of the pool has closed takes nothing from others.
func TestClosedBatch(t *testing.T) {
	p := NewShared(Config{Workers: 2})
	add := func() (*worker, *batch[Task]) {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		w := p.c.addLocked(-1) // there are no others: both slots are taken
		return w, w.local.(*itemRunner[Task]).batch
	}
	w, mine := add()
	_, other := add()
	fill(other, &p.queues[0].queue, 4)
	require.True(t, p.pending(w))
	_, ok := p.steal(w, mine)
	require.True(t, ok)
	require.Equal(t, 1, mine.len(), "half, of which one runs at once")
	require.Equal(t, 2, other.len())
	require.EqualValues(t, 2, w.steals.Load())
	require.Len(t, mine.close(), 1)
	_, ok = p.steal(w, mine)
	require.False(t, ok)
	require.Equal(t, 2, other.len())
	for i := range other.slot {
		require.Equal(t, i < 2, other.slot[i] != nil, "a claimed slot keeps nothing alive")
	}
	_, ok = other.take()
	require.True(t, ok)
	require.Nil(t, other.slot[0])
	require.Len(t, p.abandon(), 1)
}

// fill makes n tasks the items of the empty batch b.
func fill(b *batch[Task], from *queue[Task], n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range n {
		b.slot[i] = func() {}
	}
	b.filledLocked(n, from)
}

func everyOf(c *workers) []*worker {
	all, _ := c.every()
	return all
}

// TestAbandonTakesBatchesFirst: the end of the pool may find a mailbox with two workers, one that
// has just put it back in line and one that has taken a batch of it since. What comes back is in
// order all the same.
func TestAbandonTakesBatchesFirst(t *testing.T) {
	p := NewOrdered(Config{Workers: 2})
	add := func() *strandRunner {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		return p.c.addLocked(-1).local.(*strandRunner) // there are no others: both slots are taken
	}
	before, after := add(), add()
	m := p.NewMailbox(-1)
	var got, want []int
	for i := range 12 {
		require.NoError(t, m.Post(func() { got = append(got, i) }))
		want = append(want, i)
	}
	s, _ := p.lists[m.strand.home].pop(&visit{arrived: true}, &after.cur)
	require.Same(t, &m.strand, s)
	before.cur.Store(s)
	m.q.mu.Lock()
	require.Equal(t, 8, after.batch.fill(&m.q, 8))
	m.q.mu.Unlock()
	p.begin()
	left := p.abandon()
	require.Len(t, left, len(want))
	for _, task := range left {
		task()
	}
	require.Equal(t, want, got)
}

// TestChoice: the picker of Stealing prefers the queue of the worker that would be woken.
func TestChoice(t *testing.T) {
	p := NewStealing(Config{Workers: 4})
	p.c.idleSlot.Store(3)
	for range 20 {
		require.Equal(t, 3, p.choose())
	}
	p.c.idleSlot.Store(-1)
	seen := map[int]bool{}
	for range 1000 {
		seen[p.choose()] = true
	}
	require.Len(t, seen, 4)
	require.NoError(t, p.Close())
}

// TestNothingKept: a mailbox does not keep tasks alive that it gave away, in the memory that it
// began with either.
func TestNothingKept(t *testing.T) {
	for _, drain := range []bool{true, false} {
		p := NewOrdered(Config{Workers: 1})
		m := p.NewMailbox(0)
		started, block := make(chan struct{}), make(chan struct{})
		require.NoError(t, m.TrySubmit(func() { close(started); <-block }))
		<-started
		for range 3 {
			require.NoError(t, m.TrySubmit(func() {}))
		}
		if drain {
			for range 3 {
				require.NoError(t, m.TrySubmit(func() {})) // more than it has room for
			}
			close(block)
			_, err := p.Shutdown(t.Context())
			require.NoError(t, err)
		} else {
			ctx, stop := context.WithCancel(t.Context())
			stop()
			left, err := p.Shutdown(ctx)
			require.ErrorIs(t, err, context.Canceled)
			require.Len(t, left, 3)
			close(block)
			require.NoError(t, p.Close())
		}
		for i := range m.few {
			require.Nil(t, m.few[i].item, i)
		}
	}
}

// TestLateSteal: what a worker steals that is started while the pool takes back its tasks, comes
// back too.
// acceptance: Y01
func TestLateSteal(t *testing.T) {
	p := NewShared(Config{Workers: 3})
	add := func() (*worker, *batch[Task]) {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		w := p.c.addLocked(-1)
		return w, w.local.(*itemRunner[Task]).batch
	}
	_, first := add()
	_, second := add()
	q := &p.queues[0].queue
	q.mu.Lock()
	q.putLocked(func() {}, nil)
	q.mu.Unlock()
	fill(second, q, 4)
	first.mu.Lock() // holds up the goroutine that stops the pool
	left := make(chan []Task)
	go func() { left <- p.abandon() }()
	for drained := false; !drained; runtime.Gosched() {
		q.mu.Lock()
		drained = q.drained
		q.mu.Unlock()
	}
	time.Sleep(5 * time.Millisecond) // it knows of two workers by now
	w, third := add()
	_, ok := p.steal(w, third)
	require.True(t, ok)
	require.Equal(t, 1, third.len(), "half of four, of which one is about to run")
	first.mu.Unlock()
	require.Len(t, <-left, 4)
	require.Zero(t, third.len())
}

// TestBegunBeforeStopped: what a worker has taken, and not begun to run, holds up the end of the
// pool until it has begun.
// case: 5
func TestBegunBeforeStopped(t *testing.T) {
	type stopping interface {
		Stopped() <-chan struct{}
		Shutdown(ctx context.Context) ([]Task, error)
	}
	over, stop := context.WithCancel(context.Background())
	stop()
	shared, ordered, keyed := NewShared(Config{}), NewOrdered(Config{}), NewKeyed(Config{})
	for name, p := range map[string]struct {
		stopping
		c *workers
	}{
		"shared":  {shared, &shared.c},
		"ordered": {ordered, &ordered.c},
		"keyed":   {keyed, &keyed.o.c},
	} {
		t.Run(name, func(t *testing.T) {
			p.c.mu.Lock()
			slot := -1
			if p.c.pinned {
				slot = 0
			}
			w := p.c.addLocked(slot)
			p.c.mu.Unlock()
			w.claim()
			given := make(chan error, 1)
			go func() {
				_, err := p.Shutdown(over)
				given <- err
			}()
			select {
			case <-p.Stopped():
				require.Fail(t, "stopped before a task that was taken has begun")
			case <-given:
				require.Fail(t, "Shutdown returned before a task that was taken has begun")
			case <-time.After(20 * time.Millisecond):
			}
			w.begin()
			require.ErrorIs(t, <-given, context.Canceled)
			<-p.Stopped()
		})
	}
}

// TestStrandTakenIsDropped: a strand that a worker has taken from its list, and not begun, is told
// that the pool was stopped, and does not run.
// case: 5
func TestStrandTakenIsDropped(t *testing.T) {
	p := NewOrdered(Config{Workers: 1})
	p.c.mu.Lock()
	r := p.c.addLocked(-1).local.(*strandRunner) // there are no others
	p.c.mu.Unlock()
	var s Strand
	told := 0
	s.Init(p, func() bool { t.Error("ran"); return false })
	s.OnDrop(func() { told++ })
	require.NoError(t, s.TryWake())
	got, _ := p.lists[0].pop(&r.visit, &r.cur)
	require.Same(t, &s, got)
	require.Empty(t, p.abandon())
	require.Equal(t, 1, told)
	r.run = got
	p.resume(r)
	require.Empty(t, p.abandon())
	require.Equal(t, 1, told)
}

// TestManyWorkers: the memory that it takes to start and end workers grows as their number does,
// not as its square.
func TestManyWorkers(t *testing.T) {
	const workers = 4000
	p := NewOrdered(Config{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	block := make(chan struct{})
	var running sync.WaitGroup
	running.Add(workers)
	for k := range Key(workers) {
		require.NoError(t, p.TrySubmitKey(k, func() { running.Done(); <-block }))
	}
	running.Wait()
	require.Len(t, everyOf(&p.c), workers)
	close(block)
	require.NoError(t, p.Close())
	require.Empty(t, everyOf(&p.c))
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(workers*8<<10))
}
