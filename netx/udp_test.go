// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReadWriteUDP(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		families(t, func(t *testing.T, loopback string) {
			a, aAddr := listenUDP(t, loopback)
			b, bAddr := listenUDP(t, loopback)
			buf := make([]byte, 8)
			for _, c := range []struct {
				send, want string
				truncated  bool
			}{
				{"", "", false}, {"1234567", "1234567", false}, {"12345678", "12345678", false},
				{"123456789", "12345678", true}, {"x", "x", false},
			} {
				n, err := WriteUDP(a, []byte(c.send), bAddr)
				require.NoError(t, err)
				require.Equal(t, len(c.send), n)
				n, from, truncated, err := ReadUDP(b, buf)
				require.NoError(t, err)
				require.Equal(t, c.want, string(buf[:n]))
				require.Equal(t, aAddr, from)
				require.Equal(t, c.truncated, truncated, "a datagram of %d into %d bytes", len(c.send), len(buf))
			}
			b.SetReadDeadline(time.Unix(1, 0))
			_, _, _, err := ReadUDP(b, buf)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.False(t, IsPacketError(err))
			b.Close()
			_, _, _, err = ReadUDP(b, buf)
			require.ErrorIs(t, err, net.ErrClosed)
			require.False(t, IsPacketError(err))
		})
	})
}

// One peer has one address, whatever the family of the socket and of what it is told.
func TestUDPMappedAddresses(t *testing.T) {
	dual, err := net.ListenUDP("udp", &net.UDPAddr{Port: 0}) // [::] where there is IPv6
	require.NoError(t, err)
	defer dual.Close()
	four, addr := listenUDP(t, "127.0.0.1")
	port := dual.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	mapped := netip.AddrPortFrom(netip.MustParseAddr("::ffff:127.0.0.1"), port)
	_, err = WriteUDP(four, []byte("x"), mapped)
	require.NoError(t, err, "an IPv4 socket and a mapped address")
	_, from, _, err := ReadUDP(dual, make([]byte, 8))
	require.NoError(t, err)
	require.Equal(t, addr, from)
	for _, to := range []netip.AddrPort{addr, netip.AddrPortFrom(netip.AddrFrom16(addr.Addr().As16()), addr.Port())} {
		_, err = WriteUDP(dual, []byte("y"), to)
		require.NoError(t, err, "a dual-stack socket and %v", to)
		_, _, _, err = ReadUDP(four, make([]byte, 8))
		require.NoError(t, err)
	}
}

func TestUDPAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under the race detector")
	}
	families(t, func(t *testing.T, loopback string) {
		a, aAddr := listenUDP(t, loopback)
		b, bAddr := listenUDP(t, loopback)
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(bAddr))
		require.NoError(t, err)
		defer c.Close()
		buf := make([]byte, 64)
		require.Zero(t, fewestAllocs(100, func() {
			WriteUDP(a, buf, bAddr)
			ReadUDP(b, buf)
			WriteUDP(c, buf, netip.AddrPort{})
			_, from, _, _ := ReadUDP(b, buf)
			WriteUDP(b, buf, from)
			ReadUDP(c, buf)
		}))
		_ = aAddr
	})
}

// Errors about one datagram are told from errors of the socket, and the socket goes on.
// fault: 79, 89
func TestIsPacketError(t *testing.T) {
	server, addr := listenUDP(t, own())
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	require.NoError(t, err)
	defer c.Close()
	_, err = WriteUDP(c, make([]byte, maxDatagram), netip.AddrPort{})
	require.Error(t, err)
	require.True(t, IsPacketError(err), "too big: %v", err)
	if runtime.GOOS == "linux" {
		server.Close()
		_, err = c.Write([]byte("x"))
		require.NoError(t, err, "the first write to a closed port")
		refusal(t, c)
		_, err = c.Write([]byte("x"))
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "the second write")
		require.True(t, IsPacketError(err))
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		require.NoError(t, err)
		defer server.Close()
	}
	_, err = c.Write([]byte("x"))
	require.NoError(t, err, "the socket goes on")
	_, _, _, err = ReadUDP(server, make([]byte, 8))
	require.NoError(t, err)

	for _, err := range []error{nil, net.ErrClosed, os.ErrDeadlineExceeded, errors.New("x"), syscall.EBADF, syscall.EINVAL} {
		require.False(t, IsPacketError(err), "%v", err)
	}
}

// Routes that refuse, prohibit or do not exist give an error for the datagram only.
// fault: 89
func TestPacketErrorsOfRoutes(t *testing.T) {
	inNetns(t, func(t *testing.T, ip func(...string)) {
		ip("link", "set", "lo", "up")
		ip("route", "add", "unreachable", "10.1.0.0/16")
		ip("route", "add", "prohibit", "10.2.0.0/16")
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		any4, err := net.ListenUDP("udp4", nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer any4.Close()
		for to, want := range map[string]syscall.Errno{
			"10.1.0.1:1": syscall.EHOSTUNREACH, "10.2.0.1:1": syscall.EACCES, "10.3.0.1:1": syscall.ENETUNREACH,
		} {
			_, err := WriteUDP(any4, []byte("x"), netip.MustParseAddrPort(to))
			if !errors.Is(err, want) || !IsPacketError(err) {
				t.Errorf("write to %s: %v, want %v, a packet error", to, err, want)
			}
			_, _, err = DialUDP(context.Background(), "udp", to, Probe{Payload: []byte("?"), Wait: long})
			if !errors.Is(err, want) {
				t.Errorf("dial to %s: %v, want %v", to, err, want)
			}
		}
		if _, err := WriteUDP(any4, []byte("x"), c.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
			t.Errorf("the socket goes on: %v", err)
		}
	})
}

func TestReconnect(t *testing.T) {
	if _, err := sys.peer(0); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("not possible here")
	}
	families(t, func(t *testing.T, loopback string) {
		first, firstAddr := listenUDP(t, loopback)
		second, secondAddr := listenUDP(t, loopback)
		c, _, err := DialUDP(testContext(t), "udp", firstAddr.String(), Probe{})
		require.NoError(t, err)
		defer c.Close()
		mine := c.LocalAddr().(*net.UDPAddr).AddrPort()
		_, err = first.WriteToUDPAddrPort([]byte("old"), mine)
		require.NoError(t, err)
		local, err := Reconnect(c, secondAddr)
		require.NoError(t, err)
		require.Equal(t, mine, local)

		_, err = c.Write([]byte("hello"))
		require.NoError(t, err)
		b := make([]byte, 16)
		n, from, _, err := ReadUDP(second, b)
		require.NoError(t, err)
		require.Equal(t, "hello", string(b[:n]))
		require.Equal(t, mine, from)
		first.WriteToUDPAddrPort([]byte("old again"), mine)
		_, err = second.WriteToUDPAddrPort([]byte("new"), mine)
		require.NoError(t, err)
		n, from, _, err = ReadUDP(c, b)
		require.NoError(t, err)
		require.Equal(t, "new", string(b[:n]))
		require.Equal(t, secondAddr, from)

		// A refusal by the second peer, or what it sent, is not the first one's.
		_, err = second.WriteToUDPAddrPort([]byte("stale"), mine)
		require.NoError(t, err)
		second.Close()
		_, err = c.Write([]byte("lost"))
		require.NoError(t, err)
		_, err = Reconnect(c, firstAddr)
		require.NoError(t, err)
		_, err = c.Write([]byte("back"))
		require.NoError(t, err, "no stale error")
		n, err = first.Read(b)
		require.NoError(t, err)
		require.Equal(t, "back", string(b[:n]))
		_, err = first.WriteToUDPAddrPort([]byte("fresh"), mine)
		require.NoError(t, err)
		n, from, _, err = ReadUDP(c, b)
		require.NoError(t, err)
		require.Equal(t, "fresh", string(b[:n]))
		require.Equal(t, firstAddr, from)
		serveUDP(t, first, echo)
		res, err := ProbeUDP(testContext(t), c, Probe{Payload: []byte("?"), Wait: long})
		require.NoError(t, err)
		require.Equal(t, Answered, res.State, "a probe after Reconnect hears the new peer")
	})
}

// A probe after Reconnect is for the new peer, whatever RemoteAddr says; the local address of a
// dual-stack socket is the IPv4 one with an IPv4 peer.
func TestReconnectProbe(t *testing.T) {
	if _, err := sys.peer(0); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("not possible here")
	}
	_, firstAddr := listenUDP(t, "127.0.0.1")
	second, secondAddr := listenUDP(t, "127.0.0.1")
	serveUDP(t, second, echo)
	c, _, err := DialUDP(testContext(t), "udp", firstAddr.String(), Probe{})
	require.NoError(t, err)
	defer c.Close()
	dual, err := net.ListenUDP("udp", &net.UDPAddr{})
	require.NoError(t, err)
	defer dual.Close()
	for _, c := range []*net.UDPConn{c, dual} {
		local, err := Reconnect(c, secondAddr)
		require.NoError(t, err)
		require.Equal(t, "127.0.0.1", local.Addr().String())
		res, err := ProbeUDP(testContext(t), c, Probe{Payload: []byte("?"), Wait: long})
		require.NoError(t, err)
		require.Equal(t, Answered, res.State)
	}
}

func TestReconnectErrors(t *testing.T) {
	c, addr := listenUDP(t, "127.0.0.1")
	_, err := Reconnect(c, netip.AddrPort{})
	require.Error(t, err)
	if _, perr := sys.peer(0); !errors.Is(perr, errors.ErrUnsupported) {
		_, err = Reconnect(c, netip.MustParseAddrPort("[::1]:1"))
		require.ErrorIs(t, err, syscall.EAFNOSUPPORT)
	}
	c.Close()
	_, err = Reconnect(c, addr)
	require.ErrorIs(t, err, net.ErrClosed)
	families(t, func(t *testing.T, loopback string) {
		c, _ := listenUDP(t, loopback)
		_, err := Reconnect(c, netip.AddrPort{})
		var ae *net.AddrError
		require.ErrorAs(t, err, &ae, "not the unspecified address")
	})
	useStub(t)
	c, addr = listenUDP(t, "127.0.0.1")
	_, err = Reconnect(c, addr)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
