// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// DefaultProbeWait is how long a probe waits for an answer when Probe.Wait is zero. A closed port
// answers within a round trip (the ICMP error), as does a peer that knows the probe. Only a peer
// that does not answer, or a filter in between, costs this time.
const DefaultProbeWait = 200 * time.Millisecond

// A Probe is a datagram that a UDP dial sends to find out whether anybody is there. The zero value
// sends nothing.
type Probe struct {
	// Payload is the datagram to send. nil: no probe; empty but not nil: an empty datagram, which
	// is enough to be refused.
	Payload []byte
	// Match reports whether a datagram of the peer is the answer to the probe and of no further
	// use. reply is valid during the call only. nil: none is, everything is kept as Reply.
	Match func(reply []byte) bool
	// Wait is how long to wait for an answer. 0: DefaultProbeWait; negative: not at all.
	Wait time.Duration
}

// ProbeState is what became of a probe. The zero value is Skipped.
type ProbeState int

const (
	// Skipped: no probe was sent, or an error other than a refusal ended it.
	Skipped ProbeState = iota
	// Answered: a datagram of the peer arrived, whatever was in it.
	Answered
	// Refused: the peer's host says that nobody has the port (ICMP), or it is our own port.
	Refused
	// Silent: nothing arrived in time. The peer may be there and not answer, or a filter may
	// swallow either direction: silence is no sign of death.
	Silent
)

// String returns the name of s.
func (s ProbeState) String() string {
	switch s {
	case Skipped:
		return "skipped"
	case Answered:
		return "answered"
	case Refused:
		return "refused"
	case Silent:
		return "silent"
	}
	return "invalid probe state"
}

// A ProbeResult is the outcome of a probe. Its slices belong to the caller.
type ProbeResult struct {
	// State is what became of the probe.
	State ProbeState
	// Answer is the datagram that Match accepted, nil if none did.
	Answer []byte
	// Reply is a datagram of the peer that Match did not accept: the first data of the peer, to be
	// treated as if it had been read from the connection. nil if there is none; an empty datagram
	// is empty and not nil. It ends the wait, since it proves the peer alive, so a late answer to
	// the probe may still come.
	Reply []byte
	// Elapsed is the time from sending the probe to the result.
	Elapsed time.Duration
}

// DialUDP connects a UDP socket ("udp", "udp4", "udp6") to addr and probes it. A refusal is an
// error that matches [syscall.ECONNREFUSED], with the state Refused; on Windows, ICMP errors stay
// hidden and a closed port is Silent. If addr is a name with several addresses, the next one is
// tried after a refusal or a failed connect. It takes at most Probe.Wait for each address, and ends
// early with ctx; the error then wraps [context.Cause] of ctx. The connection has no deadline
// armed.
func DialUDP(ctx context.Context, network, addr string, p Probe) (
	*net.UDPConn, ProbeResult, error) {
	var d Dialer
	return d.DialUDP(ctx, network, addr, p)
}

// DialUDP is the function of the same name, with the options and the local address of d. With a
// given local port, datagrams that others sent to it before it was connected are dropped. Timeout
// and Deadline of d.Net bound the look-up of a name and each connect, not the probe.
func (d *Dialer) DialUDP(ctx context.Context, network, addr string, p Probe) (
	*net.UDPConn, ProbeResult, error) {
	fail := func(err error) (*net.UDPConn, ProbeResult, error) {
		err = &net.OpError{Op: "dial", Net: network, Err: causeOf(ctx, err)}
		return nil, ProbeResult{}, err
	}
	switch network {
	case "udp", "udp4", "udp6":
	default:
		return fail(net.UnknownNetworkError(network))
	}
	if ctx.Err() != nil { // connect of UDP never waits, so nothing below would notice
		return fail(context.Cause(ctx))
	}
	lookup, cancel := d.lookupContext(ctx)
	targets, err := d.targets(lookup, network, addr)
	cancel()
	if err != nil {
		return fail(err)
	}
	var firstResult ProbeResult
	var firstErr error
	for _, t := range targets {
		c, res, err := d.dialUDP(ctx, network, t, p)
		if err == nil {
			return c, res, nil
		}
		// The error of the first address is reported, as by package net: it is the one that the
		// resolver prefers.
		if firstErr == nil {
			firstResult, firstErr = res, err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, firstResult, firstErr
}

// targets resolves addr. Package net would take the first address to which connect succeeds, and
// for UDP that is any.
func (d *Dialer) targets(ctx context.Context, network, addr string) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	// An empty host is this one; package net knows its addresses.
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return []string{addr}, nil
	}
	ips, err := d.resolver().LookupNetIP(ctx, "ip"+strings.TrimPrefix(network, "udp"), host)
	if err != nil {
		return nil, err
	}
	var ts []string
	for _, ip := range ips {
		ts = append(ts, net.JoinHostPort(ip.Unmap().String(), port))
	}
	return ts, nil
}

// lookupContext ends when the dialer underneath would give up.
func (d *Dialer) lookupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	cancel := context.CancelFunc(func() {})
	// If both are set, the earlier one counts, as in net.Dialer.
	if d.Net.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, d.Net.Timeout)
	}
	if !d.Net.Deadline.IsZero() {
		outer := cancel
		ctx, cancel = context.WithDeadline(ctx, d.Net.Deadline)
		return ctx, func() { cancel(); outer() }
	}
	return ctx, cancel
}

func (d *Dialer) resolver() *net.Resolver {
	if d.Net.Resolver != nil {
		return d.Net.Resolver
	}
	return net.DefaultResolver
}

// dialUDP dials and probes one address.
func (d *Dialer) dialUDP(ctx context.Context, network, addr string, p Probe) (
	_ *net.UDPConn, res ProbeResult, err error) {
	nc, err := d.dial(ctx, network, addr)
	if errors.Is(err, syscall.EAGAIN) {
		// What Linux says when no local port is free. It would pass for a timeout.
		err = fmt.Errorf("no free local port: %w", errNotLocal)
		err = &net.OpError{Op: "dial", Net: network, Err: err}
	}
	if err != nil {
		return nil, res, err
	}
	c := nc.(*net.UDPConn)
	done := false
	defer func() {
		if !done { // also when Match panics
			_ = c.Close()
		}
	}()
	if IsSelfConnect(c) {
		err, res.State = ErrSelfConnect, Refused
	} else {
		res, err = ProbeUDP(ctx, c, p)
	}
	if err != nil {
		err = innermost(err)
		if res.State == Refused && !errors.Is(err, syscall.ECONNREFUSED) {
			// Windows has a number of its own for it; the caller needs one for all systems.
			err = fmt.Errorf("%w: %w", syscall.ECONNREFUSED, err)
		}
		return nil, res, dialError(network, c, err)
	}
	done = true
	return c, res, nil
}

// maxDatagram is the largest payload of UDP over IPv4 or IPv6 (without jumbograms).
const maxDatagram = 1<<16 - 1

// probeBuffers bounds the memory of dials that come in bursts after an outage: each needs a buffer
// of this size for a moment only.
var probeBuffers = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// ProbeUDP probes the peer of the connected socket c, which may have been in use before: an ICMP
// error for an earlier datagram and datagrams of others are drained first and not taken for the
// outcome. No other goroutine may read from c meanwhile. All deadlines of c are cleared when it
// returns. A refusal is an error that matches [syscall.ECONNREFUSED]; c stays open. When ctx ends
// the probe, the error is [context.Cause] of ctx.
func ProbeUDP(ctx context.Context, c *net.UDPConn, p Probe) (res ProbeResult, err error) {
	peer, err := peerOf(c)
	if err != nil || p.Payload == nil {
		return res, err
	}
	if ctx.Err() != nil {
		return res, context.Cause(ctx)
	}
	wait := p.Wait
	if wait == 0 {
		wait = DefaultProbeWait
	}
	start := time.Now()
	deadline := time.Time{}
	if wait > 0 {
		deadline = start.Add(wait)
	}
	if err := c.SetReadDeadline(deadline); err != nil {
		return res, err
	}
	// The wait is for the answer. A very short one may be over before the probe is sent, which must not fail for
	// that: only ctx ends a write that blocks.
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		return res, err
	}
	// A read of a socket cannot wait for ctx as well: the end of ctx ends the read by a deadline in
	// the past.
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.SetDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	defer func() {
		if !stop() {
			<-interrupted // or it would arm the deadline after it was cleared
		}
		if cerr := c.SetDeadline(time.Time{}); err == nil {
			err = cerr
		}
		err = causeOf(ctx, err)
		res.Elapsed = time.Since(start)
	}()
	if err := sendProbe(c, p.Payload); err != nil {
		return res, err
	}
	if wait < 0 {
		res.State = Silent
		return res, nil
	}
	err = awaitAnswer(ctx, c, peer, p.Match, &res)
	return res, err
}

// sendProbe sends the probe after all pending errors.
func sendProbe(c *net.UDPConn, payload []byte) error {
	const attempts = 3 // each may meet one more late ICMP error, but not for ever
	var err error
	for range attempts {
		// The kernel reports the error of an earlier datagram instead of sending this one, and
		// clears it thereby. So a refusal here says nothing about the probe, which is still unsent.
		if _, err = c.Write(payload); err == nil || !isRefused(err) {
			return err
		}
	}
	return err
}

// awaitAnswer reads until something is known about the peer.
func awaitAnswer(ctx context.Context, c *net.UDPConn, peer netip.AddrPort,
	match func([]byte) bool, res *ProbeResult) error {
	buf := probeBuffers.Get().(*[maxDatagram]byte)
	defer probeBuffers.Put(buf)
	for {
		n, from, _, err := ReadUDP(c, buf[:])
		switch {
		case err == nil && from.IsValid() && !sameEndpoint(from, peer):
			// Of somebody else: it was on its way into the socket when that was connected, or the
			// system has no way to drop what came before.
		case err == nil && match != nil && match(buf[:n]):
			res.State, res.Answer = Answered, bytes.Clone(buf[:n])
			return nil
		case err == nil:
			res.State, res.Reply = Answered, bytes.Clone(buf[:n])
			return nil
		case isRefused(err):
			res.State = Refused
			return err
		// The end of ctx arms a deadline too, and is no silence of the peer.
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil:
			res.State = Silent
			return nil
		default:
			return err
		}
	}
}

// peerOf returns the peer of c, after dropping what others sent before c was connected.
func peerOf(c *net.UDPConn) (netip.AddrPort, error) {
	peer, ok := ipAddrPort(c.RemoteAddr())
	rc, err := c.SyscallConn()
	if err != nil {
		return peer, err
	}
	err = control(rc, func(fd uintptr) error {
		// The kernel knows better than c once Reconnect was used.
		if p, perr := sys.peer(fd); perr == nil {
			peer, ok = p, true
		}
		if !ok {
			return syscall.ENOTCONN
		}
		_ = sys.takeError(fd) // a stale one; dropForeign would stop at it
		sys.dropForeign(fd, peer)
		return nil
	})
	if err != nil {
		return peer, &net.OpError{Op: "probe", Net: "udp", Source: c.LocalAddr(), Err: err}
	}
	return peer, nil
}
