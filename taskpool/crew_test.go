// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"testing"
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
