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

// socketErrors are the errors that say by themselves that a connected datagram socket is of no further
// use. ENETDOWN is one: when the device comes back, it may have another address.
var socketErrors = []syscall.Errno{
	syscall.EBADF, syscall.ENOTSOCK, syscall.ENOTCONN, syscall.EDESTADDRREQ, syscall.EPIPE,
	syscall.ENETDOWN, syscall.ENODEV, syscall.ENXIO, syscall.EADDRNOTAVAIL,
}

// routeErrors are those that a send meets when the socket's own address has gone (Linux: ENETUNREACH,
// formerly EINVAL), and at other times too.
var routeErrors = []syscall.Errno{syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EINVAL}
