// SPDX-License-Identifier: Apache-2.0

package netx

import "net"

// SendQueue returns how many bytes written to conn the peer's kernel has not acknowledged yet. On a
// Unix socket of Linux it is what the peer has not read yet, counted as the memory that it
// occupies, which is more than was written.
//
// It tells a slow peer from a dead one: it falls while the peer takes bytes, even if no write is
// possible for a long time, since Linux calls a socket writable only when about a third of its send
// buffer is free.
//
// It takes one system call, never waits, and may run beside reads and writes. It finds the
// descriptor of conn as [Alive] does; beside TLS the bytes are those of the records. The error
// matches [errors.ErrUnsupported] if conn has no descriptor or the system cannot tell (Linux and
// macOS can), and [net.ErrClosed] if conn was closed on this side.
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
