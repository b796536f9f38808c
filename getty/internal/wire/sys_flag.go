// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux && !aix

package wire

import "syscall"

const dontWait = syscall.MSG_DONTWAIT
