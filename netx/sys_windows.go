// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/windows"
)

// hostSystem starts from the stub: what is not filled in is unsupported.
var hostSystem = func() system {
	s := stubSystem
	s.alive = aliveWindows
	s.buffers = setBuffers
	s.linger = setLinger
	s.maxUnixPath = 107
	s.truncated = func(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }
	return s
}()

var procWSAPoll = windows.NewLazySystemDLL("ws2_32.dll").NewProc("WSAPoll")

// wsaPollFd is WSAPOLLFD of winsock2.h.
type wsaPollFd struct {
	fd      windows.Handle
	events  int16
	revents int16
}

const (
	pollErr    = 0x0001
	pollHup    = 0x0002
	pollNVal   = 0x0004
	pollRdNorm = 0x0100
	fionread   = 0x4004667f
)

// aliveWindows asks WSAPoll and, where that says readable, FIONREAD.
func aliveWindows(fd uintptr) (State, error) {
	// Not recv(MSG_PEEK): the sockets of package net are in blocking mode, since completion ports
	// drive them, and a peek would wait if another goroutine takes the bytes in between.
	p := wsaPollFd{fd: windows.Handle(fd), events: pollRdNorm}
	if err := procWSAPoll.Find(); err != nil {
		return Unknown, errors.ErrUnsupported
	}
	n, _, err := procWSAPoll.Call(uintptr(unsafe.Pointer(&p)), 1, 0)
	switch {
	case int32(n) < 0 || p.revents&pollNVal != 0:
		return Unknown, err
	case n == 0 || p.revents == 0:
		return Open, nil
	}
	if p.revents&pollRdNorm != 0 {
		var waiting, size uint32
		ierr := windows.WSAIoctl(windows.Handle(fd), fionread, nil, 0,
			(*byte)(unsafe.Pointer(&waiting)), uint32(unsafe.Sizeof(waiting)), &size, nil, 0)
		if ierr != nil {
			return Broken, nil
		}
		// FIONREAD counts 0 for an empty datagram and for the end of a stream.
		typ, terr := windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, soType)
		if waiting > 0 || terr == nil && typ != windows.SOCK_STREAM {
			return HasData, nil
		}
	}
	if p.revents&pollErr != 0 {
		return Broken, nil
	}
	return PeerClosed, nil
}

const soType = 0x1008

func setBuffers(fd uintptr, read, write int) error {
	if read > 0 {
		err := windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_RCVBUF, read)
		if err != nil {
			return err
		}
	}
	if write > 0 {
		return windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_SNDBUF, write)
	}
	return nil
}

func setLinger(fd uintptr, seconds int) error {
	l := windows.Linger{Onoff: 1, Linger: int32(seconds)}
	if seconds < 0 {
		l = windows.Linger{}
	}
	return windows.SetsockoptLinger(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_LINGER, &l)
}
