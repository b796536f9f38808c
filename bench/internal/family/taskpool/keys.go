// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/taskpool"
)

// perKey is one way to run the tasks of each key in order.
type perKey struct {
	name string
	open func(keys int) target
}

// handQueue is the room of each channel written by hand: enough that one producer rarely waits,
// and a hundredth of what a mailbox may grow to, because a channel allocates all of it at once.
const handQueue = 16

// byKey finds the order through a map, by owner holds the mailbox or channel itself, as a session
// does. What users write by hand is a goroutine and a channel for each key.
var byKey, byOwner = []perKey{
	{"ours", func(int) target {
		p := taskpool.NewOrdered(taskpool.Config{Workers: runtime.GOMAXPROCS(0), QueueLen: queueLen})
		return target{
			func(i int, t taskpool.Task) { must(p.SubmitKey(bg, taskpool.Key(i), t)) },
			func() { p.Close() },
		}
	}},
	{"goroutines", func(int) target {
		var mu sync.RWMutex
		queues := map[int]chan taskpool.Task{}
		var wg sync.WaitGroup
		submit := func(i int, t taskpool.Task) {
			mu.RLock()
			q := queues[i]
			mu.RUnlock()
			if q == nil {
				mu.Lock()
				if q = queues[i]; q == nil {
					q = handMade(&wg)
					queues[i] = q
				}
				mu.Unlock()
			}
			q <- t
		}
		return target{submit, func() {
			for _, q := range queues {
				close(q)
			}
			wg.Wait()
		}}
	}},
}, []perKey{
	{"ours", func(keys int) target {
		p := taskpool.NewOrdered(taskpool.Config{Workers: runtime.GOMAXPROCS(0), QueueLen: queueLen})
		boxes := make([]*taskpool.Mailbox, keys)
		for i := range boxes {
			boxes[i] = p.NewMailbox(0)
		}
		return target{
			func(i int, t taskpool.Task) { must(boxes[i].Submit(bg, t)) },
			func() { p.Close() },
		}
	}},
	{"goroutines", func(keys int) target {
		var wg sync.WaitGroup
		queues := make([]chan taskpool.Task, keys)
		for i := range queues {
			queues[i] = handMade(&wg)
		}
		return target{func(i int, t taskpool.Task) { queues[i] <- t }, func() {
			for _, q := range queues {
				close(q)
			}
			wg.Wait()
		}}
	}},
}

func handMade(wg *sync.WaitGroup) chan taskpool.Task {
	q := make(chan taskpool.Task, handQueue)
	wg.Go(func() {
		for t := range q {
			t()
		}
	})
	return q
}

// manyKeys is empty tasks of 10 000 keys in turn: time and processor time per task, and the memory
// that a key holds while it has no task.
func manyKeys(name string, ways []perKey) harness.Case {
	const keys = 10_000
	c := harness.Case{Name: fmt.Sprintf("%s=%d", name, keys), Unit: "cpu-ns/op"}
	for _, way := range ways {
		c.Subjects = append(c.Subjects, harness.Subject{Name: way.name,
			Measure: func(r *harness.Run) (harness.Sample, error) { return measureKeys(way.open, keys, r.Budget) }})
	}
	return c
}

// measureKeys runs tasks of keys in turn for about budget.
func measureKeys(open func(int) target, keys int, budget time.Duration) (harness.Sample, error) {
	before := liveBytes()
	t := open(keys)
	defer t.close()
	n := new(counter)
	tasks := n.tasks(func() {})
	next := 0
	work := func(count int) {
		for count > 0 {
			k := min(count, chunk)
			n.expect(k)
			for range k {
				t.submit(next%keys, tasks[next%len(tasks)])
				next++
			}
			n.await(false)
			count -= k
		}
	}
	work(keys) // every key has been used once
	bytes := liveBytes() - before
	cpu, err := harness.CPUTime()
	if err != nil {
		return harness.Sample{}, harness.Failed("%v", err)
	}
	start, ops := time.Now(), 0
	for time.Since(start) < budget {
		work(chunk)
		ops += chunk
	}
	took := time.Since(start)
	after, err := harness.CPUTime()
	if err != nil {
		return harness.Sample{}, harness.Failed("%v", err)
	}
	return harness.Sample{}.
		Add("cpu-ns/op", float64((after-cpu).Nanoseconds())/float64(ops)).
		Add("ns/op", float64(took.Nanoseconds())/float64(ops)).
		Add("B/key", float64(max(0, bytes))/float64(keys)), nil
}

// liveBytes is the memory of live objects and of stacks.
func liveBytes() int64 {
	runtime.GC()
	runtime.GC() // what the first one finds in a sync.Pool, the second one frees
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
