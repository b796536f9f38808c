// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// inWindow is a dialer that calls f with the socket's address once it is bound and before it is
// connected, the moment at which it hears everybody. Package net runs the hook before it binds, and
// without a local address it leaves binding to the kernel: so the hook can bind.
func inWindow(loopback string, f func(mine netip.AddrPort)) *Dialer {
	return &Dialer{Net: net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		return control(rc, func(fd uintptr) error {
			a := netip.MustParseAddr(loopback)
			var sa unix.Sockaddr = &unix.SockaddrInet6{Addr: a.As16()}
			if a.Is4() {
				sa = &unix.SockaddrInet4{Addr: a.As4()}
			}
			if err := unix.Bind(int(fd), sa); err != nil {
				return err
			}
			mine, err := unix.Getsockname(int(fd))
			if err == nil {
				f(addrPortOf(mine))
			}
			return err
		})
	}}}
}

// What a third party sent between bind and connect is gone after the dial, with a probe and
// without; what the peer itself sent stays.
// fault: 85
func TestDialUDPWindow(t *testing.T) {
	families(t, func(t *testing.T, loopback string) {
		server, addr := listenUDP(t, loopback)
		third, _ := listenUDP(t, loopback)
		fromThird := func(mine netip.AddrPort) {
			for range 3 {
				_, err := third.WriteToUDPAddrPort([]byte("foreign"), mine)
				require.NoError(t, err)
			}
		}
		t.Run("no probe", func(t *testing.T) {
			d := inWindow(loopback, fromThird)
			c, _, err := d.DialUDP(testContext(t), "udp", addr.String(), Probe{})
			require.NoError(t, err)
			defer c.Close()
			aliveIs(t, c, Open, false)
			_, err = server.WriteToUDPAddrPort([]byte("peer"), boundTo(c))
			require.NoError(t, err)
			b := make([]byte, 16)
			n, from, _, err := ReadUDP(c, b)
			require.NoError(t, err)
			require.Equal(t, "peer", string(b[:n]))
			require.Equal(t, addr, from)
		})
		t.Run("peer first", func(t *testing.T) {
			d := inWindow(loopback, func(mine netip.AddrPort) {
				fromThird(mine)
				_, err := server.WriteToUDPAddrPort([]byte("early"), mine)
				require.NoError(t, err)
			})
			c, res, err := d.DialUDP(testContext(t), "udp", addr.String(), Probe{Payload: []byte("?"), Wait: long})
			require.NoError(t, err)
			defer c.Close()
			require.Equal(t, Answered, res.State)
			require.Equal(t, "early", string(res.Reply))
			_, err = server.Read(make([]byte, 8)) // the probe
			require.NoError(t, err)
		})
		// Where nothing can be dropped, at least the probe is not answered by a stranger.
		bothSystems(t, func(t *testing.T, stub bool) {
			serverHere, addr := listenUDP(t, loopback)
			serveUDP(t, serverHere, echo)
			d := inWindow(loopback, fromThird)
			c, res, err := d.DialUDP(testContext(t), "udp", addr.String(), Probe{Payload: []byte("?"), Wait: long})
			require.NoError(t, err)
			defer c.Close()
			require.Equal(t, Answered, res.State)
			require.Equal(t, "?", string(res.Reply))
			_, err = c.Write([]byte("x"))
			require.NoError(t, err)
			b := make([]byte, 16)
			n, _, _, err := ReadUDP(c, b)
			require.NoError(t, err)
			require.Equal(t, "x", string(b[:n]))
		})
	})
}
