// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSocketOptionsInvalid(t *testing.T) {
	near, _ := pair(t, "tcp")
	unixEnd, _ := pair(t, "unix")
	udp, _ := listenUDP(t, "127.0.0.1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for _, c := range []struct {
		conn   any
		o      SocketOptions
		option string
		err    error
	}{
		{near, SocketOptions{TOS: 256}, "TOS", syscall.EINVAL},
		{near, SocketOptions{ReadBuffer: -1}, "ReadBuffer", syscall.EINVAL},
		{near, SocketOptions{WriteBuffer: -1}, "WriteBuffer", syscall.EINVAL},
		{near, SocketOptions{NoDelay: 7}, "NoDelay", syscall.EINVAL},
		{udp, SocketOptions{NoDelay: On}, "NoDelay", errors.ErrUnsupported},
		{udp, SocketOptions{KeepAlive: &net.KeepAliveConfig{}}, "KeepAlive", errors.ErrUnsupported},
		{udp, SocketOptions{TCPUserTimeout: 1}, "TCPUserTimeout", errors.ErrUnsupported},
		{udp, SocketOptions{Linger: 1}, "Linger", errors.ErrUnsupported},
		{unixEnd, SocketOptions{TOS: 8}, "TOS", errors.ErrUnsupported},
		{l, SocketOptions{NoDelay: On}, "NoDelay", errors.ErrUnsupported},
		{l, SocketOptions{KeepAlive: &net.KeepAliveConfig{}}, "KeepAlive", errors.ErrUnsupported},
	} {
		err := c.o.Apply(c.conn)
		var oe *OptionError
		require.ErrorAs(t, err, &oe, "%+v on %T", c.o, c.conn)
		require.Equal(t, c.option, oe.Option)
		require.ErrorIs(t, err, c.err)
		require.Contains(t, err.Error(), c.option)
	}
	a, _ := net.Pipe()
	o := SocketOptions{NoDelay: On}
	require.ErrorIs(t, o.Apply(a), errors.ErrUnsupported)
	near.Close()
	require.ErrorIs(t, o.Apply(near), net.ErrClosed)
	o = SocketOptions{TOS: 8}
	require.ErrorIs(t, o.Apply(near), net.ErrClosed)
}

// The zero value changes nothing and needs nothing of the system.
func TestSocketOptionsZero(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		var o SocketOptions
		for _, network := range []string{"tcp", "unix"} {
			near, _ := pair(t, network)
			require.NoError(t, o.Apply(near))
		}
		udp, _ := listenUDP(t, "127.0.0.1")
		require.NoError(t, o.Apply(udp))
	})
}

// What package net can do by itself works on the stub as well; the rest names itself.
func TestSocketOptionsStub(t *testing.T) {
	useStub(t)
	near, _ := pair(t, "tcp")
	o := SocketOptions{NoDelay: Off, KeepAlive: &net.KeepAliveConfig{Enable: true, Idle: time.Minute},
		ReadBuffer: 1 << 16, WriteBuffer: 1 << 16, Linger: time.Second}
	require.NoError(t, o.Apply(near))
	for option, o := range map[string]SocketOptions{"TOS": {TOS: 8}, "TCPUserTimeout": {TCPUserTimeout: time.Second}} {
		err := o.Apply(near)
		var oe *OptionError
		require.ErrorAs(t, err, &oe)
		require.Equal(t, option, oe.Option)
		require.ErrorIs(t, err, errors.ErrUnsupported)
	}
	d := Dialer{Options: SocketOptions{ReadBuffer: 1 << 16}}
	_, err := d.DialContext(testContext(t), "tcp", near.RemoteAddr().String())
	var oe *OptionError
	require.ErrorAs(t, err, &oe, "before connect only the system can set it")
	lc := ListenConfig{Options: SocketOptions{Linger: -1}}
	_, err = lc.Random(testContext(t), "tcp", "127.0.0.1", PortRange{})
	require.ErrorAs(t, err, &oe)
	require.Equal(t, "Linger", oe.Option)
}

// A negative linger throws unsent data away and resets.
func TestSocketOptionsLinger(t *testing.T) {
	near, far := pair(t, "tcp")
	o := SocketOptions{Linger: -1}
	require.NoError(t, o.Apply(near))
	near.Close()
	_, err := far.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)

	near, far = pair(t, "tcp")
	o = SocketOptions{Linger: time.Millisecond} // rounded up to a second, not down to a reset
	require.NoError(t, o.Apply(near))
	near.Close()
	_, err = far.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestSocketOptionsThroughTLS(t *testing.T) {
	near, far := pair(t, "tcp")
	o := SocketOptions{NoDelay: Off, Linger: -1}
	require.NoError(t, o.Apply(wrapped{tls.Client(near, &tls.Config{InsecureSkipVerify: true})}))
	near.Close()
	_, err := far.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET, "the option reached the socket")
}

func TestRoundUp(t *testing.T) {
	for _, c := range []struct {
		d, unit time.Duration
		want    int64
	}{
		{0, time.Second, 0}, {1, time.Second, 1}, {time.Second, time.Second, 1},
		{time.Second + 1, time.Second, 2},
		{-1, time.Second, 0}, {1<<63 - 1, time.Millisecond, 1<<31 - 1},
		{1500 * time.Microsecond, time.Millisecond, 2},
	} {
		require.Equal(t, c.want, roundUp(c.d, c.unit), "roundUp(%v, %v)", c.d, c.unit)
	}
}
