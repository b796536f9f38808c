// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrPathTooLong says that a path does not fit into the address of a Unix socket, which holds 107
// bytes on Linux and Windows and 103 on the BSDs and macOS; the kernel only says "invalid
// argument".
var ErrPathTooLong = errors.New("netx: unix socket path too long")

// ErrNotSocket says that the path to listen on is taken by a file that is not a socket. It is
// never removed.
var ErrNotSocket = errors.New("netx: path is taken by a file that is not a socket")

// A StalePolicy says what ListenUnix does about a socket file that a dead process left behind.
type StalePolicy int

const (
	// RemoveStale removes a socket file that nobody listens on: the default.
	RemoveStale StalePolicy = iota
	// KeepStale never removes anything.
	KeepStale
)

// UnixOptions are the choices of [ListenUnix]. The zero value is a stream socket that replaces a
// stale file and has the mode that the umask gives.
type UnixOptions struct {
	// Network is "unix" (default) or "unixpacket".
	Network string
	// Stale says what to do about a stale file.
	Stale StalePolicy
	// Mode is the permission of the socket file: who may connect, on Linux. 0 leaves it to the
	// umask. On Linux the file never has more than Mode; elsewhere it does for a moment.
	Mode fs.FileMode
	// Options are set on the listening socket.
	Options SocketOptions
}

// A UnixListener listens on a Unix socket and removes its file when it is closed, unless another
// socket is there by then. Use [ListenUnix] to make one.
type UnixListener struct {
	*net.UnixListener
	path string // "" if there is no file to remove
	id   fileID
	keep atomic.Bool // see SetUnlinkOnClose
	once sync.Once
	err  error
}

// dirLockWait is how long ListenUnix waits for others that are listening in the same directory.
// They hold the lock for some system calls only; a holder that keeps it longer is another program.
const dirLockWait = 2 * time.Second

// ListenUnix listens on the Unix socket path. A path that starts with @ is abstract and has no file
// (Linux). If the path is taken:
//
//   - by a socket that somebody listens on, the error matches [syscall.EADDRINUSE];
//   - by a socket that refuses connections, the file is removed and listening goes on
//     (RemoveStale);
//   - by a socket that can be neither connected to nor is refused (permission), EADDRINUSE;
//   - by another file, the error matches [ErrNotSocket].
//
// Processes that listen through this function cannot remove each other's fresh sockets: they
// hold an flock on the directory while they look and bind. Where the directory cannot be locked
// (no read permission, Windows), nothing is removed. A path that is too long is [ErrPathTooLong].
// When ctx ends, the error wraps [context.Cause] of ctx.
func ListenUnix(ctx context.Context, path string, o UnixOptions) (*UnixListener, error) {
	network := o.Network
	if network == "" {
		network = "unix"
	}
	fail := func(err error) (*UnixListener, error) {
		err = causeOf(ctx, innermost(err))
		at := &net.UnixAddr{Name: path, Net: network}
		return nil, &net.OpError{Op: "listen", Net: network, Addr: at, Err: err}
	}
	if network != "unix" && network != "unixpacket" {
		return fail(net.UnknownNetworkError(network))
	}
	if path == "" { // package net would choose an abstract name that nobody knows
		return fail(fmt.Errorf("empty path: %w", syscall.EINVAL))
	}
	if err := CheckUnixPath(path); err != nil {
		return fail(err)
	}
	if ctx.Err() != nil {
		return fail(ctx.Err())
	}
	if path[0] == '@' { // has no file, so none that could be stale
		l, err := bindUnix(ctx, network, path, o)
		if err != nil {
			return fail(err)
		}
		return &UnixListener{UnixListener: l}, nil
	}

	lockCtx, cancel := context.WithTimeout(ctx, dirLockWait)
	defer cancel()
	unlock, lockErr := sys.lockDir(lockCtx, filepath.Dir(path))
	if lockErr == nil {
		defer unlock()
	}
	// Bind first and look only if that fails: a file that appears after a look would be missed.
	l, err := bindUnix(ctx, network, path, o)
	if err != nil && errors.Is(err, errInUse) {
		switch stale, serr := isStale(ctx, network, path); {
		case serr != nil:
			return fail(serr)
		case !stale || o.Stale == KeepStale:
			return fail(err)
		case lockErr != nil:
			// Between the look and the removal another server may have put its fresh socket there.
			return fail(fmt.Errorf("stale file not removed, directory not locked: %w: %w", lockErr, err))
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail(err)
		}
		l, err = bindUnix(ctx, network, path, o)
	}
	if err != nil {
		return fail(err)
	}
	u := &UnixListener{UnixListener: l}
	// Package net would remove whatever has the name when l is closed, also the socket of the
	// server that took its place. Close does it by the identity of the file.
	if id, err := sys.sameFile(path); err == nil {
		l.SetUnlinkOnClose(false)
		u.path, u.id = path, id
	}
	if o.Mode != 0 { // the umask may have taken bits that were asked for
		if err := os.Chmod(path, o.Mode.Perm()); err != nil {
			_ = u.Close()
			return fail(err)
		}
	}
	return u, nil
}

// SetUnlinkOnClose says whether Close removes the socket file, which it does unless told otherwise.
// A server that has handed the socket over ([net.UnixListener.File]) says no.
func (u *UnixListener) SetUnlinkOnClose(unlink bool) {
	if u.path == "" {
		u.UnixListener.SetUnlinkOnClose(unlink) // the system cannot identify files
		return
	}
	u.keep.Store(!unlink)
}

// Close stops listening and removes the socket file if it is still the one that was made. It is
// idempotent and may run while Accept blocks, which then returns [net.ErrClosed].
func (u *UnixListener) Close() error {
	u.once.Do(func() {
		if u.path != "" && !u.keep.Load() {
			// Before the socket is closed: as long as it lives, nobody takes the file for stale
			// and puts another in its place between the look and the removal.
			if id, err := sys.sameFile(u.path); err == nil && id == u.id {
				_ = os.Remove(u.path)
			}
		}
		u.err = u.UnixListener.Close()
	})
	return u.err
}

// bindUnix is one attempt to listen.
func bindUnix(ctx context.Context, network, path string, o UnixOptions) (*net.UnixListener, error) {
	nc := net.ListenConfig{Control: func(network, address string, rc syscall.RawConn) error {
		if err := o.Options.Control(network, address, rc); err != nil {
			return err
		}
		if o.Mode == 0 {
			return nil
		}
		err := control(rc, func(fd uintptr) error { return sys.chmodSocket(fd, o.Mode) })
		if errors.Is(err, errors.ErrUnsupported) {
			return nil // ListenUnix sets the mode after bind
		}
		return err
	}}
	l, err := nc.Listen(ctx, network, path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// isStale reports whether path is a socket that nobody listens on.
func isStale(ctx context.Context, network, path string) (bool, error) {
	// Twice: between bind and listen a starting server refuses connections too, and not every
	// program takes our lock.
	const between = 20 * time.Millisecond
	for attempt := range 2 {
		if attempt > 0 {
			select {
			case <-ctx.Done():
				return false, context.Cause(ctx)
			case <-time.After(between):
			}
		}
		fi, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return true, nil // gone meanwhile
		case err != nil:
			return false, err
		case fi.Mode()&fs.ModeSocket == 0:
			return false, ErrNotSocket
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, network, path)
		if err == nil {
			_ = c.Close()
			return false, nil
		}
		if !errors.Is(err, errRefused) {
			// A full backlog (EAGAIN), another type of socket (EPROTOTYPE), no permission: alive,
			// or not known to be dead. nil if ctx goes on.
			return false, context.Cause(ctx)
		}
	}
	return true, nil
}

// CheckUnixPath returns an error for a path that no socket can have: [ErrPathTooLong], or a zero
// byte in it. ListenUnix and Dialer check it themselves.
func CheckUnixPath(path string) error {
	if strings.IndexByte(path, 0) >= 0 {
		// The kernel would take what is before it.
		return fmt.Errorf("zero byte in path: %w", syscall.EINVAL)
	}
	limit := sys.maxUnixPath
	if limit == 0 || len(path) <= limit {
		return nil
	}
	return fmt.Errorf("%w: %d bytes, at most %d", ErrPathTooLong, len(path), limit)
}
