// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// A connection takes a place among the sessions of its endpoint before anything of it costs much,
// and keeps it until its descriptor is free: while it shakes hands, while it asks for an upgrade,
// and as a session. MaxSessions and MaxSessionsPerAddr count places.

// places are what an endpoint has given.
type places struct {
	taken atomic.Int64

	mu     sync.Mutex
	byAddr map[netip.Prefix]*neighbours // guarded by mu; nil until there is a limit
}

// neighbours are the places of one address.
type neighbours struct {
	addr netip.Prefix
	n    int // guarded by places.mu
}

// A place is one of them. Its zero value is one that no limit by address counts.
type place struct{ with *neighbours }

// reserve takes a place for peer, unless limit places are taken, or perAddr by its address. Limits
// that are not positive are none.
func (p *places) reserve(limit, perAddr int, peer net.Addr) (place, error) {
	// Added first and compared then: of two that come together for the last place only one gets it.
	if n := p.taken.Add(1); limit > 0 && n > int64(limit) {
		p.taken.Add(-1)
		return place{}, ErrTooManySessions
	}
	if perAddr <= 0 {
		return place{}, nil
	}
	key := neighbourhood(peer)
	if !key.IsValid() {
		return place{}, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.byAddr[key]
	switch {
	case all == nil:
		if p.byAddr == nil {
			p.byAddr = make(map[netip.Prefix]*neighbours)
		}
		all = &neighbours{addr: key}
		p.byAddr[key] = all
	case all.n >= perAddr:
		p.taken.Add(-1)
		return place{}, ErrTooManyFromAddr
	}
	all.n++
	return place{all}, nil
}

// release gives a place back.
func (p *places) release(one place) {
	p.taken.Add(-1)
	if one.with == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.with.n--; one.with.n == 0 {
		delete(p.byAddr, one.with.addr)
	}
}

// neighbourhood returns what counts as one address: an IPv4 address, or the 64 bits of an IPv6
// address that a network gives to one site, whose hosts choose the rest as they like. It is invalid
// where there is no such address.
func neighbourhood(peer net.Addr) netip.Prefix {
	var ip netip.Addr
	switch a := peer.(type) {
	case nil:
		return netip.Prefix{}
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	default:
		ap, err := netip.ParseAddrPort(peer.String())
		if err != nil {
			return netip.Prefix{}
		}
		ip = ap.Addr()
	}
	ip = ip.Unmap()
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, _ := ip.Prefix(bits)
	return prefix
}

// Refusals are the connections that a server has refused, by reason.
type Refusals struct {
	Full      uint64 // MaxSessions places were taken
	PerAddr   uint64 // MaxSessionsPerAddr places were taken by the address
	Admit     uint64 // Admit said no
	Handshake uint64 // TLS, or the request of an upgrade, was wrong, late or refused
	Callback  uint64 // the new-session callback or OnOpen failed, or set no codec or listener
}

// refusals count Refusals.
type refusals struct{ full, perAddr, admit, handshake, callback atomic.Uint64 }

// count counts a connection that was refused with err before there was a session.
func (r *refusals) count(err error) {
	switch {
	case errors.Is(err, ErrTooManySessions):
		r.full.Add(1)
	case errors.Is(err, ErrTooManyFromAddr):
		r.perAddr.Add(1)
	case errors.Is(err, errNotAdmitted):
		r.admit.Add(1)
	default:
		r.handshake.Add(1)
	}
}

func (r *refusals) snapshot() Refusals {
	return Refusals{
		Full: r.full.Load(), PerAddr: r.perAddr.Load(), Admit: r.admit.Load(),
		Handshake: r.handshake.Load(), Callback: r.callback.Load(),
	}
}

// errNotAdmitted is the class of what Admit returned.
var errNotAdmitted = errors.New("getty: not admitted")
