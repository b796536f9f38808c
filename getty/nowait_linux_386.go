// SPDX-License-Identifier: Apache-2.0

package getty

// Package syscall knows only socketcall(2) here. The kernel has these calls since 4.3.
const (
	sysSendto   = 369
	sysSendmsg  = 370
	sysRecvfrom = 371
)
