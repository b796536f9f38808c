// SPDX-License-Identifier: Apache-2.0

//go:build !windows

package netx

import "syscall"

const (
	errRefused    = syscall.ECONNREFUSED
	errUDPRefused = syscall.ECONNREFUSED
	errInUse      = syscall.EADDRINUSE
	errNotLocal   = syscall.EADDRNOTAVAIL
	errNoFamily   = syscall.EAFNOSUPPORT
	errNoAccess   = syscall.EACCES
)

// packetErrors are the errors of a datagram socket that concern one datagram. EACCES comes from a
// route of type prohibit, EPERM from a packet filter.
var packetErrors = []syscall.Errno{
	syscall.ECONNREFUSED, syscall.EMSGSIZE, syscall.ENOBUFS, syscall.ENOMEM,
	syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN,
	syscall.EACCES, syscall.EPERM, syscall.EPROTO, syscall.ENOPROTOOPT,
}
