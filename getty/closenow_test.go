// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// While a Reader or an inline callback is at work, CloseNow shuts the connection down and returns,
// and the descriptor is free when that has returned; OnMessage of other dispatches keeps nothing.
func TestCloseNowWhileACallbackIsAtWork(t *testing.T) {
	freed := func(s getty.Session) bool {
		rc, err := s.Conn().(syscall.Conn).SyscallConn()
		return err != nil || rc.Control(func(uintptr) {}) != nil
	}
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				for _, where := range []string{"OnMessage", "Reader"} {
					stuck, release := make(chan struct{}), make(chan struct{})
					wait := sync.OnceFunc(func() { close(stuck); <-release })
					let := sync.OnceFunc(func() { close(release) })
					t.Cleanup(let) // else a failure would wait for the callback
					l, peer := newTracer(t), newTracer(t)
					l.unordered = d == getty.Unordered
					codec := &stuckReader{ReadWriter: frames, wait: func() {}}
					if where == "Reader" {
						codec.wait = wait
					} else {
						l.message = func(getty.Session, any) { wait() }
					}
					srv := c.server(getty.WithServerDispatch(d))
					run(t, srv, func(s getty.Session) error {
						return errors.Join(s.SetEventListener(l), s.SetPkgHandler(codec))
					})
					client := c.client(srv.Addr().String(), func(o *getty.ClientOptions) {
						o.ReconnectInterval, o.ReconnectMax = time.Hour, time.Hour
					})
					run(t, client, prepare(peer))
					_, _, err := ready(t, client).WritePkg("x", 0)
					require.NoError(t, err)
					s := within(t, l.opened, "OnOpen")
					within(t, stuck, where)
					s.CloseNow()
					within(t, peer.closed, "the peer's OnClose, while "+where+" is at work")
					if where == "OnMessage" && d != getty.Inline {
						eventually(t, "the descriptor is free", func() bool { return freed(s) })
					}
					require.Empty(t, l.closed, "OnClose waits for "+where)
					let()
					within(t, l.closed, "OnClose")
					require.True(t, freed(s), "the descriptor is free before OnClose")
					client.Close()
					srv.Close()
				}
			})
		})
	}
}

// A stuckReader waits before it reads.
type stuckReader struct {
	getty.ReadWriter
	wait func()
}

func (r *stuckReader) Read(s getty.Session, b []byte) (any, int, error) {
	r.wait()
	return r.ReadWriter.Read(s, b)
}
