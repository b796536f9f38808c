// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"syscall"
	"time"
)

// A Switch is a setting that may also be left alone. The zero value is Default.
type Switch int8

const (
	Default Switch = iota // as package net or the system sets it
	On
	Off
)

// SocketOptions are options for sockets of any kind. The zero value changes nothing, and every
// zero field leaves its option as it is. A field that the network or the system does not have is an
// *OptionError, and is not skipped. Options are only read, so one value may serve many sockets.
//
// Apply sets them on a live connection. Control is a hook for [net.Dialer] and [net.ListenConfig];
// [Dialer] and [ListenConfig] of this package use it.
type SocketOptions struct {
	// NoDelay On sends small TCP segments at once (package net's default), Off lets Nagle's
	// algorithm gather them. Set by Apply, not by Control: package net sets it itself
	// after connect and accept.
	NoDelay Switch

	// KeepAlive configures TCP keep-alive; nil leaves it, a config with Enable false turns it
	// off. Set by Apply, not by Control, for the same reason.
	KeepAlive *net.KeepAliveConfig

	// ReadBuffer and WriteBuffer are the kernel's buffers in bytes. Linux doubles the figure for
	// its bookkeeping and caps it at net.core.rmem_max and wmem_max. For TCP, set before
	// connect or listen, as Control does: later, the window scale is fixed. Negative is an error.
	ReadBuffer, WriteBuffer int

	// TCPUserTimeout bounds how long sent TCP data may stay unacknowledged before the connection
	// fails (RFC 5482, Linux). Rounded up to milliseconds; negative restores the system's default.
	TCPUserTimeout time.Duration

	// Linger is how long Close waits in the kernel for unsent TCP data, rounded up to seconds.
	// Negative throws unsent data away and resets the connection at Close.
	Linger time.Duration

	// TOS is the type-of-service byte of IPv4 and the traffic class of IPv6: DSCP << 2 | ECN.
	// Negative sets it back to 0; above 255 is an error. On TCP, Linux keeps the ECN bits for itself.
	TOS int
}

// An OptionError says which option could not be set and why. Err matches [errors.ErrUnsupported]
// where the network or the system does not have the option.
type OptionError struct {
	Option string // name of the field of SocketOptions
	Err    error
}

// Error returns the option's name and the cause.
func (e *OptionError) Error() string {
	return "netx: socket option " + e.Option + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.Err }

// Control sets the options that must or may be there before connect and listen; it has the
// type of the Control hooks of [net.Dialer] and [net.ListenConfig]. Accepted connections inherit
// them from the listener on Linux.
func (o *SocketOptions) Control(network, _ string, rc syscall.RawConn) error {
	if err := o.validate(network); err != nil {
		return err
	}
	return o.setRaw(rc, nil)
}

// Validate reports the first value that no system takes, or the first option that network ("tcp", "udp", "unix")
// cannot have, as an *OptionError. What the system at hand lacks shows when the options are set.
func (o *SocketOptions) Validate(network string) error { return o.validate(network) }

// Apply sets the options on a live connection, packet connection or listener, which may be
// wrapped (NetConn() net.Conn, as [crypto/tls.Conn] has). It stops at the first option that fails;
// those before it, in the order of the fields, stay set. Linger, buffers and user timeout
// may be changed at any time in the life of conn.
func (o *SocketOptions) Apply(conn any) error {
	sc, err := unwrap(conn)
	if err != nil {
		return err
	}
	if err := o.validate(networkOf(sc)); err != nil {
		return err
	}
	// These two go through package net, whose methods every system has. An interface and not a
	// *net.TCPConn, so that a wrapper with the method serves as well.
	if o.NoDelay != Default {
		err := errors.ErrUnsupported
		if c, ok := sc.(interface{ SetNoDelay(bool) error }); ok {
			err = c.SetNoDelay(o.NoDelay == On)
		}
		if err != nil {
			return &OptionError{"NoDelay", err}
		}
	}
	if o.KeepAlive != nil {
		err := errors.ErrUnsupported
		if c, ok := sc.(interface {
			SetKeepAliveConfig(net.KeepAliveConfig) error
		}); ok {
			err = c.SetKeepAliveConfig(*o.KeepAlive)
		}
		if err != nil {
			return &OptionError{"KeepAlive", err}
		}
	}
	rc, err := rawConn(sc)
	if err != nil {
		return err
	}
	return o.setRaw(rc, sc)
}

// setRaw sets what goes by file descriptor. Where live is a connection of package net, buffers and
// linger go through its methods, which every system has.
func (o *SocketOptions) setRaw(rc syscall.RawConn, live any) error {
	for _, b := range []struct {
		name        string
		read, write int
	}{
		// The kernel takes 32 bits, and package net would cut the rest off.
		{"ReadBuffer", min(o.ReadBuffer, math.MaxInt32), 0},
		{"WriteBuffer", 0, min(o.WriteBuffer, math.MaxInt32)},
	} {
		if b.read == 0 && b.write == 0 {
			continue
		}
		// One option at a time, so that the error names the one that failed.
		var err error
		if c, ok := live.(interface {
			SetReadBuffer(int) error
			SetWriteBuffer(int) error
		}); ok && b.read > 0 {
			err = c.SetReadBuffer(b.read)
		} else if ok {
			err = c.SetWriteBuffer(b.write)
		} else {
			err = control(rc, func(fd uintptr) error { return sys.buffers(fd, b.read, b.write) })
		}
		if err != nil {
			return &OptionError{b.name, err}
		}
	}
	if o.TCPUserTimeout != 0 {
		ms := int(roundUp(o.TCPUserTimeout, time.Millisecond))
		if err := control(rc, func(fd uintptr) error { return sys.userTimeout(fd, ms) }); err != nil {
			return &OptionError{"TCPUserTimeout", err}
		}
	}
	if o.Linger != 0 {
		seconds := int(roundUp(o.Linger, time.Second))
		var err error
		if c, ok := live.(interface{ SetLinger(int) error }); ok {
			err = c.SetLinger(seconds)
		} else {
			err = control(rc, func(fd uintptr) error { return sys.linger(fd, seconds) })
		}
		if err != nil {
			return &OptionError{"Linger", err}
		}
	}
	if o.TOS != 0 {
		err := control(rc, func(fd uintptr) error { return sys.tos(fd, max(o.TOS, 0)) })
		if err != nil {
			return &OptionError{"TOS", err}
		}
	}
	return nil
}

// roundUp returns d in units, at least 1 for a positive d and 0 for a negative one.
func roundUp(d, unit time.Duration) int64 {
	if d < 0 {
		return 0
	}
	// Rounded down, a short positive duration would become 0, which means "off" to the kernel.
	n := int64(d / unit)
	if d%unit != 0 {
		n++
	}
	return min(n, math.MaxInt32) // the kernel takes 32 bits
}

// validate finds values that no system takes and options that the network cannot have.
func (o *SocketOptions) validate(network string) error {
	// Asked here and not of the kernel: some systems take an option of TCP on another socket and do
	// nothing with it.
	tcp := strings.HasPrefix(network, "tcp")
	ip := tcp || strings.HasPrefix(network, "udp") || strings.HasPrefix(network, "ip")
	for _, f := range []struct {
		name string
		set  bool
		ok   bool
		why  string // "": the network does not have it
	}{
		{"NoDelay", o.NoDelay != Default, tcp, ""},
		{"NoDelay", o.NoDelay != Default, o.NoDelay == On || o.NoDelay == Off, "not a Switch"},
		{"KeepAlive", o.KeepAlive != nil, tcp, ""},
		{"ReadBuffer", o.ReadBuffer != 0, o.ReadBuffer > 0, "negative"},
		{"WriteBuffer", o.WriteBuffer != 0, o.WriteBuffer > 0, "negative"},
		{"TCPUserTimeout", o.TCPUserTimeout != 0, tcp, ""},
		{"Linger", o.Linger != 0, tcp, ""},
		{"TOS", o.TOS != 0, ip, ""},
		{"TOS", o.TOS != 0, o.TOS <= 255, "above 255"},
	} {
		if !f.set || f.ok {
			continue
		}
		if f.why == "" {
			return &OptionError{f.name, fmt.Errorf("network %q: %w", network, errors.ErrUnsupported)}
		}
		return &OptionError{f.name, fmt.Errorf("%s: %w", f.why, syscall.EINVAL)}
	}
	return nil
}

// networkOf asks a connection or listener for its network; "" if it has no address.
func networkOf(c any) string {
	var a net.Addr
	switch c := c.(type) {
	case interface{ LocalAddr() net.Addr }:
		a = c.LocalAddr()
	case interface{ Addr() net.Addr }:
		a = c.Addr()
	}
	if isNil(a) { // package net has no address for a connection that was closed early
		return ""
	}
	return a.Network()
}
