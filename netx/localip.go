// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// ErrNoAddress says that no local address satisfies the options of [LocalIP].
var ErrNoAddress = errors.New("netx: no such local address")

// A Family is a version of the Internet protocol.
type Family int

const (
	AnyFamily Family = iota // IPv4 if there is one, otherwise IPv6
	IPv4
	IPv6
)

// LocalIPOptions say which local address is wanted. With the zero value it is the address that a
// packet to the Internet would carry: the choice of the default route.
type LocalIPOptions struct {
	// Family restricts the answer.
	Family Family
	// Route is a host name or address, without port: the address that a packet to it would carry.
	// Nothing is sent (but names are looked up). Not together with Interface or Prefix.
	Route string
	// Interface is the name of an interface that must have the address.
	Interface string
	// Prefix is a network in which the address must be.
	Prefix netip.Prefix
}

// internet holds addresses that stand for the whole Internet in a route look-up. They are of the
// documentation networks (RFC 5737, RFC 3849), which no host has.
var internet = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// LocalIP returns the local address that o asks for. Of several on an interface or in a
// prefix, a global address goes before a link-local one and that before loopback; beyond that it is
// the first in the order of the system. Interfaces that are down do not count. A link-local IPv6
// address has its zone. The error matches [ErrNoAddress] if there is none: it does not guess, since
// the wrong interface (a container bridge, a VPN) is worse than an error. ctx bounds the look-up of
// names; an error because of its end is [context.Cause] of ctx.
func LocalIP(ctx context.Context, o LocalIPOptions) (netip.Addr, error) {
	if o.Family < AnyFamily || o.Family > IPv6 {
		return netip.Addr{}, fmt.Errorf("netx: family %d: %w", o.Family, syscall.EINVAL)
	}
	if !o.Prefix.IsValid() && o.Prefix != (netip.Prefix{}) {
		return netip.Addr{}, fmt.Errorf("netx: prefix of %v with a length out of range: %w",
			o.Prefix.Addr(), syscall.EINVAL)
	}
	if o.Interface == "" && !o.Prefix.IsValid() {
		return localByRoute(ctx, o)
	}
	if o.Route != "" {
		return netip.Addr{}, fmt.Errorf("netx: local address by route and by interface or prefix: %w",
			syscall.EINVAL)
	}
	return localByInterface(o)
}

// localByRoute connects a UDP socket, which only makes the kernel choose a route.
func localByRoute(ctx context.Context, o LocalIPOptions) (netip.Addr, error) {
	targets := internet
	if o.Route != "" {
		if ip, err := netip.ParseAddr(o.Route); err == nil {
			targets = []netip.Addr{ip}
		} else if targets, err = net.DefaultResolver.LookupNetIP(ctx, "ip", o.Route); err != nil {
			return netip.Addr{}, causeOf(ctx, err)
		}
	}
	// Family by family and not address by address: IPv4 is preferred whatever order the resolver has.
	families := []Family{o.Family}
	if o.Family == AnyFamily {
		families = []Family{IPv4, IPv6}
	}
	var why error
	for _, family := range families {
		for _, t := range targets {
			t = t.Unmap()
			if !ofFamily(t, family) {
				continue
			}
			var d net.Dialer
			// Any port but 0 will do. Connect of UDP sends nothing.
			c, err := d.DialContext(ctx, "udp", netip.AddrPortFrom(t, 9).String())
			if err != nil {
				why = err
				continue
			}
			local, ok := ipAddrPort(c.LocalAddr())
			_ = c.Close()
			// Unspecified where the kernel chooses the address only when it sends.
			if ok && !local.Addr().IsUnspecified() {
				return local.Addr().Unmap(), nil
			}
		}
	}
	if ctx.Err() != nil {
		return netip.Addr{}, context.Cause(ctx)
	}
	if why != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", ErrNoAddress, why)
	}
	return netip.Addr{}, ErrNoAddress
}

// localByInterface goes through the interfaces and keeps the best match.
func localByInterface(o LocalIPOptions) (netip.Addr, error) {
	var ifs []net.Interface
	if o.Interface != "" {
		ifi, err := net.InterfaceByName(o.Interface)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("%w: interface %q: %w", ErrNoAddress, o.Interface, err)
		}
		ifs = []net.Interface{*ifi}
	} else {
		var err error
		if ifs, err = net.Interfaces(); err != nil {
			return netip.Addr{}, err
		}
	}
	var best netip.Addr
	for _, ifi := range ifs {
		if ifi.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			continue // the interface went away
		}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, _ := netip.AddrFromSlice(n.IP)
			ip = ip.Unmap()
			if !ip.IsValid() || !ofFamily(ip, o.Family) {
				continue
			}
			// Before the zone is added: a prefix contains no address with a zone.
			if o.Prefix.IsValid() && !unmapPrefix(o.Prefix).Contains(ip) {
				continue
			}
			if ip.Is6() && ip.IsLinkLocalUnicast() {
				ip = ip.WithZone(ifi.Name)
			}
			// Only a better one replaces it, so the system's order decides between equals.
			if !best.IsValid() || preference(ip, o.Family) > preference(best, o.Family) {
				best = ip
			}
		}
	}
	if !best.IsValid() {
		return best, fmt.Errorf("%w (interface %q, prefix %v)", ErrNoAddress, o.Interface, o.Prefix)
	}
	return best, nil
}

func ofFamily(ip netip.Addr, f Family) bool {
	return f == AnyFamily || ip.Is4() == (f == IPv4)
}

// preference ranks addresses: the larger, the better.
func preference(ip netip.Addr, f Family) int {
	p := 4 // steps of two leave room for the family between them
	switch {
	case ip.IsLoopback():
		p = 0
	case ip.IsLinkLocalUnicast():
		p = 2
	}
	if f == AnyFamily && ip.Is4() {
		p++
	}
	return p
}

// unmapPrefix makes a prefix of IPv4-mapped IPv6 addresses one of IPv4 addresses.
func unmapPrefix(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p
}
