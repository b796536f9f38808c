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

// TestHandOver: producers wake nobody while a worker is searching. If that worker leaves instead, as Resize may tell it
// to, it must send another. The moment is too short to be hit by chance, so it is made.
func TestHandOver(t *testing.T) {
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
	p.c.handOver(&worker{searching: true})
	wait("a worker of Shared")
	require.NoError(t, p.Close())

	k := NewKeyed(Config{Workers: 1})
	k.o.c.seats[0].busy.Store(true)
	require.NoError(t, k.TrySubmit(1, task))
	require.Zero(t, k.Stats().Workers, "its worker is busy")
	k.o.c.seats[0].busy.Store(false)
	k.o.c.handOver(&worker{slot: 0})
	wait("the worker of a key")
	require.NoError(t, k.Close())
}

// TestTrim: an idle pool gives back the memory of a queue that was long, and never one that holds something.
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
			return len(q.buf)
		}
		require.Equal(t, 1024, size())
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Zero(t, size())
		require.NoError(t, p.Close())
	})
}

// TestClosedThief: a worker whose batch the end of the pool has closed takes nothing from others.
func TestClosedThief(t *testing.T) {
	p := NewShared(Config{Workers: 2})
	p.c.spare.Store(0) // nobody may be hired: there are no other workers than these two
	thief, victim := &worker{slot: 0}, &worker{slot: 1}
	p.c.mu.Lock()
	p.attach(thief)
	p.attach(victim)
	p.c.mu.Unlock()
	mine, other := thief.local.(*batch[Task]), victim.local.(*batch[Task])
	other.mu.Lock()
	other.addLocked([]Task{func() {}, func() {}, func() {}, func() {}})
	other.mu.Unlock()
	require.True(t, p.pending(thief))
	_, ok := p.steal(thief, mine)
	require.True(t, ok)
	require.Equal(t, 1, mine.len(), "half, of which one runs at once")
	require.Equal(t, 2, other.len())
	require.EqualValues(t, 2, thief.steals.Load())
	require.Len(t, mine.close(), 1)
	_, ok = p.steal(thief, mine)
	require.False(t, ok)
	require.Equal(t, 2, other.len())
	for i := range other.slot {
		require.Equal(t, i < 2, other.slot[i] != nil, "a claimed slot keeps nothing alive")
	}
	_, ok = other.take()
	require.True(t, ok)
	require.Nil(t, other.slot[0])
	p.c.mu.Lock()
	p.c.staff = nil
	p.c.publishLocked()
	p.c.mu.Unlock()
	require.NoError(t, p.Close())
}

// TestAbandonTakesBatchesFirst: the end of the pool may find a mailbox with two workers, one that has just put it back in
// line and one that has taken a batch of it since. What comes back is in order all the same.
func TestAbandonTakesBatchesFirst(t *testing.T) {
	p := NewOrdered(Config{Workers: 2})
	p.c.spare.Store(0) // nobody may be hired: there are no other workers than these two
	before, after := &worker{slot: 0}, &worker{slot: 1}
	p.c.mu.Lock()
	p.attach(before)
	p.attach(after)
	p.c.mu.Unlock()
	m := p.NewMailbox(-1)
	var got, want []int
	for i := range 12 {
		require.NoError(t, m.Post(func() { got = append(got, i) }))
		want = append(want, i)
	}
	s, _ := p.lists[m.strand.home].pop(after.local.(*runner))
	require.Same(t, &m.strand, s)
	before.local.(*runner).cur.Store(s)
	m.q.mu.Lock()
	require.Equal(t, 8, after.local.(*runner).batch.fill(&m.q, 8))
	m.q.mu.Unlock()
	p.begin()
	left := p.abandon()
	require.Len(t, left, len(want))
	for _, task := range left {
		task()
	}
	require.Equal(t, want, got)
	p.c.mu.Lock()
	p.c.staff = nil
	p.c.mu.Unlock()
	require.NoError(t, p.Close())
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

// TestRunList: both parts of a list are one to those who look, clear and count.
func TestRunList(t *testing.T) {
	var l runList
	var s [4]Strand
	var r runner
	add := func(x *Strand) {
		require.True(t, l.push(x))
	}
	add(&s[0])
	add(&s[1])
	got, more := l.pop(&r)
	require.Same(t, &s[0], got)
	require.True(t, more, "in the part that workers take from")
	require.True(t, l.any())
	require.Same(t, got, r.cur.Load())
	add(&s[2])
	first := l.clear(false)
	require.Same(t, &s[1], first)
	require.Same(t, &s[2], first.next)
	require.Nil(t, first.next.next)
	require.False(t, l.any())
	got, more = l.pop(&r)
	require.Nil(t, got)
	require.False(t, more)
	add(&s[0])
	got, more = l.pop(&r)
	require.Same(t, &s[0], got)
	require.False(t, more)
	add(&s[0])
	add(&s[1])
	_, _ = l.pop(&r)
	_, more = l.pop(&r)
	require.False(t, more)
	add(&s[2])
	add(&s[3])
	_, _ = l.pop(&r)
	add(&s[2])
	_, more = l.pop(&r)
	require.True(t, more, "in the part that producers add to")
	add(&s[3])
	l.close()
	l.close()
	require.False(t, l.push(&s[0]), "shut")
	require.True(t, l.any(), "what waits stays")
	require.False(t, l.aborted)
	first = l.clear(true)
	require.Same(t, &s[2], first, "oldest first")
	require.Same(t, &s[3], first.next)
	require.Nil(t, first.next.next)
	require.True(t, l.aborted)
	require.False(t, l.any())
	require.False(t, l.push(&s[0]), "still shut")
	got, _ = l.pop(&r)
	require.Nil(t, got)
}

// TestNothingKept: a mailbox does not keep tasks alive that it gave away, in the memory that it began with either.
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
			require.Nil(t, m.few[i], i)
		}
	}
}

// TestLateThief: what a worker steals that is started while the pool takes back its tasks, comes back too.
// acceptance: Y01
func TestLateThief(t *testing.T) {
	p := NewShared(Config{Workers: 3})
	enlist := func() (*worker, *batch[Task]) {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		w := p.c.enlistLocked(-1)
		return w, w.local.(*batch[Task])
	}
	_, first := enlist()
	_, second := enlist()
	p.queues[0].mu.Lock()
	p.queues[0].putLocked(func() {})
	p.queues[0].mu.Unlock()
	second.mu.Lock()
	second.addLocked([]Task{func() {}, func() {}, func() {}, func() {}})
	second.mu.Unlock()
	first.mu.Lock() // holds up whoever stops the pool
	left := make(chan []Task)
	go func() { left <- p.abandon() }()
	for p.some() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(5 * time.Millisecond) // it has drained the queue and knows of two workers
	w, third := enlist()
	_, ok := p.steal(w, third)
	require.True(t, ok)
	require.Equal(t, 1, third.len(), "half of four, of which one is about to run")
	first.mu.Unlock()
	require.Len(t, <-left, 4)
	require.Zero(t, third.len())
}

// TestManyWorkers: the memory that it takes to start and end workers grows as their number does, not as its square.
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
	require.Len(t, p.c.enrolled(), workers)
	close(block)
	require.NoError(t, p.Close())
	require.Empty(t, p.c.enrolled())
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(workers*8<<10))
}
