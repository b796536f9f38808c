// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// modelQueue is what queue should do, as simply as possible.
type modelQueue struct {
	limit  int
	ring   []int
	line   []int
	closed bool
	told   map[int]string // what became of those who waited
}

func (m *modelQueue) full() bool { return m.limit > 0 && (len(m.ring) >= m.limit || len(m.line) > 0) }

func (m *modelQueue) popped() {
	for len(m.line) > 0 && len(m.ring) < m.limit {
		m.ring = append(m.ring, m.line[0])
		m.told[m.line[0]] = "granted"
		m.line = m.line[1:]
	}
}

// queueModel makes the operations that ops encode on a queue and on its model, and compares them
// after each.
func queueModel(t *testing.T, ops []byte) {
	if len(ops) == 0 {
		return
	}
	synctest.Test(t, func(t *testing.T) {
		var line line[int]
		q := queue[int]{limit: int(ops[0] % 9), watched: true, line: &line}
		tickets := map[int]*ticket{}
		m := modelQueue{limit: q.limit, told: map[int]string{}}
		stop := make(chan struct{})
		var lines sync.Pool
		cancels := map[int]context.CancelFunc{}
		var mu sync.Mutex
		told := map[int]string{}
		next := 0
		for i, op := range ops[1:] {
			k := int(op>>4) % 5
			q.mu.Lock()
			switch op % 8 {
			case 0, 1: // submit, and wait if there is no room
				next++
				id := next
				if q.closed || !q.fullLocked() {
					if !q.closed {
						tickets[id] = new(ticket)
						q.putLocked(id, tickets[id])
						m.ring = append(m.ring, id)
					}
					q.mu.Unlock()
					break
				}
				m.line = append(m.line, id)
				tickets[id] = new(ticket)
				place := tickets[id]
				ctx, cancel := context.WithCancel(context.Background())
				cancels[id] = cancel
				if op%8 == 1 {
					ctx = context.Background() // a wait without select, until the end
					delete(cancels, id)
				}
				q.mu.Unlock()
				entered := make(chan struct{})
				go func() {
					defer cancel()
					q.mu.Lock()
					w := line.add(&lines, id, place)
					q.mu.Unlock()
					close(entered)
					var halt chan struct{}
					if op%8 == 0 {
						halt = stop
					}
					err := line.await(ctx, halt, &lines, w)
					mu.Lock()
					defer mu.Unlock()
					switch err {
					case nil:
						told[id] = "granted"
					case ErrClosed:
						told[id] = "refused"
					default:
						told[id] = "cancelled"
					}
				}()
				<-entered
			case 2: // the newest for the oldest
				if !q.closed && len(m.ring) > 0 {
					next++
					oldest, ok := q.replaceLocked(next)
					require.True(t, ok)
					require.Equal(t, m.ring[0], oldest, "step %d", i)
					m.ring = append(m.ring[1:], next)
				}
				q.unlock()
			case 3:
				if !q.closed {
					var es []int
					for range min(k, q.roomLocked()) {
						next++
						es = append(es, next)
					}
					q.putAllLocked(es)
					m.ring = append(m.ring, es...)
				}
				q.unlock()
			case 4:
				got := make([]int, k)
				got = got[:q.popLocked(got)]
				q.unlock()
				want := m.ring[:min(k, len(m.ring))]
				require.Equal(t, append([]int{}, want...), got, "step %d", i)
				m.ring = m.ring[len(want):]
				if len(want) > 0 {
					m.popped()
				}
			case 5:
				e, ok := q.popOneLocked()
				q.unlock()
				require.Equal(t, len(m.ring) > 0, ok, "step %d", i)
				if ok {
					require.Equal(t, m.ring[0], e)
					m.ring = m.ring[1:]
					m.popped()
				}
			case 6: // a producer gives up
				q.mu.Unlock()
				for n, id := range m.line {
					if cancel := cancels[id]; cancel != nil && n >= k%len(m.line) {
						cancel()
						m.line = slices.Delete(m.line, n, n+1)
						m.told[id] = "cancelled"
						break
					}
				}
			default:
				q.mu.Unlock()
				q.trim()
				if k == 1 && len(m.ring) > 0 { // one of those that wait is withdrawn, perhaps
					n := int(op) % len(m.ring)
					if place := tickets[m.ring[n]]; place != nil {
						q.withdraw(place)
						m.ring = slices.Delete(m.ring, n, n+1)
						m.popped()
					}
				}
				if k == 2 { // one that has left is withdrawn in vain
					for _, place := range tickets {
						if place.at != nil && !slices.ContainsFunc(m.ring, func(id int) bool { return tickets[id] == place }) {
							q.withdraw(place)
						}
					}
				}
				if k == 3 && !q.closed { // what was taken comes back, in front
					q.mu.Lock()
					got := make([]int, 3)
					got = got[:q.popLocked(got)]
					m.ring = m.ring[len(got):]
					if len(got) > 0 {
						m.popped()
					}
					q.putBackLocked(got)
					for _, id := range got {
						delete(tickets, id)
					}
					q.unlock()
					m.ring = append(got, m.ring...)
				}
				if op == 255 {
					q.close()
					line.close()
					m.closed = true
					for _, id := range m.line {
						m.told[id] = "refused"
					}
					m.line = nil
				}
			}
			synctest.Wait()
			require.Equal(t, m.told, told, "step %d", i)
			require.Equal(t, len(m.ring) > 0, q.some.Load(), "step %d", i)
			q.mu.Lock()
			require.Equal(t, m.full(), q.fullLocked(), "step %d", i)
			require.Equal(t, len(m.ring), q.lenLocked(), "step %d", i)
			var waits []int
			for w := line.first; w != nil; w = w.next {
				waits = append(waits, w.item)
			}
			q.mu.Unlock()
			require.Equal(t, append([]int{}, m.line...), append([]int{}, waits...), "step %d", i)
			require.EqualValues(t, len(waits), line.n.Load())
		}
		q.close()
		line.close()
		synctest.Wait()
		require.Equal(t, append([]int{}, m.ring...), append([]int{}, q.drain()...))
		require.False(t, q.some.Load())
		require.Nil(t, q.ring)
		if w, _ := lines.Get().(*waiter[int]); w != nil {
			require.Zero(t, w.item, "a waiter keeps a finished task alive")
		}
	})
}

// TestQueueModel: ring, limit and line of waiting producers do what a slice would.
func TestQueueModel(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 7))
		ops := make([]byte, 10+rng.IntN(150))
		for i := range ops {
			ops[i] = byte(rng.Uint32())
		}
		queueModel(t, ops)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// FuzzQueue looks for operations that TestQueueModel does not make.
func FuzzQueue(f *testing.F) {
	f.Add([]byte{2, 0, 1, 0, 0, 6, 5, 5, 4, 255})
	f.Fuzz(func(t *testing.T, ops []byte) { queueModel(t, ops[:min(len(ops), 500)]) })
}

// TestMailboxModel: over many rounds with random batches, panics, Goexit and ends, what one
// producer gave one mailbox runs in its order, and what did not run comes back in its order, behind
// it. Nothing is missing between the two.
func TestMailboxModel(t *testing.T) {
	rounds := 300
	for seed := range uint64(rounds) {
		mailboxRound(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func mailboxRound(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 9))
	p := NewOrdered(Config{Workers: 1 + rng.IntN(3), OnPanic: func(PanicInfo) {}})
	const producers, boxes, each = 3, 3, 80
	var ms [boxes]*Mailbox
	for i := range ms {
		ms[i] = p.NewMailbox([]int{-1, 3, 40}[rng.IntN(3)])
	}
	var seen [boxes][producers][]int // guarded by the order under test; by the end of the pool after it
	accepted := [boxes][producers][]int{}
	var wg sync.WaitGroup
	collecting := false
	for who := range producers {
		mine := rand.New(rand.NewPCG(seed, uint64(who)+10))
		wg.Go(func() {
			for id := 0; id < each; {
				box := mine.IntN(boxes)
				var ts []Task
				for range 1 + mine.IntN(20) {
					what, n := mine.IntN(40), id
					ts = append(ts, func() {
						seen[box][who] = append(seen[box][who], n)
						if collecting {
							return
						}
						switch what {
						case 0:
							panic("task")
						case 1:
							runtime.Goexit()
						case 2:
							runtime.Gosched()
						}
					})
					id++
				}
				first, took := id-len(ts), 0
				switch mine.IntN(4) {
				case 0:
					if ms[box].Post(ts...) == nil {
						took = len(ts)
					}
				case 1:
					took, _ = ms[box].SubmitN(context.Background(), ts...)
				case 2:
					for took < len(ts) && ms[box].Submit(context.Background(), ts[took]) == nil {
						took++
					}
				default:
					for took < len(ts) && ms[box].TrySubmit(ts[took]) == nil {
						took++
					}
				}
				for n := range took {
					accepted[box][who] = append(accepted[box][who], first+n)
				}
			}
		})
	}
	var left []Task
	end, stop := context.WithCancel(context.Background())
	stop()
	switch rng.IntN(3) {
	case 0:
		wg.Wait()
	case 1:
		for range rng.IntN(300) {
			runtime.Gosched()
		}
		left, _ = p.Shutdown(end)
	default:
		for range rng.IntN(300) {
			runtime.Gosched()
		}
		if err, _ := p.Close().(*LeftError[Task]); err != nil {
			left = err.Left
		}
	}
	wg.Wait()
	rest, err := p.Shutdown(context.Background())
	require.NoError(t, err)
	require.Empty(t, rest)
	if err, _ := p.Close().(*LeftError[Task]); err != nil {
		left = append(left, err.Left...)
	}
	collecting = true
	for _, task := range left {
		task()
	}
	require.Equal(t, accepted, seen)
}
