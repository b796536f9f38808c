// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/gostkit/kit/bytespool"
)

const (
	readSize    = 64 << 10 // a leased read buffer
	minReadRoom = 2 << 10  // a kept buffer with less room than this is exchanged before the next read,
	dripSize    = 64       // but not while reads bring less than this
)

// A stream is the transport of byte streams: TCP, Unix. It owns the input buffer.
//
// While nothing is to be read the session holds no buffer at all, or just the incomplete package. The
// platform part (stream_unix.go) leases a buffer when the socket is readable; elsewhere the buffer is
// held during a blocking read.
type stream struct {
	conn net.Conn
	raw  rawStream // the platform's way to the descriptor; its zero value means there is none

	buf  []byte // what is kept: bytes of an incomplete package, with room behind them; nil when idle
	kept int    // how many
	last int    // size of the previous read

	broken error // what reading failed with; the kernel tells it once
}

func newStream(conn net.Conn) *stream {
	t := &stream{conn: conn}
	t.raw.init(t)
	return t
}

func (t *stream) queues() bool         { return true }
func (t *stream) netConn() net.Conn    { return original(t.conn) }
func (t *stream) localAddr() net.Addr  { return t.conn.LocalAddr() }
func (t *stream) remoteAddr() net.Addr { return t.conn.RemoteAddr() }
func (t *stream) close() error         { return t.conn.Close() }

func (t *stream) farewell(*session) []byte { return nil }

func (t *stream) encode(s *session, pkg any, w *waiter) (int, error) { return s.encodeStream(pkg, w) }

func (t *stream) encodeRaw(s *session, one []byte, more [][]byte) (int, error) {
	n, err := s.queueRaw(one, more, nil)
	if err == errNoBytes { // the caller's, for which no codec is to blame
		err = nil
	}
	return n, err
}

func (t *stream) closeWrite(s *session) error {
	err := errors.ErrUnsupported
	if c, ok := t.conn.(interface{ CloseWrite() error }); ok {
		err = c.CloseWrite()
	}
	switch {
	case err == nil || s.has(flagHard):
	case errors.Is(err, errors.ErrUnsupported):
		s.closeHard() // such a connection can only be closed as a whole
	default:
		return err
	}
	return nil
}

// serve reads until the input ends. A package may begin in one read and end in another; need is its size if
// that is known, seen how much of it the Reader has looked at in vain.
func (t *stream) serve(s *session) error {
	defer t.drop()
	need, seen := 0, 0
	for {
		if s.has(flagDrain | flagBlocked | flagClosing) {
			s.endRead()
			if s.holds() {
				if t.kept == 0 {
					t.drop()
				}
				s.awaitWhile(s.holds)
			}
			if s.has(flagClosing) {
				return t.discard(s)
			}
		}
		n, err := t.read(s, need)
		t.last = n
		if s.has(flagClosing) { // what is read beside a Close is as if it came after
			s.tally(&s.count.BytesRead, n)
			n = 0
		}
		if n > 0 {
			s.tallyRead(n)
			b := t.buf[:t.kept+n]
			used := 0
			if len(b) < need || s.box != nil {
				s.clock.touch() // else the turn's end does it
			}
			if len(b) >= need {
				var perr error
				if s.box == nil {
					used, need, perr = s.turnsInline(b, seen)
				} else {
					used, need, perr = s.turnMailbox(b, seen)
				}
				if perr != nil {
					return perr
				}
				seen = len(b) - used
			}
			t.keep(b, used)
			if t.kept == 0 || used > 0 {
				s.clock.complete()
			}
			if t.kept > 0 {
				s.clock.arrived(n)
			}
		}
		if err == nil {
			continue
		}
		if err == io.EOF && t.kept > 0 && !s.has(flagClosing) {
			return io.ErrUnexpectedEOF
		}
		t.readFailed(s, err)
		return err
	}
}

// readFailed makes an error of reading the session's cause at once, since what handlers then meet
// tells less. On a socket it is one of the connection: nothing can be written any more either.
func (t *stream) readFailed(s *session, err error) {
	if err == io.EOF {
		return
	}
	t.broken = err
	if s.has(flagHard | flagExpired) {
		return
	}
	s.setCause(err)
	if socketOf(t.conn) != nil {
		s.setFlag(flagRefuse)
	}
}

// endRead is the end of a read and all that it brought. A Shutdown that came meanwhile has waited
// for this.
func (s *session) endRead() {
	if s.flags.And(^flagReading)&(flagDrain|flagClosing) == flagDrain {
		s.drained()
	}
}

// paused reports whether the queue is above the high mark, so that nothing may be read. A full socket of datagrams,
// which has no queue, stops no reading.
func (s *session) paused() bool {
	return s.queues && s.flags.Load()&(flagBlocked|flagClosing) == flagBlocked && !s.opts.ReadWhileBlocked
}

// holds reports whether nothing may be read now: paused, or a Shutdown waits until what was read is handled, which a
// peer that never stops would put off for ever.
func (s *session) holds() bool {
	return s.paused() || s.flags.Load()&(flagDrain|flagClosing) == flagDrain
}

// awaitWhile waits while held, which is paused or holds.
func (s *session) awaitWhile(held func() bool) {
	if !held() {
		return
	}
	begun := now()
	s.qMu.Lock()
	for held() {
		s.qCond.Wait()
	}
	s.qMu.Unlock()
	s.clock.shift(now() - begun)
}

// discard reads and forgets until the peer ends, so that a closing session does not destroy its own last
// bytes with a reset.
func (t *stream) discard(s *session) error {
	t.drop()
	for t.broken == nil {
		n, err := t.read(s, 0)
		s.tally(&s.count.BytesRead, n)
		t.drop()
		if err == io.EOF {
			return err
		}
		t.broken = err
	}
	return t.broken
}

// keep retains b[used:], the bytes of an incomplete package. They stay where they are if they fill that
// place well; else they move to a buffer of twice their size, so that a package which comes in drips is
// copied a bounded number of times.
func (t *stream) keep(b []byte, used int) {
	rest := b[used:]
	t.kept = len(rest)
	switch {
	case len(rest) == 0: // the buffer stays until the next read finds nothing
	case used == 0 && (len(rest) > len(t.buf)/4 || len(t.buf) <= minReadRoom):
	default:
		small := bytespool.Get(max(2*len(rest), 128))
		copy(small, rest)
		bytespool.Put(t.buf)
		t.buf = small
	}
}

// drop gives the buffer back.
func (t *stream) drop() {
	if t.buf != nil {
		bytespool.Put(t.buf)
		t.buf = nil
	}
	t.kept = 0
}

// lease returns a buffer that begins with room for what is kept, and more for a read: enough for need bytes
// in all, but never much more than what has arrived, whatever a header claims. It may be the one that
// is kept.
func (t *stream) lease(need int) []byte {
	if room := len(t.buf) - t.kept; room >= minReadRoom || room > 0 && (t.last < dripSize || len(t.buf) >= readSize && room >= need-t.kept && need > 0) {
		return t.buf
	}
	size := readSize
	if more := min(need, 2*t.kept); t.kept+more/2 > readSize/2 {
		size = max(t.kept+readSize, more)
	}
	return bytespool.Get(size)
}

// accept makes buf, into which n bytes were read behind the kept ones, the stream's buffer.
func (t *stream) accept(buf []byte) {
	if t.buf != nil && &buf[0] != &t.buf[0] {
		copy(buf, t.buf[:t.kept])
		bytespool.Put(t.buf)
	}
	t.buf = buf
}

// readPlain is read through the net.Conn alone: the buffer is held while it blocks. A Shutdown
// cannot tell whether such a read has brought something and does not wait for it: what comes later
// is as if it had not been read.
func (t *stream) readPlain(s *session, need int) (int, error) {
	s.endRead()
	if s.holds() {
		return 0, nil
	}
	if t.kept == 0 {
		t.drop()
		t.buf = bytespool.Get(minReadRoom * 2)
	}
	buf := t.lease(need)
	t.accept(buf)
	n, err := t.conn.Read(buf[t.kept:])
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	if n > 0 && s.flags.Or(flagReading)&flagDrain != 0 {
		s.tally(&s.count.BytesRead, n)
		n = 0
	}
	return n, err
}

// pieceSize is how much a connection is given at once that may take its time over it, so that it shows when the
// peer takes some of a large package.
const pieceSize = 64 << 10

// writePlain is write through the net.Conn alone. Such a connection cannot be asked not to block, so that
// only the flusher writes to it.
func (t *stream) writePlain(s *session, b *batch, wait bool) error {
	if !wait {
		return errWouldBlock
	}
	done := false
	defer func() {
		if !done { // a user's Write has called runtime.Goexit: this goroutine ends, and must not keep the token
			s.writeFailed(b, &PanicError{Where: "net.Conn.Write"})
		}
	}()
	err := t.writeAll(s, b)
	done = true
	return err
}

// writeAll is writePlain without its safety net.
func (t *stream) writeAll(s *session, b *batch) error {
	for {
		runs := b.offer()
		if len(runs) == 0 {
			return nil
		}
		runs, size := piece(runs, pieceSize)
		b.commit(size)
		n, err := t.writeRuns(runs)
		b.took(int(n))
		s.account(b)
		if err != nil {
			return err
		}
	}
}

// piece cuts runs, in place, down to size bytes, and returns how many they are.
func piece(runs [][]byte, size int) ([][]byte, int) {
	total := 0
	for i, r := range runs {
		if rest := size - total; len(r) >= rest {
			runs[i] = r[:rest]
			return runs[:i+1], size
		}
		total += len(r)
	}
	return runs, total
}

// writeRuns writes runs in order, in one call where the connection can do that.
func (t *stream) writeRuns(runs [][]byte) (n int64, err error) {
	if socketOf(t.conn) != nil {
		bufs := net.Buffers(runs)
		return bufs.WriteTo(t.conn)
	}
	for _, r := range runs {
		m, err := t.conn.Write(r)
		if n += int64(m); err != nil {
			return n, err
		}
	}
	return n, nil
}

// socketOf returns conn if it is a connection of package net, nil if it is any other. One that embeds such a
// connection has all its methods, also those behind net.Buffers, but may do more in Read and Write than it does.
func socketOf(conn net.Conn) syscall.Conn {
	switch c := conn.(type) {
	case *net.TCPConn:
		return c
	case *net.UnixConn:
		return c
	}
	return nil
}
