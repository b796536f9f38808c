// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bufio"
	"net"
	"net/http"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// A read of a user's connection that brings nothing and reports no error is no event: the peer of a
// net.Pipe makes one with each empty write.
//
// case: 12
func TestReadsThatBringNothing(t *testing.T) {
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer func() { _ = theirs.Close() }()
			l := newTracer(t)
			l.message = echoPkg
			run(t, c.server(getty.WithListener(newHandedListener(ours))), prepare(l, codec.Message{}))
			send := func(b []byte) {
				for i := range b {
					_, _ = theirs.Write(nil)
					_, _ = theirs.Write(b[i : i+1])
				}
			}
			if c.name == "tcp" {
				for _, p := range []string{"a", "b"} {
					go send([]byte(p))
					b := make([]byte, 1)
					_, err := theirs.Read(b)
					require.NoError(t, err)
					require.Equal(t, p, string(b))
				}
				return
			}
			go send([]byte(upgradeRequest + "\r\n"))
			r := bufio.NewReader(theirs)
			resp, err := http.ReadResponse(r, nil)
			require.NoError(t, err)
			require.Equal(t, http.StatusSwitchingProtocols, resp.StatusCode)
			p := &wsPeer{t: t, conn: theirs, r: r, mask: true}
			go send(message("hello").bytes(true))
			p.expect(finBinary, "hello")
		})
	}
}

// A connection whose reads bring nothing for ever costs its session, and no processor.
//
// case: 12
func TestReadsThatBringNothingForEver(t *testing.T) {
	conn := newFedConn(func([]byte) (int, error) { return 0, nil })
	l := newTracer(t)
	serve(t, prepare(l), getty.WithListener(newHandedListener(conn)))
	s := within(t, l.closed, "OnClose")
	require.Error(t, s.Err())
}
