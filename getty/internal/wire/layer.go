// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/gostkit/kit/bytespool"
)

const (
	// encodeSize is how many bytes are encoded ahead of what the link below has taken. They can not
	// be withdrawn any more, and exist twice.
	encodeSize = 64 << 10

	// maxUnsent bounds the encoded bytes that wait: a peer may ask for answers of the code itself
	// again and again, such as new keys of TLS, and need not read any.
	maxUnsent = 2 * encodeSize
)

// A coder is what a layer does to the bytes: TLS, or compression.
type coder interface {
	// input returns where the link below reads into.
	input() *Input
	// ready reports whether something of the input can be decoded.
	ready() bool
	// decode appends what of the input can be decoded to plain, and returns how many bytes that
	// were. The input has ended with an error, also io.EOF.
	decode(plain *Input) (n int, err error)
	// compact forgets what was decoded; drop forgets everything.
	compact()
	drop()
	// ended returns what it means that the link below has ended with err.
	ended(err error) error

	// pieceSize is how many bytes encode takes at most.
	pieceSize() int
	// encode appends p to the queue, goodbye what is to be said before the end of the stream.
	encode(p []byte) error
	goodbye()
}

// A layer is a link over a link: it decodes what the one below reads, and encodes what a Source
// offers when that is to be written, so that a batch becomes one run of records or chunks.
type layer struct {
	coder
	below Link
	conn  net.Conn
	out   *sealed // encoded bytes that the link below has not taken

	// Used by Run.
	plain *Input
	h     Handler
	end   error // how the input has ended

	writing sync.Mutex // held while the link below writes
	src     Source     // guarded by writing: of the Write in progress
	marks   []mark     // guarded by writing: pieces that are encoded and not gone
	sent    int        // guarded by writing: encoded bytes ever gone
	runs    [][]byte   // guarded by writing: the memory of what Offer returns

	bye  atomic.Int32 // the size of the goodbye, when it is sent
	said atomic.Bool  // the goodbye has left
}

// A mark is the end of an encoded piece.
type mark struct {
	plain int // its bytes before they were encoded
	end   int // the value of sealed.total after it
}

func (l *layer) Conn() net.Conn { return l.conn }
func (l *layer) Close() error   { return l.below.Close() }
func (l *layer) LastWords() int { return int(l.bye.Load()) + l.below.LastWords() }

// SaidGoodbye reports whether CloseWrite has sent the goodbye, without which the peer takes the end
// of the stream for a cut.
func (l *layer) SaidGoodbye() bool { return l.said.Load() }

func (l *layer) Run(in *Input, h Handler) error {
	l.plain, l.h = in, h
	defer func() { l.plain, l.h = nil, nil }()
	// First what an earlier Run left, since the link below will not speak of it again.
	if l.end == nil && l.ready() && !l.received() && l.end == nil {
		return nil
	}
	if l.end == nil {
		err := l.below.Run(l.input(), (*layerReads)(l))
		if err == ErrInterrupted && l.end == nil {
			return err
		}
		if l.end == nil {
			l.end = l.ended(err)
		}
	}
	if l.end != nil {
		l.drop()
	}
	return l.end
}

// Interrupt implements [Interrupter], where the link below does.
func (l *layer) Interrupt() {
	if below, ok := l.below.(Interrupter); ok {
		below.Interrupt()
	}
}

// layerReads is the Handler of the link below.
type layerReads layer

func (l *layerReads) MayRead() bool     { return l.h.MayRead() }
func (l *layerReads) Received(int) bool { return (*layer)(l).received() }

func (l *layerReads) Idle() bool {
	l.plain.Rest() // the link below does the same with the encoded bytes
	return l.h.Idle()
}

// received passes on what has come, and reports whether Run goes on.
func (l *layer) received() bool {
	defer l.compact() // also if the Handler ends the goroutine with Goexit
	goesOn := true
	for goesOn && l.ready() {
		if goesOn = l.h.MayRead(); !goesOn {
			break
		}
		var n int
		n, l.end = l.decode(l.plain)
		goesOn = (n == 0 || l.h.Received(n)) && l.end == nil
	}
	if !l.answer() && l.end == nil {
		l.end, goesOn = errManyAnswers, false
	}
	return goesOn
}

var errManyAnswers = errors.New("wire: the peer asks for answers and reads none")

// answer writes what the coder wants to say in answer to what was decoded. It does not wait, and
// reports false if too much waits.
func (l *layer) answer() bool {
	_, left := l.out.counts()
	if left > 0 && l.writing.TryLock() {
		_ = l.push(Held)
		l.writing.Unlock()
	} // else whoever writes takes it along; see unlock
	return left <= maxUnsent
}

func (l *layer) Write(src Source, how Mode) error {
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
func (l *layer) unlock(err error) {
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

func (l *layer) write(src Source, how Mode) error {
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

// push writes what is encoded.
func (l *layer) push(how Mode) error {
	if _, left := l.out.counts(); left == 0 {
		return nil
	}
	return l.below.Write((*layerWrites)(l), how)
}

// layerWrites is the Source for the link below.
type layerWrites layer

func (l *layerWrites) Offer() [][]byte {
	clear(l.runs) // given back since
	l.runs = l.out.offer(l.runs[:0])
	return l.runs
}

func (l *layerWrites) Commit(int) {} // was done before they were encoded

func (l *layerWrites) Took(n int) {
	l.out.took(n)
	l.sent += n
	(*layer)(l).settle()
}

// settle tells the source of the pieces that are gone.
func (l *layer) settle() {
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

// seal encodes the next bytes of src, and reports whether there were any.
func (l *layer) seal(src Source) (some bool, err error) {
	runs := src.Offer()
	if len(runs) == 0 {
		return false, nil
	}
	n := 0
	for _, r := range runs {
		n += len(r)
	}
	n = min(n, encodeSize)
	src.Commit(n)
	most := l.pieceSize()
	from := cursor{runs: runs, most: most}
	for n > 0 && err == nil {
		piece := from.next(min(n, most))
		n -= len(piece)
		if err = l.encode(piece); err == nil {
			total, _ := l.out.counts()
			l.marks = append(l.marks, mark{len(piece), total})
		}
	}
	from.free()
	src.Took(0) // what was offered and is not encoded may be withdrawn
	return true, err
}

// A cursor goes through runs in pieces.
type cursor struct {
	runs    [][]byte
	most    int    // the largest piece
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
		c.scratch = bytespool.Get(c.most)
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

// CloseWrite says goodbye and ends the stream below.
func (l *layer) CloseWrite(how Mode) error {
	l.writing.Lock()
	before, _ := l.out.counts()
	l.goodbye()
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
