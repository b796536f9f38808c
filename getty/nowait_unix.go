// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package getty

import "syscall"

// recvNow is read(2) of a socket, and sendNow write(2). They never wait, whatever the descriptor's
// mode; see nowait_linux.go.
func recvNow(fd int, p []byte) (int, error) {
	n, _, err := syscall.Recvfrom(fd, p, dontWait)
	raceReceived()
	return max(n, 0), err
}

func sendNow(fd int, p []byte) (int, error) {
	raceSends()
	n, err := syscall.SendmsgN(fd, p, nil, nil, dontWait)
	return max(n, 0), err
}

type iovecs struct{}

// write writes the first run only; the caller comes back for the next.
func (x *iovecs) write(fd int, runs [][]byte) (int, error) { return sendNow(fd, runs[0]) }
