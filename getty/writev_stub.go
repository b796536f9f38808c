// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package getty

import "syscall"

type iovecs struct{}

// write writes the first run only; the caller comes back for the next.
func (x *iovecs) write(fd int, runs [][]byte) (int, error) { return syscall.Write(fd, runs[0]) }
