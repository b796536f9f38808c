// SPDX-License-Identifier: Apache-2.0

package wire

// Package syscall knows only socketcall(2) here. The kernel has these calls since 4.3.
const (
	sysGetsockopt = 365
	sysSendto     = 369
	sysSendmsg    = 370
	sysRecvfrom   = 371
	sysRecvmsg    = 372
)
