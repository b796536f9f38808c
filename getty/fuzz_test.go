// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"errors"
	"io"
	"net"
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

// FuzzStreamReader feeds a session any bytes in any pieces: it delivers exactly the whole lines before the
// first fault, and ends for the right reason. The pieces come one by one over a net.Pipe, so that each is a
// read of its own, and over a socket.
func FuzzStreamReader(f *testing.F) {
	f.Add([]byte("one\ntwo\r\n\nthree"), []byte{1, 2, 3}, false, byte(0))
	f.Add([]byte("one\ntwo\n"), []byte{0}, true, byte(1))
	f.Add(bytes.Repeat([]byte("x"), 200), []byte{7}, false, byte(1))
	f.Add(append(bytes.Repeat([]byte("y"), 64), "\r\nz\n"...), []byte{65, 1}, true, byte(0))
	f.Fuzz(func(t *testing.T, data, cuts []byte, socket bool, dispatch byte) {
		if len(data) > 4096 || len(cuts) == 0 {
			return
		}
		const maxLine = 64
		want, end := linesOf(data, maxLine)
		l := newTracer(t)
		var got []string
		l.message = func(_ getty.Session, pkg any) { got = append(got, pkg.(*codec.Frame).String()) }
		ln := newHandedListener()
		var c net.Conn
		srv := getty.NewTCPServer(getty.WithServerDispatch([]getty.Dispatch{getty.Inline, getty.Ordered}[dispatch%2]), func(o *getty.ServerOptions) {
			o.WaitTime = -1
			if !socket {
				o.Listener = ln
			}
		})
		require.NoError(t, srv.RunEventLoop(prepare(l, &codec.Line{MaxLen: maxLine})))
		if socket {
			var err error
			c, err = net.Dial("tcp", srv.Addr().String())
			require.NoError(t, err)
		} else {
			ours, theirs := net.Pipe()
			ln.conns <- ours
			c = theirs
		}
		_ = c.SetDeadline(time.Now().Add(patience))
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
		srv.Close()
		within(t, srv.Done(), "Done")
		if dispatch%2 == 0 || end != getty.ErrTooLong {
			require.Equal(t, want, got)
		} else { // what lies in the mailbox when the stream breaks is not delivered, but counted
			require.Equal(t, want[:len(got)], got)
			require.EqualValues(t, len(want), uint64(len(got))+s.Stats().Undelivered)
		}
		require.True(t, errors.Is(s.Err(), end), "ended with %v, want %v", s.Err(), end)
	})
}
