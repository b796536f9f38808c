// SPDX-License-Identifier: Apache-2.0

package ipacl

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// acceptance: B04
func TestMatchIP(t *testing.T) {
	for _, c := range []struct {
		pattern, host string
		want          bool
	}{
		{"*", "10.0.0.1", true}, {"*", "::1", true},
		{"10.5.99.1", "10.5.99.1", true}, {"10.5.99.1", "10.5.99.2", false},
		{"10.5.99.1", "::ffff:10.5.99.1", true}, {"::ffff:10.5.99.1", "10.5.99.1", true},
		{"10.*.0.1", "10.5.0.1", true}, {"10.*.0.1", "10.5.99.1", false}, {"10.*.0.1", "11.5.0.1", false},
		{"10.*.*.*", "10.255.0.1", true}, {"10.5.1-9.*", "10.5.9.77", true}, {"10.5.1-9.*",
			"10.5.10.77", false},
		{"10.5.1-9.*", "10.5.0.77", false}, {"10.5.7-7.1", "10.5.7.1", true},
		{"10.0.0.0/8", "10.255.255.255", true}, {"10.0.0.0/8", "11.0.0.0", false},
		{"10.16.0.0/12", "10.31.255.255", true}, {"10.16.0.0/12", "10.32.0.0", false},
		{"0.0.0.0/0", "1.2.3.4", true}, {"0.0.0.0/0", "::1", false}, {"::/0", "::1", true}, {"::/0",
			"1.2.3.4", false},
		{"::ffff:10.0.0.0/104", "10.1.2.3", true}, {"::ffff:10.0.0.0/104", "11.1.2.3", false},
		{"10.0.0.1/32", "10.0.0.1", true}, {"10.0.0.1/32", "10.0.0.2", false},
		{"10.0.0.5-10.0.1.4", "10.0.0.255", true}, {"10.0.0.5-10.0.1.4", "10.0.0.4", false},
		{"10.0.0.5-10.0.1.4", "10.0.1.4", true}, {"10.0.0.5-10.0.1.4", "10.0.1.5", false},
		{"10.0.0.5-10.0.1.4", "::1", false},
		{"::ffff:10.0.0.5-::ffff:10.0.0.9", "10.0.0.7", true}, {"10.0.0.5-::ffff:10.0.0.9",
			"10.0.0.7", true},
		{"fe80::1-fe80::5", "fe80::5%eth0", true}, {"fe80::1", "fe80::1%eth0", true},
		{"2001:db8::/32", "2001:db8:ffff::1", true}, {"2001:db8::/32", "2001:db9::", false},
		{"2001:db8:*:1f-2e::", "2001:db8:1234:2e::", true}, {"2001:db8:*:1f-2e::",
			"2001:db8:1234:2f::", false},
		{"2001:db8:*:1f-2e::", "2001:db8:1234:1e::", false}, {"2001:db8:*:1f-2e::",
			"2001:db8:1234:2e::1", false},
		{"234e:0:4567:0:0:0:3d-ee:*", "234e:0:4567::3e:1", true}, {"234e:0:4567:0:0:0:3d-ee:*",
			"234e:0:4567::ef:1", false},
		{"*:*:*:*:*:*:*:1", "::1", true}, {"*::1", "5::1", true}, {"::*", "::abcd", true}, {"::*",
			"1::abcd", false},
		{"::1", "::1", true}, {"::1", "1.0.0.0", false}, {"fe80::*:*:*:*", "fe80::1%eth0", true},
		{"*.*.*.*", "::1", false}, {"*.*.*.*", "::ffff:1.2.3.4", true}, {"*:*:*:*:*:*:*:*",
			"1.2.3.4", false},
	} {
		got, err := Match(c.pattern, c.host)
		require.NoError(t, err, "Match(%q, %q)", c.pattern, c.host)
		require.Equal(t, c.want, got, "Match(%q, %q)", c.pattern, c.host)
		p, err := ParsePattern(c.pattern)
		require.NoError(t, err)
		require.Equal(t, c.pattern, p.String())
	}
}

// A text that programs read in two ways is no pattern, and a host that is no address matches none.
// acceptance: B04
func TestMatchIPRefuses(t *testing.T) {
	for _, pattern := range []string{
		"10.*.00.1", "10.*.01.1", "010.0.0.1", "10.*", "10.*.1", "10.*.1.1.1", "10.*.256.1", "10.*.-1.1",
		"10.5.9-1.*",
		"10.*.+1.1", "10.*.0x1.1", "10.*..1", "", " ", " *", "**", "10.0.0.1/33", "10.0.0.1/8",
		"10.0.0.0/", "/8", "10.*.0.0/8",
		"10.0.0.9-10.0.0.1", "10.0.0.1-::1", "-", "10.0.0.1-", "1:2:3:*", "*:1:2:3:4:5:6:7:8", "1::2::*",
		"::*::", ":*", "*:",
		"*:2:3:4:5:6:7::8", "12345:*:::", "00001:*::", "g:*::", "fe80::1%eth0", "fe80::*%eth0",
		"localhost", "::fffe:0:0/95",
		"::ffff:a00:*", "::ffff:*:*", "0:0:0:0:0:ffff:0-1:1", "*:*:*:*:*:*:1-:1",
	} {
		got, err := Match(pattern, "10.5.99.1")
		var pe *net.ParseError
		require.ErrorAs(t, err, &pe, "Match(%q)", pattern)
		require.Equal(t, pattern, pe.Text)
		require.False(t, got)
	}
	for _, host := range []string{"", "10", "1::", "localhost", "10.0.0.1:80", "::1::"} {
		got, err := Match("*", host)
		if host == "1::" { // short, but an address
			require.NoError(t, err)
			require.True(t, got)
			continue
		}
		require.Error(t, err, "host %q", host)
		require.False(t, got)
	}
	require.False(t, Pattern{}.Contains(netip.MustParseAddr("::1")), "the zero pattern")
	p, _ := ParsePattern("*")
	require.False(t, p.Contains(netip.Addr{}), "the invalid address")
}

// textAddr is the address type of some other package.
type textAddr string

func (a textAddr) Network() string { return "tcp" }
func (a textAddr) String() string  { return string(a) }

func TestACL(t *testing.T) {
	acl, err := Parse([]string{"10.0.0.0/8", "2001:db8::/32"}, []string{"10.0.13.*"})
	require.NoError(t, err)
	for host, want := range map[string]bool{
		"10.1.1.1": true, "::ffff:10.1.1.1": true, "10.0.13.7": false,
		"11.0.0.1": false, "2001:db8::1": true, "::1": false} {
		require.Equal(t, want, acl.Allows(netip.MustParseAddr(host)), host)
		tcp := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(host), 1))
		require.Equal(t, want, acl.AllowsAddr(tcp), host)
	}
	require.False(t, acl.Allows(netip.Addr{}))
	ipAddr := &net.IPAddr{IP: net.IPv4(10, 1, 1, 1)}
	require.True(t, acl.AllowsAddr(ipAddr), "an address without a port")
	require.True(t, acl.AllowsAddr(textAddr("10.1.1.1:80")), "an address type of another package")
	require.False(t, acl.AllowsAddr(textAddr("10.0.13.1:80")))
	for _, a := range []net.Addr{
		nil, (*net.TCPAddr)(nil), (*net.UDPAddr)(nil), (*net.IPAddr)(nil), (*net.UnixAddr)(nil),
		&net.TCPAddr{}, &net.IPAddr{}, textAddr("pipe"),
	} {
		require.False(t, acl.AllowsAddr(a), "%T", a)
	}
	require.False(t, acl.AllowsAddr(&net.UnixAddr{Name: "/x", Net: "unix"}))

	var zero ACL
	require.True(t, zero.Allows(netip.MustParseAddr("::1")))
	require.False(t, zero.Allows(netip.Addr{}))
	deny, err := Parse(nil, []string{"10.0.0.1"})
	require.NoError(t, err)
	require.True(t, deny.Allows(netip.MustParseAddr("10.0.0.2")))
	require.False(t, deny.Allows(netip.MustParseAddr("10.0.0.1")))
	_, err = Parse([]string{"10.*"}, nil)
	require.ErrorContains(t, err, `allow list: invalid IP pattern: 10.*`)
	_, err = Parse(nil, []string{"10.*"})
	require.ErrorContains(t, err, "deny list")
}

func TestACLAllocs(t *testing.T) {
	acl, err := Parse([]string{"10.0.0.0/8", "2001:db8:*:1-f::"}, []string{"10.0.13.*"})
	require.NoError(t, err)
	ip := netip.MustParseAddr("2001:db8:5:4::")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if !acl.Allows(ip) {
			t.Fatal("not allowed")
		}
	}))
}

// slowMatch decides about unit patterns (no prefix, no range of addresses) from the text alone.
func slowMatch(pattern string, ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	var have, want []string
	base := "%d"
	if ip.Is4() {
		for _, b := range ip.As4() {
			have = append(have, fmt.Sprint(b))
		}
		want = strings.Split(pattern, ".")
	} else {
		base = "%x"
		have = strings.Split(ip.StringExpanded(), ":")
		head, tail, short := strings.Cut(pattern, "::")
		if short {
			h, t := strings.FieldsFunc(head, isColon), strings.FieldsFunc(tail, isColon)
			for len(h)+len(t) < 8 {
				h = append(h, "0")
			}
			want = append(h, t...)
		} else {
			want = strings.Split(pattern, ":")
		}
	}
	if len(have) != len(want) {
		return false
	}
	for i, w := range want {
		var v, lo, hi int
		fmt.Sscanf(have[i], base, &v)
		if w == "*" {
			continue
		}
		if n, _ := fmt.Sscanf(w, base+"-"+base, &lo, &hi); n == 1 {
			hi = lo
		}
		if v < lo || v > hi {
			return false
		}
	}
	return true
}

func isColon(r rune) bool { return r == ':' }

// FuzzPattern checks that no text makes the parser or the matcher panic, that each form agrees
// with its definition, and that no pattern crosses from one family to the other.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{
		"*", "10.*.1-9.7", "10.0.0.0/8", "10.0.0.1-10.0.0.9",
		"2001:db8:*:1f-2e::", "::*", "*::1", "1::", "::ffff:1.2.3.4",
	} {
		f.Add(s, []byte{10, 5, 9, 7})
		f.Add(s, []byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 1})
	}
	f.Fuzz(func(t *testing.T, s string, raw []byte) {
		ip, ok := netip.AddrFromSlice(raw)
		p, err := ParsePattern(s)
		if err != nil {
			if (p.Contains(ip)) && ok {
				t.Fatalf("%q is no pattern but matches %v", s, ip)
			}
			return
		}
		got := p.Contains(ip)
		if !ok {
			if got {
				t.Fatalf("%q matches the invalid address", s)
			}
			return
		}
		if got != p.Contains(netip.AddrFrom16(ip.As16())) {
			t.Fatalf("%q tells %v from its mapped form", s, ip)
		}
		u := ip.Unmap()
		switch {
		case s == "*":
			if !got {
				t.Fatalf("* does not match %v", ip)
			}
		case p.from.IsValid() && strings.Contains(s, "/"):
			prefix := netip.MustParsePrefix(s)
			want := prefix.Contains(u)
			if prefix.Addr().Is4In6() {
				want = u.Is4() && netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96).Contains(u)
			}
			if got != want {
				t.Fatalf("%q and %v: %v, netip says %v", s, ip, got, want)
			}
		case p.from.IsValid():
			bare := u.WithZone("")
			want := u.Is4() == p.from.Is4() && bare.Compare(p.from) >= 0 && bare.Compare(p.to) <= 0
			if got != want {
				t.Fatalf("%q and %v: %v", s, ip, got)
			}
		default:
			if want := slowMatch(s, ip); got != want {
				t.Fatalf("%q and %v: %v, by the text %v", s, ip, got, want)
			}
		}
	})
}
