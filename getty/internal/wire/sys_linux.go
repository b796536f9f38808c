// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// The socket calls of this file never wait, even on a blocking descriptor. A user may make it a
// blocking one with os.File.Fd, and read(2) would then keep Close and Write waiting for the peer.
//
// Since they never wait they are raw system calls: syscall.Syscall would prepare the scheduler for
// a thread that waits, which costs more than the call itself.

const (
	tcpInq    = 36 // TCP_INQ and TCP_CM_INQ of linux/tcp.h
	maxRuns   = 64 // the most runs of one sendmsg
	sendFlags = syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL
)

// An inqMessage is the control message of TCP_INQ.
type inqMessage struct {
	head   syscall.Cmsghdr
	queued int32
	_      int32 // a control message takes whole words
}

const inqMessageLen = int(unsafe.Offsetof(inqMessage{}.queued) + 4)

var systemCalls = sysCalls{recv: recv, send: send, pending: pending}

// enableInq asks for the control message that tells how much is still queued, and reports whether
// it will come: kernels before 4.18 refuse, and so do other protocols behind the same type (MPTCP).
func enableInq(fd uintptr) bool {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpInq, 1) == nil
}

func recv(fd uintptr, b []byte, inq bool) (n int, more bool, err error) {
	if !inq {
		n, err = Recv(fd, b)
		return n, true, err
	}
	var control inqMessage
	iov := syscall.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	msg := syscall.Msghdr{Iov: &iov, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&control))}
	msg.SetControllen(int(unsafe.Sizeof(control)))
	r, _, errno := syscall.RawSyscall(sysRecvmsg, fd,
		uintptr(unsafe.Pointer(&msg)), syscall.MSG_DONTWAIT)
	runtime.KeepAlive(b)
	if errno != 0 {
		return 0, true, errno
	}
	raceReceived()
	// Without the message, or with another one, nothing is known about the rest.
	if int(msg.Controllen) < inqMessageLen ||
		control.head.Level != syscall.IPPROTO_TCP || control.head.Type != tcpInq {
		return int(r), true, nil
	}
	// It is 1 and not 0 if nothing but a FIN is pending.
	return int(r), control.queued != 0, nil
}

// Recv is read(2) of a socket.
func Recv(fd uintptr, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall6(sysRecvfrom, fd,
		uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	raceReceived()
	return int(n), nil
}

// empty reports whether a read would find nothing, not even the end of the stream.
func empty(fd uintptr) bool {
	var b byte
	_, _, errno := syscall.RawSyscall6(sysRecvfrom, fd, uintptr(unsafe.Pointer(&b)), 1,
		syscall.MSG_DONTWAIT|syscall.MSG_PEEK, 0, 0)
	return errno == syscall.EAGAIN
}

// pending returns and clears the error of the socket, such as a reset, that no call has returned
// yet.
func pending(fd uintptr) error {
	var errno int32
	size := uint32(unsafe.Sizeof(errno))
	_, _, failed := syscall.RawSyscall6(sysGetsockopt, fd, syscall.SOL_SOCKET, syscall.SO_ERROR,
		uintptr(unsafe.Pointer(&errno)), uintptr(unsafe.Pointer(&size)), 0)
	switch {
	case failed != 0:
		return failed
	case errno != 0:
		return syscall.Errno(errno)
	}
	return nil
}

// iovecs are scratch memory of sendmsg: on the stack 64 of them would make it grow, for every
// session.
var iovecs = sync.Pool{New: func() any { return new([maxRuns]syscall.Iovec) }}

func send(fd uintptr, runs [][]byte) (int, error) {
	raceSends()
	if len(runs) == 1 { // the usual case, and the cheaper call
		b := runs[0]
		n, _, errno := syscall.RawSyscall6(sysSendto, fd,
			uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), sendFlags, 0, 0)
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
	iov := iovecs.Get().(*[maxRuns]syscall.Iovec)
	count := min(len(runs), maxRuns)
	for i, b := range runs[:count] {
		iov[i].Base = &b[0]
		iov[i].SetLen(len(b))
	}
	msg := syscall.Msghdr{Iov: &iov[0]}
	setCount(&msg.Iovlen, count)
	n, _, errno := syscall.RawSyscall(sysSendmsg, fd, uintptr(unsafe.Pointer(&msg)), sendFlags)
	runtime.KeepAlive(runs)
	clear(iov[:count])
	iovecs.Put(iov)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// setCount stores a length, whose type differs between architectures.
func setCount[T uint32 | uint64](p *T, n int) { *p = T(n) }
