// SPDX-License-Identifier: Apache-2.0

package ipacl

import (
	"fmt"
	"net"
	"net/netip"
)

// An ACL allows or denies addresses. Deny goes before Allow; an empty Allow means every valid
// address that is not denied, so the zero value allows all of them.
type ACL struct {
	Allow, Deny []Pattern
}

// Parse parses two lists of patterns, see [ParsePattern]. The error says in which list the pattern
// is that does not parse, and wraps its *net.ParseError.
func Parse(allow, deny []string) (*ACL, error) {
	var acl ACL
	for _, l := range []struct {
		name string
		from []string
		to   *[]Pattern
	}{{"allow", allow, &acl.Allow}, {"deny", deny, &acl.Deny}} {
		for _, s := range l.from {
			p, err := ParsePattern(s)
			if err != nil {
				// No ACL at all: one without a denied pattern would allow what it should not.
				return nil, fmt.Errorf("ipacl: %s list: %w", l.name, err)
			}
			*l.to = append(*l.to, p)
		}
	}
	return &acl, nil
}

// Allows reports whether ip may pass. An invalid address may not.
func (a *ACL) Allows(ip netip.Addr) bool {
	if !ip.IsValid() || matches(a.Deny, ip) {
		return false
	}
	return len(a.Allow) == 0 || matches(a.Allow, ip)
}

// AllowsAddr is Allows for the IP address in a network address. An address without an IP, such as
// that of a Unix socket, may not pass.
func (a *ACL) AllowsAddr(addr net.Addr) bool { return a.Allows(ipOf(addr)) }

func matches(ps []Pattern, ip netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// ipOf returns the IP address in addr, the invalid one if there is none.
func ipOf(addr net.Addr) netip.Addr {
	switch a := addr.(type) {
	case nil:
	case *net.IPAddr: // has no port, so it lacks the AddrPort method of the next case
		if a != nil {
			ip, _ := netip.AddrFromSlice(a.IP)
			return ip
		}
	case interface{ AddrPort() netip.AddrPort }: // *net.TCPAddr and *net.UDPAddr, also nil ones
		return a.AddrPort().Addr()
	default:
		// The address types of other packages; the text of a path does not parse.
		ap, _ := netip.ParseAddrPort(a.String())
		return ap.Addr()
	}
	return netip.Addr{}
}
