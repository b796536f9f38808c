// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// The E constants of package syscall are inventions on Windows and never come from the kernel.
const (
	errRefused    = windows.WSAECONNREFUSED
	errUDPRefused = windows.WSAECONNRESET // ICMP port unreachable, as a datagram socket gets it
	errInUse      = windows.WSAEADDRINUSE
	errNotLocal   = windows.WSAEADDRNOTAVAIL
	errNoFamily   = windows.WSAEAFNOSUPPORT
	errNoAccess   = windows.WSAEACCES
)

// packetErrors are the errors of a datagram socket that concern one datagram.
var packetErrors = []syscall.Errno{
	windows.WSAECONNRESET, windows.WSAECONNREFUSED, windows.WSAEMSGSIZE, windows.WSAENOBUFS,
	windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAENETDOWN, windows.WSAEHOSTDOWN,
	windows.WSAEACCES, windows.WSAENETRESET,
}

// socketErrors are the errors that say by themselves that a connected datagram socket is of no further
// use.
var socketErrors = []syscall.Errno{
	windows.WSAENOTSOCK, windows.WSAENOTCONN, windows.WSAEDESTADDRREQ, windows.WSAESHUTDOWN,
	windows.WSAENETDOWN, windows.WSAEADDRNOTAVAIL, windows.ERROR_INVALID_HANDLE,
}

// routeErrors are those that a send meets when the socket's own address has gone, and at other times too.
var routeErrors = []syscall.Errno{windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAEINVAL}
