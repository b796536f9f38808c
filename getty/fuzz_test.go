// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// linesOf is what a session must make of data: its whole lines, and why it ends.
func linesOf(data []byte, maxLine int) (lines []string, end error) {
	for len(data) > 0 {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			if len(data) > maxLine+1 {
				return lines, getty.ErrTooLong
			}
			return lines, io.ErrUnexpectedEOF
		}
		line := bytes.TrimSuffix(data[:i], []byte("\r"))
		if len(line) > maxLine {
			return lines, getty.ErrTooLong
		}
		lines = append(lines, string(line))
		data = data[i+1:]
	}
	return lines, io.EOF
}

// framesOf is linesOf for packages behind a length field.
func framesOf(data []byte, maxMsg int) (payloads []string, end error) {
	for len(data) > 0 {
		if len(data) < 4 {
			return payloads, io.ErrUnexpectedEOF
		}
		n := 4 + int64(binary.BigEndian.Uint32(data))
		if n > int64(maxMsg) {
			return payloads, getty.ErrTooLong
		}
		if n > int64(len(data)) {
			return payloads, io.ErrUnexpectedEOF
		}
		payloads = append(payloads, string(data[4:n]))
		data = data[n:]
	}
	return payloads, io.EOF
}

// FuzzStreamReader feeds a session any bytes in any pieces: it delivers exactly the whole packages before the
// first fault, and ends for the right reason; another session of the same server is not disturbed. The pieces
// come one by one over a net.Pipe, so that each is a read of its own, and over a socket.
//
// fault: 14
func FuzzStreamReader(f *testing.F) {
	f.Add([]byte("one\ntwo\r\n\nthree"), []byte{1, 2, 3}, false, byte(0))
	f.Add([]byte("one\ntwo\n"), []byte{0}, true, byte(1))
	f.Add(bytes.Repeat([]byte("x"), 200), []byte{7}, false, byte(1))
	f.Add(append(bytes.Repeat([]byte("y"), 64), "\r\nz\n"...), []byte{65, 1}, true, byte(0))
	f.Add([]byte("a\nb\nc\n"), []byte{9}, true, byte(2))
	f.Add(slices.Concat(frame("one"), frame(""), frame("three")), []byte{2}, true, byte(3))
	f.Add(slices.Concat(frame("one"), []byte{0xff, 0xff, 0xff, 0xff, 0}), []byte{0}, false, byte(4))
	f.Add(slices.Concat(frame("one"), frame(string(make([]byte, 61)))), []byte{30}, true, byte(5))
	f.Add(slices.Concat(frame("whole"), frame("half")[:6]), []byte{3}, true, byte(4))
	f.Fuzz(func(t *testing.T, data, cuts []byte, socket bool, dispatch byte) {
		if len(data) > 4096 || len(cuts) == 0 {
			return
		}
		const limit = 64
		d := []getty.Dispatch{getty.Inline, getty.Ordered, getty.Unordered}[dispatch%3]
		var rw getty.ReadWriter = &codec.Line{MaxLen: limit}
		want, end := linesOf(data, limit)
		if dispatch%6 >= 3 {
			rw = frames
			want, end = framesOf(data, limit)
		}
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		var mu sync.Mutex
		var got []string
		var neighbour getty.Session
		l.message = func(s getty.Session, pkg any) {
			mu.Lock()
			defer mu.Unlock()
			if s == neighbour {
				echoPkg(s, pkg)
			} else {
				got = append(got, pkg.(*codec.Frame).String())
			}
		}
		ln := newHandedListener()
		srv := getty.NewTCPServer(getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
			o.WaitTime = -1
			if rw == getty.ReadWriter(frames) {
				o.MaxMsgLen = limit
			}
			if !socket {
				o.Listener = ln
			}
		})
		require.NoError(t, srv.RunEventLoop(prepare(l, rw)))
		arrive := func() net.Conn {
			ours, c := net.Pipe()
			if socket {
				var err error
				c, err = net.Dial("tcp", srv.Addr().String())
				require.NoError(t, err)
			} else {
				ln.conns <- ours
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			return c
		}
		other := arrive()
		mu.Lock()
		neighbour = within(t, l.opened, "OnOpen of the neighbour")
		mu.Unlock()
		c := arrive()
		hello, err := rw.Write(nil, "hello")
		require.NoError(t, err)
		hello = bytes.Clone(hello)
		echo := func() {
			_, err := other.Write(hello)
			require.NoError(t, err)
			back := make([]byte, len(hello))
			_, err = io.ReadFull(other, back)
			require.NoError(t, err)
			require.Equal(t, hello, back)
		}
		echo()
		for i, rest := 0, data; len(rest) > 0; i++ {
			n := min(1+int(cuts[i%len(cuts)]), len(rest))
			if _, err := c.Write(rest[:n]); err != nil {
				break
			}
			rest = rest[n:]
		}
		if socket {
			_ = c.(*net.TCPConn).CloseWrite()
		} else {
			_ = c.Close()
		}
		s := within(t, l.closed, "OnClose")
		_ = c.Close()
		echo()
		require.False(t, neighbour.IsClosed())
		_ = other.Close()
		srv.Close()
		within(t, srv.Done(), "Done")
		if d != getty.Inline && end == getty.ErrTooLong { // what lies in the mailbox when the stream breaks is not delivered, but counted
			require.EqualValues(t, len(want), uint64(len(got))+s.Stats().Undelivered)
			if d == getty.Ordered {
				want = want[:len(got)]
			} else {
				want = slices.DeleteFunc(want, func(p string) bool { return !slices.Contains(got, p) })
				want, got = slices.Compact(slices.Sorted(slices.Values(want))), slices.Compact(slices.Sorted(slices.Values(got)))
			}
		} else if d == getty.Unordered {
			slices.Sort(want)
			slices.Sort(got)
		}
		require.True(t, slices.Equal(want, got), "want %q, got %q", want, got)
		require.True(t, errors.Is(s.Err(), end), "ended with %v, want %v", s.Err(), end)
	})
}
