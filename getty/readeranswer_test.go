// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"io"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// An impossible answer of a Reader is ErrBadReader, whatever the transport.
//
// case: 14
func TestImpossibleAnswersOfAReader(t *testing.T) {
	for name, answer := range map[string]func(b []byte) (any, int, error){
		"negative":              func([]byte) (any, int, error) { return nil, -1, nil },
		"asks for what it has":  func(b []byte) (any, int, error) { return nil, len(b), nil },
		"asks for less":         func([]byte) (any, int, error) { return nil, 1, nil },
		"a package of nothing":  func([]byte) (any, int, error) { return "x", 0, nil },
		"a package of too much": func(b []byte) (any, int, error) { return "x", len(b) + 1, nil },
	} {
		t.Run(name, func(t *testing.T) {
			eachWire(t, func(t *testing.T, w wire) {
				l := newTracer(t)
				srv := w.server(t)
				run(t, srv, prepare(l, readerFunc(answer)))
				p := w.dial(t, srv)
				go p.discard()
				_, err := p.conn.Write(p.encode([]byte("abc")))
				require.NoError(t, err)
				s := within(t, l.closed, "OnClose")
				require.ErrorIs(t, s.Err(), getty.ErrBadReader)
				require.Len(t, l.of(s).errs, 1)
			})
			t.Run("udp", func(t *testing.T) {
				l := newPacketTracer(t)
				srv := getty.NewUDPEndPoint()
				run(t, srv, prepare(l, readerFunc(answer)))
				_, err := udpSocket(t, srv.Addr()).Write([]byte("abc"))
				require.NoError(t, err)
				require.ErrorIs(t, within(t, l.bad, "OnPacketError"), getty.ErrBadReader)
			})
		})
	}
}

// A Reader that says io.EOF, as parsers do at the end of their bytes, has met a broken package. That is
// not the peer's end of the stream: it is told to OnError, and OnReadEnd is not called.
//
// case: 37
func TestReaderThatSaysEOF(t *testing.T) {
	answer := func([]byte) (any, int, error) { return nil, 0, io.EOF }
	eachWire(t, func(t *testing.T, w wire) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			l := &readEndTracer{tracer: newTracer(t)}
			srv := w.server(t, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
				o.HalfClose = time.Millisecond
			})
			run(t, srv, prepare(l, readerFunc(answer)))
			p := w.dial(t, srv)
			go p.discard()
			_, err := p.conn.Write(p.encode([]byte("abc")))
			require.NoError(t, err)
			s := within(t, l.closed, "OnClose")
			require.Equal(t, []error{s.Err()}, l.of(s).errs)
			require.ErrorIs(t, s.Err(), io.EOF)
			require.NotEqual(t, io.EOF, s.Err())
			require.Zero(t, l.ends.Load())
		})
	})
}
