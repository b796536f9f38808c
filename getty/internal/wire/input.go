// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/gostkit/kit/bytespool"

const (
	// ReadSize is the size of a leased read buffer.
	ReadSize = 64 << 10

	minReadRoom = 2 << 10 // a kept buffer with less room than this is exchanged before the next read,
	dripSize    = 64      // but not while reads bring less than this
)

// An Input is what was read and not yet consumed. Its memory comes from bytespool: an idle Input
// holds none, and one with the beginning of a package holds little more than that. The zero value
// is empty.
type Input struct {
	// Need is how many bytes have to be there before it is worth looking at them again; 0 if that
	// is not known. It only guides how much room the next read gets.
	Need int
	// Seen is how many leading bytes the decoder has looked at in vain.
	Seen int

	buf  []byte // buf[:n] is what is there
	n    int
	last int // the size of the latest read
}

// Bytes returns what was read and not consumed. It is valid until the next read, Consume or Drop.
func (in *Input) Bytes() []byte { return in.buf[:in.n] }

// Add puts a copy of b behind what is there.
func (in *Input) Add(b []byte) {
	if len(b) == 0 {
		return
	}
	buf := bytespool.Get(max(in.n+len(b), minReadRoom))
	copy(buf[in.n:], b)
	in.accept(buf, len(b))
}

// Len returns len(Bytes()).
func (in *Input) Len() int { return in.n }

// Held returns the size of the memory that the Input holds.
func (in *Input) Held() int { return len(in.buf) }

// Consume removes the first used bytes. The rest stays where it is if it fills that place well;
// else it moves to a buffer of about twice its size, so that a package which comes in drips is
// copied a bounded number of times.
func (in *Input) Consume(used int) {
	rest := in.buf[used:in.n]
	in.n = len(rest)
	switch {
	case len(rest) == 0: // the buffer stays until a read finds nothing
	case used == 0 && (len(rest) > len(in.buf)/4 || len(in.buf) <= minReadRoom):
	default:
		small := bytespool.Get(max(2*len(rest), 128))
		copy(small, rest)
		bytespool.Put(in.buf)
		in.buf = small
	}
}

// Drop forgets what is there and gives the memory back.
func (in *Input) Drop() {
	if in.buf != nil {
		bytespool.Put(in.buf)
		in.buf = nil
	}
	in.n, in.Need, in.Seen = 0, 0, 0
}

// Rest gives the memory back if nothing lies in it.
func (in *Input) Rest() {
	if in.n == 0 && in.buf != nil {
		bytespool.Put(in.buf)
		in.buf = nil
	}
}

// lease returns a buffer that begins with room for what is there, and has more for a read: enough
// for Need bytes in all, but never much more than what has arrived, whatever a header claims. It
// may be the one that is held. It is followed by accept or giveBack.
func (in *Input) lease() []byte {
	room := len(in.buf) - in.n
	switch {
	case room >= minReadRoom, room > 0 && in.last < dripSize:
		return in.buf
	case room > 0 && in.Need > 0 && len(in.buf) >= ReadSize && room >= in.Need-in.n:
		return in.buf // the package ends in it
	}
	size := ReadSize
	if more := min(in.Need, 2*in.n); in.n+more/2 > ReadSize/2 {
		size = max(in.n+ReadSize, more)
	}
	return bytespool.Get(size)
}

// accept makes buf, into which n bytes were read behind what was there, the Input's buffer.
func (in *Input) accept(buf []byte, n int) {
	if in.buf != nil && &buf[0] != &in.buf[0] {
		copy(buf, in.buf[:in.n])
		bytespool.Put(in.buf)
	}
	in.buf = buf
	in.n += n
	in.last = n
}

// giveBack undoes lease when there was nothing to read.
func (in *Input) giveBack(buf []byte) {
	if in.buf == nil || &buf[0] != &in.buf[0] {
		bytespool.Put(buf)
	}
	in.Rest()
}
