// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/gettytest"
	"github.com/gostkit/kit/netx"
	"github.com/stretchr/testify/require"
)

// A client's connections come from its Dial: here they are in memory, over both protocols.
func TestDialHook(t *testing.T) {
	for name, c := range map[string]struct {
		server func(...getty.ServerOption) *getty.Server
		client func(...getty.ClientOption) *getty.Client
		addr   string
		asked  string
	}{
		"tcp": {getty.NewTCPServer, getty.NewTCPClient, "a.test:7", "a.test:7"},
		"ws":  {getty.NewWSServer, getty.NewWSClient, "ws://a.test/", "a.test:80"},
	} {
		t.Run(name, func(t *testing.T) {
			ln := gettytest.Listen()
			echo, l := newTracer(t), newTracer(t)
			echo.message = echoPkg
			got := make(chan any, 1)
			l.message = func(_ getty.Session, pkg any) { got <- pkg }
			run(t, c.server(func(o *getty.ServerOptions) { o.Listener = ln }), prepare(echo))

			var network, addr atomic.Value
			client := c.client(getty.WithServerAddress(c.addr), func(o *getty.ClientOptions) {
				o.Dial = func(ctx context.Context, n, a string) (net.Conn, error) {
					network.Store(n)
					addr.Store(a)
					return ln.Dial(ctx)
				}
			})
			run(t, client, prepare(l))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			s, err := client.Ready(ctx)
			require.NoError(t, err)
			require.Equal(t, "tcp", network.Load())
			require.Equal(t, c.asked, addr.Load())
			_, _, err = s.WritePkg("hello", 0)
			require.NoError(t, err)
			within(t, got, "the echo")
		})
	}
}

// A Dial that panics, calls Goexit, or returns nothing has failed: the client dials again.
func TestDialHookFails(t *testing.T) {
	for name, fail := range map[string]func(){
		"panic": func() { panic("dial") }, "goexit": runtime.Goexit, "nothing": func() {},
	} {
		t.Run(name, func(t *testing.T) {
			ln := gettytest.Listen()
			run(t, getty.NewTCPServer(func(o *getty.ServerOptions) { o.Listener = ln }),
				prepare(newTracer(t)))
			var calls atomic.Int64
			c := connect(t, newTracer(t), "a.test:7", func(o *getty.ClientOptions) {
				o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
					if calls.Add(1) == 1 {
						fail()
						return nil, nil
					}
					return ln.Dial(ctx)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := c.Ready(ctx)
			require.NoError(t, err)
			require.EqualValues(t, 2, calls.Load())
			require.EqualValues(t, 1, c.Stats().DialErrs)
		})
	}
}

// Socket options cannot be set on what Dial returns.
func TestDialHookTakesNoSocketOptions(t *testing.T) {
	c := getty.NewTCPClient(getty.WithServerAddress("a.test:7"), func(o *getty.ClientOptions) {
		o.Socket = netx.SocketOptions{ReadBuffer: 1 << 16}
		o.Dial = (&net.Dialer{}).DialContext
	})
	require.ErrorContains(t, c.RunEventLoop(prepare(newTracer(t))), "Socket")
}
