// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// narrow sets what must be known before the handshake. On the loopback a segment has 64 KiB, and
// the peer's kernel would set aside megabytes for ten of them.
func narrow(_, _ string, c syscall.RawConn) error {
	var err error
	ctl := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1448),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10))
	})
	return errors.Join(ctl, err)
}
