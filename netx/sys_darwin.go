// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"errors"

	"golang.org/x/sys/unix"
)

// SO_LINGER counts ticks on macOS; this one counts seconds.
const lingerOption = unix.SO_LINGER_SEC

// reusePort is refused: macOS has SO_REUSEPORT, but hands every connection to the last listener,
// so shards would be an illusion.
func reusePort(uintptr) error { return errors.ErrUnsupported }

func sendQueue(fd uintptr) (int, error) {
	return unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NWRITE)
}
