// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package netx

import "golang.org/x/sys/unix"

// msgTrunc is set in the flags of a receive that lost the end of its datagram.
const msgTrunc = unix.MSG_TRUNC
