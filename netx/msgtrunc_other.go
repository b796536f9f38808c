// SPDX-License-Identifier: Apache-2.0

//go:build !linux && !darwin && !freebsd && !netbsd && !openbsd && !dragonfly

package netx

// msgTrunc is MSG_TRUNC of Windows; elsewhere no flag is returned.
const msgTrunc = 0x0100
