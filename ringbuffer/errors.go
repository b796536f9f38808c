// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import "errors"

// The results of a call that did not do all of its work. They are returned as they are, never
// wrapped, so a comparison with == is enough; none of them is allocated.
var (
	// ErrFull reports that an item or a byte was not accepted because there was no room at that
	// moment. No form that waits returns it, but Push of the zero MPSC, which has nowhere to wait.
	ErrFull = errors.New("ringbuffer: full")

	// ErrEmpty reports that nothing could be taken at that moment and that more may come. It is
	// never returned by a form that waits.
	ErrEmpty = errors.New("ringbuffer: empty")

	// ErrClosed reports that Close was called. A push or a write gets it at once; a pop gets it
	// after the last accepted item, so nothing accepted is lost. Reads of the byte buffers report
	// their end with [io.EOF], as io.Reader asks, or with the error given to CloseWithError.
	ErrClosed = errors.New("ringbuffer: closed")

	// ErrShort reports that fewer bytes are buffered than Peek, Slice, Discard or Until needed.
	ErrShort = errors.New("ringbuffer: fewer bytes are buffered than asked for")

	// ErrTooLarge reports that more bytes were asked for, or waited for, than the buffer may
	// ever hold.
	ErrTooLarge = errors.New("ringbuffer: more bytes asked for than the buffer can hold")
)

// closedBit marks a closed ring inside its tail word, so that "the tail is t" and "the ring is
// still open" are one fact that a producer's compare-and-swap checks together. With a flag of its
// own a producer could look, be overtaken by Close and by the consumer that then reports the end,
// and still publish an item that nobody will ever take.
const closedBit = 1 << 63

// maxCapacity is the largest capacity accepted: a quarter of the int range, so that rounding up
// to a power of two cannot overflow, also where int has 32 bits.
const maxCapacity = 1 << (intBits - 2)

const intBits = 32 << (^uint(0) >> 63)
