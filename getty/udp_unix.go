// SPDX-License-Identifier: Apache-2.0

//go:build unix

package getty

import (
	"net"
	"os"
	"syscall"

	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/getty/internal/wire"
)

// rawPacket reads the datagrams of a connected socket. Its buffer comes from bytespool when there
// is a datagram, and is larger than any, so that none is truncated.
type rawPacket struct {
	rc  syscall.RawConn
	fn  func(fd uintptr) bool
	buf []byte
	n   int
	err error
}

func (r *rawPacket) init(conn *net.UDPConn) bool {
	rc, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	r.rc, r.fn = rc, r.try
	return true
}

func (r *rawPacket) read() ([]byte, error) {
	if err := r.rc.Read(r.fn); err != nil {
		return nil, err
	}
	return r.buf[:r.n], r.err
}

// try reads a datagram, and reports false to wait for one.
func (r *rawPacket) try(fd uintptr) bool {
	buf := bytespool.Get(maxDatagram)
	for {
		n, err := wire.Recv(fd, buf)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			bytespool.Put(buf) // an idle session holds none
			return false
		case nil:
			r.err = nil
		default:
			n, r.err = 0, os.NewSyscallError("read", err)
		}
		r.buf, r.n = buf, n
		return true
	}
}

func (r *rawPacket) done() {
	bytespool.Put(r.buf)
	r.buf = nil
}
