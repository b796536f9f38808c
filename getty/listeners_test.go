// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/netx"
	"github.com/stretchr/testify/require"
)

// Servers share a port, each with a listener of its own among which the kernel spreads the connections.
func TestServersOfOnePort(t *testing.T) {
	const shards, peers = 4, 200
	lns, err := netx.ListenN(t.Context(), "tcp", "127.0.0.1:0", shards)
	if err != nil {
		t.Skip("the system does not share ports:", err)
	}
	var servers []*getty.Server
	for _, ln := range lns {
		l := newCrowdEcho(t)
		servers = append(servers, serve(t, prepare(l), getty.WithListener(ln)))
	}
	for range peers {
		echoOnce(t, dial(t, servers[0])) // the address of all of them
	}
	total, used := 0, 0
	for _, srv := range servers {
		n := int(srv.Stats().Opened)
		total += n
		if n > 0 {
			used++
		}
	}
	require.Equal(t, peers, total)
	if runtime.GOOS == "linux" { // others give all to the latest
		require.Equal(t, shards, used)
	}
}

// WebSocket works over a Unix socket too: the server with a listener, the client with a Dial.
func TestWebSocketOverUnix(t *testing.T) {
	path := unixPath()
	ln, err := netx.ListenUnix(t.Context(), path, netx.UnixOptions{})
	require.NoError(t, err)
	defer os.Remove(path)
	sl, got := newTracer(t), make(chan struct{}, 1)
	sl.message = echoPkg
	run(t, getty.NewWSServer(getty.WithListener(ln)), prepare(sl))
	cl := newTracer(t)
	cl.message = func(getty.Session, any) { got <- struct{}{} }
	client := getty.NewWSClient(getty.WithServerAddress("ws://localhost/"), func(o *getty.ClientOptions) {
		o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	})
	run(t, client, prepare(cl))
	s := ready(t, client)
	require.Equal(t, "unix", s.Conn().LocalAddr().Network())
	_, _, err = s.WritePkg("hello", 0)
	require.NoError(t, err)
	within(t, got, "the echo")
}

// A socket that another process, such as systemd, has opened serves.
func TestServerOfAnInheritedSocket(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f, err := netx.File(ln)
	if err != nil {
		t.Skip("descriptors cannot be handed over by number here")
	}
	require.NoError(t, ln.Close())
	in, err := netx.FromFile(f) // as FromSystemd does with those that it was given
	require.NoError(t, err)
	require.NoError(t, f.Close())
	l := newCrowdEcho(t)
	echoOnce(t, dial(t, serve(t, prepare(l), getty.WithListener(in.Listener))))
}
