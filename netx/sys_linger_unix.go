// SPDX-License-Identifier: Apache-2.0

//go:build linux || freebsd || netbsd || openbsd || dragonfly

package netx

import "golang.org/x/sys/unix"

const lingerOption = unix.SO_LINGER
