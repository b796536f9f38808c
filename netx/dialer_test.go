// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// freePort returns a loopback address whose TCP port nobody had a moment ago.
func freePort(t *testing.T, loopback string) netip.AddrPort {
	l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// A program that dials a dead port of its own host from that same port reaches itself.
// acceptance: S06 fault: 20
func TestDialerRefusesSelfConnect(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("not every system lets a TCP socket connect to itself")
	}
	families(t, func(t *testing.T, loopback string) {
		for range 20 {
			addr := freePort(t, loopback)
			local := net.TCPAddrFromAddrPort(addr)

			plain := net.Dialer{LocalAddr: local}
			c, err := plain.Dial("tcp", addr.String())
			require.NoError(t, err, "package net connects to itself")
			require.True(t, IsSelfConnect(c))
			c.(*net.TCPConn).SetLinger(0)
			c.Close()

			d := Dialer{Net: net.Dialer{LocalAddr: local}}
			_, err = d.DialContext(testContext(t), "tcp", addr.String())
			require.ErrorIs(t, err, ErrSelfConnect)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			l, err := net.Listen("tcp", addr.String())
			require.NoError(t, err, "the port is free again for the real server")
			l.Close()
		}
	})
}

func TestDialerDials(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var hooks []string
	d := Dialer{Net: net.Dialer{Control: func(network, address string, _ syscall.RawConn) error {
		hooks = append(hooks, "control "+network)
		return nil
	}}}
	c, err := d.DialContext(testContext(t), "tcp", l.Addr().String())
	require.NoError(t, err)
	c.Close()
	d.Net.ControlContext = func(context.Context, string, string, syscall.RawConn) error {
		hooks = append(hooks, "control with context")
		return errors.New("hook says no")
	}
	_, err = d.DialContext(testContext(t), "tcp", l.Addr().String())
	require.ErrorContains(t, err, "hook says no")
	require.Equal(t, []string{"control tcp4", "control with context"}, hooks)

	l.Close()
	var plain Dialer
	_, err = plain.DialContext(testContext(t), "tcp", l.Addr().String())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NotErrorIs(t, err, ErrSelfConnect)
}

// fault: 94
func TestDialerUnixPath(t *testing.T) {
	if sys.maxUnixPath == 0 {
		t.Skip("the longest path is not known here")
	}
	var d Dialer
	_, err := d.DialContext(testContext(t), "unix", strings.Repeat("x", sys.maxUnixPath+1))
	require.ErrorIs(t, err, ErrPathTooLong)
	_, err = d.DialContext(testContext(t), "unix", "/"+strings.Repeat("x", sys.maxUnixPath-1))
	require.ErrorIs(t, err, os.ErrNotExist, "the longest path reaches the kernel")
}

// With ten ports to dial from, the eleventh connection to one address has none.
// fault: 118
func TestDialerNoFreePort(t *testing.T) {
	inNetns(t, func(t *testing.T, ip func(...string)) {
		ip("link", "set", "lo", "up")
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40009"), 0); err != nil {
			t.Error(err)
			return
		}
		l, err := net.Listen("tcp", "127.0.0.1:1234")
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		var d Dialer
		var errs []error
		for range 12 {
			c, err := d.DialContext(context.Background(), "tcp", "127.0.0.1:1234")
			if err != nil {
				errs = append(errs, err)
				continue
			}
			defer c.Close()
		}
		if len(errs) != 2 || !errors.Is(errs[0], syscall.EADDRNOTAVAIL) || !errors.Is(errs[1], syscall.EADDRNOTAVAIL) {
			t.Errorf("12 dials from 10 ports: %v", errs)
		}
		errs = nil
		for range 12 {
			c, _, err := DialUDP(context.Background(), "udp", "127.0.0.1:1234", Probe{})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			defer c.Close()
		}
		var ne net.Error
		if len(errs) != 2 || !errors.Is(errs[0], syscall.EADDRNOTAVAIL) || !errors.As(errs[1], &ne) || ne.Timeout() {
			t.Errorf("12 UDP dials from 10 ports: %v", errs)
		}
	})
}
