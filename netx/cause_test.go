// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// muteResolver answers nothing until its context ends.
func muteResolver() *net.Resolver {
	return &net.Resolver{PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
}

// An end of the context is reported by its cause, whichever function it meets and whether it comes
// before the call or during it.
func TestCauseOfTheContext(t *testing.T) {
	server, addr := listenUDP(t, "127.0.0.1")
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer tcp.Close()
	dir := shortDir(t)
	mute := muteResolver()
	silent := Probe{Payload: []byte("?"), Wait: long}
	before := map[string]func(ctx context.Context) error{
		"Dialer.DialContext": func(ctx context.Context) error {
			_, err := new(Dialer).DialContext(ctx, "tcp", tcp.Addr().String())
			return err
		},
		"ListenRandom": func(ctx context.Context) error {
			_, err := ListenRandom(ctx, "tcp", "127.0.0.1", PortRange{28100, 28107})
			return err
		},
		"ListenPacketRandom": func(ctx context.Context) error {
			_, err := ListenPacketRandom(ctx, "udp", "127.0.0.1", PortRange{})
			return err
		},
		"ListenN": func(ctx context.Context) error {
			_, err := ListenN(ctx, "tcp", "127.0.0.1:0", 2)
			return err
		},
		"ListenPacketN": func(ctx context.Context) error {
			_, err := ListenPacketN(ctx, "udp", "127.0.0.1:0", 2)
			return err
		},
		"ListenUnix": func(ctx context.Context) error {
			_, err := ListenUnix(ctx, dir+"/s", UnixOptions{})
			return err
		},
		"lockDir": func(ctx context.Context) error {
			unlock, err := sys.lockDir(context.Background(), dir)
			if err != nil { // no locks here
				return context.Cause(ctx)
			}
			defer unlock()
			_, err = sys.lockDir(ctx, dir)
			return err
		},
		"LocalIP": func(ctx context.Context) error {
			_, err := LocalIP(ctx, LocalIPOptions{Route: "127.0.0.1"})
			return err
		},
	}
	during := map[string]func(ctx context.Context) error{
		"DialUDP": func(ctx context.Context) error {
			_, _, err := DialUDP(ctx, "udp", addr.String(), silent)
			return err
		},
		"Dialer.DialUDP, looking up": func(ctx context.Context) error {
			d := Dialer{Net: net.Dialer{Resolver: mute}}
			_, _, err := d.DialUDP(ctx, "udp", "slow.test:9", silent)
			return err
		},
		"Dialer.DialContext, looking up": func(ctx context.Context) error {
			d := Dialer{Net: net.Dialer{Resolver: mute}}
			_, err := d.DialContext(ctx, "tcp", "slow.test:9")
			return err
		},
		"ProbeUDP": func(ctx context.Context) error {
			c, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
			require.NoError(t, err)
			defer c.Close()
			_, err = ProbeUDP(ctx, c, silent)
			return err
		},
	}
	why := errors.New("no longer wanted")
	ended, end := context.WithCancelCause(testContext(t))
	end(why)
	for name, f := range before {
		require.ErrorIs(t, f(ended), why, name)
	}
	for name, f := range during {
		require.ErrorIs(t, f(ended), why, "%s, before", name)
		ctx, end := context.WithCancelCause(testContext(t))
		time.AfterFunc(5*time.Millisecond, func() { end(why) })
		require.ErrorIs(t, f(ctx), why, name)
		ctx, stop := context.WithTimeoutCause(testContext(t), 5*time.Millisecond, why)
		require.ErrorIs(t, f(ctx), why, "%s, a deadline", name)
		stop()
	}
}

// Without a cause of its own, an ended context leaves the error of package net as it is.
func TestNoCauseOfTheContext(t *testing.T) {
	d := Dialer{Net: net.Dialer{Resolver: muteResolver()}}
	ctx, cancel := context.WithTimeout(testContext(t), 5*time.Millisecond)
	defer cancel()
	_, err := d.DialContext(ctx, "tcp", "slow.test:9")
	var dns *net.DNSError
	require.ErrorAs(t, err, &dns)
	require.Equal(t, "slow.test", dns.Name)
	require.True(t, dns.Timeout())
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
