// SPDX-License-Identifier: Apache-2.0

//go:build unix

package getty

import (
	"io"
	"os"
	"syscall"

	"github.com/gostkit/kit/bytespool"
)

// rawStream reads and writes through syscall.RawConn. The system calls are those of net.Conn, but a read
// takes its buffer only when there is something to read, and a write can be tried without waiting. The
// functions given to RawConn try first and wait afterwards, since the runtime's poller reports edges.
// They are bound once per session, and what they work on lies in the fields.
type rawStream struct {
	rc syscall.RawConn // nil: not available
	t  *stream

	readFn func(fd uintptr) bool
	rs     *session
	need   int
	n      int
	err    error

	writeFn func(fd uintptr) bool
	s       *session
	batch   *batch
	wait    bool
	werr    error
}

func (r *rawStream) init(t *stream) {
	sc := socketOf(t.conn)
	if sc == nil {
		return
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return
	}
	r.rc, r.t = rc, t
	r.readFn, r.writeFn = r.tryRead, r.tryWrite
}

// read waits for input and reads it behind the kept bytes of t.buf. It returns nothing if it may not read any more when
// there is some.
func (t *stream) read(s *session, need int) (int, error) {
	r := &t.raw
	if r.rc == nil {
		return t.readPlain(s, need)
	}
	r.rs, r.need = s, need
	if err := r.rc.Read(r.readFn); err != nil {
		return 0, err
	}
	return r.n, r.err
}

// tryRead sets flagReading before it looks whether it may read, and Shutdown sets flagDrain before
// it looks whether a read is in progress, so that one of them sees the other. The descriptor must
// not be closed in here, where it is referenced: if Shutdown left that to the reader, tryRead
// returns nothing and serve sees to it.
func (r *rawStream) tryRead(fd uintptr) bool {
	s := r.rs
	if !s.has(flagReading) {
		s.setFlag(flagReading)
	}
	if s.holds() {
		r.n, r.err = 0, nil
		return true
	}
	t := r.t
	buf := t.lease(r.need)
	for {
		n, err := recvNow(int(fd), buf[t.kept:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if t.buf == nil || &buf[0] != &t.buf[0] {
				bytespool.Put(buf)
			} else if t.kept == 0 {
				t.drop()
			}
			if s.flags.And(^flagReading)&(flagDrain|flagClosing) == flagDrain {
				r.n, r.err = 0, nil
				return true
			}
			return false
		case err != nil:
			n, err = 0, os.NewSyscallError("read", err)
		case n == 0:
			err = io.EOF
		}
		r.n, r.err = n, err
		t.accept(buf)
		return true
	}
}

func (t *stream) write(s *session, b *batch, wait bool) error {
	r := &t.raw
	if r.rc == nil {
		return t.writePlain(s, b, wait)
	}
	r.s, r.batch, r.wait, r.werr = s, b, wait, nil
	err := r.rc.Write(r.writeFn)
	r.batch = nil // it goes back to a pool, or was too large for one: the session must not keep it alive
	if err != nil {
		return err
	}
	return r.werr
}

func (r *rawStream) tryWrite(fd uintptr) bool {
	b := r.batch
	for {
		runs := b.offer()
		if len(runs) == 0 {
			return true
		}
		var n int
		var err error
		if len(runs) == 1 {
			n, err = sendNow(int(fd), runs[0])
		} else {
			n, err = b.iov.write(int(fd), runs)
		}
		if n > 0 {
			b.took(n)
			if r.wait {
				r.s.account(b)
			}
			continue
		}
		b.took(0)
		switch err {
		case syscall.EINTR:
		case syscall.EAGAIN:
			if r.wait {
				return false
			}
			r.werr = errWouldBlock
			return true
		default:
			r.werr = os.NewSyscallError("write", err)
			return true
		}
	}
}
