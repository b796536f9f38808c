// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/bytedance/gopkg/lang/mcache"
	"github.com/gostkit/kit/bytespool"
	"github.com/valyala/bytebufferpool"
)

// One op is one Get, touch and Put on one goroutine. The figure to read is min-ns/op, the cheapest
// of many windows of a few microseconds: it stays the same while other programs run on the machine,
// which a mean does not. The four take turns within one row, so that a slow minute hits all alike.
func BenchmarkQuietest(b *testing.B) {
	const window = 1000
	for _, size := range sizes {
		fixed := newFixed(size)
		var buffers bytebufferpool.Pool
		subjects := []struct {
			name string
			run  func()
		}{
			{"ours", func() {
				for range window {
					p := bytespool.Get(size)
					touch(p, size)
					bytespool.Put(p)
				}
			}},
			{"mcache", func() {
				for range window {
					p := mcache.Malloc(size)
					touch(p, size)
					mcache.Free(p)
				}
			}},
			{"bytebufferpool", func() {
				for range window {
					p := buffers.Get()
					resize(p, size)
					touch(p.B, size)
					buffers.Put(p)
				}
			}},
			{"sync.Pool-fixed", func() {
				for range window {
					p := fixed.Get().(*[]byte)
					touch(*p, size)
					fixed.Put(p)
				}
			}},
		}
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			best := make([]time.Duration, len(subjects))
			for i := range best {
				best[i] = math.MaxInt64
			}
			for b.Loop() {
				for i, s := range subjects {
					start := time.Now()
					s.run()
					best[i] = min(best[i], time.Since(start))
				}
			}
			for i, s := range subjects {
				b.ReportMetric(float64(best[i])/window, s.name+"-min-ns")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
