// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// listenInfo opens a UDP socket with packet info where the system has it.
func listenInfo(t testing.TB, network, addr string) (*PacketConn, *net.UDPConn) {
	t.Helper()
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		if err := EnablePacketInfo(network, address, c); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		return nil
	}}
	pc, err := lc.ListenPacket(context.Background(), network, addr)
	if err != nil {
		t.Skip(err)
	}
	c := pc.(*net.UDPConn)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	p, err := NewPacketConn(c)
	require.NoError(t, err)
	return p, c
}

// A socket without an address of its own says at which it was asked, and answers from there: a
// connected peer hears nothing else.
// case: 26
func TestPacketInfo(t *testing.T) {
	asked := []string{"127.0.0.1", "127.0.0.2", "127.9.9.9"}
	if runtime.GOOS != "linux" {
		asked = asked[:1]
	}
	bothSystems(t, func(t *testing.T, stub bool) {
		for _, c := range []struct {
			network, addr string
			asked         []string
		}{
			{"udp4", "0.0.0.0:0", asked},
			{"udp4", "127.0.0.1:0", asked[:1]},
			{"udp", "[::]:0", append([]string{"::1"}, asked...)}, // both families
			{"udp6", "[::1]:0", []string{"::1"}},
		} {
			t.Run(c.network+c.addr, func(t *testing.T) {
				p, conn := listenInfo(t, c.network, c.addr)
				port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
				for _, ip := range c.asked {
					client, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(ip), port).String())
					if err != nil {
						t.Skip(err)
					}
					defer client.Close()
					require.NoError(t, client.SetDeadline(time.Now().Add(time.Minute)))
					_, err = client.Write([]byte("ask"))
					require.NoError(t, err)
					b := make([]byte, 8)
					n, from, local, truncated, err := p.Read(b)
					require.NoError(t, err)
					require.False(t, truncated)
					require.Equal(t, "ask", string(b[:n]))
					require.Equal(t, client.LocalAddr().String(), from.String())
					if stub || runtime.GOOS != "linux" {
						require.False(t, local.IsValid())
						err := p.TryWrite([]byte("x"), from, netip.MustParseAddr(ip))
						require.ErrorIs(t, err, errors.ErrUnsupported)
						continue
					}
					require.Equal(t, ip, local.String())
					require.NoError(t, p.TryWrite([]byte("answer"), from, local))
					n, err = client.Read(b)
					require.NoError(t, err)
					require.Equal(t, "answer", string(b[:n]))
					// Mapped addresses mean the same.
					mapped := netip.AddrFrom16(local.As16())
					to := netip.AddrPortFrom(netip.AddrFrom16(from.Addr().As16()), from.Port())
					require.NoError(t, p.TryWrite([]byte("again"), to, mapped))
					n, err = client.Read(b)
					require.NoError(t, err)
					require.Equal(t, "again", string(b[:n]))
					// What does not fit says so.
					_, err = client.Write(make([]byte, 9))
					require.NoError(t, err)
					n, _, local, truncated, err = p.Read(b)
					require.NoError(t, err)
					require.Equal(t, 8, n)
					require.True(t, truncated)
					require.Equal(t, ip, local.String())
				}
			})
		}
	})
}

// A datagram that cannot be sent is an error of its own, whatever the reason.
// case: 26
func TestPacketConnErrors(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		p, conn := listenInfo(t, "udp4", "127.0.0.1:0")
		four, six := netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("[::1]:9")
		require.Error(t, p.TryWrite([]byte("x"), four, netip.MustParseAddr("::1")), "two families")
		require.Error(t, p.TryWrite([]byte("x"), six, netip.Addr{}), "IPv6 on an IPv4 socket")
		require.Error(t, p.TryWrite([]byte("x"), four, netip.MustParseAddr("192.0.2.1")), "not an address of this host")
		require.ErrorIs(t, p.TryWrite(make([]byte, 1<<16), four, netip.Addr{}), syscall.EMSGSIZE)
		err := p.TryWrite([]byte("x"), four, netip.Addr{})
		require.NoError(t, err, "the socket goes on")
		conn.Close()
		require.ErrorIs(t, p.TryWrite([]byte("x"), four, netip.Addr{}), net.ErrClosed)
		require.ErrorIs(t, p.AwaitWritable(), net.ErrClosed)
		_, _, _, _, err = p.Read(make([]byte, 8))
		require.ErrorIs(t, err, net.ErrClosed)
		_, err = NewPacketConn(conn)
		require.Error(t, err)
	})
}

func TestPacketConnAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under the race detector")
	}
	for _, addr := range []string{"127.0.0.1:0", "[::]:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			p, conn := listenInfo(t, "udp", addr)
			to := conn.LocalAddr().(*net.UDPAddr).AddrPort()
			if to.Addr().IsUnspecified() {
				to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
			}
			b := make([]byte, 64)
			local := to.Addr().Unmap()
			if runtime.GOOS != "linux" {
				local = netip.Addr{}
			}
			require.Zero(t, fewestAllocs(100, func() {
				err := p.TryWrite(b, to, local)
				if err == nil {
					_, _, local, _, err = p.Read(b)
				}
				if err != nil {
					t.Fatal(err)
				}
			}))
		})
	}
}

// inOwnNet runs a test in a process of its own, whose threads all are in a network namespace of
// their own; inside, ip runs commands. It is skipped where the machine does not allow it.
func inOwnNet(t *testing.T, f func(t *testing.T, sh func(args ...string))) {
	const inside = "NETX_TEST_OWN_NET"
	sh := func(args ...string) {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		require.NoError(t, err, "%v: %s", args, out)
	}
	if os.Getenv(inside) == t.Name() {
		sh("ip", "link", "set", "lo", "up")
		f(t, sh)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, cmd := range []string{"unshare", "ip", "tc"} {
		if _, err := exec.LookPath(cmd); err != nil {
			t.Skip(err)
		}
	}
	try := "ip link set lo up && tc qdisc add dev lo root tbf rate 1mbit burst 2kb limit 100kb && " +
		"ip link add veth1 type veth peer name veth2"
	if out, err := exec.Command("unshare", "-n", "sh", "-c", try).CombinedOutput(); err != nil {
		t.Skipf("no network namespace, tbf or veth: %v %s", err, out)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(testContext(t), "unshare", "-n", self,
		"-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "50s")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name(), "%s", out)
}

// A full link costs no writer any time: the datagram is refused, and who wants to can wait for
// room, beside readers and other writers.
// case: 27
func TestTryWriteOnAFullLink(t *testing.T) {
	inOwnNet(t, func(t *testing.T, sh func(...string)) {
		sh("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "400kbit", "burst", "3kb", "limit", "1mb")
		server, _ := listenInfo(t, "udp4", "127.0.0.1:0")
		for _, connected := range []bool{false, true} {
			t.Run(fmt.Sprint("connected=", connected), func(t *testing.T) {
				to := server.c.LocalAddr().(*net.UDPAddr)
				var c *net.UDPConn
				var err error
				if connected {
					c, err = net.DialUDP("udp4", nil, to)
				} else {
					c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
				}
				require.NoError(t, err)
				defer c.Close()
				require.NoError(t, c.SetWriteBuffer(16<<10))
				p, err := NewPacketConn(c)
				require.NoError(t, err)
				peer := to.AddrPort()
				if connected {
					peer = netip.AddrPort{}
				}
				b, sent := make([]byte, 1000), 0
				for err == nil && sent < 1000 {
					if err = p.TryWrite(b, peer, netip.Addr{}); err == nil {
						sent++
					}
				}
				require.Equal(t, ErrWouldBlock, err)
				waited := make(chan error)
				go func() { waited <- p.AwaitWritable() }()
				for range 10 { // beside one that waits
					if err := p.TryWrite(b, peer, netip.Addr{}); err != nil {
						require.Equal(t, ErrWouldBlock, err)
					} else {
						sent++ // the line took one meanwhile
					}
				}
				require.NoError(t, <-waited)
				require.NoError(t, p.TryWrite(b, peer, netip.Addr{}))
				for range sent + 1 {
					_, _, _, _, err := server.Read(b)
					require.NoError(t, err, "what was accepted arrives")
				}
				// A waiter is woken by the end of the socket.
				for err = nil; err == nil; {
					err = p.TryWrite(b, peer, netip.Addr{})
				}
				go func() { waited <- p.AwaitWritable() }()
				c.Close()
				if err := <-waited; err != nil { // else there was room already
					require.ErrorIs(t, err, net.ErrClosed)
				}
			})
		}
	})
}

// case: 28
func TestNeedsNewSocket(t *testing.T) {
	_, addr := listenUDP(t, "127.0.0.1")
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	require.NoError(t, err)
	defer c.Close()
	wrapped := func(errno syscall.Errno) error {
		return &net.OpError{Op: "write", Net: "udp", Err: os.NewSyscallError("sendmsg", errno)}
	}
	for _, errno := range socketErrors {
		require.True(t, NeedsNewSocket(c, wrapped(errno)), "%v", errno)
	}
	for _, errno := range routeErrors {
		require.False(t, NeedsNewSocket(c, wrapped(errno)), "the address is there: %v", errno)
	}
	for _, err := range []error{
		nil, net.ErrClosed, os.ErrDeadlineExceeded, ErrWouldBlock, wrapped(syscall.ENOBUFS),
		wrapped(syscall.EMSGSIZE), wrapped(syscall.EPERM), wrapped(syscall.EACCES), wrapped(syscall.ECONNREFUSED),
	} {
		require.False(t, NeedsNewSocket(c, err), "%v", err)
	}
}

// What the kernel says when the address of a connected socket, its device or its route goes away.
// case: 28
func TestOwnAddressVanishes(t *testing.T) {
	inOwnNet(t, func(t *testing.T, sh func(...string)) {
		setUp := func() *net.UDPConn {
			sh("ip", "link", "add", "veth1", "type", "veth", "peer", "name", "veth2")
			sh("ip", "addr", "add", "198.18.0.1/24", "dev", "veth1")
			sh("ip", "link", "set", "veth2", "up")
			sh("ip", "link", "set", "veth1", "up")
			c, err := net.Dial("udp4", "198.18.0.9:9")
			require.NoError(t, err)
			t.Cleanup(func() { c.Close() })
			_, err = c.Write([]byte("x"))
			require.NoError(t, err)
			return c.(*net.UDPConn)
		}
		for _, gone := range [][]string{
			{"ip", "addr", "del", "198.18.0.1/24", "dev", "veth1"},
			{"ip", "link", "del", "veth1"},
			{"ip", "addr", "flush", "dev", "veth1"},
		} {
			c := setUp()
			sh(gone...)
			_, err := c.Write([]byte("x"))
			require.Error(t, err, "%v", gone)
			require.True(t, NeedsNewSocket(c, err), "%v: %v", gone, err)
			_ = exec.Command("ip", "link", "del", "veth1").Run()
		}
		c := setUp()
		sh("ip", "route", "del", "198.18.0.0/24")
		_, err := c.Write([]byte("x"))
		require.Error(t, err)
		require.False(t, NeedsNewSocket(c, err), "a route may come back: %v", err)
		sh("ip", "route", "add", "198.18.0.0/24", "dev", "veth1")
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
	})
}
