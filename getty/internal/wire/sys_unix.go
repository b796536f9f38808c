// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package wire

import "syscall"

// The socket calls of this file never wait, even on a blocking descriptor; see sys_linux.go.

var systemCalls = sysCalls{recv: recv, send: send}

// enableInq reports false: reads do not tell how much is still queued.
func enableInq(uintptr) bool { return false }

func recv(fd uintptr, b []byte, _ bool) (n int, more bool, err error) {
	n, err = Recv(fd, b)
	return n, true, err
}

// Recv is read(2) of a socket.
func Recv(fd uintptr, b []byte) (int, error) {
	n, _, err := syscall.Recvfrom(int(fd), b, dontWait)
	if err == nil {
		raceReceived()
	}
	return max(n, 0), err
}

// empty reports whether a read would find nothing, not even the end of the stream.
func empty(fd uintptr) bool {
	_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), dontWait|syscall.MSG_PEEK)
	return err == syscall.EAGAIN
}

// send writes the first run only; the caller comes back for the next.
func send(fd uintptr, runs [][]byte) (int, error) {
	raceSends()
	n, err := syscall.SendmsgN(int(fd), runs[0], nil, nil, dontWait)
	return max(n, 0), err
}
