// SPDX-License-Identifier: Apache-2.0

//go:build unix && race

package wire

import "syscall"

// The race detector knows syscall.Read and syscall.Write: what happened before a write happens
// before the read that follows it. It does not know the raw system calls of this package. These
// functions stand for them, with calls that move no bytes.

// devNull is open from the start: later the process may be out of descriptors.
var devNull = func() int {
	fd, err := syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	return fd
}()

func raceReceived() { _, _ = syscall.Read(devNull, nil) }
func raceSends()    { _, _ = syscall.Write(devNull, nil) }
