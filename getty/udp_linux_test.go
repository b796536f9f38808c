// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// inOwnNet runs a test in a process of its own, whose network is its own. Inside, run does a
// command there. It is skipped where the machine does not allow it.
func inOwnNet(t *testing.T, f func(t *testing.T, run func(command string))) {
	const inside = "GETTY_TEST_OWN_NET"
	if os.Getenv(inside) == t.Name() {
		f(t, func(command string) {
			t.Helper()
			args := strings.Fields(command)
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			require.NoError(t, err, "%s: %s", command, out)
		})
		return
	}
	need(t, true, "unshare", "ip", "tc")
	try := "ip link set lo up && tc qdisc add dev lo root tbf rate 1mbit burst 2kb limit 100kb && " +
		"ip link add veth1 type veth peer name veth2"
	if out, err := exec.Command("unshare", "-n", "sh", "-c", try).CombinedOutput(); err != nil {
		t.Skipf("no network namespace, tbf or veth: %v %s", err, out)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "-n", self, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "%s", out)
}

// addLink gives an own network its loopback and the device veth1, which has the address 198.18.0.1.
// Nobody listens behind it.
func addLink(sh func(string)) {
	sh("ip link set lo up")
	sh("ip link add veth1 type veth peer name veth2")
	sh("ip addr add 198.18.0.1/24 dev veth1")
	sh("ip link set veth2 up")
	sh("ip link set veth1 up")
}

// On a full link a package with timeout 0 is sent or refused at once, one with a timeout waits no
// longer than that, and the endpoint goes on to read while many handlers write.
//
// case: 27
func TestUDPFullLink(t *testing.T) {
	inOwnNet(t, func(t *testing.T, sh func(string)) {
		// The endpoint's answers of 1 kB leave by a line that takes one in 40 ms.
		addLink(sh)
		sh("ip neigh add 198.18.0.2 lladdr 02:00:00:00:00:02 dev veth1")
		sh("tc qdisc add dev veth1 root tbf rate 200kbit burst 2kb limit 1mb")
		far := getty.UDPContext{Pkg: strings.Repeat("x", 1000)}
		far.PeerAddr = (&net.UDPAddr{IP: net.IPv4(198, 18, 0, 2), Port: 9}).AddrPort()

		for _, d := range []getty.Dispatch{getty.Inline, getty.Unordered} {
			l := newTracer(t)
			l.unordered = d == getty.Unordered
			var blocked, expired, handled atomic.Int32
			l.message = func(s getty.Session, pkg any) {
				timeout := time.Duration(0)
				if pkg.(getty.UDPContext).Pkg == "wait" {
					timeout = time.Millisecond
				}
				switch _, _, err := s.WritePkg(far, timeout); err {
				case nil:
				case getty.ErrSessionBlocked:
					blocked.Add(1)
				case getty.ErrWriteTimeout:
					expired.Add(1)
				default:
					t.Error(err)
				}
				handled.Add(1)
			}
			srv, s := endpoint(t, l, l.opened, getty.WithLocalAddress("0.0.0.0:0"), getty.WithServerDispatch(d),
				func(o *getty.ServerOptions) { o.Socket.WriteBuffer = 16 << 10 })
			c := udpSocket(t, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: srv.Addr().(*net.UDPAddr).Port})
			const n = 100
			for i := range n {
				p := "now"
				if i%2 == 1 {
					p = "wait"
				}
				_, err := c.Write([]byte(p))
				require.NoError(t, err)
				// Beside those, which may wait, others are handled.
				eventually(t, "the endpoint reads", func() bool { return int(s.Stats().Reads) > i-20 })
			}
			eventually(t, "all are handled", func() bool { return handled.Load() == n })
			require.Positive(t, blocked.Load())
			require.Positive(t, expired.Load())

			// Those who want to wait get their turn, one after the other, while nobody keeps the
			// encoder.
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					if _, _, err := s.WritePkg(far, patience); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			srv.Close()
			within(t, srv.Done(), "Done")
		}
	})
}

// The address of this host that a client uses vanishes and another one comes: the session ends with
// the next write, and the client dials again from the new one. Without a route for a while, it
// stays.
//
// case: 28
func TestUDPOwnAddressVanishes(t *testing.T) {
	inOwnNet(t, func(t *testing.T, sh func(string)) {
		addLink(sh)
		l := newTracer(t)
		client := getty.NewUDPClient(getty.WithServerAddress("198.18.0.9:9"),
			getty.WithReconnectInterval(time.Millisecond), func(o *getty.ClientOptions) {
				o.UDP.NoProbe, o.ReconnectMax = true, 50*time.Millisecond
			})
		run(t, client, prepare(l, rawCodec{}))
		s := within(t, l.opened, "OnOpen")
		require.Contains(t, s.LocalAddr(), "198.18.0.1:")

		sh("ip route del 198.18.0.0/24 dev veth1")
		_, _, err := s.WritePkg("x", 0)
		require.Error(t, err)
		require.False(t, s.IsClosed(), "a route may come back: %v", err)
		sh("ip route add 198.18.0.0/24 dev veth1")
		_, _, err = s.WritePkg("x", 0)
		require.NoError(t, err)

		sh("ip addr add 198.18.0.2/24 dev veth1")
		sh("ip addr del 198.18.0.1/24 dev veth1")
		sh("ip addr replace 198.18.0.2/24 dev veth1") // it goes with the first one, of which it was a secondary
		_, _, err = s.WritePkg("x", 0)
		require.Error(t, err)
		require.Equal(t, s, within(t, l.closed, "OnClose"))
		require.Error(t, s.Err())
		s = within(t, l.opened, "the next session")
		require.Contains(t, s.LocalAddr(), "198.18.0.2:")
		_, _, err = s.WritePkg("x", 0)
		require.NoError(t, err)
	})
}
