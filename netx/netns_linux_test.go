// SPDX-License-Identifier: Apache-2.0

package netx

import "golang.org/x/sys/unix"

func unshareNet() error { return unix.Unshare(unix.CLONE_NEWNET) }

// twinSystem is the host without its unsafe code.
func twinSystem() *system {
	s := hostSystem
	s.alive = alivePortable
	return &s
}

// noBacklog makes a listener queue no more than one connection.
func noBacklog(fd uintptr) error { return unix.Listen(int(fd), 0) }
