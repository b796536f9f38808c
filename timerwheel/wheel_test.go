// SPDX-License-Identifier: Apache-2.0

package timerwheel

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAfterFuncFiresAtItsTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(Config{Executor: Inline})
		defer w.Close()
		begin := time.Now()
		for _, d := range []time.Duration{-1, 0, 1, time.Millisecond, 63 * time.Millisecond,
			64 * time.Millisecond, 65*time.Millisecond + 1, time.Second, time.Hour, 1000 * time.Hour} {
			w.AfterFunc(d, func() {
				want := (max(d, 0) + time.Millisecond - 1).Truncate(time.Millisecond)
				require.Equal(t, want, time.Since(begin), "fired for %v", d)
			})
		}
		time.Sleep(1001 * time.Hour)
		synctest.Wait()
		require.Equal(t, uint64(10), w.Stats().Fired, "Fired")
		require.Zero(t, w.Stats().Pending, "Pending")
	})
}
