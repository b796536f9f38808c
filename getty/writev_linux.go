// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"runtime"
	"syscall"
	"unsafe"
)

// iovecs is the scratch of vectored writes. It travels with the pooled batch, so that neither a session nor
// a stack holds it (net.Buffers would keep one per descriptor).
type iovecs struct{ v []syscall.Iovec }

// write is writev(2).
func (x *iovecs) write(fd int, runs [][]byte) (int, error) {
	x.v = x.v[:0]
	for _, r := range runs {
		iov := syscall.Iovec{Base: &r[0]}
		iov.SetLen(len(r))
		x.v = append(x.v, iov)
	}
	n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&x.v[0])), uintptr(len(x.v)))
	runtime.KeepAlive(runs)
	clear(x.v)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
