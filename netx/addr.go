// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"syscall"
)

// ErrSelfConnect says that a connection was dialled to itself: nobody listened on the port, and the
// local port was the same one. Callers may treat it as a refusal: it matches
// [syscall.ECONNREFUSED].
var ErrSelfConnect error = selfConnectError{}

type selfConnectError struct{}

func (selfConnectError) Error() string { return "netx: connected to itself" }

func (selfConnectError) Is(target error) bool { return target == syscall.ECONNREFUSED }

// IsSelfConnect reports whether both ends of c are the same socket. This happens when a program
// dials a port of its own host on which nobody listens, and the kernel chooses that port as the
// local one: TCP then opens simultaneously with itself, and UDP always connects. It is false for
// nil, for Unix sockets and pipes, and for a UDP socket that is not connected.
func IsSelfConnect(c net.Conn) bool {
	if isNil(c) {
		return false
	}
	local, ok := ipAddrPort(c.LocalAddr())
	// Port 0 is a protocol without ports: two programs of one host have the same address there.
	if !ok || local.Port() == 0 {
		return false
	}
	return SameAddr(c.LocalAddr(), c.RemoteAddr())
}

// SameAddr reports whether a and b name the same endpoint: the same transport, port and IP
// address, where an IPv4-mapped IPv6 address is the IPv4 address, "tcp4" is "tcp", and a zone is
// the same interface by name or by number. An unspecified address (0.0.0.0, ::) equals itself only,
// since it stands for many. Unix addresses are the same if their paths are. Unnamed Unix addresses,
// nil, and addresses that are neither IP nor Unix are never the same.
func SameAddr(a, b net.Addr) bool {
	if isNil(a) || isNil(b) || transport(a) != transport(b) {
		return false
	}
	if ua, ok := a.(*net.UnixAddr); ok {
		ub, ok := b.(*net.UnixAddr)
		// Every socket that was not bound has the empty name.
		return ok && ua.Name != "" && ua.Name == ub.Name
	}
	pa, oka := ipAddrPort(a)
	pb, okb := ipAddrPort(b)
	return oka && okb && sameEndpoint(pa, pb)
}

// sameEndpoint compares two IP endpoints as SameAddr promises.
func sameEndpoint(a, b netip.AddrPort) bool {
	// netip compares the mapped and the IPv4 form of an address, and the texts of zones, as different.
	x, y := a.Addr().Unmap(), b.Addr().Unmap()
	if a.Port() != b.Port() || !x.IsValid() || x.WithZone("") != y.WithZone("") {
		return false
	}
	return x.Zone() == y.Zone() || sameZone(x.Zone(), y.Zone())
}

// sameZone compares a zone by name with one by number. It asks the system only in that case.
func sameZone(a, b string) bool {
	i, err := zoneIndex(a)
	// Without a zone the address is on whatever interface the reader has in mind: not the same.
	if err != nil || i == 0 {
		return false
	}
	j, err := zoneIndex(b)
	return err == nil && i == j
}

// zoneIndex returns the interface number of a zone, 0 for none.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	// Package net writes the number where an interface has no name any more.
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(ifi.Index), nil
}

// zoneName is the inverse of zoneIndex; a number without an interface stays a number.
func zoneName(index uint32) string {
	if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
		return ifi.Name
	}
	return strconv.FormatUint(uint64(index), 10)
}

// transport is the network of a without its family.
func transport(a net.Addr) string { return strings.TrimRight(a.Network(), "46") }

// ipAddrPort returns the IP endpoint that a names, also for the address types of other packages.
func ipAddrPort(a net.Addr) (netip.AddrPort, bool) {
	if isNil(a) {
		return netip.AddrPort{}, false
	}
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.IPAddr: // has no AddrPort, and its text is no AddrPort either
		ip, _ := netip.AddrFromSlice(a.IP)
		ap = netip.AddrPortFrom(ip.Unmap().WithZone(a.Zone), 0)
	case interface{ AddrPort() netip.AddrPort }: // *net.TCPAddr, *net.UDPAddr
		ap = a.AddrPort()
	default:
		var err error
		if ap, err = netip.ParseAddrPort(a.String()); err != nil {
			return netip.AddrPort{}, false
		}
	}
	return ap, ap.Addr().IsValid()
}

// isNil also finds the nil pointer inside an interface, which net hands out for the address of
// a connection that has none.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	r := reflect.ValueOf(v) // == would compare the type as well
	return r.Kind() == reflect.Pointer && r.IsNil()
}

// innermost strips a *net.OpError off err, for a caller that is about to put its own around it.
func innermost(err error) error {
	if op, ok := err.(*net.OpError); ok && op.Err != nil {
		return op.Err
	}
	return err
}

// causeOf returns err, or the cause of the end of ctx if err only says that ctx ended.
func causeOf(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	cause := context.Cause(ctx)
	if errors.Is(err, cause) { // says so already, and perhaps more: what was looked up, "i/o timeout"
		return err
	}
	// Package net has errors of its own for the first two, which match those of package context. A
	// deadline that was armed on a socket to interrupt it is the third way to say so.
	for _, ended := range []error{context.Canceled, context.DeadlineExceeded, os.ErrDeadlineExceeded} {
		if errors.Is(err, ended) {
			return cause
		}
	}
	return err
}
