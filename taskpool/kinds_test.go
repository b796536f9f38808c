// SPDX-License-Identifier: Apache-2.0

package taskpool_test

import (
	"context"
	"testing"

	"github.com/gostkit/kit/taskpool"
)

// pool is what the tests need of every kind; keyed kinds get their keys from a counter.
type pool interface {
	taskpool.Pool
	Go(t taskpool.Task) error
	SubmitN(ctx context.Context, ts ...taskpool.Task) (int, error)
	Do(ctx context.Context, t taskpool.Task) error
	Resize(n int)
	Stats() taskpool.Stats
	Stopped() <-chan struct{}
	Shutdown(ctx context.Context) ([]taskpool.Task, error)
	Close() error
}

// oneKey makes a pool whose tasks all have the same key look like one without keys.
type oneKey struct{ *taskpool.Keyed }

func (p oneKey) Submit(ctx context.Context, t taskpool.Task) error { return p.Keyed.Submit(ctx, 1, t) }
func (p oneKey) TrySubmit(t taskpool.Task) error                   { return p.Keyed.TrySubmit(1, t) }
func (p oneKey) Go(t taskpool.Task) error                          { return p.Keyed.Go(1, t) }
func (p oneKey) Do(ctx context.Context, t taskpool.Task) error     { return p.Keyed.Do(ctx, 1, t) }
func (p oneKey) SubmitN(ctx context.Context, ts ...taskpool.Task) (int, error) {
	return p.Keyed.SubmitN(ctx, 1, ts...)
}

// orderedKey is the same for Ordered.
type orderedKey struct{ *taskpool.Ordered }

func (p orderedKey) Submit(ctx context.Context, t taskpool.Task) error { return p.SubmitKey(ctx, 1, t) }
func (p orderedKey) TrySubmit(t taskpool.Task) error                   { return p.TrySubmitKey(1, t) }
func (p orderedKey) Go(t taskpool.Task) error                          { return p.GoKey(1, t) }
func (p orderedKey) Do(ctx context.Context, t taskpool.Task) error     { return p.DoKey(ctx, 1, t) }
func (p orderedKey) SubmitN(ctx context.Context, ts ...taskpool.Task) (int, error) {
	return p.SubmitKeyN(ctx, 1, ts...)
}

// byFunc makes a Func of tasks look like a pool of tasks.
type byFunc struct {
	*taskpool.Func[taskpool.Task]
}

func (p byFunc) Do(ctx context.Context, t taskpool.Task) error {
	done := make(chan struct{})
	if err := p.Submit(ctx, func() { defer close(done); t() }); err != nil {
		return err
	}
	<-done
	return nil
}

type kind struct {
	name    string
	ordered bool // refuses CallerRuns and Spawn
	serial  bool // one task at a time
	make    func(cfg taskpool.Config) pool
}

var kinds = []kind{
	{"shared", false, false, func(cfg taskpool.Config) pool { return taskpool.NewShared(cfg) }},
	{"stealing", false, false, func(cfg taskpool.Config) pool { return taskpool.NewStealing(cfg) }},
	{"sharded", false, false, func(cfg taskpool.Config) pool { return taskpool.NewSharded(cfg) }},
	{"elastic", false, false, func(cfg taskpool.Config) pool { return taskpool.NewElastic(cfg) }},
	{"func", false, false, func(cfg taskpool.Config) pool {
		return byFunc{taskpool.NewFunc(cfg, func(t taskpool.Task) { t() })}
	}},
	{"ordered", true, false, func(cfg taskpool.Config) pool { return taskpool.NewOrdered(cfg) }},
	{"ordered-key", true, true, func(cfg taskpool.Config) pool { return orderedKey{taskpool.NewOrdered(cfg)} }},
	{"keyed-key", true, true, func(cfg taskpool.Config) pool { return oneKey{taskpool.NewKeyed(cfg)} }},
}

// forKinds runs a test for every kind of pool.
func forKinds(t *testing.T, f func(t *testing.T, k kind)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { f(t, k) })
	}
}
