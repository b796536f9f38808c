// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"math"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// opt reads an option back from the kernel.
func opt(t *testing.T, c any, level, name int) int {
	t.Helper()
	rc, err := rawConn(c)
	require.NoError(t, err)
	var v int
	require.NoError(t, control(rc, func(fd uintptr) (err error) {
		v, err = unix.GetsockoptInt(int(fd), level, name)
		return err
	}))
	return v
}

var everyOption = SocketOptions{
	NoDelay:        Off,
	KeepAlive:      &net.KeepAliveConfig{Enable: true, Idle: 71 * time.Second, Interval: 7 * time.Second, Count: 5},
	ReadBuffer:     40000,
	WriteBuffer:    50000,
	TCPUserTimeout: 12345*time.Millisecond - time.Microsecond,
	Linger:         2500 * time.Millisecond,
	TOS:            0x28,
}

func hasEveryOption(t *testing.T, c net.Conn, late bool) {
	t.Helper()
	if late {
		require.Equal(t, 0, opt(t, c, unix.IPPROTO_TCP, unix.TCP_NODELAY), "TCP_NODELAY")
		require.Equal(t, 1, opt(t, c, unix.SOL_SOCKET, unix.SO_KEEPALIVE), "SO_KEEPALIVE")
		require.Equal(t, 71, opt(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), "TCP_KEEPIDLE")
		require.Equal(t, 7, opt(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), "TCP_KEEPINTVL")
		require.Equal(t, 5, opt(t, c, unix.IPPROTO_TCP, unix.TCP_KEEPCNT), "TCP_KEEPCNT")
	}
	require.Equal(t, 2*40000, opt(t, c, unix.SOL_SOCKET, unix.SO_RCVBUF), "SO_RCVBUF")
	require.Equal(t, 2*50000, opt(t, c, unix.SOL_SOCKET, unix.SO_SNDBUF), "SO_SNDBUF")
	require.Equal(t, 12345, opt(t, c, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT), "TCP_USER_TIMEOUT")
	if c.LocalAddr().(*net.TCPAddr).IP.To4() != nil {
		require.Equal(t, 0x28, opt(t, c, unix.IPPROTO_IP, unix.IP_TOS), "IP_TOS")
	} else {
		require.Equal(t, 0x28, opt(t, c, unix.IPPROTO_IPV6, unix.IPV6_TCLASS), "IPV6_TCLASS")
	}
	rc, err := rawConn(c)
	require.NoError(t, err)
	require.NoError(t, control(rc, func(fd uintptr) error {
		l, err := unix.GetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER)
		require.Equal(t, unix.Linger{Onoff: 1, Linger: 3}, *l, "SO_LINGER")
		return err
	}))
}

// Every option, read back: on a live connection, through the dialer, and inherited from a listener.
func TestSocketOptionsReachTheKernel(t *testing.T) {
	families(t, func(t *testing.T, loopback string) {
		lc := ListenConfig{Options: everyOption}
		lc.Options.NoDelay, lc.Options.KeepAlive = Default, nil
		l, err := lc.Random(testContext(t), "tcp", loopback, PortRange{})
		require.NoError(t, err)
		defer l.Close()
		d := Dialer{Options: everyOption}
		dialled, err := d.DialContext(testContext(t), "tcp", l.Addr().String())
		require.NoError(t, err)
		defer dialled.Close()
		accepted, err := l.Accept()
		require.NoError(t, err)
		defer accepted.Close()
		hasEveryOption(t, dialled, true)
		hasEveryOption(t, accepted, false)

		plain, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		defer plain.Close()
		require.NoError(t, everyOption.Apply(wrapped{plain}))
		hasEveryOption(t, plain, true)

		off := SocketOptions{NoDelay: On, KeepAlive: &net.KeepAliveConfig{}, TCPUserTimeout: -1, TOS: -1}
		require.NoError(t, off.Apply(plain))
		require.Equal(t, 1, opt(t, plain, unix.IPPROTO_TCP, unix.TCP_NODELAY))
		require.Equal(t, 0, opt(t, plain, unix.SOL_SOCKET, unix.SO_KEEPALIVE))
		require.Equal(t, 0, opt(t, plain, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT))
		require.Equal(t, 0, opt(t, plain, unix.IPPROTO_IP, unix.IP_TOS))
	})
}

// More than 32 bits of buffer are much, and not what is left after the rest is cut off.
func TestSocketOptionsHugeBuffers(t *testing.T) {
	if strconv.IntSize == 32 {
		t.Skip("an int cannot say it")
	}
	near, far := pair(t, "tcp")
	defer near.Close()
	defer far.Close()
	for _, name := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		much := SocketOptions{ReadBuffer: math.MaxInt32, WriteBuffer: math.MaxInt32}
		require.NoError(t, much.Apply(near))
		want := opt(t, near, unix.SOL_SOCKET, name)
		more := int64(math.MaxUint32) + 2
		much = SocketOptions{ReadBuffer: int(more), WriteBuffer: int(more)}
		require.NoError(t, much.Apply(near))
		require.Equal(t, want, opt(t, near, unix.SOL_SOCKET, name))
	}
}

// A raw descriptor without the methods of package net's types gets the same options.
func TestSocketOptionsRaw(t *testing.T) {
	near, _ := pair(t, "tcp")
	rc, err := rawConn(near)
	require.NoError(t, err)
	o := everyOption
	o.NoDelay, o.KeepAlive = Default, nil
	require.NoError(t, o.Control("tcp4", "", rc))
	hasEveryOption(t, near, false)

	o = SocketOptions{Linger: -1} // on, with no time: that is what resets
	require.NoError(t, o.Control("tcp4", "", rc))
	require.NoError(t, control(rc, func(fd uintptr) error {
		l, err := unix.GetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER)
		require.Equal(t, unix.Linger{Onoff: 1}, *l, "SO_LINGER")
		return err
	}))

	// What Control leaves to Apply is refused all the same where the network does not have it.
	for option, o := range map[string]SocketOptions{"NoDelay": {NoDelay: On}, "KeepAlive": {KeepAlive: &net.KeepAliveConfig{}}} {
		err := o.Control("udp4", "", rc)
		var oe *OptionError
		require.ErrorAs(t, err, &oe)
		require.Equal(t, option, oe.Option)
		require.NoError(t, o.Control("tcp4", "", rc))
	}
}

// The traffic class of a dual-stack UDP socket covers what it sends in IPv4.
func TestSocketOptionsDualStackTOS(t *testing.T) {
	lc := ListenConfig{Options: SocketOptions{TOS: 0xb8, ReadBuffer: 40000}}
	c, err := lc.PacketRandom(testContext(t), "udp", "", PortRange{})
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, 0xb8, opt(t, c, unix.IPPROTO_IP, unix.IP_TOS))
	require.Equal(t, 80000, opt(t, c, unix.SOL_SOCKET, unix.SO_RCVBUF))
	if c.LocalAddr().(*net.UDPAddr).IP.To4() == nil {
		require.Equal(t, 0xb8, opt(t, c, unix.IPPROTO_IPV6, unix.IPV6_TCLASS))
	}
}

// The user timeout ends a connection whose peer has vanished, and Alive sees it.
func TestUserTimeoutOnDeadNetwork(t *testing.T) {
	inNetns(t, func(t *testing.T, ip func(...string)) {
		ip("link", "set", "lo", "up")
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		o := SocketOptions{TCPUserTimeout: 300 * time.Millisecond}
		if err := o.Apply(c); err != nil {
			t.Error(err)
			return
		}
		ip("link", "set", "lo", "down")
		c.Write([]byte("into the void"))
		deadline := time.Now().Add(15 * time.Second)
		state := Open
		for state == Open && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
			state, err = Alive(c)
		}
		if state != Broken || err != nil {
			t.Errorf("Alive after the user timeout: %v, %v", state, err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) && err == os.ErrDeadlineExceeded {
			t.Errorf("read after the user timeout: %v", err)
		}
	})
}

// What waits in the error queue of a healthy stream (here a zero-copy notice) is no failure.
func TestAliveIgnoresErrorQueue(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		if stub {
			return
		}
		near, far := pair(t, "tcp")
		rc, err := rawConn(near)
		require.NoError(t, err)
		require.NoError(t, control(rc, func(fd uintptr) error {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1); err != nil {
				return err
			}
			return unix.Sendto(int(fd), make([]byte, 20000), unix.MSG_ZEROCOPY, nil)
		}))
		far.Read(make([]byte, 20000))
		eventually(t, "the notice is there", func() bool {
			var events int16
			rc.Control(func(fd uintptr) { events, _ = pollPortable(fd) })
			return events&unix.POLLERR != 0
		})
		aliveIs(t, near, Open, stub)
		far.Write([]byte("x"))
		aliveIs(t, near, HasData, stub)
	})
}
