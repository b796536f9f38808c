// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// Writers that wait at the high mark are served in the order in which they came. Those that come later come after
// them, although there is room every now and then; one that fails or gives up holds up nobody.
//
// case: 24
func TestWaitingWritersAreServedInOrder(t *testing.T) {
	const writers, group, latecomers = 64, 16, 8
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
		for _, line := range peerLines[3:4] { // a pipe: what it takes is what the peer reads
			t.Run(fmt.Sprint(d, " ", line.name), func(t *testing.T) {
				var wg sync.WaitGroup
				t.Cleanup(wg.Wait) // after the session's end
				p := strings.Repeat("p", 8<<10)
				l := newTracer(t)
				c, s := line.connect(t, l, func(o *getty.ServerOptions) {
					o.Dispatch = d
					o.HighWater, o.WriteTimeout = 64<<10, patience
				})
				// The kernel takes a little more now and then, for as long as its timers make it look.
				for calm := 0; calm < 6; calm++ {
					if fill(t, s, "filler"+p) > 0 {
						calm = 0
					}
				}
				impatient, give := context.WithCancel(context.Background())
				defer give()
				for i := range writers {
					wg.Go(func() {
						var pkg any = fmt.Sprintf("%08d", i) + p
						ctx := context.Background()
						switch i % group {
						case 3:
							ctx = impatient
						case 5:
							pkg = 5 // which the codec refuses
						}
						_, _, err := s.WritePkgContext(ctx, pkg)
						if (err != nil) != (i%group == 3 || i%group == 5) {
							t.Error(i, err)
						}
					})
					eventually(t, "it waits", func() bool { return getty.InLine(s) == i+1 })
				}
				give()
				eventually(t, "the impatient have gone", func() bool { return getty.InLine(s) == writers-writers/group })
				next := 0
				for {
					pkg, err := c.read()
					require.NoError(t, err)
					if strings.HasPrefix(pkg, "filler") {
						continue
					}
					if strings.HasPrefix(pkg, "late") {
						break
					}
					for next%group == 3 || next%group == 5 {
						next++
					}
					require.Equal(t, fmt.Sprintf("%08d", next), pkg[:8])
					if next++; next == 1 {
						for range latecomers { // others are still in line
							wg.Go(func() {
								if _, _, err := s.WritePkg("late"+p, -1); err != nil {
									t.Error(err)
								}
							})
						}
					}
				}
				require.Equal(t, writers, next, "those who come late come last")
				for range latecomers - 1 {
					pkg, err := c.read()
					require.NoError(t, err)
					require.Equal(t, "late", pkg[:4])
				}
				wg.Wait()
			})
		}
	}
}

// A handler that does not wait gets its answers into the queue beside those who do, although there is always
// somebody in line.
//
// case: 24
func TestAnswersBesideWaitingWriters(t *testing.T) {
	const answers = 200
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
		t.Run(d.String(), func(t *testing.T) {
			p := strings.Repeat("p", 4<<10)
			l := newTracer(t)
			l.message = func(s getty.Session, pkg any) {
				for { // the others may fill the queue at any time, but they do not come first each time
					_, _, err := s.WritePkg("answer"+p, 0)
					if err == nil {
						return
					}
					if !errors.Is(err, getty.ErrSessionBlocked) {
						t.Error(err)
						return
					}
					time.Sleep(10 * time.Microsecond) // those who read need the processor too
				}
			}
			c, s := stall(t, l, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
				o.HighWater, o.WriteTimeout = 64<<10, patience
				o.Socket.WriteBuffer = 16 << 10
			})
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for range 64 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if _, _, err := s.WritePkg("push"+p, -1); err != nil {
							return
						}
					}
				})
			}
			eventually(t, "writers wait", func() bool { return getty.InLine(s) > 8 })
			go func() {
				for i := range answers {
					_, _ = c.Write(numbered(i))
				}
			}()
			for got := 0; got < answers; {
				if strings.HasPrefix(readFrame(t, c), "answer") {
					got++
				}
			}
			close(stop)
			go func() {
				for {
					if _, err := tryReadFrame(c); err != nil {
						return
					}
				}
			}()
			wg.Wait()
		})
	}
}
