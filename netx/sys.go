// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// system is what netx asks of the operating system beyond package net. A function that a system
// does not have is that of stubSystem: it does nothing and says "unsupported", and its caller goes
// on without it or reports the error. A file descriptor that a function gets is kept open by
// [syscall.RawConn.Control] while it runs, so the function must not block: Close would wait for it.
type system struct {
	alive       func(fd uintptr) (State, error)
	reusePort   func(fd uintptr) error
	buffers     func(fd uintptr, read, write int) error // 0: leave
	linger      func(fd uintptr, seconds int) error     // negative: off
	userTimeout func(fd uintptr, milliseconds int) error
	tos         func(fd uintptr, tos int) error
	takeError   func(fd uintptr) error // SO_ERROR: returns the pending error and clears it
	dropForeign func(fd uintptr, peer netip.AddrPort)
	peer        func(fd uintptr) (netip.AddrPort, error)
	connect     func(fd uintptr, peer netip.AddrPort) (local netip.AddrPort, err error)
	batch       func(c *net.UDPConn, size int) (fastBatch, error) // nil: none
	chmodSocket func(fd uintptr, mode os.FileMode) error          // before bind
	lockDir     func(ctx context.Context, dir string) (unlock func(), err error)
	sameFile    func(path string) (fileID, error)
	isSocket    func(fd uintptr) (bool, error) // of a descriptor that may be anything
	listens     func(fd uintptr) (bool, error) // SO_ACCEPTCONN
	dup         func(fd uintptr) (uintptr, error)
	maxUnixPath int // longest socket path in bytes, 0 if unknown
	truncated   func(err error) bool
	sendQueue   func(fd uintptr) (int, error)

	packetInfo   func(fd uintptr, six bool) error
	localAddr    func(oob []byte) (local netip.Addr, index uint32)
	packetSender func(fd uintptr) (packetSender, error) // nil: none
	writable     func(fd uintptr) bool
}

// fileID names a file whatever its path is called later.
type fileID struct{ dev, ino uint64 }

// stubSystem is for systems that offer none of it.
var stubSystem = system{
	alive:       func(uintptr) (State, error) { return Unknown, errors.ErrUnsupported },
	reusePort:   func(uintptr) error { return errors.ErrUnsupported },
	buffers:     func(uintptr, int, int) error { return errors.ErrUnsupported },
	linger:      func(uintptr, int) error { return errors.ErrUnsupported },
	userTimeout: func(uintptr, int) error { return errors.ErrUnsupported },
	tos:         func(uintptr, int) error { return errors.ErrUnsupported },
	takeError:   func(uintptr) error { return nil },
	dropForeign: func(uintptr, netip.AddrPort) {},
	peer: func(uintptr) (netip.AddrPort, error) {
		return netip.AddrPort{}, errors.ErrUnsupported
	},
	connect: func(uintptr, netip.AddrPort) (netip.AddrPort, error) {
		return netip.AddrPort{}, errors.ErrUnsupported
	},
	batch:       func(*net.UDPConn, int) (fastBatch, error) { return nil, nil },
	chmodSocket: func(uintptr, os.FileMode) error { return errors.ErrUnsupported },
	lockDir: func(context.Context, string) (func(), error) {
		return nil, errors.ErrUnsupported
	},
	sameFile:    func(string) (fileID, error) { return fileID{}, errors.ErrUnsupported },
	isSocket:    func(uintptr) (bool, error) { return false, errors.ErrUnsupported },
	listens:     func(uintptr) (bool, error) { return false, errors.ErrUnsupported },
	dup:         func(uintptr) (uintptr, error) { return 0, errors.ErrUnsupported },
	maxUnixPath: 0,
	truncated:   func(error) bool { return false },
	sendQueue:   func(uintptr) (int, error) { return 0, errors.ErrUnsupported },

	packetInfo:   func(uintptr, bool) error { return errors.ErrUnsupported },
	localAddr:    func([]byte) (netip.Addr, uint32) { return netip.Addr{}, 0 },
	packetSender: func(uintptr) (packetSender, error) { return nil, nil },
	writable:     func(uintptr) bool { return true },
}

// sys is the system in use. Only tests replace it, to run the same cases with stubSystem.
var sys = &hostSystem

// netConner is what a wrapper of a connection offers when it lets others see through it;
// tls.Conn does, and most proxies of a connection.
type netConner interface{ NetConn() net.Conn }

// maxUnwrap bounds a chain of wrappers; a chain longer than this is a cycle.
const maxUnwrap = 32

// unwrap follows NetConn down to the first value that has a file descriptor.
func unwrap(c any) (syscall.Conn, error) {
	if t, ok := c.(*net.TCPConn); ok && t != nil {
		return t, nil // by far the most common; the rest looks behind interfaces
	}
	for range maxUnwrap {
		if isNil(c) {
			break
		}
		// Before NetConn: the outermost value that has a descriptor is the one that was meant.
		if sc, ok := c.(syscall.Conn); ok {
			return sc, nil
		}
		w, ok := c.(netConner)
		if !ok {
			break
		}
		c = w.NetConn()
	}
	return nil, noDescriptor(c)
}

// rawConn is unwrap and SyscallConn in one.
func rawConn(c any) (syscall.RawConn, error) {
	sc, err := unwrap(c)
	if err != nil {
		return nil, err
	}
	rc, err := sc.SyscallConn()
	if err == nil && rc == nil {
		return nil, noDescriptor(c) // a wrapper around a connection that has none
	}
	return rc, err
}

func noDescriptor(c any) error {
	return fmt.Errorf("netx: %T has no file descriptor: %w", c, errors.ErrUnsupported)
}

// errNotRun says that a syscall.RawConn that is not package net's reported success and did nothing.
var errNotRun = fmt.Errorf("netx: the RawConn did not run the function: %w", errors.ErrUnsupported)

// control runs f on the descriptor of rc and returns the first error of the two.
func control(rc syscall.RawConn, f func(fd uintptr) error) error {
	ferr := errNotRun
	if err := rc.Control(func(fd uintptr) { ferr = f(fd) }); err != nil {
		return err
	}
	return ferr
}
