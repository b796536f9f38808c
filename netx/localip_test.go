// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"net/netip"
	"os/exec"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLocalIPLoopback(t *testing.T) {
	ctx := testContext(t)
	for _, o := range []LocalIPOptions{
		{Route: "127.0.0.1"}, {Route: "127.0.0.1", Family: IPv4}, {Route: "localhost", Family: IPv4},
		{Route: "::ffff:127.0.0.1"}, {Prefix: netip.MustParsePrefix("127.0.0.0/8")},
		{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Family: IPv4},
		{Prefix: netip.MustParsePrefix("::ffff:127.0.0.0/104")},
	} {
		ip, err := LocalIP(ctx, o)
		require.NoError(t, err, "%+v", o)
		require.Equal(t, "127.0.0.1", ip.String(), "%+v", o)
	}
	for _, o := range []LocalIPOptions{
		{Route: "127.0.0.1", Family: IPv6}, {Interface: "nosuch0"},
		{Prefix: netip.MustParsePrefix("233.252.0.0/24")}, // no host can have a multicast address
		{Prefix: netip.MustParsePrefix("127.0.0.0/8"), Family: IPv6},
	} {
		ip, err := LocalIP(ctx, o)
		require.ErrorIs(t, err, ErrNoAddress, "%+v", o)
		require.False(t, ip.IsValid())
	}
	for _, o := range []LocalIPOptions{
		{Family: 7}, {Family: -1}, {Route: "127.0.0.1", Interface: "lo"},
		{Prefix: netip.PrefixFrom(netip.MustParseAddr("127.0.0.0"), 33)}, // no prefix, and not none
	} {
		_, err := LocalIP(ctx, o)
		require.ErrorIs(t, err, syscall.EINVAL, "%+v", o)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err := LocalIP(cancelled, LocalIPOptions{Route: "127.0.0.1"})
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrNoAddress, "nobody looked")
}

// The answer follows the routes, the name and the prefix, and never a guess.
func TestLocalIPInNetns(t *testing.T) {
	inNetns(t, func(t *testing.T, ip func(...string)) {
		ctx := context.Background()
		is := func(want string, o LocalIPOptions) {
			t.Helper()
			got, err := LocalIP(ctx, o)
			switch {
			case want == "" && err == nil:
				t.Errorf("LocalIP(%+v) = %v, want none", o, got)
			case want != "" && (err != nil || got.String() != want):
				t.Errorf("LocalIP(%+v) = %v, %v, want %s", o, got, err, want)
			}
		}
		is("", LocalIPOptions{})
		is("", LocalIPOptions{Interface: "lo"}) // is down
		ip("addr", "add", "10.7.7.7/32", "dev", "lo")
		is("", LocalIPOptions{Interface: "lo"}) // has an address, but is down
		ip("addr", "del", "10.7.7.7/32", "dev", "lo")
		ip("link", "set", "lo", "up")
		is("127.0.0.1", LocalIPOptions{Interface: "lo"})
		is("::1", LocalIPOptions{Interface: "lo", Family: IPv6})
		is("", LocalIPOptions{})
		// A link-local address, with its zone, goes before loopback, a global one before both, and IPv4
		// before IPv6 of the same kind.
		ip("addr", "add", "fe80::7/64", "dev", "lo")
		is("fe80::7%lo", LocalIPOptions{Interface: "lo", Family: IPv6})
		is("fe80::7%lo", LocalIPOptions{Interface: "lo"})
		ip("addr", "add", "169.254.7.7/16", "dev", "lo", "scope", "link")
		is("169.254.7.7", LocalIPOptions{Interface: "lo"})
		ip("addr", "add", "2001:db8:7::7/64", "dev", "lo")
		is("2001:db8:7::7", LocalIPOptions{Interface: "lo"})
		ip("addr", "add", "10.7.7.7/32", "dev", "lo")
		is("10.7.7.7", LocalIPOptions{Interface: "lo"})
		is("2001:db8:7::7", LocalIPOptions{Interface: "lo", Family: IPv6})
		for _, a := range []string{"fe80::7/64", "169.254.7.7/16", "2001:db8:7::7/64", "10.7.7.7/32"} {
			ip("addr", "del", a, "dev", "lo")
		}
		is("127.0.0.1", LocalIPOptions{Interface: "lo"})

		if out, err := exec.Command("ip", "link", "add", "docker0", "type", "veth", "peer", "name", "wan0").CombinedOutput(); err != nil {
			t.Skipf("no veth: %s", out)
		}
		for _, args := range [][]string{
			{"addr", "add", "172.17.0.1/16", "dev", "docker0"},
			{"addr", "add", "10.9.8.7/24", "dev", "wan0"},
			{"addr", "add", "10.9.8.8/24", "dev", "wan0"},
			{"addr", "add", "2001:db8:9::7/64", "dev", "wan0", "nodad"},
			{"link", "set", "docker0", "up"}, {"link", "set", "wan0", "up"},
		} {
			ip(args...)
		}
		is("", LocalIPOptions{}) // private addresses, but no route out
		is("10.9.8.7", LocalIPOptions{Route: "10.9.8.99"})
		is("172.17.0.1", LocalIPOptions{Route: "172.17.5.5"})
		is("10.9.8.7", LocalIPOptions{Interface: "wan0"})
		is("2001:db8:9::7", LocalIPOptions{Interface: "wan0", Family: IPv6})
		is("10.9.8.8", LocalIPOptions{Prefix: netip.MustParsePrefix("10.9.8.8/30")})
		is("172.17.0.1", LocalIPOptions{Prefix: netip.MustParsePrefix("172.16.0.0/12")})
		is("", LocalIPOptions{Interface: "wan0", Prefix: netip.MustParsePrefix("172.16.0.0/12")})
		is("2001:db8:9::7", LocalIPOptions{Prefix: netip.MustParsePrefix("2001:db8::/32")})
		if ll, err := LocalIP(ctx, LocalIPOptions{Interface: "wan0", Prefix: netip.MustParsePrefix("fe80::/10")}); err == nil && ll.Zone() != "wan0" {
			t.Errorf("a link-local address without its zone: %v", ll)
		}
		ip("route", "add", "default", "via", "10.9.8.1")
		is("10.9.8.7", LocalIPOptions{})
		is("10.9.8.7", LocalIPOptions{Family: IPv4})
		is("", LocalIPOptions{Family: IPv6})
		ip("-6", "route", "add", "default", "dev", "wan0")
		is("2001:db8:9::7", LocalIPOptions{Family: IPv6})
		is("10.9.8.7", LocalIPOptions{})
		ip("route", "del", "default")
		is("2001:db8:9::7", LocalIPOptions{})
	})
}
