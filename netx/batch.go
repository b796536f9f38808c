// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// A Datagram is one entry of a batch.
type Datagram struct {
	// Buf is room for a datagram to read, or what to write. It is used during the call only.
	Buf []byte
	// N is set by ReadBatch to the number of bytes that are now in Buf.
	N int
	// Addr is set by ReadBatch to the sender, unmapped as by ReadUDP; for WriteBatch it is the
	// destination, or the zero AddrPort for the connected peer. On a connected socket it must be
	// zero: what another address does there depends on the system.
	Addr netip.AddrPort
	// Truncated is set by ReadBatch if the datagram did not fit into Buf and its rest is lost.
	Truncated bool
}

// A Batch moves several datagrams of one UDP socket with one system call, which pays when they
// come in bursts: the README says how much. Make one with [NewBatch]. One goroutine may read while
// another writes; two that read, or two that write, must take turns. The methods do not allocate,
// except once for each new zone of a link-local peer.
//
// Linux has the calls (recvmmsg, sendmmsg). Elsewhere a read yields one datagram and a write
// loops, so that programs need no second form.
type Batch struct {
	c    *net.UDPConn
	size int
	fast fastBatch // nil: one datagram a call
}

// fastBatch is what a system with such calls provides.
type fastBatch interface {
	read(ds []Datagram) (int, error)
	write(ds []Datagram) (int, error)
}

// NewBatch returns a Batch of at most size datagrams a call for c, which the caller still owns and
// may also use directly. size must be at least 1; Linux takes no more than 1024.
func NewBatch(c *net.UDPConn, size int) (*Batch, error) {
	if size < 1 || size > 1024 {
		return nil, fmt.Errorf("netx: a batch of %d: %w", size, syscall.EINVAL)
	}
	fast, err := sys.batch(c, size)
	if err != nil {
		return nil, err
	}
	return &Batch{c: c, size: size, fast: fast}, nil
}

// ReadBatch waits until a datagram arrives, the read deadline passes or the socket is closed, and
// reads as many as are there and fit into ds and the size of b. It returns how many entries of ds
// it filled; at least one if the error is nil. Errors are those of [ReadUDP]. With an empty ds it
// returns 0 at once.
func (b *Batch) ReadBatch(ds []Datagram) (int, error) {
	ds = ds[:min(len(ds), b.size)]
	switch {
	case len(ds) == 0:
		return 0, nil
	case b.fast != nil:
		return b.fast.read(ds)
	}
	// One, and not all that are there: a second read could block although the first one succeeded.
	d := &ds[0]
	var err error
	if d.N, d.Addr, d.Truncated, err = ReadUDP(b.c, d.Buf); err != nil {
		return 0, err
	}
	return 1, nil
}

// WriteBatch writes all of ds, in order, in as many calls as the size of b needs. It returns how
// many were written; an error is about the entry of that index, and a caller for which
// [IsPacketError] holds may go on behind it.
func (b *Batch) WriteBatch(ds []Datagram) (int, error) {
	for done := 0; done < len(ds); {
		part := ds[done:min(len(ds), done+b.size)]
		if b.fast != nil {
			n, err := b.fast.write(part)
			// What was written before the error counts: the caller goes on behind it.
			if done += n; err != nil {
				return done, err
			}
			continue
		}
		for i := range part {
			if _, err := WriteUDP(b.c, part[i].Buf, part[i].Addr); err != nil {
				return done, err
			}
			done++
		}
	}
	return len(ds), nil
}
