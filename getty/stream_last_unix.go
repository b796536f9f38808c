// SPDX-License-Identifier: Apache-2.0

//go:build unix && !aix

package getty

import (
	"net"
	"syscall"

	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/getty/internal/wire"
)

// giveLast empties the socket of a session whose reader may be held by a callback: a close over
// unread input would reset the connection, and destroy the last bytes that were sent.
func (t *stream) giveLast() {
	inner, err := innermost(t.netConn())
	if err != nil {
		return
	}
	sc := wire.Socket(inner)
	if sc == nil {
		return
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return
	}
	buf := bytespool.Get(wire.ReadSize)
	defer bytespool.Put(buf)
	_ = rc.Control(func(fd uintptr) {
		// Bounded, so that a peer which sends faster than this reads cannot keep it here.
		for range 64 {
			// Not read(2): the user may have made the descriptor a blocking one.
			n, _, err := syscall.Recvfrom(int(fd), buf, syscall.MSG_DONTWAIT)
			if n <= 0 || err != nil {
				return
			}
		}
	})
}

// innermost returns the connection that conn wraps, as far as NetConn methods tell it.
func innermost(conn net.Conn) (inner net.Conn, err error) {
	defer caught("net.Conn.NetConn", &err) // they may be the user's
	for range 8 {                          // one may wrap itself
		w, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = w.NetConn()
	}
	return conn, nil
}
