// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestUnannounced: what was accepted before the pool began to end runs, also if its producer has
// not come to telling a worker, and there is none.
// acceptance: Y01
func TestUnannounced(t *testing.T) {
	put := func(q *queue[Task], task Task) {
		q.mu.Lock()
		q.putLocked(task, nil)
		q.mu.Unlock()
	}
	post := func(m *Mailbox, task Task) {
		m.q.mu.Lock()
		_, err := m.scheduleLocked()
		require.NoError(t, err)
		m.q.putLocked(task, nil)
		m.q.mu.Unlock()
	}
	type ender interface {
		Shutdown(ctx context.Context) ([]Task, error)
	}
	for name, add := range map[string]func(task Task) ender{
		"shared": func(task Task) ender {
			p := NewShared(Config{})
			put(&p.queues[0].queue, task)
			return p
		},
		"sharded": func(task Task) ender {
			p := NewSharded(Config{Queues: 3})
			put(&p.queues[2].queue, task)
			return p
		},
		"ordered": func(task Task) ender {
			p := NewOrdered(Config{})
			put(&p.queues[0].queue, task)
			return p
		},
		"mailbox": func(task Task) ender {
			p := NewOrdered(Config{})
			post(p.NewMailbox(0), task)
			return p
		},
		"strand": func(task Task) ender {
			p := NewOrdered(Config{})
			s := new(Strand)
			s.Init(p, func() bool { task(); return false })
			s.state.Store(strandEntry + strandEntering)
			_, ok := p.push(s)
			require.True(t, ok)
			return p
		},
		"keyed": func(task Task) ender {
			p := NewKeyed(Config{Workers: 2, Queues: 5})
			post(p.boxes[3], task)
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			ran := 0
			left, err := add(func() { ran++ }).Shutdown(context.Background())
			require.NoError(t, err)
			require.Empty(t, left)
			require.Equal(t, 1, ran)
		})
	}
}

// TestLeft: a worker that wants to put its mailbox back while the pool takes back the tasks leaves
// them where they are found.
func TestLeft(t *testing.T) {
	for _, end := range []string{"shutdown", "close"} {
		t.Run(end, func(t *testing.T) {
			o := NewOrdered(Config{Workers: 1})
			m := o.NewMailbox(-1)
			started, block := make(chan struct{}), make(chan struct{})
			const rest = 5
			var ran []int
			batch := []Task{func() { close(started); <-block }}
			for i := range batchLen - 1 + rest {
				batch = append(batch, func() { ran = append(ran, i) })
			}
			require.NoError(t, m.Post(batch...))
			<-started
			// Whoever stops the pool is held up between the moment in which lists take no more and
			// the look at what workers hold.
			r := everyOf(&o.c)[0].local.(*strandRunner)
			r.batch.mu.Lock()
			go func() {
				defer r.batch.mu.Unlock()
				l := &o.lists[len(o.lists)-1]
				for aborted := false; !aborted; runtime.Gosched() {
					l.mu.Lock()
					aborted = l.aborted
					l.mu.Unlock()
				}
				close(block)
				for n := 0; n == 0; runtime.Gosched() {
					o.leftMu.Lock()
					n = len(o.left)
					o.leftMu.Unlock()
				}
			}()
			var left []Task
			if end == "close" {
				var e *LeftError[Task]
				require.ErrorAs(t, o.Close(), &e)
				left = e.Left
			} else {
				ended, stop := context.WithCancel(context.Background())
				stop()
				var err error
				left, err = o.Shutdown(ended)
				require.ErrorIs(t, err, context.Canceled)
			}
			require.Len(t, left, rest)
			require.NoError(t, o.Close())
			require.Len(t, ran, batchLen-1)
			for _, task := range left {
				task()
			}
			for i := range ran {
				require.Equal(t, i, ran[i], "in order")
			}
		})
	}
}

// TestDisplaceWithLine: DropOldest makes room for one task, which is not given to a producer that
// waits.
// acceptance: Y04
func TestDisplaceWithLine(t *testing.T) {
	for _, limit := range []int{1, 2, 5} {
		var dropped []Task
		cfg := Config{Workers: 1, QueueLen: limit, Policy: DropOldest, OnDrop: func(t Task) { dropped = append(dropped, t) }}
		o, s := NewOrdered(cfg), NewShared(cfg)
		m := o.NewMailbox(limit)
		for name, c := range map[string]struct {
			q    *queue[Task]
			try  func(Task) error
			wait func(context.Context, Task) error
			push func(Task) error
		}{
			"mailbox": {&m.q, m.TrySubmit, m.Submit, func(t Task) error { return o.goTo(m, t) }},
			"shared":  {&s.queues[0].queue, s.TrySubmit, s.Submit, s.Go},
		} {
			t.Run(name, func(t *testing.T) {
				dropped = nil
				started, block := make(chan struct{}), make(chan struct{})
				require.NoError(t, c.try(func() { close(started); <-block }))
				<-started
				var ran []int
				add := func(i int) Task { return func() { ran = append(ran, i) } }
				for i := range limit {
					require.NoError(t, c.try(add(i)))
				}
				state := func() (n int, line bool) {
					c.q.mu.Lock()
					defer c.q.mu.Unlock()
					return c.q.lenLocked(), c.q.line.n.Load() > 0
				}
				waited := make(chan error)
				go func() { waited <- c.wait(context.Background(), add(-1)) }()
				for _, line := state(); !line; _, line = state() {
					runtime.Gosched()
				}
				for i := range 3 * limit {
					require.NoError(t, c.push(add(limit+i)))
					n, line := state()
					require.Equal(t, limit, n)
					require.True(t, line)
				}
				close(block)
				require.NoError(t, <-waited)
				for n, _ := state(); n > 0; n, _ = state() {
					runtime.Gosched()
				}
				require.Len(t, dropped, 3*limit)
			})
		}
		// Not Close: the queues are empty, the last tasks may still be in the worker's hands.
		for _, shutdown := range []func(context.Context) ([]Task, error){o.Shutdown, s.Shutdown} {
			left, err := shutdown(t.Context())
			require.NoError(t, err)
			require.Empty(t, left)
		}
	}
}

// TestEntering: a waker that finds another one on its way waits for what becomes of it, and a waker
// that was held up says nothing about a later entry.
func TestEntering(t *testing.T) {
	o := NewOrdered(Config{Workers: 1})
	started, block := make(chan struct{}), make(chan struct{})
	require.NoError(t, o.TrySubmit(func() { close(started); <-block }))
	<-started
	var s Strand
	s.Init(o, func() bool { return false })
	const held, now = strandEntry + strandEntering, 2*strandEntry + strandEntering
	s.state.Store(now)
	require.NoError(t, s.enter(held))
	require.EqualValues(t, now, s.state.Load(), "still undecided")
	answer := make(chan error, 1)
	go func() { answer <- s.TryWake() }()
	for range 100 {
		runtime.Gosched()
	}
	require.Empty(t, answer)
	require.EqualValues(t, now, s.state.Load())
	s.state.Store(now - strandEntering + strandQueued)
	require.NoError(t, <-answer)
	close(block)
	require.NoError(t, o.Do(context.Background(), func() {}))
	var next Strand
	next.Init(o, func() bool { return false })
	for range 3 {
		require.NoError(t, next.TryWake())
		for next.state.Load()&strandMask != strandIdle {
			runtime.Gosched()
		}
	}
	require.EqualValues(t, 3*strandEntry, next.state.Load(), "entries are counted")
	_, err := o.Shutdown(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 2*strandEntry+strandIdle, s.state.Load())
	require.ErrorIs(t, s.TryWake(), ErrClosed)
	require.EqualValues(t, strandIdle, s.state.Load()&strandMask)
}

// TestForeignRunning: waking a strand that runs takes no place in the queue of a pool that knows
// nothing of strands.
func TestForeignRunning(t *testing.T) {
	p := NewShared(Config{Workers: 1, QueueLen: 1})
	started, block := make(chan struct{}, 2), make(chan struct{})
	var s Strand
	s.Init(p, func() bool { started <- struct{}{}; <-block; return false })
	require.NoError(t, s.TryWake())
	<-started
	require.NoError(t, p.TrySubmit(func() {}))
	require.ErrorIs(t, p.TrySubmit(func() {}), ErrFull)
	require.NoError(t, s.TryWake())
	close(block)
	_, err := p.Shutdown(context.Background())
	require.NoError(t, err)
	require.Len(t, started, 1, "and it runs again")
}

// TestIdleNotEarly: a worker stays for the whole timeout, even if it became idle just before a
// tick.
// acceptance: Y06
func TestIdleNotEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout, moment = 10 * time.Second, time.Millisecond
		p := NewShared(Config{Workers: 2, IdleTimeout: timeout})
		start := time.Now()
		require.NoError(t, p.TrySubmit(func() { time.Sleep(timeout/2 - moment) }))
		require.NoError(t, p.TrySubmit(func() {}))
		sleepUntil := func(d time.Duration) {
			time.Sleep(time.Until(start.Add(d)))
			synctest.Wait()
		}
		sleepUntil(timeout/2 - moment)
		require.Equal(t, 2, p.Stats().Idle)
		sleepUntil(timeout*3/2 - 2*moment)
		require.Equal(t, 2, p.Stats().Idle, "the second has been idle for less than the timeout")
		sleepUntil(timeout*3/2 + moment)
		require.Zero(t, p.Stats().Workers)
		require.NoError(t, p.Close())
	})
}

// TestStaleWidth: a mailbox that is pushed to the list that was its own before Resize gets to the
// worker that has it now.
func TestStaleWidth(t *testing.T) {
	p := NewKeyed(Config{Workers: 4, Queues: 4})
	o, m := &p.o, p.boxes[3]
	ran := make(chan struct{})
	m.q.mu.Lock()
	e := entry{o: o, list: 3, width: o.width.Load()}
	p.Resize(1)
	require.True(t, o.lists[3].push(&m.strand))
	m.scheduled = true
	m.q.putLocked(func() { close(ran) }, nil)
	m.q.mu.Unlock()
	e.tell()
	<-ran
	require.False(t, o.lists[3].any())
	all := everyOf(&o.c)
	require.Len(t, all, 1)
	require.Zero(t, all[0].slot)
	require.NoError(t, p.Close())
}

// TestLastTaken: a worker that waits for work keeps no strand alive, which may be part of a session
// that has ended.
func TestLastTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := NewOrdered(Config{Workers: 1, IdleTimeout: -1})
		require.NoError(t, o.DoKey(context.Background(), 1, func() {}))
		synctest.Wait()
		r := everyOf(&o.c)[0].local.(*strandRunner)
		require.Nil(t, r.cur.Load())
		require.Nil(t, r.run)

		// While it works it may know one that it has given back.
		m := o.NewMailbox(0)
		m.q.putLocked(func() {}, nil)
		require.True(t, o.lists[0].push(&m.strand))
		r.cur.Store(&m.strand)
		require.Equal(t, 1, o.Stats().Queued, "counted once")
		require.Equal(t, 1, o.Stats().Queues[0])
		_ = o.Close() // an error unless the worker is faster
	})
}

// TestStoppedWhenShutdownReturns: whoever comes back from Shutdown finds Stopped closed, however
// long that takes.
// case: 5
func TestStoppedWhenShutdownReturns(t *testing.T) {
	p := NewShared(Config{Workers: 1})
	require.NoError(t, p.Submit(context.Background(), func() {}))
	returned, holding := make(chan struct{}), make(chan struct{})
	go p.c.endOne.Do(func() {
		close(holding)
		select {
		case <-returned:
		case <-time.After(20 * time.Millisecond):
		}
		close(p.c.ended)
	})
	<-holding
	_, err := p.Shutdown(context.Background())
	require.NoError(t, err)
	select {
	case <-p.Stopped():
	default:
		t.Error("Stopped is open")
	}
	close(returned)
}
