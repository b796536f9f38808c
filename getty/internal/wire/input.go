// SPDX-License-Identifier: Apache-2.0

package wire

import "github.com/gostkit/kit/bytespool"

const (
	// ReadSize is the size of a leased read buffer.
	ReadSize = 64 << 10

	// A buffer with less room than minReadRoom is exchanged before the next read, unless the latest
	// read brought less than dripSize.
	minReadRoom = 2 << 10
	dripSize    = 64
)

// An Input holds the bytes that were read and not yet consumed. Its memory comes from bytespool: an
// empty Input holds none while nothing comes, and one with the beginning of a package holds little
// more than that. The zero value is empty.
type Input struct {
	// Need is how many bytes the next package has in all, 0 if that is not known. It only guides
	// how much room the next read gets.
	Need int
	// Seen is how many leading bytes the decoder was given before without finding a package.
	Seen int

	buf  []byte // buf[:n] are the bytes
	n    int
	last int // the size of the latest read
}

// Bytes returns the bytes that were read and not consumed. They are valid until the next read, Add,
// Consume or Drop.
func (in *Input) Bytes() []byte { return in.buf[:in.n] }

// Add appends a copy of b.
func (in *Input) Add(b []byte) {
	if len(b) == 0 {
		return
	}
	buf := bytespool.Get(max(in.n+len(b), minReadRoom))
	copy(buf[in.n:], b)
	in.accept(buf, len(b))
}

// Give appends b, which is from bytespool and belongs to the Input from here on.
func (in *Input) Give(b []byte) {
	if in.n > 0 {
		in.Add(b)
		bytespool.Put(b)
		return
	}
	in.Rest()
	in.buf, in.n, in.last = b, len(b), len(b)
}

// Len returns len(Bytes()).
func (in *Input) Len() int { return in.n }

// Held returns the size of the memory that the Input holds.
func (in *Input) Held() int { return len(in.buf) }

// Consume removes the first used bytes.
func (in *Input) Consume(used int) {
	rest := in.buf[used:in.n]
	in.n = len(rest)
	switch {
	case len(rest) == 0: // the buffer stays until a read finds nothing; see Rest
	case used == 0 && (len(rest) > len(in.buf)/4 || len(in.buf) <= minReadRoom):
		// The rest fills its buffer well.
	default:
		// The beginning of a package may wait long for the rest, and must not hold a whole read
		// buffer. Twice its size, so that a package which comes in drips is not copied with each.
		small := bytespool.Get(max(2*len(rest), 128))
		copy(small, rest)
		bytespool.Put(in.buf)
		in.buf = small
	}
}

// Drop forgets all bytes and gives the memory back.
func (in *Input) Drop() {
	if in.buf != nil {
		bytespool.Put(in.buf)
		in.buf = nil
	}
	in.n, in.Need, in.Seen = 0, 0, 0
}

// Rest gives the memory back if there are no bytes in it.
func (in *Input) Rest() {
	if in.n == 0 && in.buf != nil {
		bytespool.Put(in.buf)
		in.buf = nil
	}
}

// lease returns a buffer for a read: room for the bytes that are there, and behind it room for
// more. It may be the buffer that is held. It is followed by accept or giveBack.
func (in *Input) lease() []byte {
	room := len(in.buf) - in.n
	switch {
	case room >= minReadRoom, room > 0 && in.last < dripSize:
		return in.buf
	case room > 0 && in.Need > 0 && len(in.buf) >= ReadSize && room >= in.Need-in.n:
		return in.buf // the package ends in it
	}
	// Enough for Need bytes, but never more than three times what has arrived: a header can claim
	// any size, and costs the peer nothing.
	size := ReadSize
	if more := min(in.Need, 2*in.n); in.n+more/2 > ReadSize/2 {
		size = max(in.n+ReadSize, more)
	}
	return bytespool.Get(size)
}

// accept makes buf the buffer of the Input: n bytes were read into it, behind the room for those
// that were there.
func (in *Input) accept(buf []byte, n int) {
	// Copied only now: a read that finds nothing costs no copy.
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
