// SPDX-License-Identifier: Apache-2.0

//go:build unix && !(linux && !386 && !s390x)

package wire

import "syscall"

var systemCalls = sysCalls{recv: recv, send: send, pending: nil}

// enableInq reports that reads do not tell what is still queued.
func enableInq(uintptr) bool { return false }

func recv(fd uintptr, b []byte, _ bool) (n int, more bool, err error) {
	n, err = syscall.Read(int(fd), b)
	return n, true, err
}

func send(fd uintptr, runs [][]byte) (int, error) { return syscall.Write(int(fd), runs[0]) }
