// SPDX-License-Identifier: Apache-2.0

//go:build linux && !386

package getty

import "syscall"

const (
	sysSendto   = syscall.SYS_SENDTO
	sysSendmsg  = syscall.SYS_SENDMSG
	sysRecvfrom = syscall.SYS_RECVFROM
)
