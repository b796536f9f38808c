// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"net"
	"syscall"
	"unsafe"

	"github.com/gostkit/kit/bench/internal/harness"
	"golang.org/x/sys/unix"
)

// bareCalls are the floors: one system call on the bare descriptor as any Go program makes it, a
// peek of one byte or a poll.
func bareCalls() []harness.Subject {
	return []harness.Subject{
		idle("syscall-peek", "", func(c net.Conn) (func() (bool, error), error) {
			fd, err := descriptor(c)
			return func() (bool, error) {
				var b [1]byte
				for {
					_, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b)), 1,
						unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
					if errno != unix.EINTR {
						return errno == unix.EAGAIN, nil
					}
				}
			}, err
		}),
		idle("syscall-poll", "", func(c net.Conn) (func() (bool, error), error) {
			fd, err := descriptor(c)
			return func() (bool, error) {
				p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
				for {
					n, err := unix.Poll(p[:], 0)
					if err != unix.EINTR {
						return n == 0, err
					}
				}
			}, err
		}),
	}
}

func descriptor(c net.Conn) (fd uintptr, err error) {
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	return fd, rc.Control(func(p uintptr) { fd = p })
}

// unread returns how many bytes wait on c, without taking any.
func unread(c *net.TCPConn) int {
	fd, err := descriptor(c)
	if err != nil {
		return 0
	}
	n, err := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
	if err != nil {
		return 0
	}
	return n
}
