// SPDX-License-Identifier: Apache-2.0

//go:build unix

package harness

import (
	"syscall"
	"time"
)

// CPUTime returns the processor time that this process has used, user and system.
func CPUTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
