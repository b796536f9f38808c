// SPDX-License-Identifier: Apache-2.0

//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package netx

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

var hostSystem = system{
	alive:       aliveBSD,
	reusePort:   reusePort,
	buffers:     setBuffers,
	linger:      setLinger,
	userTimeout: func(uintptr, int) error { return errors.ErrUnsupported },
	tos:         setTOS,
	takeError:   takeError,
	dropForeign: dropForeign,
	peer:        peerName,
	connect:     connectUDP,
	batch:       stubSystem.batch,
	// fchmod on a socket that is not bound does not reach the file; the mode is set after bind.
	chmodSocket: func(uintptr, os.FileMode) error { return errors.ErrUnsupported },
	lockDir:     lockDir,
	sameFile:    sameFile,
	isSocket:    isSocket,
	dup:         dup,
	listens:     listensUnix,
	maxUnixPath: 103, // sun_path holds 104 bytes with the closing zero
	truncated:   notTruncated,
	sendQueue:   sendQueue,

	packetInfo:   stubSystem.packetInfo,
	localAddr:    stubSystem.localAddr,
	packetSender: newPacketSender,
	writable:     writable,
}

// aliveBSD peeks.
func aliveBSD(fd uintptr) (State, error) {
	// Unlike Linux, the BSD kernels keep the pending error of a socket when MSG_PEEK meets it, so a
	// reader still gets it.
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return Open, nil
		case err == unix.EBADF, err == unix.ENOTSOCK, err == unix.ENOTCONN:
			return Unknown, err
		case err != nil:
			return Broken, nil
		case n > 0 || !isStream(int(fd)): // a datagram may be empty
			return HasData, nil
		}
		return PeerClosed, nil
	}
}
