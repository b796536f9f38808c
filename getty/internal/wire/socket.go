// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"net"
	"syscall"
)

// Below returns the connection that conn is made of if it is a [TLSConn], and conn if it is any
// other.
func Below(conn net.Conn) net.Conn {
	if c, ok := conn.(*TLSConn); ok {
		return c.raw
	}
	return conn
}

// Socket returns conn if it is a stream connection of package net, and nil if it is any other.
func Socket(conn net.Conn) syscall.Conn {
	// By its type and not by its methods: a connection that embeds one has a SyscallConn too, but
	// its Read and Write may do more, such as encrypt.
	switch c := conn.(type) {
	case *net.TCPConn:
		return c
	case *net.UnixConn:
		return c
	}
	return nil
}
