// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package netx

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// unixSender keeps what a system call needs, so that it is not allocated for each. Its callers take
// turns.
type unixSender struct {
	six bool // an IPv6 socket takes IPv4 addresses in mapped form only
	sa4 unix.SockaddrInet4
	sa6 unix.SockaddrInet6
	// info builds the control message that names the local address.
	info func(local netip.Addr) ([]byte, error)
}

func newUnixSender(fd uintptr, info func(netip.Addr) ([]byte, error)) (packetSender, error) {
	sa, err := unix.Getsockname(int(fd))
	if err != nil {
		return nil, err
	}
	_, six := sa.(*unix.SockaddrInet6)
	return &unixSender{six: six, info: info}, nil
}

func (u *unixSender) send(fd uintptr, b []byte, to netip.AddrPort, local netip.Addr) error {
	var sa unix.Sockaddr
	var err error
	if to.IsValid() {
		if sa, err = u.sockaddr(to); err != nil {
			return err
		}
	}
	var oob []byte
	if local.IsValid() {
		if oob, err = u.info(local.Unmap()); err != nil {
			return err
		}
	}
	for {
		switch {
		case oob != nil:
			_, err = unix.SendmsgN(int(fd), b, oob, sa, unix.MSG_DONTWAIT)
		case sa != nil:
			err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, sa)
		default:
			err = unix.Send(int(fd), b, unix.MSG_DONTWAIT)
		}
		switch err {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return ErrWouldBlock
		}
		return err
	}
}

// sockaddr writes to in the form that the family of the socket wants.
func (u *unixSender) sockaddr(to netip.AddrPort) (unix.Sockaddr, error) {
	a := to.Addr().Unmap()
	if !u.six {
		if !a.Is4() {
			return nil, &net.AddrError{Err: "non-IPv4 address", Addr: a.String()}
		}
		u.sa4.Addr, u.sa4.Port = a.As4(), int(to.Port())
		return &u.sa4, nil
	}
	zone, err := zoneIndex(a.Zone())
	if err != nil {
		return nil, err
	}
	u.sa6.Addr, u.sa6.Port, u.sa6.ZoneId = a.As16(), int(to.Port()), zone
	return &u.sa6, nil
}

// writable reports whether poll(2) would not let a write wait. An error that is pending counts: the
// next write reports it.
func writable(fd uintptr) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		n, err := unix.Poll(fds[:], 0)
		if err != unix.EINTR {
			return n > 0 || err != nil
		}
	}
}
