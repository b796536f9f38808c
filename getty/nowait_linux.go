// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"runtime"
	"syscall"
	"unsafe"
)

// The socket calls of this file never wait, whatever the descriptor's mode: a user may make it a
// blocking one with os.File.Fd, and read(2) would then keep CloseNow and WritePkg(0) waiting for
// the peer.

// recvNow is read(2) of a socket.
func recvNow(fd int, p []byte) (int, error) {
	n, _, errno := syscall.Syscall6(sysRecvfrom, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	raceReceived()
	return int(n), nil
}

// sendNow is write(2) of a socket.
func sendNow(fd int, p []byte) (int, error) {
	raceSends()
	n, _, errno := syscall.Syscall6(sysSendto, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// iovecs is the scratch of vectored writes. It travels with the pooled batch, so that neither a
// session nor a stack holds it (net.Buffers would keep one per descriptor).
type iovecs struct {
	v   []syscall.Iovec
	msg syscall.Msghdr
}

// write is writev(2) of a socket.
func (x *iovecs) write(fd int, runs [][]byte) (int, error) {
	x.v = x.v[:0]
	for _, r := range runs {
		iov := syscall.Iovec{Base: &r[0]}
		iov.SetLen(len(r))
		x.v = append(x.v, iov)
	}
	x.msg.Iov = &x.v[0]
	x.msg.Iovlen = 0
	for range x.v { // the field's type differs between architectures
		x.msg.Iovlen++
	}
	raceSends()
	n, _, errno := syscall.Syscall(sysSendmsg, uintptr(fd), uintptr(unsafe.Pointer(&x.msg)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
	runtime.KeepAlive(runs)
	clear(x.v)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
