// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// A setter takes effect at once, also where its limit runs already: WaitTime in a Close that waits
// for the peer to read or to end.
//
// case: 40
func TestWaitTimeOfACloseThatHasBegun(t *testing.T) {
	hour := func(o *getty.ServerOptions) { o.WaitTime, o.WriteTimeout = time.Hour, time.Hour }
	eachSocket(t, func(t *testing.T, w wire) {
		begin := func(t *testing.T, full bool) (wirePeer, getty.Session) {
			l := newTracer(t)
			srv := w.server(t, hour)
			run(t, srv, prepare(l))
			p := w.dial(t, srv)
			s := within(t, l.opened, "OnOpen")
			if full {
				fill(t, s, strings.Repeat("x", 64<<10))
			}
			s.Close()
			return p, s
		}
		for name, full := range map[string]bool{"nothing to flush": false, "a full queue": true} {
			for _, d := range []time.Duration{20 * time.Millisecond, -1} {
				t.Run(name+"/"+d.String(), func(t *testing.T) {
					_, s := begin(t, full)
					s.SetWaitTime(d)
					within(t, s.Done(), "the end")
				})
			}
		}
		t.Run("longer", func(t *testing.T) {
			p, s := begin(t, false)
			s.SetWaitTime(200 * time.Millisecond)
			s.SetWaitTime(time.Hour)
			select {
			case <-s.Done():
				t.Fatal("it did not wait")
			case <-time.After(300 * time.Millisecond):
			}
			_, _ = p.conn.Write(p.end())
			_ = p.conn.CloseWrite()
			_, _ = io.Copy(io.Discard, p.conn)
			within(t, s.Done(), "the end")
			require.NoError(t, s.Err())
		})
	})
}
