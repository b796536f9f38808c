// SPDX-License-Identifier: Apache-2.0

package netx

import "net"

// SendQueue returns how many bytes written to conn the peer has not acknowledged yet (on a Unix socket: not read
// yet). It falls while the peer takes bytes, also when no write is possible for a long time: Linux calls a
// socket writable only when about a third of its send buffer is free.
//
// It takes one system call, never waits, and may run beside reads and writes. It finds the descriptor of conn as
// [Alive] does; under TLS the bytes are those of the records. The error matches [errors.ErrUnsupported] if there is
// none or the system cannot tell (it can on Linux and macOS), and [net.ErrClosed] if conn was closed on this side.
func SendQueue(conn net.Conn) (n int, err error) {
	rc, err := rawConn(conn)
	if err != nil {
		return 0, err
	}
	err = control(rc, func(fd uintptr) error {
		n, err = sys.sendQueue(fd)
		return err
	})
	return n, err
}
