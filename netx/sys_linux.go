// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"golang.org/x/sys/unix"
)

var hostSystem = system{
	alive:       aliveLinux,
	reusePort:   reusePort,
	buffers:     setBuffers,
	linger:      setLinger,
	userTimeout: setUserTimeout,
	tos:         setTOS,
	takeError:   takeError,
	dropForeign: dropForeign,
	peer:        peerName,
	connect:     connectUDP,
	batch:       newLinuxBatch,
	chmodSocket: chmodSocket,
	lockDir:     lockDir,
	sameFile:    sameFile,
	isSocket:    isSocket,
	dup:         dup,
	listens:     listensUnix,
	maxUnixPath: 107, // sun_path holds 108 bytes with the closing zero
	truncated:   notTruncated,
	sendQueue:   func(fd uintptr) (int, error) { return unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) },

	packetInfo:   packetInfo,
	localAddr:    localAddr,
	packetSender: newPacketSender,
	writable:     writable,
}

// aliveLinux asks poll(2).
func aliveLinux(fd uintptr) (State, error) {
	// Not recv(MSG_PEEK), which has an effect: it takes the pending error of the socket with it
	// (sock_error clears sk_err), and a reader that is just being woken by a reset would then see a
	// clean end of stream. Poll changes nothing, and takes no socket lock.
	events, err := pollNow(fd)
	if err != nil {
		return Unknown, err
	}
	return stateLinux(int(fd), events), nil
}

// alivePortable is aliveLinux without unsafe, for the tests.
func alivePortable(fd uintptr) (State, error) {
	events, err := pollPortable(fd)
	if err != nil {
		return Unknown, err
	}
	return stateLinux(int(fd), events), nil
}

// stateLinux reads the answer of poll.
func stateLinux(fd int, events int16) State {
	// The order is that of recv: on a stream, bytes come before the error that ended it; on a
	// datagram socket, the error comes first.
	switch {
	case events == 0:
		return Open
	case events&(unix.POLLRDHUP|unix.POLLHUP) != 0:
		return endedLinux(fd, events)
	case events&unix.POLLERR != 0 && !isStream(fd):
		return Broken
	case events&unix.POLLIN != 0:
		return HasData
	}
	// POLLERR alone on a stream that has not ended: something waits in the error queue
	// (timestamps, zero-copy notices), which is no failure.
	return Open
}

// pollPortable returns what poll(2) says at once.
func pollPortable(fd uintptr) (int16, error) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	for {
		switch _, err := unix.Poll(fds[:], 0); err {
		case nil:
			return fds[0].Revents, nil
		case unix.EINTR: // a signal was pending, also without a wait
		default:
			return 0, err
		}
	}
}

// endedLinux tells apart the ways in which the reading side can be over.
func endedLinux(fd int, events int16) State {
	// POLLIN is set at the end of a stream too, so only the count says whether bytes are left.
	n, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	switch {
	case err == nil && n > 0:
		return HasData
	case events&unix.POLLERR != 0:
		return Broken
	case tcpStillOpen(fd):
		return Open
	}
	return PeerClosed
}

// tcpStillOpen reports whether fd is TCP and the peer has not sent FIN.
func tcpStillOpen(fd int) bool {
	// Poll does not tell our own CloseRead from a FIN of the peer; the state of the connection does.
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false
	}
	const established, finWait1, finWait2 = 1, 4, 5 // include/net/tcp_states.h
	return info.State == established || info.State == finWait1 || info.State == finWait2
}

func setUserTimeout(fd uintptr, ms int) error {
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
}

func reusePort(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}
