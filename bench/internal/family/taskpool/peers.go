// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/alitto/pond/v2"
	"github.com/bytedance/gopkg/util/gopool"
	gxsync "github.com/dubbogo/gost/sync"
	"github.com/gammazero/workerpool"
	"github.com/gostkit/kit/taskpool"
	"github.com/panjf2000/ants/v2"
	"golang.org/x/sync/errgroup"
)

// target is a pool as the load sees it: submit waits for room where the pool has a limit.
type target struct {
	submit func(i int, t taskpool.Task)
	close  func()
}

type subject struct {
	name, module string
	open         func(workers int) target
}

const (
	queueLen = 1024
	keys     = 1000
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

var bg = context.Background()

var pools = []subject{
	{"ours-shared", "", func(workers int) target {
		p := taskpool.NewShared(config(workers))
		return target{func(_ int, t taskpool.Task) { must(p.Submit(bg, t)) }, func() { p.Close() }}
	}},
	{"ours-func", "", func(workers int) target {
		p := taskpool.NewFunc(config(workers), func(t taskpool.Task) { t() })
		return target{func(_ int, t taskpool.Task) { must(p.Submit(bg, t)) }, func() { p.Close() }}
	}},
	{"ours-stealing", "", func(workers int) target {
		p := taskpool.NewStealing(config(workers))
		return target{func(_ int, t taskpool.Task) { must(p.Submit(bg, t)) }, func() { p.Close() }}
	}},
	{"ours-sharded", "", func(workers int) target {
		cfg := config(workers)
		cfg.Queues = 2 * runtime.GOMAXPROCS(0)
		p := taskpool.NewSharded(cfg)
		return target{func(_ int, t taskpool.Task) { must(p.Submit(bg, t)) }, func() { p.Close() }}
	}},
	{"ours-elastic", "", func(int) target {
		p := taskpool.NewElastic(taskpool.Config{})
		return target{func(_ int, t taskpool.Task) { must(p.Submit(bg, t)) }, func() { p.Close() }}
	}},
	{"ours-ordered-1000keys", "", func(workers int) target {
		p := taskpool.NewOrdered(config(workers))
		return target{
			func(i int, t taskpool.Task) { must(p.SubmitKey(bg, taskpool.Key(i%keys), t)) },
			func() { p.Close() },
		}
	}},
	{"ours-mailbox", "", func(workers int) target {
		p := taskpool.NewOrdered(config(workers))
		boxes := make([]*taskpool.Mailbox, keys)
		for i := range boxes {
			boxes[i] = p.NewMailbox(0)
		}
		return target{func(i int, t taskpool.Task) { must(boxes[i%keys].Submit(bg, t)) }, func() { p.Close() }}
	}},
	{"ours-keyed-1000keys", "", func(workers int) target {
		p := taskpool.NewKeyed(config(workers))
		return target{
			func(i int, t taskpool.Task) { must(p.Submit(bg, taskpool.Key(i%keys), t)) },
			func() { p.Close() },
		}
	}},
	{"floor", "", func(int) target {
		return target{func(_ int, t taskpool.Task) { t() }, func() {}}
	}},
	{"go", "", func(int) target {
		return target{func(_ int, t taskpool.Task) { go t() }, func() {}}
	}},
	{"channel", "", func(workers int) target {
		tasks := make(chan taskpool.Task, queueLen)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for t := range tasks {
					t()
				}
			})
		}
		return target{func(_ int, t taskpool.Task) { tasks <- t }, func() { close(tasks); wg.Wait() }}
	}},
	{"errgroup", "golang.org/x/sync", func(workers int) target {
		var g errgroup.Group
		g.SetLimit(workers)
		return target{
			func(_ int, t taskpool.Task) { g.Go(func() error { t(); return nil }) },
			func() { must(g.Wait()) },
		}
	}},
	{"ants", "github.com/panjf2000/ants/v2", func(workers int) target {
		p, err := ants.NewPool(workers)
		must(err)
		return target{func(_ int, t taskpool.Task) { must(p.Submit(t)) }, func() { must(p.ReleaseTimeout(10 * time.Second)) }}
	}},
	{"pond", "github.com/alitto/pond/v2", func(workers int) target {
		p := pond.NewPool(workers, pond.WithQueueSize(queueLen))
		return target{func(_ int, t taskpool.Task) { must(p.Go(t)) }, p.StopAndWait}
	}},
	{"gopool", "github.com/bytedance/gopkg", func(workers int) target {
		p := gopool.NewPool("bench", int32(min(workers, math.MaxInt32)), gopool.NewConfig())
		return target{func(_ int, t taskpool.Task) { p.Go(t) }, func() {}}
	}},
	{"gammazero", "github.com/gammazero/workerpool", func(workers int) target {
		p := workerpool.New(workers)
		return target{func(_ int, t taskpool.Task) { p.Submit(t) }, p.StopWait}
	}},
	{"gost", "github.com/dubbogo/gost", func(workers int) target {
		p := gxsync.NewTaskPool(gxsync.WithTaskPoolTaskPoolSize(workers),
			gxsync.WithTaskPoolTaskQueueLength(queueLen),
			gxsync.WithTaskPoolTaskQueueNumber(runtime.GOMAXPROCS(0)))
		return target{func(_ int, t taskpool.Task) {
			if !p.AddTask(t) {
				panic("refused")
			}
		}, p.Close}
	}},
	{"gost-simple", "github.com/dubbogo/gost", func(workers int) target {
		p := gxsync.NewTaskPoolSimple(workers)
		return target{func(_ int, t taskpool.Task) {
			if !p.AddTask(t) {
				panic("refused")
			}
		}, p.Close}
	}},
}

func config(workers int) taskpool.Config {
	return taskpool.Config{Workers: workers, QueueLen: queueLen}
}
