// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"io"
	"net"
	"sync/atomic"

	"github.com/gostkit/kit/bytespool"
)

// plainReadSize is the buffer that a read through a net.Conn holds while it blocks.
const plainReadSize = 4 << 10

// plainWriteSize bounds one Write through a net.Conn. So the progress of a slow peer is seen while
// a large package is on its way.
const plainWriteSize = 64 << 10

// A plain link uses only the methods of a net.Conn. It holds a buffer while it waits for input. A
// Write of a net.Conn may always block, so it writes only with [Wait].
type plain struct {
	conn   net.Conn
	closed atomic.Bool
}

func (l *plain) Conn() net.Conn        { return l.conn }
func (l *plain) CloseWrite(Mode) error { return closeWrite(l.conn) }
func (l *plain) LastWords() int        { return 0 }

func (l *plain) Close() error {
	// Once: a second Close of a user's connection may do anything.
	if l.closed.Swap(true) {
		return nil
	}
	return l.conn.Close()
}

func (l *plain) Run(in *Input, h Handler) error {
	for h.Idle() {
		if in.n == 0 && len(in.buf) != plainReadSize {
			in.Rest() // a large buffer is not held while nothing comes
			in.buf = bytespool.Get(plainReadSize)
		}
		// Unlike a socket's, the read itself waits, so the buffer belongs to the Input meanwhile.
		buf := in.lease()
		in.accept(buf, 0)
		n, err := l.conn.Read(buf[in.n:])
		if n == 0 && err == nil {
			err = io.ErrNoProgress // a Read that does this once may do it for ever
		}
		if n > 0 {
			in.accept(buf, n)
			if !h.Received(n) {
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *plain) Write(src Source, how Mode) error {
	if how != Wait {
		return ErrWouldBlock
	}
	for {
		runs := src.Offer()
		if len(runs) == 0 {
			return nil
		}
		b := runs[0][:min(len(runs[0]), plainWriteSize)]
		src.Commit(len(b)) // a Write of a net.Conn cannot be stopped halfway
		n, err := l.conn.Write(b)
		src.Took(n)
		if err != nil {
			return err
		}
	}
}
