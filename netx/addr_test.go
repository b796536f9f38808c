// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// stringAddr is the address type of some other package.
type stringAddr struct{ network, s string }

func (a stringAddr) Network() string { return a.network }
func (a stringAddr) String() string  { return a.s }

// acceptance: B05
func TestSameAddr(t *testing.T) {
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	udp := func(s string) net.Addr { return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	unix := func(s string) net.Addr { return &net.UnixAddr{Name: s, Net: "unix"} }
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	zoneByNumber := "fe80::1%lo"
	if lo, err := net.InterfaceByName("lo"); err == nil {
		zoneByNumber = "fe80::1%" + strconv.Itoa(lo.Index)
	}
	for _, c := range []struct {
		a, b net.Addr
		want bool
	}{
		{tcp("127.0.0.1:80"), tcp("127.0.0.1:80"), true},
		{tcp("127.0.0.1:80"), tcp("127.0.0.1:81"), false},
		{tcp("127.0.0.1:80"), tcp("127.0.0.2:80"), false},
		{tcp("[::ffff:127.0.0.1]:80"), tcp("127.0.0.1:80"), true},
		{tcp("[::1]:80"), tcp("127.0.0.1:80"), false},
		{tcp("[::1]:80"), tcp("[0:0::1]:80"), true},
		{tcp("0.0.0.0:80"), tcp("[::]:80"), false},
		{tcp("0.0.0.0:80"), tcp("10.0.0.1:80"), false},
		{tcp("[::]:80"), tcp("[::]:80"), true},
		{tcp("[fe80::1%lo]:80"), tcp("[fe80::1%lo]:80"), true},
		{tcp("[fe80::1%lo]:80"), tcp("[" + zoneByNumber + "]:80"), true},
		{tcp("[fe80::1%lo]:80"), tcp("[fe80::1%nosuch0]:80"), false},
		{tcp("[fe80::1%lo]:80"), tcp("[fe80::1]:80"), false},
		{tcp("[fe80::1%0]:80"), tcp("[fe80::1]:80"), false},
		{tcp("127.0.0.1:80"), udp("127.0.0.1:80"), false},
		{tcp("127.0.0.1:80"), stringAddr{"tcp4", "127.0.0.1:80"}, true},
		{stringAddr{"tcp6", "[::ffff:127.0.0.1]:80"}, stringAddr{"tcp", "127.0.0.1:80"}, true},
		{stringAddr{"tcp", "nonsense"}, stringAddr{"tcp", "nonsense"}, false},
		{&net.IPAddr{IP: net.IPv4(10, 0, 0, 1)}, &net.IPAddr{IP: net.IPv4(10, 0, 0, 1).To4()}, true},
		{&net.IPAddr{IP: net.IPv4(10, 0, 0, 1)}, &net.IPAddr{IP: net.IPv4(10, 0, 0, 2)}, false},
		{&net.IPAddr{}, &net.IPAddr{}, false},
		{unix("/run/a"), unix("/run/a"), true},
		{unix("/run/a"), unix("/run/b"), false},
		{unix(""), unix(""), false},
		{unix("/run/a"), stringAddr{"unix", "/run/a"}, false},
		{unix("/run/a"), tcp("127.0.0.1:80"), false},
		{a.LocalAddr(), b.LocalAddr(), false},
		{nil, nil, false},
		{nil, tcp("127.0.0.1:80"), false},
		{(*net.TCPAddr)(nil), (*net.TCPAddr)(nil), false},
		{(*net.UDPAddr)(nil), udp("127.0.0.1:80"), false},
		{(*net.UnixAddr)(nil), unix("/run/a"), false},
		{&net.TCPAddr{}, &net.TCPAddr{}, false},
	} {
		require.Equal(t, c.want, SameAddr(c.a, c.b), "SameAddr(%v, %v)", c.a, c.b)
		require.Equal(t, c.want, SameAddr(c.b, c.a), "SameAddr(%v, %v)", c.b, c.a)
	}
}

// portless is a raw IP connection between two programs of one host.
type portless struct{ net.Conn }

func (portless) LocalAddr() net.Addr  { return &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (portless) RemoteAddr() net.Addr { return &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func TestIsSelfConnect(t *testing.T) {
	near, _ := pair(t, "tcp")
	require.False(t, IsSelfConnect(near))
	near, _ = pair(t, "unix")
	require.False(t, IsSelfConnect(near), "a Unix socket")
	a, _ := net.Pipe()
	require.False(t, IsSelfConnect(a), "a pipe")
	require.False(t, IsSelfConnect(nil), "nil")
	require.False(t, IsSelfConnect(portless{}), "a protocol without ports")
	require.False(t, IsSelfConnect((*net.TCPConn)(nil)), "a nil connection")
	u, addr := listenUDP(t, "127.0.0.1")
	require.False(t, IsSelfConnect(u), "an unconnected UDP socket")
	u.Close()
	self, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(addr), net.UDPAddrFromAddrPort(addr))
	require.NoError(t, err)
	defer self.Close()
	require.True(t, IsSelfConnect(self), "UDP")
}

func TestZones(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip("no interface called lo:", err)
	}
	i, err := zoneIndex("lo")
	require.NoError(t, err)
	require.EqualValues(t, lo.Index, i)
	require.Equal(t, "lo", zoneName(i))
	require.Equal(t, "4000000", zoneName(4000000))
	_, err = zoneIndex("nosuch0")
	require.Error(t, err)
}
