// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"net"
	"strings"
	"syscall"
)

// A Dialer is a [net.Dialer] that sets socket options and refuses to connect to itself. The zero
// value dials as package net does, except for that refusal. When ctx ends a dial, the error wraps
// [context.Cause] of ctx.
type Dialer struct {
	// Net is the dialer underneath. Its Control hooks run after the options.
	Net net.Dialer
	// Options are set before connect where the kernel wants them there, the rest on the
	// connection. If one cannot be set, the dial fails with an *OptionError.
	Options SocketOptions
}

// DialContext connects to address. Beyond what [net.Dialer.DialContext] does, a TCP connection
// whose two ends are the same socket is closed and reported as [ErrSelfConnect], also when the
// local port was given, and a Unix socket path that is too long as [ErrPathTooLong].
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.HasPrefix(network, "unix") {
		if err := CheckUnixPath(address); err != nil {
			to := &net.UnixAddr{Name: address, Net: network}
			return nil, &net.OpError{Op: "dial", Net: network, Addr: to, Err: err}
		}
	}
	c, err := d.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if IsSelfConnect(c) {
		if t, ok := c.(*net.TCPConn); ok {
			// A FIN would leave the port in TIME_WAIT and so keep the real server from
			// coming back on it.
			_ = t.SetLinger(0)
		}
		_ = c.Close()
		return nil, dialError(network, c, ErrSelfConnect)
	}
	return c, nil
}

// dial is net.Dialer.DialContext with the options set.
func (d *Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	nd := d.Net // a copy: the caller's hooks stay as they are
	plain, hook := nd.Control, nd.ControlContext
	nd.Control = nil
	nd.ControlContext = func(ctx context.Context, network, address string, rc syscall.RawConn) error {
		if err := d.Options.Control(network, address, rc); err != nil {
			return err
		}
		switch {
		case hook != nil: // which overrides Control, as in package net
			return hook(ctx, network, address, rc)
		case plain != nil:
			return plain(network, address, rc)
		}
		return nil
	}
	c, err := nd.DialContext(ctx, network, address)
	if op, ok := err.(*net.OpError); ok {
		op.Err = causeOf(ctx, op.Err)
	}
	if err != nil {
		return nil, err
	}
	// Package net sets these two itself after connect; earlier it would undo them.
	late := SocketOptions{NoDelay: d.Options.NoDelay, KeepAlive: d.Options.KeepAlive}
	if err := late.Apply(c); err != nil {
		_ = c.Close()
		return nil, dialError(network, c, err)
	}
	return c, nil
}

// dialError is err with the addresses of c, which was connected before it was found unfit.
func dialError(network string, c net.Conn, err error) error {
	return &net.OpError{Op: "dial", Net: network,
		Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
