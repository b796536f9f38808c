// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestShortTasksAgain: a pool whose tasks were long takes items along again when each worker has
// begun many since the last look, although its queue is not empty; and not while they stay long.
// case: 1
func TestShortTasksAgain(t *testing.T) {
	p := NewShared(Config{Workers: 1})
	defer p.Close()
	p.long.Store(true)
	held, next := make(chan struct{}, 2), make(chan struct{})
	defer close(next) // before Close waits for the worker
	hold := func() { held <- struct{}{}; <-next }
	submit := func(task Task) { require.NoError(t, p.TrySubmit(task)) }
	submit(hold)
	for range 2 * batchLen {
		submit(func() {})
	}
	submit(hold)
	submit(func() {}) // the queue is never empty
	<-held
	require.True(t, p.longTasks(false), "one task begun")
	next <- struct{}{}
	<-held
	require.False(t, p.longTasks(false), "many tasks begun")
	require.False(t, p.long.Load())
	require.True(t, p.longTasks(true), "an item was put back")
	require.True(t, p.longTasks(false), "none begun since")
}
