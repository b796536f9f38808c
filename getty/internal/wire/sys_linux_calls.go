// SPDX-License-Identifier: Apache-2.0

//go:build linux && !386

package wire

import "syscall"

const (
	sysGetsockopt = syscall.SYS_GETSOCKOPT
	sysSendto     = syscall.SYS_SENDTO
	sysSendmsg    = syscall.SYS_SENDMSG
	sysRecvfrom   = syscall.SYS_RECVFROM
	sysRecvmsg    = syscall.SYS_RECVMSG
)
