// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// bothSystems runs a test with the functions of this system and again with the stub, which must
// give the same results or a clean "unsupported".
func bothSystems(t *testing.T, f func(t *testing.T, stub bool)) {
	t.Run("system=host", func(t *testing.T) { f(t, false) })
	if twin := twinSystem(); twin != nil {
		t.Run("system=twin", func(t *testing.T) {
			use(t, twin)
			f(t, false)
		})
	}
	t.Run("system=stub", func(t *testing.T) {
		useStub(t)
		f(t, true)
	})
}

// use makes s the system for one test. Tests that use it must not run in parallel.
func use(t *testing.T, s *system) {
	old := sys
	sys = s
	t.Cleanup(func() { sys = old })
}

func useStub(t *testing.T) { use(t, &stubSystem) }

// own returns an address of IPv4 loopback on which a port that was just closed is taken by nobody
// else meanwhile.
func own() string {
	if runtime.GOOS == "linux" {
		return "127.9.8.7"
	}
	return "127.0.0.1"
}

// refusal waits until the refusal of a datagram has come back, where this can be seen. The kernel
// that has much to do takes its time, also on loopback.
func refusal(t testing.TB, c *net.UDPConn) {
	t.Helper()
	rc, err := c.SyscallConn()
	require.NoError(t, err)
	eventually(t, "a refusal comes back", func() bool {
		var state State
		var err error
		require.NoError(t, control(rc, func(fd uintptr) error { state, err = hostSystem.alive(fd); return nil }))
		return err != nil || state == Broken
	})
}

// fewestAllocs is testing.AllocsPerRun, three times: other goroutines of the process allocate too.
// What f allocates itself shows each time.
func fewestAllocs(runs int, f func()) float64 {
	return min(testing.AllocsPerRun(runs, f), testing.AllocsPerRun(runs, f), testing.AllocsPerRun(runs, f))
}

// families runs a test over IPv4 and, where the machine has it, IPv6.
func families(t *testing.T, f func(t *testing.T, loopback string)) {
	t.Run("ip=4", func(t *testing.T) { f(t, own()) })
	t.Run("ip=6", func(t *testing.T) {
		l, err := net.Listen("tcp6", "[::1]:0")
		if err != nil {
			t.Skip("no IPv6 loopback here:", err)
		}
		l.Close()
		f(t, "::1")
	})
}

// testContext ends with the test, or after long enough that a hang is found.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// pair returns two ends of a connection over network ("tcp", "unix").
func pair(t testing.TB, network string) (near, far net.Conn) {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = shortDir(t) + "/s"
	}
	l, err := net.Listen(network, addr)
	require.NoError(t, err)
	defer l.Close()
	type accepted struct {
		c   net.Conn
		err error
	}
	ch := make(chan accepted, 1)
	go func() {
		c, err := l.Accept()
		ch <- accepted{c, err}
	}()
	near, err = net.Dial(network, l.Addr().String())
	require.NoError(t, err)
	a := <-ch
	require.NoError(t, a.err)
	t.Cleanup(func() { near.Close(); a.c.Close() })
	return near, a.c
}

// shortDir is t.TempDir with a path that leaves room for the name of a socket.
func shortDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "nx")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// listenUDP opens a UDP socket on a free port of loopback.
func listenUDP(t testing.TB, loopback string) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(loopback), 0)))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// eventually waits for a state of the kernel that no call reports.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// inNetns runs f in a network namespace of its own, on one locked thread: every socket that f
// opens itself is in there, every goroutine that it starts is not. It is skipped where the machine
// does not allow it.
func inNetns(t *testing.T, f func(t *testing.T, ip func(args ...string))) {
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip command:", err)
	}
	done := make(chan struct{})
	var unshareErr error
	t.Run("netns", func(t *testing.T) {
		t.Cleanup(func() {})
		go func() {
			defer close(done)
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			if unshareErr = unshareNet(); unshareErr != nil {
				return
			}
			f(t, func(args ...string) {
				out, err := exec.Command("ip", args...).CombinedOutput()
				if err != nil {
					t.Errorf("ip %v: %v: %s", args, err, bytes.TrimSpace(out))
				}
			})
		}()
		<-done
		if unshareErr != nil {
			t.Skip("no network namespace:", unshareErr)
		}
	})
}
