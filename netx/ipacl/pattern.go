// SPDX-License-Identifier: Apache-2.0

package ipacl

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A Pattern matches IP addresses. The zero value matches none; use [ParsePattern].
type Pattern struct {
	text string
	// from and to are the ends of a single range, if from is valid. Otherwise units has a range for
	// each octet (IPv4, 4 of them) or group (IPv6, 8). The pattern "*" has neither.
	from, to netip.Addr
	units    []unitRange
}

// unitRange is a range of values of one octet or group, both ends included.
type unitRange struct{ from, to uint16 }

// ParsePattern parses one of these forms:
//
//	10.1.2.3  2001:db8::1            one address
//	10.0.0.0/8  2001:db8::/32        a prefix, without bits behind its length
//	10.0.0.1-10.0.0.99               a range of addresses, both ends included
//	10.*.1-9.7  2001:db8:*:1f-2e::   octets or groups that are free (*) or in a range
//	*                                every address
//
// Octets are decimal and groups hexadecimal, as in an address. IPv4-mapped IPv6 addresses count as
// IPv4, both in patterns and in what is matched. Zones are not allowed in patterns and are ignored
// in what is matched.
//
// A text that could be read in two ways, or that could match nothing, is an error: leading zeros in
// octets (octal to some programs), a prefix with bits behind its length, groups that only
// IPv4-mapped addresses would match. The error is a *net.ParseError.
func ParsePattern(s string) (Pattern, error) {
	bad := func() (Pattern, error) {
		return Pattern{}, &net.ParseError{Type: "IP pattern", Text: s}
	}
	p := Pattern{text: s}
	switch {
	case s == "*":
		return p, nil
	case strings.ContainsAny(s, "% "):
		return bad()
	case strings.Contains(s, "/"):
		prefix, err := netip.ParsePrefix(s)
		if err != nil || prefix != prefix.Masked() {
			return bad()
		}
		p.from, p.to = prefix.Addr(), lastOf(prefix)
		// ::ffff:0:0/95 and shorter are half IPv4 and half IPv6, which no single range can be.
		if p.from.Is4In6() != p.to.Is4In6() {
			return bad()
		}
		p.from, p.to = p.from.Unmap(), p.to.Unmap()
		return p, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		p.from, p.to = a.Unmap(), a.Unmap()
		return p, nil
	}
	// A dash may also stand between two octets, as in 10.*.1-9.7. So a text whose parts are not
	// two addresses is no error yet.
	if from, to, ok := strings.Cut(s, "-"); ok {
		a, aerr := netip.ParseAddr(from)
		b, berr := netip.ParseAddr(to)
		if aerr == nil && berr == nil {
			a, b = a.Unmap(), b.Unmap()
			if a.Is4() != b.Is4() || b.Less(a) {
				return bad()
			}
			p.from, p.to = a, b
			return p, nil
		}
	}
	var ok bool
	if strings.Contains(s, ":") {
		p.units, ok = parseGroups(s)
	} else {
		p.units, ok = parseUnits(strings.Split(s, "."), 10)
		ok = ok && len(p.units) == 4
	}
	if !ok {
		return bad()
	}
	return p, nil
}

// String returns the pattern as it was parsed.
func (p Pattern) String() string { return p.text }

// Contains reports whether p matches ip. An invalid address matches nothing, not even "*".
func (p Pattern) Contains(ip netip.Addr) bool {
	// netip.Addr.Less compares zones too, and tells a mapped address from its IPv4 form.
	ip = ip.Unmap().WithZone("")
	switch {
	case !ip.IsValid():
		return false
	case p.text == "*":
		return true
	case p.from.IsValid():
		// Less puts every IPv4 address before every IPv6 one: a range must not reach across.
		return ip.Is4() == p.from.Is4() && !ip.Less(p.from) && !p.to.Less(ip)
	case len(p.units) == 4 && ip.Is4():
		for i, b := range ip.As4() {
			if uint16(b) < p.units[i].from || uint16(b) > p.units[i].to {
				return false
			}
		}
		return true
	case len(p.units) == 8 && ip.Is6():
		b := ip.As16()
		for i, u := range p.units {
			if g := uint16(b[2*i])<<8 | uint16(b[2*i+1]); g < u.from || g > u.to {
				return false
			}
		}
		return true
	}
	return false
}

// Match reports whether the pattern matches host, an IP address. Both must parse: anything else is
// a *net.ParseError and no match. To match many addresses, parse the pattern once.
func Match(pattern, host string) (bool, error) {
	p, err := ParsePattern(pattern)
	if err != nil {
		return false, err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false, &net.ParseError{Type: "IP address", Text: host}
	}
	return p.Contains(ip), nil
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// parseGroups parses the groups of an IPv6 pattern, in which :: may stand for zeros once.
func parseGroups(s string) ([]unitRange, bool) {
	split := func(s string) []string {
		if s == "" { // beside a :: at one end; strings.Split would make it one empty group
			return nil
		}
		return strings.Split(s, ":")
	}
	head, tail, short := strings.Cut(s, "::")
	left, lok := parseUnits(split(head), 16)
	right, rok := parseUnits(split(tail), 16)
	n := len(left) + len(right)
	// At most 7, since :: must stand for at least one group, as in an address.
	if !lok || !rok || short && n > 7 || !short && n != 8 {
		return nil, false
	}
	units := append(left, make([]unitRange, 8-n)...)
	units = append(units, right...)
	// Groups that match nothing but IPv4-mapped addresses, which count as IPv4, would match none.
	mapped := units[5] == unitRange{0xffff, 0xffff}
	for _, u := range units[:5] {
		mapped = mapped && u == unitRange{}
	}
	return units, !mapped
}

// parseUnits parses octets (base 10) or groups (base 16).
func parseUnits(fields []string, base int) ([]unitRange, bool) {
	limit := uint16(0xff)
	if base == 16 {
		limit = 0xffff
	}
	var units []unitRange
	for _, f := range fields {
		if f == "*" {
			units = append(units, unitRange{0, limit})
			continue
		}
		lo, hi, isRange := strings.Cut(f, "-")
		if !isRange {
			hi = lo
		}
		from, ok1 := parseUnit(lo, base, limit)
		to, ok2 := parseUnit(hi, base, limit)
		if !ok1 || !ok2 || from > to { // 9-1 would match nothing, which nobody means
			return nil, false
		}
		units = append(units, unitRange{from, to})
	}
	return units, true
}

func parseUnit(s string, base int, limit uint16) (uint16, bool) {
	// 010 is 8 to inet_aton(3) and 10 to others. Groups have at most four digits in an address, and
	// ParseUint would take any number of zeros before them.
	if base == 10 && len(s) > 1 && s[0] == '0' || len(s) > 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(s, base, 16)
	return uint16(n), err == nil && uint16(n) <= limit
}
