// SPDX-License-Identifier: Apache-2.0

// Package proxyproto makes a getty server understand the PROXY protocol, versions 1 and 2, with
// which a proxy or load balancer tells for whom it has connected:
//
//	o.Handshake = proxyproto.Require(netip.MustParsePrefix("10.0.0.0/8"))
//
// The header precedes everything else, TLS and an upgrade included. Session.RemoteAddr and
// LocalAddr are then those of the client's connection to the proxy, and MaxSessionsPerAddr counts
// clients and not the proxy. Admit comes before the header and sees the proxy's address.
package proxyproto

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

// ErrUntrusted is the error of a connection that comes from an address which may not speak for
// others.
var ErrUntrusted = errors.New("proxyproto: the peer is no trusted proxy")

// Require returns a function for the Handshake of getty.ServerOptions: every connection has to come
// from one of the trusted networks, and to begin with a header of version 1 or 2. Without networks
// every address is trusted, which is for servers that only proxies can reach: whoever connects
// could claim any address.
//
// A header that is missing, broken or late costs that connection. One of the kind LOCAL or UNKNOWN,
// as health checks send it, leaves the addresses as they are.
func Require(trusted ...netip.Prefix) func(ctx context.Context, conn net.Conn) (net.Conn, error) {
	return func(_ context.Context, conn net.Conn) (net.Conn, error) {
		if !trusts(trusted, conn.RemoteAddr()) {
			return nil, ErrUntrusted
		}
		r := bufio.NewReaderSize(conn, 256)
		awaitLine(r)
		header, err := proxyproto.Read(r)
		if err != nil {
			return nil, fmt.Errorf("proxyproto: %w", err)
		}
		c := &proxied{Conn: conn, rest: r, remote: conn.RemoteAddr(), local: conn.LocalAddr()}
		if header.Command.IsProxy() && header.SourceAddr != nil && header.DestinationAddr != nil {
			c.remote, c.local = header.SourceAddr, header.DestinationAddr
		}
		return c, nil
	}
}

// maxLine is the size of the longest header of version 1.
const maxLine = 107

// awaitLine waits until a header of version 1 has come as a whole, which the library takes for
// granted. An error comes again in the next read.
func awaitLine(r *bufio.Reader) {
	for n := 1; n <= maxLine; n++ {
		b, err := r.Peek(n)
		if err != nil || b[0] != 'P' || b[n-1] == '\n' {
			return
		}
	}
}

func trusts(trusted []netip.Prefix, peer net.Addr) bool {
	if len(trusted) == 0 {
		return true
	}
	var ip netip.Addr
	if tcp, ok := peer.(*net.TCPAddr); ok {
		ip = tcp.AddrPort().Addr().Unmap()
	}
	for _, p := range trusted {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// A proxied is a connection that speaks for another one.
type proxied struct {
	net.Conn
	rest          *bufio.Reader // what came with the header; nil when it was read
	remote, local net.Addr
}

// NetConn returns the proxy's connection.
func (c *proxied) NetConn() net.Conn { return c.Conn }

func (c *proxied) RemoteAddr() net.Addr { return c.remote }
func (c *proxied) LocalAddr() net.Addr  { return c.local }

func (c *proxied) Read(p []byte) (int, error) {
	if c.rest != nil {
		if c.rest.Buffered() > 0 {
			return c.rest.Read(p)
		}
		c.rest = nil
	}
	return c.Conn.Read(p)
}

// CloseWrite ends the outgoing stream, where the connection can do that.
func (c *proxied) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Header returns the header of version 1 or 2 that tells a server for whom this side has connected,
// as a proxy writes it before anything else: in the Dial of getty.ClientOptions, for example.
func Header(version int, client, proxy net.Addr) ([]byte, error) {
	if version != 1 && version != 2 {
		return nil, fmt.Errorf("proxyproto: no version %d", version)
	}
	b, err := proxyproto.HeaderProxyFromAddrs(byte(version), client, proxy).Format()
	if err != nil {
		return nil, fmt.Errorf("proxyproto: %w", err)
	}
	return b, nil
}
