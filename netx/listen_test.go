// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// boundTo returns the address that a listener has.
func boundTo(l any) netip.AddrPort {
	switch l := l.(type) {
	case net.Listener:
		ap, _ := ipAddrPort(l.Addr())
		return ap
	case net.PacketConn:
		ap, _ := ipAddrPort(l.LocalAddr())
		return ap
	}
	return netip.AddrPort{}
}

// listenRandom is ListenRandom of either family of networks.
func listenRandom(t *testing.T, network, host string, r PortRange) (interface{ Close() error }, error) {
	if network[:3] == "tcp" {
		l, err := ListenRandom(testContext(t), network, host, r)
		return l, err
	}
	c, err := ListenPacketRandom(testContext(t), network, host, r)
	return c, err
}

// What is bound is what was asked for, above all not every interface for a name.
// acceptance: B03
func TestListenRandomHosts(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		for _, c := range []struct{ version, host, want string }{
			{"", "localhost", "127.0.0.1"}, {"4", "localhost", "127.0.0.1"}, {"6", "localhost", "::1"},
			{"", "LocalHost.", "127.0.0.1"},
			{"", "127.0.0.1", "127.0.0.1"}, {"", "127.0.0.5", "127.0.0.5"}, {"4", "127.0.0.1", "127.0.0.1"},
			{"", "::ffff:127.0.0.1", "127.0.0.1"},
			{"", "::1", "::1"}, {"6", "::1", "::1"},
			{"", "0.0.0.0", "0.0.0.0"}, {"", "::", "::"}, {"6", "::", "::"}, {"", "", "::"}, {"4", "",
				"0.0.0.0"},
			{"6", "127.0.0.1", ""}, {"4", "::1", ""}, {"4", "::", ""}, {"6", "0.0.0.0", ""},
			{"", "no such host", ""}, {"", "300.1.1.1", ""}, {"", "127.0.0.1:80", ""}, {"", "192.0.2.77",
				""},
			{"5", "127.0.0.1", ""},
		} {
			for _, family := range []string{"tcp", "udp"} {
				l, err := listenRandom(t, family+c.version, c.host, PortRange{})
				if c.want == "" {
					require.Error(t, err, "listen on %s, %q", family+c.version, c.host)
					var oe *net.OpError
					require.ErrorAs(t, err, &oe)
					require.NotNil(t, oe.Err, "listen on %s, %q", family+c.version, c.host)
					continue
				}
				if err != nil && netip.MustParseAddr(c.want).Is6() {
					t.Log("no IPv6 here:", err)
					continue
				}
				require.NoError(t, err, "listen on %s, %q", family+c.version, c.host)
				require.Equal(t, c.want, boundTo(l).Addr().String(), "listen on %s, %q", family+c.version, c.host)
				require.NotZero(t, boundTo(l).Port())
				l.Close()
			}
		}
	})
}

func TestListenRandomRange(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		first := uint16(20000 + os.Getpid()%1500*8) // another run of this test has another range
		r := PortRange{first, first + 7}
		var open []interface{ Close() error }
		seen := map[uint16]bool{}
		var err error
		for range 9 {
			var l interface{ Close() error }
			if l, err = listenRandom(t, network, "127.0.0.1", r); err != nil {
				break
			}
			open = append(open, l)
			p := boundTo(l).Port()
			require.True(t, r.Min <= p && p <= r.Max, "port %d", p)
			require.False(t, seen[p], "port %d given twice", p)
			seen[p] = true
		}
		require.ErrorIs(t, err, syscall.EADDRINUSE, "when the range is used up")
		require.ErrorContains(t, err, fmt.Sprintf("%d-%d", r.Min, r.Max))
		require.GreaterOrEqual(t, len(open), 4, "most of the range is free on a test machine")
		open[2].Close()
		l, err := listenRandom(t, network, "127.0.0.1", r)
		require.NoError(t, err, "one port is free again")
		require.Equal(t, boundTo(open[2]).Port(), boundTo(l).Port())
		open[2] = l
		for _, l := range open {
			l.Close()
		}
		for _, bad := range []PortRange{{5, 4}, {0, 4}} {
			_, err := listenRandom(t, network, "127.0.0.1", bad)
			require.ErrorContains(t, err, "invalid port range")
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := ListenRandom(ctx, "tcp", "127.0.0.1", PortRange{28100, 28107})
	require.ErrorIs(t, err, context.Canceled)
}

func canShare(t *testing.T) {
	l, err := ListenReusePort(testContext(t), "tcp", "127.0.0.1:0")
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("listeners cannot share a port here")
	}
	require.NoError(t, err)
	l.Close()
}

// All shards of one address get connections, and closing one leaves the others.
// Port 0 has many spellings, and a port may be a name.
func TestListenNPortSpellings(t *testing.T) {
	canShare(t)
	ctx := testContext(t)
	for _, port := range []string{"", "0", "00", "+0", "-0"} {
		ls, err := ListenN(ctx, "tcp", "127.0.0.1:"+port, 2)
		require.NoError(t, err, "port %q", port)
		require.Equal(t, ls[0].Addr().String(), ls[1].Addr().String(), "port %q", port)
		cs, err := ListenPacketN(ctx, "udp", "127.0.0.1:"+port, 2)
		require.NoError(t, err, "port %q", port)
		require.Equal(t, cs[0].LocalAddr().String(), cs[1].LocalAddr().String(), "port %q", port)
		other, err := ListenPacketN(ctx, "udp", "127.0.0.1:"+port, 1)
		require.NoError(t, err, "port %q", port)
		require.NotEqual(t, cs[0].LocalAddr().String(), other[0].LocalAddr().String(), "port %q", port)
		for _, c := range []interface{ Close() error }{ls[0], ls[1], cs[0], cs[1], other[0]} {
			c.Close()
		}
	}
	for _, port := range []string{"-1", "65536", "nosuchservice"} {
		_, err := ListenN(ctx, "tcp", "127.0.0.1:"+port, 2)
		require.Error(t, err, "port %q", port)
	}
}

func TestListenN(t *testing.T) {
	canShare(t)
	families(t, func(t *testing.T, loopback string) {
		const n = 3
		ls, err := ListenN(testContext(t), "tcp", net.JoinHostPort(loopback, "0"), n)
		require.NoError(t, err)
		require.Len(t, ls, n)
		addr := ls[0].Addr().String()
		got := make(chan int)
		for i, l := range ls {
			require.Equal(t, addr, l.Addr().String())
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						got <- -1
						return
					}
					c.Close()
					got <- i
				}
			}()
		}
		seen := map[int]int{}
		dial := func() {
			c, err := net.Dial("tcp", addr)
			require.NoError(t, err)
			seen[<-got]++
			c.Close()
		}
		for i := 0; len(seen) < n && i < 500; i++ {
			dial()
		}
		require.Len(t, seen, n, "every shard was given a connection")
		ls[0].Close()
		require.Equal(t, -1, <-got)
		clear(seen)
		for range 20 {
			dial()
		}
		require.NotContains(t, seen, 0)
		for _, l := range ls[1:] {
			l.Close()
			<-got
		}
	})
}

// Every peer's datagrams go to one shard, and all shards get peers: also the first one, which joins
// the group after it was bound.
func TestListenPacketN(t *testing.T) {
	canShare(t)
	families(t, func(t *testing.T, loopback string) {
		const n = 3
		cs, err := ListenPacketN(testContext(t), "udp", net.JoinHostPort(loopback, "0"), n)
		require.NoError(t, err)
		addr := boundTo(cs[0])
		got := make(chan int)
		for i, c := range cs {
			require.Equal(t, addr, boundTo(c))
			go func() {
				for {
					if _, _, _, err := ReadUDP(c, make([]byte, 8)); err != nil {
						got <- -1
						return
					}
					got <- i
				}
			}()
		}
		seen := map[int]bool{}
		for i := 0; len(seen) < n && i < 500; i++ {
			peer, _, err := DialUDP(testContext(t), "udp", addr.String(), Probe{})
			require.NoError(t, err)
			peer.Write([]byte("1"))
			shard := <-got
			peer.Write([]byte("2"))
			require.Equal(t, shard, <-got, "one peer, one shard")
			seen[shard] = true
			peer.Close()
		}
		require.Len(t, seen, n, "every shard was given a peer")
		for _, c := range cs {
			c.Close()
			<-got
		}
	})
}

// A second set on the same port of the same user shares it, a plain listener does not.
func TestListenReusePort(t *testing.T) {
	canShare(t)
	for _, network := range []string{"tcp", "udp"} {
		open := func(addr string) (interface{ Close() error }, error) {
			if network == "tcp" {
				l, err := ListenReusePort(testContext(t), network, addr)
				return l, err
			}
			c, err := ListenPacketReusePort(testContext(t), network, addr)
			return c, err
		}
		first, err := open("localhost:0")
		require.NoError(t, err)
		addr := boundTo(first)
		require.Equal(t, "127.0.0.1", addr.Addr().String())
		second, err := open(addr.String())
		require.NoError(t, err)
		_, err = listenRandom(t, network, "127.0.0.1", PortRange{addr.Port(), addr.Port()})
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		first.Close()
		second.Close()

		plain, err := listenRandom(t, network, "127.0.0.1", PortRange{})
		require.NoError(t, err)
		_, err = open(boundTo(plain).String())
		require.ErrorIs(t, err, syscall.EADDRINUSE)
		plain.Close()
	}
}

func TestListenNErrors(t *testing.T) {
	for _, c := range []struct {
		network, addr string
		n             int
	}{
		{"tcp", "127.0.0.1:0", 0}, {"tcp", "127.0.0.1:0", -1}, {"tcp", "127.0.0.1", 1}, {"udp",
			"127.0.0.1:0", 1},
		{"unix", "/tmp/x", 1}, {"tcp", "no such host:0", 1}, {"tcp4", "[::1]:0", 1}, {"tcp",
			"127.0.0.1:99999", 1},
	} {
		ls, err := ListenN(testContext(t), c.network, c.addr, c.n)
		require.Error(t, err, "ListenN(%q, %q, %d)", c.network, c.addr, c.n)
		require.Nil(t, ls)
	}
	_, err := ListenPacketN(testContext(t), "tcp", "127.0.0.1:0", 1)
	require.Error(t, err)

	useStub(t)
	_, err = ListenN(testContext(t), "tcp", "127.0.0.1:0", 2)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = ListenPacketN(testContext(t), "udp", "127.0.0.1:0", 2)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = ListenReusePort(testContext(t), "tcp", "127.0.0.1:0")
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// With SO_REUSEPORT set before any port was asked for, the kernel may give two sets of UDP sockets
// the same port, and each would get some of the other's datagrams. Ten ports show it.
func TestListenPacketNPortsAreOwn(t *testing.T) {
	canShare(t)
	inNetns(t, func(t *testing.T, ip func(...string)) {
		ip("link", "set", "lo", "up")
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("41000 41009"), 0); err != nil {
			t.Error(err)
			return
		}
		seen := map[uint16]bool{}
		for range 8 {
			cs, err := ListenPacketN(context.Background(), "udp", "127.0.0.1:0", 2)
			if err != nil {
				t.Error(err)
				return
			}
			p := boundTo(cs[0]).Port()
			if seen[p] || boundTo(cs[1]).Port() != p {
				t.Errorf("port %d was given to two sets", p)
			}
			seen[p] = true
			for _, c := range cs {
				defer c.Close()
			}
		}
	})
}

func TestListenConfigHooks(t *testing.T) {
	called := ""
	lc := ListenConfig{Net: net.ListenConfig{Control: func(network, _ string, _ syscall.RawConn) error {
		called += network + " "
		return nil
	}}}
	l, err := lc.Random(testContext(t), "tcp", "127.0.0.1", PortRange{})
	require.NoError(t, err)
	l.Close()
	lc.Net.Control = func(string, string, syscall.RawConn) error { return errors.New("hook says no") }
	_, err = lc.PacketRandom(testContext(t), "udp", "127.0.0.1", PortRange{})
	require.ErrorContains(t, err, "hook says no")
	require.Equal(t, "tcp4 ", called)
}

// If one shard cannot be opened, those before it are closed.
func TestListenNClosesOnError(t *testing.T) {
	canShare(t)
	calls := 0
	var addr string
	lc := ListenConfig{Net: net.ListenConfig{Control: func(_, address string, _ syscall.RawConn) error {
		addr = address
		if calls++; calls > 2 {
			return errors.New("hook says no")
		}
		return nil
	}}}
	ls, err := lc.N(testContext(t), "tcp", "127.0.0.1:0", 3)
	require.ErrorContains(t, err, "hook says no")
	require.Nil(t, ls)
	l, err := net.Listen("tcp", addr)
	require.NoError(t, err, "the port is free again")
	l.Close()
}

// A port that may not be bound (privileged, reserved) is passed over like one that is taken.
func TestListenRandomForbiddenPort(t *testing.T) {
	calls := 0
	lc := ListenConfig{Net: net.ListenConfig{Control: func(string, string, syscall.RawConn) error {
		if calls++; calls == 1 {
			return errNoAccess
		}
		return nil
	}}}
	first := uint16(34000 + os.Getpid()%500*8)
	l, err := lc.Random(testContext(t), "tcp", "127.0.0.1", PortRange{first, first + 7})
	require.NoError(t, err)
	require.GreaterOrEqual(t, calls, 2)
	l.Close()
}
