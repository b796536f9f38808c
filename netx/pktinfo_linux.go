// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// packetInfo asks for packet info. An IPv6 socket that also takes IPv4 tells about those datagrams
// with IP_PKTINFO: unlike IPV6_PKTINFO, that names an address of this host also for a broadcast.
func packetInfo(fd uintptr, six bool) error {
	if six {
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
}

// localAddr finds the local address in the control messages of a datagram. index is the interface
// that a link-local address belongs to.
func localAddr(oob []byte) (local netip.Addr, index uint32) {
	for len(oob) > 0 {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return local, index
		}
		oob = rest
		switch {
		case hdr.Level == unix.IPPROTO_IP && hdr.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// Spec_dst, not Addr: the latter may be a broadcast. It is zero only if the datagram
			// was queued before the option was set.
			if a := netip.AddrFrom4([4]byte(data[4:8])); !a.IsUnspecified() {
				return a, 0
			}
		case hdr.Level == unix.IPPROTO_IPV6 && hdr.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if a := netip.AddrFrom16([16]byte(data[:16])); a.Is6() && !a.Is4In6() && !a.IsMulticast() {
				local, index = a, binary.NativeEndian.Uint32(data[16:20])
			}
		}
	}
	return local, index
}

// newPacketSender makes the two forms of the control message once; later only the address in them
// changes.
func newPacketSender(fd uintptr) (packetSender, error) {
	four, six := unix.PktInfo4(&unix.Inet4Pktinfo{}), unix.PktInfo6(&unix.Inet6Pktinfo{})
	data := unix.CmsgLen(0)
	return newUnixSender(fd, func(local netip.Addr) ([]byte, error) {
		if local.Is4() {
			a := local.As4()
			copy(four[data+4:], a[:])
			return four, nil
		}
		// The kernel accepts a link-local address only together with its interface.
		index, err := zoneIndex(local.Zone())
		if err != nil {
			return nil, err
		}
		a := local.As16()
		copy(six[data:], a[:])
		binary.NativeEndian.PutUint32(six[data+16:], index)
		return six, nil
	})
}
