// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// linuxBatch is a fastBatch on recvmmsg and sendmmsg.
type linuxBatch struct {
	c    *net.UDPConn
	rc   syscall.RawConn
	six  bool // an IPv6 socket takes IPv4 addresses in mapped form only
	r, w direction
	zone map[uint32]string // names of the zones seen, used by the reader only
}

// direction holds the arguments of one of the two calls, prepared once. The headers point into
// names and iovs; the heap, where these live, does not move them.
type direction struct {
	call  uintptr // number of the system call
	hdrs  []mmsghdr
	iovs  []unix.Iovec
	names []unix.RawSockaddrInet6 // has room for an IPv4 address too
	count int                     // entries in use
	done  int                     // entries that the kernel has filled or taken
	errno syscall.Errno
	fn    func(fd uintptr) bool // step, made once: a method value at every call would allocate
}

func newLinuxBatch(c *net.UDPConn, size int) (fastBatch, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := &linuxBatch{c: c, rc: rc, zone: map[uint32]string{}}
	// The address of c does not tell: a dual-stack socket may be bound to an IPv4-mapped address.
	err = control(rc, func(fd uintptr) error {
		sa, err := unix.Getsockname(int(fd))
		_, b.six = sa.(*unix.SockaddrInet6)
		return os.NewSyscallError("getsockname", err)
	})
	if err != nil {
		return nil, err
	}
	b.r.init(unix.SYS_RECVMMSG, size)
	b.w.init(unix.SYS_SENDMMSG, size)
	return b, nil
}

func (d *direction) init(call uintptr, size int) {
	d.call = call
	d.hdrs = make([]mmsghdr, size)
	d.iovs = make([]unix.Iovec, size)
	d.names = make([]unix.RawSockaddrInet6, size)
	// For good: the slices never grow, so their elements stay where they are.
	for i := range d.hdrs {
		d.hdrs[i].hdr.Name = (*byte)(unsafe.Pointer(&d.names[i]))
		d.hdrs[i].hdr.Iov = &d.iovs[i]
		d.hdrs[i].hdr.SetIovlen(1)
	}
	d.fn = d.step
}

// set points entry i at b.
func (d *direction) set(i int, b []byte, namelen uint32) {
	d.iovs[i].Base = unsafe.SliceData(b)
	d.iovs[i].SetLen(len(b))
	// The kernel wrote both at the last read.
	d.hdrs[i].hdr.Namelen = namelen
	d.hdrs[i].hdr.Flags = 0
}

// step makes one call for the entries that are left. It returns false to wait until the socket is
// ready, which the poller allows only after EAGAIN.
func (d *direction) step(fd uintptr) bool {
	for {
		// Not to wait even if a descriptor is in blocking mode: that would hold up Close.
		n, _, errno := syscall.Syscall6(d.call, fd, uintptr(unsafe.Pointer(&d.hdrs[d.done])),
			uintptr(d.count-d.done), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			d.done += int(n)
			// A write goes on behind what was taken: why the kernel stopped shows then.
			if d.call == unix.SYS_RECVMMSG || d.done == d.count {
				return true
			}
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			d.errno = errno
			return true
		}
	}
}

// release forgets the caller's buffers, so that an idle Batch does not keep them alive.
func (d *direction) release() {
	for i := range d.count {
		d.iovs[i].Base = nil
	}
}

// fail makes an error of the kernel look like one of package net.
func (b *linuxBatch) fail(op, call string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "udp", Source: b.c.LocalAddr(), Addr: b.c.RemoteAddr(),
		Err: os.NewSyscallError(call, errno)}
}

func (b *linuxBatch) read(ds []Datagram) (int, error) {
	d := &b.r
	d.count, d.done, d.errno = len(ds), 0, 0
	for i := range ds {
		d.set(i, ds[i].Buf, unix.SizeofSockaddrInet6)
	}
	err := b.rc.Read(d.fn) // waits in Go's poller; a deadline or Close ends it
	d.release()
	if err != nil {
		return 0, err
	}
	if d.errno != 0 {
		return 0, b.fail("read", "recvmmsg", d.errno)
	}
	for i := range d.done {
		ds[i].N = int(d.hdrs[i].n)
		ds[i].Truncated = d.hdrs[i].hdr.Flags&unix.MSG_TRUNC != 0
		ds[i].Addr = b.sender(&d.names[i])
	}
	return d.done, nil
}

func (b *linuxBatch) write(ds []Datagram) (int, error) {
	d := &b.w
	d.count, d.done, d.errno = len(ds), 0, 0
	var aerr error
	for i := range ds {
		var namelen uint32
		if ds[i].Addr.IsValid() {
			if namelen, aerr = b.name(&d.names[i], ds[i].Addr); aerr != nil {
				d.count = i // those before it are still written
				break
			}
		}
		d.set(i, ds[i].Buf, namelen)
	}
	var err error
	if d.count > 0 {
		err = b.rc.Write(d.fn)
	}
	d.release()
	switch {
	case err != nil:
		return d.done, err
	case d.errno != 0:
		return d.done, b.fail("write", "sendmmsg", d.errno)
	}
	return d.done, aerr
}

// sender reads an address that the kernel wrote.
func (b *linuxBatch) sender(sa *unix.RawSockaddrInet6) netip.AddrPort {
	switch sa.Family {
	case unix.AF_INET:
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), port(&sa4.Port))
	case unix.AF_INET6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && a.Is6() {
			name, ok := b.zone[sa.Scope_id]
			if !ok { // the look-up takes several system calls, and link-local peers are few
				name = zoneName(sa.Scope_id)
				b.zone[sa.Scope_id] = name
			}
			a = a.WithZone(name)
		}
		return netip.AddrPortFrom(a, port(&sa.Port))
	}
	return netip.AddrPort{}
}

// name writes an address for the kernel and returns its length.
func (b *linuxBatch) name(sa *unix.RawSockaddrInet6, to netip.AddrPort) (uint32, error) {
	a := to.Addr().Unmap()
	// The kernel says EINVAL to an address of the wrong family; package net says which one it was.
	if !b.six {
		if !a.Is4() {
			return 0, &net.AddrError{Err: "non-IPv4 address", Addr: a.String()}
		}
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*sa4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.As4()}
		setPort(&sa4.Port, to.Port())
		return unix.SizeofSockaddrInet4, nil
	}
	zone, err := zoneIndex(a.Zone())
	if err != nil {
		return 0, err
	}
	// As16 gives an IPv4 address in mapped form.
	*sa = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.As16(), Scope_id: zone}
	setPort(&sa.Port, to.Port())
	return unix.SizeofSockaddrInet6, nil
}

// A port is in network order whatever the machine's is.
func port(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }

func setPort(p *uint16, v uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(p))[:], v)
}
