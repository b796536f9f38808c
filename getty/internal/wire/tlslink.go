// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/gostkit/kit/bytespool"
)

const (
	// sealSize is how many bytes are encrypted ahead of what the link below has taken. They can not
	// be withdrawn any more, and exist twice.
	sealSize = 64 << 10

	// pieceSize is how many bytes are encrypted in one call: what one record holds at most.
	pieceSize = 16 << 10

	// maxUnsent bounds the encrypted bytes that wait: a peer may ask for new keys again and again,
	// each time gets an answer, and need not read any.
	maxUnsent = 2 * sealSize
)

// A tlsLink is a link over a link: it decrypts what the one below reads, and encrypts what a Source
// offers when that is to be written, so that a batch becomes one run of records.
type tlsLink struct {
	*TLSConn
	below Link

	// Used by Run.
	plain *Input
	h     Handler
	more  bool  // crypto/tls may have bytes that it has not handed out
	end   error // how the input has ended

	writing sync.Mutex // held while the link below writes
	src     Source     // guarded by writing: of the Write in progress
	marks   []mark     // guarded by writing: pieces that are encrypted and not gone
	sent    int        // guarded by writing: encrypted bytes ever gone
	runs    [][]byte   // guarded by writing: the memory of what Offer returns

	bye  atomic.Int32 // the size of close_notify, when it is sent
	said atomic.Bool  // close_notify has left
}

// A mark is the end of an encrypted piece.
type mark struct {
	plain int // its bytes before encryption
	end   int // the value of sealed.total after it
}

// newTLSLink makes a link of c, which has shaken hands.
func newTLSLink(c *TLSConn) *tlsLink {
	c.linked = true
	c.in.compact()
	// Bytes may have come with the handshake.
	return &tlsLink{TLSConn: c, below: New(c.raw), more: true}
}

func (l *tlsLink) Conn() net.Conn { return l.TLSConn }
func (l *tlsLink) Close() error   { return l.below.Close() }
func (l *tlsLink) LastWords() int { return int(l.bye.Load()) + l.below.LastWords() }

// SaidGoodbye reports whether CloseWrite has sent the close_notify, without which the peer takes the
// end of the stream for a cut.
func (l *tlsLink) SaidGoodbye() bool { return l.said.Load() }

func (l *tlsLink) Run(in *Input, h Handler) error {
	l.plain, l.h = in, h
	defer func() { l.plain, l.h = nil, nil }()
	// First what an earlier Run left, since the link below will not speak of it again.
	if l.end == nil && (l.more || l.in.ready()) && !l.decrypt() && l.end == nil {
		return nil
	}
	if l.end == nil {
		err := l.below.Run(&l.in.Input, (*tlsReads)(l))
		if err == ErrInterrupted && l.end == nil {
			return err
		}
		if l.end == nil {
			l.end = err
		}
		if l.end == io.EOF && err == io.EOF {
			// No close_notify came. Whoever can cut the connection could shorten the stream.
			l.end = io.ErrUnexpectedEOF
		}
	}
	if l.end != nil {
		l.in.off, l.in.pos = 0, 0
		l.in.Drop()
	}
	return l.end
}

// Interrupt implements [Interrupter], where the link below does.
func (l *tlsLink) Interrupt() {
	if below, ok := l.below.(Interrupter); ok {
		below.Interrupt()
	}
}

// tlsReads is the Handler of the link below.
type tlsReads tlsLink

func (l *tlsReads) MayRead() bool     { return l.h.MayRead() }
func (l *tlsReads) Received(int) bool { return (*tlsLink)(l).decrypt() }

func (l *tlsReads) Idle() bool {
	l.plain.Rest() // the link below does the same with the encrypted bytes
	return l.h.Idle()
}

// decrypt passes on what has come, and reports whether Run goes on.
func (l *tlsLink) decrypt() bool {
	defer l.in.compact() // also if the Handler ends the goroutine with Goexit
	goesOn := true
	for goesOn && (l.more || l.in.ready()) {
		if goesOn = l.h.MayRead(); !goesOn {
			break
		}
		var n int
		n, l.end = l.readRecords()
		goesOn = (n == 0 || l.h.Received(n)) && l.end == nil
	}
	if !l.answer() && l.end == nil {
		l.end, goesOn = errManyAnswers, false
	}
	return goesOn
}

var errManyAnswers = errors.New("wire: the TLS peer asks for new keys and reads no answer")

// readRecords decrypts as many records as fit into the Input. It returns how many bytes they had.
func (l *tlsLink) readRecords() (n int, err error) {
	in := l.plain
	buf := in.lease()
	room := buf[in.n:]
	for n < len(room) && (l.more || l.in.ready()) {
		var k int
		k, err = l.readRecord(room[n:])
		// A record that did not fit is not asked for below, since crypto/tls has all of it.
		n, l.more = n+k, k > 0 && k == len(room[n:])
		if err != nil {
			break
		}
	}
	if err == errNoRecord { // records without data, such as session tickets
		err = nil
	}
	if n > 0 {
		in.accept(buf, n)
	} else {
		in.giveBack(buf)
	}
	return n, err
}

// readRecord is Read of crypto/tls, which may call user code: a cache of sessions.
func (l *tlsLink) readRecord(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("wire: panic below tls.Conn.Read: %v", v)
		}
	}()
	return l.tls.Read(p)
}

// answer writes what crypto/tls wants to say in answer to a record, an alert or new keys. It does
// not wait, and reports false if too much waits.
func (l *tlsLink) answer() bool {
	_, left := l.out.counts()
	if left > 0 && l.writing.TryLock() {
		_ = l.push(Held)
		l.writing.Unlock()
	} // else whoever writes takes it along; see unlock
	return left <= maxUnsent
}

func (l *tlsLink) Write(src Source, how Mode) error {
	l.writing.Lock()
	l.src = src
	err := l.write(src, how)
	l.src = nil
	if err != nil && err != ErrWouldBlock {
		l.out.drop()
	}
	l.unlock(err)
	return err
}

// unlock ends a write that has ended with err.
func (l *tlsLink) unlock(err error) {
	l.writing.Unlock()
	if err != nil {
		return // the next Write goes on
	}
	// An answer may have come after the last look at the queue, and have found the lock held.
	if _, left := l.out.counts(); left > 0 && l.writing.TryLock() {
		_ = l.push(Try)
		l.writing.Unlock()
	}
}

func (l *tlsLink) write(src Source, how Mode) error {
	l.settle() // an answer may have taken what was left of the previous Write along
	for {
		if err := l.push(how); err != nil {
			return err
		}
		if some, err := l.seal(src); err != nil || !some {
			return err
		}
	}
}

// push writes what is encrypted.
func (l *tlsLink) push(how Mode) error {
	if _, left := l.out.counts(); left == 0 {
		return nil
	}
	return l.below.Write((*tlsWrites)(l), how)
}

// tlsWrites is the Source for the link below.
type tlsWrites tlsLink

func (l *tlsWrites) Offer() [][]byte {
	clear(l.runs) // given back since
	l.runs = l.out.offer(l.runs[:0])
	return l.runs
}

func (l *tlsWrites) Commit(int) {} // was done before they were encrypted

func (l *tlsWrites) Took(n int) {
	l.out.took(n)
	l.sent += n
	(*tlsLink)(l).settle()
}

// settle tells the source of the pieces that are gone.
func (l *tlsLink) settle() {
	// Not when the reader writes an answer: the source belongs to a Write.
	if l.src == nil {
		return
	}
	done := 0
	for done < len(l.marks) && l.marks[done].end <= l.sent {
		l.src.Took(l.marks[done].plain)
		done++
	}
	l.marks = append(l.marks[:0], l.marks[done:]...)
}

// seal encrypts the next bytes of src, and reports whether there were any.
func (l *tlsLink) seal(src Source) (some bool, err error) {
	runs := src.Offer()
	if len(runs) == 0 {
		return false, nil
	}
	n := 0
	for _, r := range runs {
		n += len(r)
	}
	n = min(n, sealSize)
	src.Commit(n)
	from := cursor{runs: runs}
	for n > 0 && err == nil {
		piece := from.next(min(n, pieceSize))
		n -= len(piece)
		if _, err = l.tls.Write(piece); err == nil {
			total, _ := l.out.counts()
			l.marks = append(l.marks, mark{len(piece), total})
		}
	}
	from.free()
	src.Took(0) // what was offered and is not encrypted may be withdrawn
	return true, err
}

// A cursor goes through runs in pieces.
type cursor struct {
	runs    [][]byte
	off     int    // bytes of runs[0] that are behind it
	scratch []byte // where neighbours are joined
}

// next returns the next n bytes, which there are. They are valid until the next call.
func (c *cursor) next(n int) []byte {
	if c.off == len(c.runs[0]) {
		c.runs, c.off = c.runs[1:], 0
	}
	if one := c.runs[0][c.off:]; len(one) >= n {
		c.off += n
		return one[:n]
	}
	// Small neighbours share a record.
	if c.scratch == nil {
		c.scratch = bytespool.Get(pieceSize)
	}
	got := 0
	for got < n {
		if c.off == len(c.runs[0]) {
			c.runs, c.off = c.runs[1:], 0
		}
		k := copy(c.scratch[got:n], c.runs[0][c.off:])
		got += k
		c.off += k
	}
	return c.scratch[:n]
}

func (c *cursor) free() {
	if c.scratch != nil {
		bytespool.Put(c.scratch)
	}
}

// CloseWrite says goodbye (close_notify) and ends the stream below.
func (l *tlsLink) CloseWrite(how Mode) error {
	l.writing.Lock()
	before, _ := l.out.counts()
	// Only the first call says it. It fails only after an alert, behind which nothing may follow.
	_ = l.tls.CloseWrite()
	after, _ := l.out.counts()
	l.bye.Add(int32(after - before))
	err := l.push(how)
	if err == nil {
		l.said.Store(true)
	}
	l.unlock(err)
	if err != nil {
		return err
	}
	return l.below.CloseWrite(how)
}
