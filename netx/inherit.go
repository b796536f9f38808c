// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// An Inherited is a socket that another process opened and handed over. Exactly one of Listener and
// PacketConn is set. It belongs to the caller.
type Inherited struct {
	// Name is what the service manager calls it (FileDescriptorName=), "" if it gave no names.
	Name string
	// Listener is set for stream sockets: a *net.TCPListener or *net.UnixListener.
	Listener net.Listener
	// PacketConn is set for datagram sockets: a *net.UDPConn or *net.UnixConn.
	PacketConn net.PacketConn
}

// Close closes the socket.
func (i Inherited) Close() error {
	if i.Listener != nil {
		return i.Listener.Close()
	}
	if i.PacketConn != nil {
		return i.PacketConn.Close()
	}
	return nil
}

// firstInheritedFD is where handed-over descriptors start: SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstInheritedFD = 3

// FromSystemd returns the sockets that systemd, or another manager that speaks its protocol
// (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES), opened for this process. It returns
// none and no error if there are none for this process. The variables are removed from the
// environment, so that child processes do not take them for theirs and a second call returns none.
// If any descriptor is not a socket that can be served, all are closed and the error says which.
func FromSystemd() ([]Inherited, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	if pid == "" || count == "" {
		return nil, nil
	}
	p, err := strconv.Atoi(pid)
	if err != nil {
		return nil, fmt.Errorf("netx: LISTEN_PID %q is no number", pid)
	}
	if p != os.Getpid() {
		return nil, nil // meant for another process
	}
	// From here on the descriptors are ours, whatever becomes of them. The variables go also when
	// they are broken: a second attempt would find the descriptors closed.
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(v)
	}
	n, err := strconv.Atoi(count)
	// More than any limit of descriptors is a broken variable, not a service with many sockets.
	if err != nil || n < 0 || n > 1<<16 {
		return nil, fmt.Errorf("netx: LISTEN_FDS %q is no number of sockets", count)
	}
	var name []string
	if names != "" {
		name = strings.Split(names, ":")
	}
	all := make([]Inherited, 0, n)
	var firstErr error
	for i := range n {
		in, err := fromFD(uintptr(firstInheritedFD + i))
		if err != nil {
			// Go on: the sockets behind this one must be taken over before they can be closed.
			if firstErr == nil {
				firstErr = fmt.Errorf("netx: inherited descriptor %d: %w", firstInheritedFD+i, err)
			}
			continue
		}
		if i < len(name) {
			in.Name = name[i]
		}
		all = append(all, in)
	}
	if firstErr != nil {
		for _, in := range all {
			_ = in.Close()
		}
		return nil, firstErr
	}
	return all, nil
}

// fromFD takes over one descriptor, if it is a socket.
func fromFD(fd uintptr) (Inherited, error) {
	switch ok, err := sys.isSocket(fd); {
	case err != nil:
		return Inherited{}, err
	case !ok:
		// It stays open. Where fewer descriptors were handed over than promised, this one may be
		// anything, even the poller of the Go runtime.
		return Inherited{}, errors.New("not a socket")
	}
	f := os.NewFile(fd, "LISTEN_FD_"+strconv.Itoa(int(fd)))
	defer f.Close() // FromFile makes its own copy
	return FromFile(f)
}

// listens returns an error if l is a socket that does not listen, where the system tells.
func listens(l net.Listener) error {
	rc, err := rawConn(l)
	if err != nil {
		return err
	}
	return control(rc, func(fd uintptr) error {
		// Where the system cannot tell, the first Accept will.
		if ok, err := sys.listens(fd); err == nil && !ok {
			return fmt.Errorf("socket does not listen: %w", syscall.EINVAL)
		}
		return nil
	})
}

// File returns a copy of the descriptor of c, a listener or connection, to hand to another process:
// in exec.Cmd.ExtraFiles, for example, where [FromFile] takes it up. The caller closes it; c goes
// on.
//
// Not so the method File of package net's types. The descriptor of the file that it returns is made
// blocking when a process is started with it, and the socket with it, since both are one: an Accept
// of c then waits in the kernel, and Close of c waits for that Accept, until somebody connects.
//
// The error matches [errors.ErrUnsupported] if c has no descriptor, or on a system where
// descriptors cannot be handed over by number.
func File(c any) (*os.File, error) {
	rc, err := rawConn(c)
	if err != nil {
		return nil, err
	}
	var copied uintptr
	err = control(rc, func(fd uintptr) (err error) {
		copied, err = sys.dup(fd)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netx: copy of the descriptor of %T: %w", c, err)
	}
	// Package os makes a descriptor blocking again only if it has made it non-blocking itself.
	return os.NewFile(copied, "socket"), nil
}

// FromFile makes a listener or packet connection of a copy of f, a descriptor got from anywhere: a
// parent process (exec.Cmd.ExtraFiles), a Unix socket. The caller still owns f. A stream socket
// that does not listen, such as a connection, is an error. Closing a Unix listener made here does
// not remove its file, which belongs to the process that bound it.
func FromFile(f *os.File) (Inherited, error) {
	if f == nil {
		return Inherited{}, os.ErrInvalid
	}
	l, lerr := net.FileListener(f)
	if lerr == nil {
		// Package net takes every stream socket for a listener, also a connection, and every Unix
		// socket, also a datagram one.
		if l.Addr().Network() != "unixgram" {
			if lerr = listens(l); lerr == nil {
				return Inherited{Listener: l}, nil
			}
			_ = l.Close()
			return Inherited{}, lerr
		}
		_ = l.Close()
	}
	pc, perr := net.FilePacketConn(f)
	if perr == nil {
		return Inherited{PacketConn: pc}, nil
	}
	return Inherited{}, errors.Join(lerr, perr)
}
