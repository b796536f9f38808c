// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gostkit/kit/bytespool"
)

// A TLSConn is a TLS connection (RFC 8446, RFC 5246) over another one. It has two lives.
//
// At first it is a net.Conn that blocks, for the handshake and for what may follow it, such as the
// upgrade of a WebSocket. Like a tls.Conn it may be read by one goroutine and written by another.
//
// New makes a [Link] of it. From then on crypto/tls touches no socket: what it encrypts is appended
// to a queue, what it decrypts comes from an [Input], and deadlines are ignored. So no error of
// time can stick to it, and the link below alone decides when to read and to write.
type TLSConn struct {
	raw    net.Conn
	tls    *tls.Conn
	linked bool   // the second life; set before any goroutine of it begins
	in     cipher // records that crypto/tls has not taken
	out    sealed // records that the link below has not taken
}

var _ net.Conn = (*TLSConn)(nil)

// NewTLSServer returns the server's side of TLS on raw. config is not copied.
func NewTLSServer(raw net.Conn, config *tls.Config) *TLSConn {
	c := &TLSConn{raw: raw}
	c.tls = tls.Server((*carrier)(c), config)
	return c
}

// NewTLSClient returns the client's side of TLS on raw. config is not copied.
func NewTLSClient(raw net.Conn, config *tls.Config) *TLSConn {
	c := &TLSConn{raw: raw}
	c.tls = tls.Client((*carrier)(c), config)
	return c
}

// HandshakeContext shakes hands. When ctx ends first the connection is closed.
func (c *TLSConn) HandshakeContext(ctx context.Context) error { return c.tls.HandshakeContext(ctx) }

// ConnectionState returns what was agreed: versions, names, certificates.
func (c *TLSConn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// NetConn returns the connection below.
func (c *TLSConn) NetConn() net.Conn { return c.raw }

// Read implements [net.Conn].
func (c *TLSConn) Read(p []byte) (int, error) { return c.tls.Read(p) }

// Write implements [net.Conn].
func (c *TLSConn) Write(p []byte) (int, error) { return c.tls.Write(p) }

// CloseWrite ends the outgoing stream of both layers.
func (c *TLSConn) CloseWrite() error {
	if err := c.tls.CloseWrite(); err != nil {
		return err
	}
	return closeWrite(c.raw)
}

// Close closes the connection below and says no goodbye: unlike that of a tls.Conn it never waits
// for the peer.
func (c *TLSConn) Close() error { return c.raw.Close() }

// LocalAddr implements [net.Conn].
func (c *TLSConn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr implements [net.Conn].
func (c *TLSConn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline implements [net.Conn].
func (c *TLSConn) SetDeadline(t time.Time) error { return c.tls.SetDeadline(t) }

// SetReadDeadline implements [net.Conn].
func (c *TLSConn) SetReadDeadline(t time.Time) error { return c.tls.SetReadDeadline(t) }

// SetWriteDeadline implements [net.Conn].
func (c *TLSConn) SetWriteDeadline(t time.Time) error { return c.tls.SetWriteDeadline(t) }

// A carrier is the net.Conn that crypto/tls sees.
type carrier TLSConn

// Read gives crypto/tls the records that have come. While the connection blocks, it reads more.
func (c *carrier) Read(p []byte) (int, error) {
	for {
		if n := c.in.take(p, c.linked); n > 0 || len(p) == 0 {
			return n, nil
		}
		if c.linked {
			return 0, errNoRecord
		}
		if err := c.in.readFrom(c.raw); err != nil {
			return 0, err
		}
	}
}

// Write takes one record.
func (c *carrier) Write(p []byte) (int, error) {
	if !c.linked {
		return c.raw.Write(p)
	}
	c.out.append(p)
	return len(p), nil
}

func (c *carrier) Close() error         { return c.raw.Close() }
func (c *carrier) LocalAddr() net.Addr  { return c.raw.LocalAddr() }
func (c *carrier) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

func (c *carrier) SetDeadline(t time.Time) error { return c.deadline(t, net.Conn.SetDeadline) }

func (c *carrier) SetReadDeadline(t time.Time) error {
	return c.deadline(t, net.Conn.SetReadDeadline)
}

func (c *carrier) SetWriteDeadline(t time.Time) error {
	return c.deadline(t, net.Conn.SetWriteDeadline)
}

func (c *carrier) deadline(t time.Time, set func(net.Conn, time.Time) error) error {
	if c.linked {
		return nil
	}
	return set(c.raw, t)
}

// errNoRecord tells crypto/tls to come back later. An error that calls itself temporary is the only
// one that it does not keep for ever.
var errNoRecord error = noRecord{}

type noRecord struct{}

func (noRecord) Error() string   { return "wire: no whole record has come" }
func (noRecord) Timeout() bool   { return true }
func (noRecord) Temporary() bool { return true }

const (
	recordHeader = 5
	// maxRecord is more than any record has (RFC 5246, section 6.2.3). A header that claims more is
	// passed on at once, for crypto/tls to refuse.
	maxRecord = recordHeader + 16<<10 + 2<<10
)

// A cipher is the Input of a TLSConn. It knows where records end, so that crypto/tls never has a
// part of one: such a part would lie in a buffer that crypto/tls keeps.
type cipher struct {
	Input
	off int // bytes of the Input that crypto/tls has taken: whole records
	pos int // bytes of the record behind them that it has taken
}

// record returns the bytes of the first record that was not taken whole, as far as they have come,
// and its size, 0 if that is not known.
func (c *cipher) record() (b []byte, size int) {
	b = c.Bytes()[c.off:]
	if len(b) < recordHeader {
		return b, 0
	}
	size = recordHeader + int(binary.BigEndian.Uint16(b[3:]))
	if size > maxRecord {
		size = len(b)
	}
	return b[:min(len(b), size)], size
}

// ready reports whether a whole record waits.
func (c *cipher) ready() bool {
	b, size := c.record()
	return size > 0 && len(b) == size
}

// take copies bytes of the first record to p, with whole only if all of it has come.
func (c *cipher) take(p []byte, whole bool) int {
	b, size := c.record()
	if whole && (size == 0 || len(b) < size) {
		return 0
	}
	n := copy(p, b[c.pos:])
	if c.pos += n; size > 0 && c.pos == size {
		c.off += size
		c.pos = 0
	}
	return n
}

// compact forgets what was taken.
func (c *cipher) compact() {
	c.Consume(c.off)
	c.off = 0
	_, c.Need = c.record()
}

// readFrom waits for input of conn.
func (c *cipher) readFrom(conn net.Conn) error {
	if c.compact(); c.Len() == 0 {
		// A small one: it is held for as long as a peer is silent.
		c.Rest()
		c.buf = bytespool.Get(plainReadSize)
	}
	buf := c.lease()
	c.accept(buf, 0)
	n, err := conn.Read(buf[c.n:])
	if n > 0 {
		c.accept(buf, n)
		return nil
	}
	if c.Rest(); err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// A sealed is a queue of encoded bytes. Its zero value is empty and holds nothing.
type sealed struct {
	mu    sync.Mutex
	bufs  [][]byte // guarded by mu: from bytespool, each as long as it is filled
	gone  int      // guarded by mu: bytes of bufs[0] that are gone
	total int      // guarded by mu: bytes ever appended
	left  int      // guarded by mu: bytes that are not gone
}

// append adds a copy of p.
func (q *sealed) append(p []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total += len(p)
	q.left += len(p)
	// Behind the bytes that may just be on their way: they stay where they are.
	if n := len(q.bufs); n > 0 && cap(q.bufs[n-1])-len(q.bufs[n-1]) >= len(p) {
		q.bufs[n-1] = append(q.bufs[n-1], p...)
		return
	}
	q.bufs = append(q.bufs, append(bytespool.Get(len(p))[:0], p...))
}

// adopt adds b, which is from bytespool and belongs to the queue from here on.
func (q *sealed) adopt(b []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total += len(b)
	q.left += len(b)
	q.bufs = append(q.bufs, b)
}

// counts returns how many bytes were ever appended, and how many are not gone.
func (q *sealed) counts() (total, left int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total, q.left
}

// offer appends the bytes that are not gone to runs. They stay where they are until took.
func (q *sealed) offer(runs [][]byte) [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	gone := q.gone
	for _, b := range q.bufs {
		runs = append(runs, b[gone:])
		gone = 0
	}
	return runs
}

// took removes the first n bytes.
func (q *sealed) took(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.left -= n
	q.gone += n
	used := 0
	for used < len(q.bufs) && q.gone >= len(q.bufs[used]) {
		q.gone -= len(q.bufs[used])
		bytespool.Put(q.bufs[used])
		used++
	}
	n = copy(q.bufs, q.bufs[used:])
	clear(q.bufs[n:])
	q.bufs = q.bufs[:n]
}

// drop gives all memory back. Nothing may be on its way.
func (q *sealed) drop() {
	q.mu.Lock()
	left := q.left
	q.mu.Unlock()
	q.took(left)
}
