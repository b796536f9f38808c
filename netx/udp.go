// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
)

// ReadUDP reads one datagram into b without allocating. The sender's address is unmapped, so that
// one peer has one address on dual-stack sockets too. truncated says that the datagram was longer
// than b and its rest is lost; n is len(b) then. It blocks until a datagram arrives, the read
// deadline passes or c is closed; errors are those of [net.UDPConn.ReadMsgUDPAddrPort]. An error
// for which [IsPacketError] holds concerns one datagram: the socket goes on.
func ReadUDP(c *net.UDPConn, b []byte) (n int, from netip.AddrPort, truncated bool, err error) {
	// Of the reading methods of package net only this one tells that a datagram was cut.
	n, _, flags, from, err := c.ReadMsgUDPAddrPort(b, nil)
	if from.Addr().Is4In6() {
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	}
	if err != nil && sys.truncated(err) { // Windows reports an error instead of a flag
		return len(b), from, true, nil
	}
	return n, from, flags&msgTrunc != 0, err
}

// WriteUDP sends b as one datagram without allocating: to the connected peer if to is the zero
// AddrPort, otherwise to that address, which may be IPv4 or IPv4-mapped whatever the family of c.
// An error for which [IsPacketError] holds concerns this datagram only. A refusal that an earlier
// datagram met is also reported here, and then b was not sent.
func WriteUDP(c *net.UDPConn, b []byte, to netip.AddrPort) (int, error) {
	if !to.IsValid() {
		return c.Write(b)
	}
	return c.WriteToUDPAddrPort(b, to)
}

// IsPacketError reports whether err, from a read or write of a UDP socket, is about a datagram and
// not about the socket: refused by the peer's host, too big, unroutable, forbidden by a filter, no
// buffer. The socket stays usable. It is false for nil, timeouts and closed sockets.
func IsPacketError(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && slices.Contains(packetErrors, errno)
}

// NeedsNewSocket reports whether err, from a read or write of the connected socket c, is one that c will
// not recover from, though a new socket may: the address of this host that c is bound to has gone, or
// its device, or the device is down, or c is no connected socket any more. It is false for nil, for
// errors that pass (a full queue, a filter, no route while the address is still there), for timeouts and
// for [net.ErrClosed]. To find out about the address it binds another socket for a moment.
func NeedsNewSocket(c *net.UDPConn, err error) bool {
	var errno syscall.Errno
	switch {
	case !errors.As(err, &errno):
		return false
	case slices.Contains(socketErrors, errno):
		return true
	}
	return slices.Contains(routeErrors, errno) && isAddressGone(c)
}

// isAddressGone reports whether the local address of c is not the host's any more.
func isAddressGone(c *net.UDPConn) bool {
	local, ok := ipAddrPort(c.LocalAddr())
	if !ok || local.Addr().IsUnspecified() {
		return false
	}
	probe, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0)))
	if err == nil {
		_ = probe.Close()
	}
	return errors.Is(err, errNotLocal)
}

// isRefused reports whether err says that the peer's port is closed.
func isRefused(err error) bool {
	return errors.Is(err, errRefused) || errors.Is(err, errUDPRefused)
}

// Reconnect connects the live socket c to another peer and returns the local address that the
// kernel now uses. Nothing is left of the old association when it returns: a pending ICMP error is
// cleared and queued datagrams of others than peer are dropped, so that the next read is the new
// peer's. c may be unconnected before. No other goroutine may write to c meanwhile.
//
// c.RemoteAddr and c.LocalAddr go on to report what was true when c was made; writes to the new
// peer go through c.Write, or WriteUDP with the zero AddrPort. The error matches
// [errors.ErrUnsupported] where the system has no such call (Windows).
func Reconnect(c *net.UDPConn, peer netip.AddrPort) (local netip.AddrPort, err error) {
	if !peer.IsValid() {
		return local, &net.AddrError{Err: "netx: reconnect to an invalid address", Addr: peer.String()}
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return local, err
	}
	// The order matters: an error or a datagram that arrives before connect can be of the old peer,
	// one that arrives after it cannot.
	err = control(rc, func(fd uintptr) error {
		if local, err = sys.connect(fd, peer); err != nil {
			return os.NewSyscallError("connect", err)
		}
		_ = sys.takeError(fd) // dropForeign would stop at it
		sys.dropForeign(fd, peer)
		return nil
	})
	if err != nil {
		return local, &net.OpError{Op: "reconnect", Net: "udp",
			Source: c.LocalAddr(), Addr: net.UDPAddrFromAddrPort(peer), Err: err}
	}
	return local, nil
}
