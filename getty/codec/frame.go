// SPDX-License-Identifier: Apache-2.0

// Package codec has ready-made codecs for getty: frames with a length field, lines, and whole
// messages. A Reader must work however a stream is cut into reads, which is easy to get wrong;
// these are tested and fuzzed for it.
//
// Do not use them if the header of a protocol holds more than a length. A codec of your own is one
// method for reading and one for writing, see getty.Reader and getty.AppendWriter.
//
//	frames := &codec.LengthField{Width: 4, MaxLen: 64 << 10}
//	server := getty.NewTCPServer(getty.WithLocalAddress(":7000"))
//	err := server.RunEventLoop(func(s getty.Session) error {
//		s.SetEventListener(listener)
//		return s.SetPkgHandler(frames)
//	})
//
// A codec is configured once and then shared by any number of sessions; it keeps no state of its
// own. It decodes packages of type [*Frame], pooled memory that the engine takes back after
// OnMessage: retain a Frame to keep it longer. It encodes packages of type *Frame, []byte or
// string. Decoding and encoding allocate nothing in steady state, which tests assert.
package codec

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gostkit/kit/bytespool"
)

// ownSize is how many bytes a frame has room for without borrowing from bytespool.
const ownSize = 256

// A Frame is one decoded package: its bytes, without the header or the end of line. It is valid
// until OnMessage returns; a handler that needs it longer calls Retain and, later, Release. A Frame
// is made by a codec; the zero value is an empty frame that is not pooled.
//
// The bytes may be read by many goroutines at once; Retain and Release may be called from any.
type Frame struct {
	b   []byte
	big []byte // from bytespool, or nil
	own []byte

	extra atomic.Int32 // references beyond the first
	live  bool         // there is a reference; changed only by the holder of the only one
}

var frames = sync.Pool{New: func() any { return &Frame{own: make([]byte, ownSize)} }}

// newFrame returns a frame of n bytes with one reference. The bytes are not set.
func newFrame(n int) *Frame {
	f := frames.Get().(*Frame)
	f.live = true
	if n <= ownSize {
		f.b = f.own[:n]
	} else {
		f.big = bytespool.Get(n)
		f.b = f.big
	}
	return f
}

// copied returns a frame with one reference that holds a copy of b.
func copied(b []byte) *Frame {
	f := newFrame(len(b))
	copy(f.b, b)
	return f
}

// Bytes returns the package. The slice must not be used after the last Release.
func (f *Frame) Bytes() []byte { return f.b }

// Len returns the size of the package in bytes.
func (f *Frame) Len() int { return len(f.b) }

// String returns a copy of the package as a string.
func (f *Frame) String() string { return string(f.b) }

// Retain adds a reference, so that the frame outlives OnMessage.
func (f *Frame) Retain() { f.extra.Add(1) }

// Release gives a reference back. The engine does so once after OnMessage; a handler does so once
// for each Retain. One call too many panics, since the memory may belong to another frame by then.
func (f *Frame) Release() {
	// Without other references the caller is the only holder, and no other goroutine can add one.
	// So the usual frame, which is never retained, costs no atomic write.
	if f.extra.Load() > 0 {
		if f.extra.Add(-1) >= 0 {
			return
		}
		f.extra.Store(0) // two released at the same time, and this one was the last
	}
	if !f.live {
		panic("codec: Frame released more often than it was retained")
	}
	f.live = false
	if f.big != nil {
		bytespool.Put(f.big)
		f.big = nil
	}
	f.b = nil
	frames.Put(f)
}

// appendPayload appends the bytes of pkg, if a codec can encode it.
func appendPayload(dst []byte, pkg any) ([]byte, error) {
	switch p := pkg.(type) {
	case *Frame:
		return append(dst, p.b...), nil
	case []byte:
		return append(dst, p...), nil
	case string:
		return append(dst, p...), nil
	}
	return nil, cannotEncode(pkg)
}

func cannotEncode(pkg any) error {
	return fmt.Errorf("codec: cannot encode a %T; want *Frame, []byte or string", pkg)
}
