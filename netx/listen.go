// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// A ListenConfig holds what its listening methods share. The zero value listens as package net
// does. The functions ListenRandom, ListenReusePort, ListenN and their packet forms use the zero
// value.
//
// The methods bind what they were told: an IPv4 address, also 0.0.0.0, is bound in IPv4 and not
// on a dual-stack socket, "localhost" is loopback whatever the resolver says, and a host that does
// not parse or resolve is an error, never every interface. An empty host is every interface. When
// ctx ends before all sockets are open, none stays open and the error wraps [context.Cause] of ctx.
type ListenConfig struct {
	// Net is the configuration underneath. Its Control hook runs after the options.
	Net net.ListenConfig
	// Options are set on the listening socket before bind. NoDelay and KeepAlive belong to
	// connections: set them with Apply on what Accept returns.
	Options SocketOptions
}

// ListenReusePort listens with SO_REUSEPORT, so that several sockets, also of other processes of
// the same user, share the address and the kernel spreads connections over them. The error matches
// [errors.ErrUnsupported] where the system does not spread: Linux and FreeBSD do.
//
// Connections that wait in a listener's queue are reset when it is closed, unless Linux is told to
// migrate them (net.ipv4.tcp_migrate_req).
func ListenReusePort(ctx context.Context, network, address string) (net.Listener, error) {
	var lc ListenConfig
	return lc.ReusePort(ctx, network, address)
}

// ListenPacketReusePort is [ListenReusePort] for UDP: each peer's datagrams go to one of the
// sockets.
func ListenPacketReusePort(ctx context.Context, network, address string) (*net.UDPConn, error) {
	var lc ListenConfig
	return lc.PacketReusePort(ctx, network, address)
}

// ListenN opens n listeners on one address, which share it as [ListenReusePort] says. With port 0
// the kernel chooses one port for all. Either all n are returned or none.
func ListenN(ctx context.Context, network, address string, n int) ([]net.Listener, error) {
	var lc ListenConfig
	return lc.N(ctx, network, address, n)
}

// ListenPacketN is [ListenN] for UDP.
func ListenPacketN(ctx context.Context, network, address string, n int) ([]*net.UDPConn, error) {
	var lc ListenConfig
	return lc.PacketN(ctx, network, address, n)
}

// ReusePort is [ListenReusePort] with this configuration.
func (lc *ListenConfig) ReusePort(ctx context.Context, network, address string) (
	net.Listener, error) {
	ls, err := lc.N(ctx, network, address, 1)
	if err != nil {
		return nil, err
	}
	return ls[0], nil
}

// PacketReusePort is [ListenPacketReusePort] with this configuration.
func (lc *ListenConfig) PacketReusePort(ctx context.Context, network, address string) (
	*net.UDPConn, error) {
	cs, err := lc.PacketN(ctx, network, address, 1)
	if err != nil {
		return nil, err
	}
	return cs[0], nil
}

// N is [ListenN] with this configuration.
func (lc *ListenConfig) N(ctx context.Context, network, address string, n int) (
	[]net.Listener, error) {
	open := func(nc *net.ListenConfig, network, address string) (net.Listener, net.Addr, error) {
		l, err := nc.Listen(ctx, network, address)
		if err != nil {
			return nil, nil, err
		}
		return l, l.Addr(), nil
	}
	return shards(ctx, lc, "tcp", network, address, n, open)
}

// PacketN is [ListenPacketN] with this configuration.
func (lc *ListenConfig) PacketN(ctx context.Context, network, address string, n int) (
	[]*net.UDPConn, error) {
	open := func(nc *net.ListenConfig, network, address string) (*net.UDPConn, net.Addr, error) {
		c, err := nc.ListenPacket(ctx, network, address)
		if err != nil {
			return nil, nil, err
		}
		return c.(*net.UDPConn), c.LocalAddr(), nil
	}
	return shards(ctx, lc, "udp", network, address, n, open)
}

// shards opens n sockets that share one address.
func shards[S io.Closer](ctx context.Context, lc *ListenConfig,
	family, network, address string, n int,
	open func(nc *net.ListenConfig, network, address string) (S, net.Addr, error),
) (socks []S, err error) {
	fail := func(err error) ([]S, error) {
		for _, s := range socks {
			_ = s.Close()
		}
		return nil, &net.OpError{Op: "listen", Net: network, Err: causeOf(ctx, innermost(err))}
	}
	if n < 1 {
		return fail(fmt.Errorf("%d shards: %w", n, syscall.EINVAL))
	}
	if ctx.Err() != nil { // bind and listen never wait, so package net would not notice
		return fail(ctx.Err())
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fail(err)
	}
	hosts, err := lc.bindHosts(ctx, family, network, host)
	if err != nil {
		return fail(err)
	}
	number, err := net.DefaultResolver.LookupPort(ctx, family, port)
	if err != nil {
		return fail(err)
	}
	port = strconv.Itoa(number) // 0 has many spellings
	anyPort := number == 0
	// With port 0 the first UDP socket is bound without SO_REUSEPORT: two sockets that both have
	// it when they ask for any port may be given the same one, and two strangers would share their
	// datagrams. TCP always gets a port of its own.
	bound := lc.netConfig(!anyPort || family == "tcp")
	var addr net.Addr
	for _, h := range hosts {
		var s S
		if s, addr, err = open(bound, h.network, net.JoinHostPort(h.host, port)); err == nil {
			// The others must be bound in the same way, not to whatever the name stands for next.
			socks, network, host = append(socks, s), h.network, h.host
			break
		}
		if !wrongHost(err) {
			break
		}
	}
	if err != nil {
		return fail(err)
	}
	if anyPort {
		if family == "udp" { // the first one joins the group late
			rc, err := rawConn(socks[0])
			if err == nil {
				err = control(rc, func(fd uintptr) error { return sys.reusePort(fd) })
			}
			if err != nil {
				return fail(fmt.Errorf("reuse port: %w", err))
			}
		}
		ap, _ := ipAddrPort(addr)
		port = strconv.Itoa(int(ap.Port()))
	}
	sharing := lc.netConfig(true)
	for len(socks) < n {
		s, _, err := open(sharing, network, net.JoinHostPort(host, port))
		if err != nil {
			return fail(err)
		}
		socks = append(socks, s)
	}
	return socks, nil
}

// netConfig returns the net.ListenConfig with all hooks put together.
func (lc *ListenConfig) netConfig(reuse bool) *net.ListenConfig {
	nc, user := lc.Net, lc.Net.Control // a copy: the caller's hook stays as it is
	nc.Control = func(network, address string, rc syscall.RawConn) error {
		if err := lc.Options.Control(network, address, rc); err != nil {
			return err
		}
		if reuse {
			if err := control(rc, func(fd uintptr) error { return sys.reusePort(fd) }); err != nil {
				return fmt.Errorf("reuse port: %w", err)
			}
		}
		if user != nil {
			return user(network, address, rc)
		}
		return nil
	}
	return &nc
}

// bindHost is a host to bind and the network that keeps package net from widening it.
type bindHost struct{ network, host string }

// bindHosts turns a host name into what it may be bound to, best first.
func (lc *ListenConfig) bindHosts(ctx context.Context, family, network, host string) (
	[]bindHost, error) {
	version, ok := strings.CutPrefix(network, family)
	if !ok || version != "" && version != "4" && version != "6" {
		return nil, net.UnknownNetworkError(network)
	}
	if host == "" {
		return []bindHost{{network, ""}}, nil
	}
	var ips []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = []netip.Addr{ip}
	} else if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		// Not asked of the resolver: some answer with an address of the outer interface, or none.
		ips = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	} else if ips, err = net.DefaultResolver.LookupNetIP(ctx, "ip", host); err != nil {
		return nil, err
	}
	var hosts []bindHost
	for _, ip := range ips {
		ip = ip.Unmap()
		// Package net would bind 0.0.0.0 of "tcp" to a dual-stack socket, which is more than was
		// asked for. With the version in the network it does not.
		v := "6"
		if ip.Is4() {
			v = "4"
		}
		switch {
		case version != "" && version != v:
			continue
		case ip == netip.IPv6Unspecified():
			v = version // "tcp" and "::" is every address of both families, by long custom
		}
		hosts = append(hosts, bindHost{family + v, ip.String()})
	}
	if len(hosts) == 0 {
		return nil, &net.AddrError{Err: "no address for " + network, Addr: host}
	}
	return hosts, nil
}

// wrongHost reports whether binding failed for the address itself, so that no port will do.
func wrongHost(err error) bool {
	return errors.Is(err, errNotLocal) || errors.Is(err, errNoFamily)
}
