// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
)

// ErrWouldBlock reports a datagram that was not sent because the send buffer of the socket is full.
var ErrWouldBlock = errors.New("netx: the socket's send buffer is full")

// EnablePacketInfo makes the kernel tell, with each datagram, to which address of this host it was
// sent; [PacketConn.Read] returns it. It has the form of [net.ListenConfig.Control], so that no
// datagram arrives before it took effect. On a dual-stack socket it holds for both families. The
// error matches [errors.ErrUnsupported] where the system has no such option that is known here (all
// but Linux).
func EnablePacketInfo(network, _ string, c syscall.RawConn) error {
	return control(c, func(fd uintptr) error {
		return sys.packetInfo(fd, network != "udp4")
	})
}

// A PacketConn reads and writes the datagrams of one UDP socket together with the local address of
// each, and does not wait to write. A socket that is bound to no address in particular would
// otherwise answer from an address that the kernel chooses, which need not be the one that was
// asked; a connected peer then never hears the answer. Make one with [NewPacketConn].
//
// Any goroutine may write; those that read must take turns. Neither allocates, but once for each
// new zone of a link-local address. The socket may also be used directly.
type PacketConn struct {
	c  *net.UDPConn
	rc syscall.RawConn

	oob   [128]byte         // what the kernel tells about a datagram that was read
	zones map[uint32]string // used by readers only

	mu   sync.Mutex
	w    packetSender       // guarded by mu; nil: through package net, which may wait
	step func(fd uintptr)   // constant: a method value at every call would allocate
	call packetCall         // guarded by mu
	room func(uintptr) bool // constant
}

// packetCall is what step works on.
type packetCall struct {
	b     []byte
	to    netip.AddrPort
	local netip.Addr
	err   error
}

// A packetSender sends datagrams of one socket without waiting, where the system can do that.
type packetSender interface {
	// send sends b, to the connected peer if to is the zero AddrPort, from local if that is valid.
	// It returns ErrWouldBlock instead of waiting.
	send(fd uintptr, b []byte, to netip.AddrPort, local netip.Addr) error
}

// NewPacketConn returns a PacketConn for c, which the caller still owns.
func NewPacketConn(c *net.UDPConn) (*PacketConn, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &PacketConn{c: c, rc: rc}
	if err := control(rc, func(fd uintptr) error {
		p.w, err = sys.packetSender(fd)
		return err
	}); err != nil {
		return nil, err
	}
	p.step = func(fd uintptr) { p.call.err = p.w.send(fd, p.call.b, p.call.to, p.call.local) }
	p.room = func(fd uintptr) bool { return sys.writable(fd) }
	return p, nil
}

// Read is [ReadUDP] that also returns the address of this host that the datagram was sent to, with
// its zone if it is link-local. It is the zero Addr if [EnablePacketInfo] is not in effect. For a
// broadcast it is the address of the interface, and for a multicast over IPv6 it is the zero Addr:
// nothing can be sent from the address of a group.
func (p *PacketConn) Read(b []byte) (n int, from netip.AddrPort, local netip.Addr, truncated bool, err error) {
	n, oobn, flags, from, err := p.c.ReadMsgUDPAddrPort(b, p.oob[:])
	if from.Addr().Is4In6() {
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	}
	switch {
	case err == nil:
	case sys.truncated(err):
		return len(b), from, local, true, nil
	default:
		return n, from, local, false, err
	}
	if oobn > 0 {
		var index uint32
		if local, index = sys.localAddr(p.oob[:oobn]); local.Is6() && local.IsLinkLocalUnicast() {
			local = local.WithZone(p.zone(index))
		}
	}
	return n, from, local, flags&msgTrunc != 0, nil
}

// zone returns the name of the interface with the given index.
func (p *PacketConn) zone(index uint32) string {
	name, ok := p.zones[index]
	if !ok {
		name = zoneName(index)
		if p.zones == nil {
			p.zones = make(map[uint32]string)
		}
		p.zones[index] = name
	}
	return name
}

// TryWrite sends b as one datagram: to the connected peer if to is the zero AddrPort, from the
// address local of this host if that is valid, else from one that the kernel chooses. Both may be
// IPv4 or IPv4-mapped whatever the family of the socket, but must be of one family. It does not
// wait: the error is [ErrWouldBlock] if the send buffer is full, and b was not sent then. An error
// for which [IsPacketError] holds concerns this datagram only. A refusal that an earlier datagram
// met is also reported here, and then b was not sent.
//
// Where the system has no such call (Windows), it writes through package net, and a valid local is
// an error that matches [errors.ErrUnsupported].
func (p *PacketConn) TryWrite(b []byte, to netip.AddrPort, local netip.Addr) error {
	if local.IsValid() && to.IsValid() && local.Unmap().Is4() != to.Addr().Unmap().Is4() {
		return p.fail(to, &net.AddrError{Err: "local address of another family than the peer's", Addr: local.String()})
	}
	if p.w == nil {
		if local.IsValid() {
			return p.fail(to, fmt.Errorf("local address of a datagram: %w", errors.ErrUnsupported))
		}
		_, err := WriteUDP(p.c, b, to)
		return err
	}
	p.mu.Lock()
	p.call = packetCall{b: b, to: to, local: local}
	err := p.rc.Control(p.step)
	if err == nil {
		err = p.call.err
	}
	p.call.b = nil // the caller's
	p.mu.Unlock()
	if err == nil || err == ErrWouldBlock {
		return err
	}
	return p.fail(to, err)
}

// fail makes an error look like one of package net.
func (p *PacketConn) fail(to netip.AddrPort, err error) error {
	if _, ok := err.(*net.OpError); ok {
		return err
	}
	addr := p.c.RemoteAddr()
	if to.IsValid() {
		addr = net.UDPAddrFromAddrPort(to)
	}
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError("sendmsg", errno)
	}
	return &net.OpError{Op: "write", Net: "udp", Source: p.c.LocalAddr(), Addr: addr, Err: err}
}

// AwaitWritable waits until the send buffer has room, the write deadline of the socket passes or
// the socket is closed. Other goroutines may read and TryWrite meanwhile.
func (p *PacketConn) AwaitWritable() error { return p.rc.Write(p.room) }
