// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"weak"

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

// A foreign datagram in the queue and a refusal on the socket, both older than the probe, are both
// gone after it.
// fault: 85
func TestProbeUDPDropsForeignBehindError(t *testing.T) {
	families(t, func(t *testing.T, loopback string) {
		dead, addr := listenUDP(t, loopback)
		dead.Close()
		third, _ := listenUDP(t, loopback)
		c, mine := listenUDP(t, loopback)
		_, err := third.WriteToUDPAddrPort([]byte("foreign"), mine)
		require.NoError(t, err)
		rc, err := c.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, control(rc, func(fd uintptr) error { _, err := connectUDP(fd, addr); return err }))
		_, err = c.Write([]byte("lost"))
		if err != nil { // package net takes c for unconnected
			require.NoError(t, control(rc, func(fd uintptr) error { return unix.Send(int(fd), []byte("lost"), 0) }))
		}
		aliveIs(t, c, Broken, false)
		_, err = ProbeUDP(testContext(t), c, Probe{})
		require.NoError(t, err)
		aliveIs(t, c, Open, false)
	})
}

// A batch forgets the caller's buffers.
func TestBatchReleasesBuffers(t *testing.T) {
	c, addr := listenUDP(t, "127.0.0.1")
	b, err := NewBatch(c, 2)
	require.NoError(t, err)
	refs := func() (refs []weak.Pointer[[4096]byte]) {
		var buf [2]*[4096]byte
		for i := range buf {
			buf[i] = new([4096]byte)
			refs = append(refs, weak.Make(buf[i]))
		}
		_, err := b.WriteBatch([]Datagram{{Buf: buf[0][:8], Addr: addr}})
		require.NoError(t, err)
		_, err = b.ReadBatch([]Datagram{{Buf: buf[1][:]}})
		require.NoError(t, err)
		return refs
	}()
	eventually(t, "the buffers are collected", func() bool {
		runtime.GC()
		return refs[0].Value() == nil && refs[1].Value() == nil
	})
	runtime.KeepAlive(b)
}

// When the kernel took only some of a batch, the next call is for the rest and no more.
func TestBatchGoesOnBehindPart(t *testing.T) {
	server, addr := listenUDP(t, "127.0.0.1")
	c, _ := listenUDP(t, "127.0.0.1")
	b, err := NewBatch(c, 4)
	require.NoError(t, err)
	lb := b.fast.(*linuxBatch)
	d := &lb.w
	for i, s := range []string{"0", "1", "2", "3"} {
		n, err := lb.name(&d.names[i], addr)
		require.NoError(t, err)
		d.set(i, []byte(s), n)
	}
	d.count, d.done, d.errno = 3, 1, 0 // as if the first of three had been taken
	require.NoError(t, lb.rc.Write(d.fn))
	require.Zero(t, d.errno)
	require.Equal(t, 3, d.done)
	sb, err := NewBatch(server, 4)
	require.NoError(t, err)
	got := room(4, 8)
	n, err := sb.ReadBatch(got)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, "12", string(got[0].Buf[:1])+string(got[1].Buf[:1]))
}
