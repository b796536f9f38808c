// SPDX-License-Identifier: Apache-2.0

package netx

import "golang.org/x/sys/unix"

// reusePort takes the balancing form, there since FreeBSD 12; SO_REUSEPORT alone does not spread.
func reusePort(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT_LB, 1)
}
