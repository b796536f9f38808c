// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestShortTasksAgain: a pool whose tasks were long takes items along again when they are short,
// also while its queue never becomes empty.
// case: 1
func TestShortTasksAgain(t *testing.T) {
	p := NewShared(Config{Workers: 2})
	defer p.Close()
	p.long.Store(true)
	p.overdue.Store(true)
	p.armOverdue()
	for deadline := time.Now().Add(30 * time.Second); p.long.Load(); runtime.Gosched() {
		require.True(t, time.Now().Before(deadline), "still takes nothing along")
		for p.TrySubmit(func() {}) == nil {
		}
	}
}
