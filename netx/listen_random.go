// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// A PortRange is a range of ports, both ends included. The zero value leaves the choice to the
// kernel.
type PortRange struct{ Min, Max uint16 }

// ListenRandom listens on a free TCP port of host ("tcp", "tcp4", "tcp6") within r. It tries the
// ports one after the other from a random one on. It returns the listener and not a port number,
// which another process could take before it is used. The host is bound as [ListenConfig] says.
// When all ports of r are taken, the error matches [syscall.EADDRINUSE]
// ([golang.org/x/sys/windows.WSAEADDRINUSE] on Windows).
func ListenRandom(ctx context.Context, network, host string, r PortRange) (net.Listener, error) {
	var lc ListenConfig
	return lc.Random(ctx, network, host, r)
}

// ListenPacketRandom is [ListenRandom] for UDP.
func ListenPacketRandom(ctx context.Context, network, host string, r PortRange) (
	*net.UDPConn, error) {
	var lc ListenConfig
	return lc.PacketRandom(ctx, network, host, r)
}

// Random is [ListenRandom] with this configuration.
func (lc *ListenConfig) Random(ctx context.Context, network, host string, r PortRange) (
	net.Listener, error) {
	nc := lc.netConfig(false)
	open := func(network, address string) (net.Listener, error) {
		return nc.Listen(ctx, network, address)
	}
	return random(ctx, lc, "tcp", network, host, r, open)
}

// PacketRandom is [ListenPacketRandom] with this configuration.
func (lc *ListenConfig) PacketRandom(ctx context.Context, network, host string, r PortRange) (
	*net.UDPConn, error) {
	nc := lc.netConfig(false)
	open := func(network, address string) (*net.UDPConn, error) {
		c, err := nc.ListenPacket(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return c.(*net.UDPConn), nil
	}
	return random(ctx, lc, "udp", network, host, r, open)
}

// random opens the first port that is free, from a random start through the whole range.
func random[S any](ctx context.Context, lc *ListenConfig,
	family, network, host string, r PortRange,
	open func(network, address string) (S, error),
) (none S, err error) {
	fail := func(err error) (S, error) {
		return none, &net.OpError{Op: "listen", Net: network, Err: causeOf(ctx, innermost(err))}
	}
	// 0 to n would mean "any port, or one of these".
	if r.Min > r.Max || r.Min == 0 && r.Max != 0 {
		return fail(&net.AddrError{Err: "invalid port range", Addr: fmt.Sprintf("%d-%d", r.Min, r.Max)})
	}
	hosts, err := lc.bindHosts(ctx, family, network, host)
	if err != nil {
		return fail(err)
	}
	size := int(r.Max) - int(r.Min) + 1
	// Servers that start together begin at different ports and so rarely collide.
	start := rand.IntN(size)
	for _, h := range hosts {
		for i := range size {
			if ctx.Err() != nil {
				return fail(ctx.Err())
			}
			port := int(r.Min) + (start+i)%size
			var s S
			if s, err = open(h.network, net.JoinHostPort(h.host, strconv.Itoa(port))); err == nil {
				return s, nil
			}
			// A port may also be reserved: below 1024, or set aside by Windows. The next one may do.
			if !errors.Is(err, errInUse) && !errors.Is(err, errNoAccess) {
				break
			}
		}
		if !wrongHost(err) { // another address of the same name would fail alike
			break
		}
	}
	if size > 1 && errors.Is(err, errInUse) {
		err = fmt.Errorf("no free port in %d-%d: %w", r.Min, r.Max, innermost(err))
	}
	return fail(err)
}
