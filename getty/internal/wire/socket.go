// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net"
	"syscall"
)

// Socket returns conn if it is a stream connection of package net, nil if it is any other. A
// connection that embeds one has all its methods, also SyscallConn, but may do more in Read and
// Write than it does.
func Socket(conn net.Conn) syscall.Conn {
	switch c := conn.(type) {
	case *net.TCPConn:
		return c
	case *net.UnixConn:
		return c
	}
	return nil
}
