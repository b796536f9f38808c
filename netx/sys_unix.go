// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package netx

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func isStream(fd int) bool {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && typ == unix.SOCK_STREAM
}

func isSocket(fd uintptr) (bool, error) {
	_, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil, nil
}

func dup(fd uintptr) (uintptr, error) {
	n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	return uintptr(n), os.NewSyscallError("fcntl", err)
}

func listensUnix(fd uintptr) (bool, error) {
	n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return n != 0, err
}

func setBuffers(fd uintptr, read, write int) error {
	// Not the FORCE forms of Linux: the administrator's limit also holds for a server run as root.
	if read > 0 {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, read); err != nil {
			return fmt.Errorf("read buffer: %w", err)
		}
	}
	if write > 0 {
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, write); err != nil {
			return fmt.Errorf("write buffer: %w", err)
		}
	}
	return nil
}

func setLinger(fd uintptr, seconds int) error {
	l := unix.Linger{Onoff: 1, Linger: int32(seconds)}
	if seconds < 0 {
		l = unix.Linger{}
	}
	return unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, lingerOption, &l)
}

// setTOS sets the byte for both families where the socket has both.
func setTOS(fd uintptr, tos int) error {
	sa, err := unix.Getsockname(int(fd))
	if err != nil {
		return err
	}
	switch sa.(type) {
	case *unix.SockaddrInet4:
		return unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, tos)
	case *unix.SockaddrInet6:
		if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos); err != nil {
			return err
		}
		only, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if err == nil && only == 0 {
			// A dual-stack socket uses IP_TOS for the IPv4 packets it sends. Not every system takes
			// it on an IPv6 socket; the class of IPv6 is set by then.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, tos)
		}
		return nil
	}
	return unix.EOPNOTSUPP
}

func takeError(fd uintptr) error {
	n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if n != 0 {
		return unix.Errno(n)
	}
	return nil
}

// dropForeign takes datagrams from the head of the queue until one of peer is there or none is
// left.
func dropForeign(fd uintptr, peer netip.AddrPort) {
	// Only what came before connect can be foreign, and the kernel queues in order: behind the first
	// datagram of peer there is none of others. One byte of room, since what is dropped is not read.
	var b [1]byte
	for {
		_, from, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		if err != nil || sameEndpoint(addrPortOf(from), peer) {
			return
		}
		if _, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

func peerName(fd uintptr) (netip.AddrPort, error) {
	sa, err := unix.Getpeername(int(fd))
	if err != nil {
		return netip.AddrPort{}, err
	}
	return addrPortOf(sa), nil
}

func connectUDP(fd uintptr, peer netip.AddrPort) (netip.AddrPort, error) {
	// The family of the socket decides the form of the address: an IPv6 socket takes IPv4 mapped.
	local, err := unix.Getsockname(int(fd))
	if err != nil {
		return netip.AddrPort{}, err
	}
	var to unix.Sockaddr
	switch local.(type) {
	case *unix.SockaddrInet4:
		if !peer.Addr().Unmap().Is4() {
			return netip.AddrPort{}, unix.EAFNOSUPPORT
		}
		to = &unix.SockaddrInet4{Port: int(peer.Port()), Addr: peer.Addr().Unmap().As4()}
	case *unix.SockaddrInet6:
		zone, err := zoneIndex(peer.Addr().Zone())
		if err != nil {
			return netip.AddrPort{}, err
		}
		to = &unix.SockaddrInet6{Port: int(peer.Port()), Addr: peer.Addr().As16(), ZoneId: zone}
	default:
		return netip.AddrPort{}, unix.EAFNOSUPPORT
	}
	for {
		err = unix.Connect(int(fd), to)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	if local, err = unix.Getsockname(int(fd)); err != nil {
		return netip.AddrPort{}, err
	}
	return addrPortOf(local), nil
}

func addrPortOf(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 && a.Is6() { // an IPv4 address has none, though the socket was IPv6
			a = a.WithZone(zoneName(sa.ZoneId))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func chmodSocket(fd uintptr, mode os.FileMode) error {
	return unix.Fchmod(int(fd), uint32(mode.Perm()))
}

// lockDir takes an flock on dir, or returns the cause of ctx's end.
func lockDir(ctx context.Context, dir string) (func(), error) {
	// On the directory itself: no lock file is left behind, and the kernel unlocks when the process
	// dies.
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		// Not to wait in the kernel, where ctx could not end it.
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err == unix.EINTR {
			continue
		}
		if err != unix.EWOULDBLOCK {
			f.Close()
			return nil, &os.PathError{Op: "flock", Path: dir, Err: err}
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

func sameFile(path string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fileID{}, &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	return fileID{uint64(st.Dev), uint64(st.Ino)}, nil
}

func notTruncated(error) bool { return false }
