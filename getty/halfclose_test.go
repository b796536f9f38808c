// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// A readEndTracer is a tracer that wants to go on writing after the peer's end.
type readEndTracer struct {
	*tracer
	ends atomic.Int32
}

func (l *readEndTracer) OnReadEnd(s getty.Session) {
	l.ends.Add(1)
	l.AnswersAfterEnd().OnReadEnd(s)
}

// halfClose sends n packages and ends the peer's stream.
func (p wirePeer) halfClose(t *testing.T, n int) {
	t.Helper()
	_, err := p.conn.Write(append(p.encode(manyFrames(n)...), p.end()...))
	require.NoError(t, err)
	if p.ws == nil { // a WebSocket's end is its close frame
		require.NoError(t, p.conn.CloseWrite())
	}
}

// A listener with OnReadEnd may have its answers written by other goroutines after the peer has
// ended its stream. It is called after the last OnMessage, and neither silence nor ticks end the
// session.
//
// case: 39
func TestAnswersAfterThePeersEnd(t *testing.T) {
	const n = 20
	eachSocket(t, func(t *testing.T, w wire) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			l := &readEndTracer{tracer: newTracer(t)}
			l.unordered = d == getty.Unordered
			ended := make(chan int, 1)
			l.ReadEnd = func(s getty.Session) { ended <- l.of(s).messages }
			srv := w.server(t, getty.WithServerDispatch(d), patientClose)
			run(t, srv, prepare(l))
			p := w.dial(t, srv)
			s := within(t, l.opened, "OnOpen")
			p.halfClose(t, n)
			require.Equal(t, n, within(t, ended, "OnReadEnd"))
			s.SetIdleTimeout(5 * time.Millisecond)
			s.SetCronPeriod(5 * time.Millisecond)
			eventually(t, "some ticks", func() bool { return l.of(s).crons > 3 })
			require.False(t, s.IsClosed())
			require.NoError(t, s.Err())
			go func() {
				for i := range n {
					timeout := time.Duration(i%3-1) * patience
					if _, _, err := s.WritePkg(string(numbered(i)), timeout); err != nil {
						t.Errorf("answer %d: %v", i, err)
					}
				}
				s.Close()
			}()
			for i := range n {
				got, err := p.receive()
				require.NoError(t, err)
				require.Equal(t, string(numbered(i)), got)
			}
			_, err := p.receive()
			require.True(t, p.ended(err), "%v", err)
			_ = p.conn.Close()
			within(t, l.closed, "OnClose")
			require.NoError(t, s.Err())
			require.Empty(t, l.of(s).errs)
			require.EqualValues(t, 1, l.ends.Load())
		})
	})
}

// What keeps a session open after the peer's end has an end of its own, and everything else that
// ends a session ends it.
//
// case: 39
func TestTheEndAfterThePeersEnd(t *testing.T) {
	for name, how := range map[string]struct {
		end  func(*getty.Server, getty.Session)
		want error
	}{
		"HalfClose": {nil, io.EOF},
		"Close":     {func(_ *getty.Server, s getty.Session) { s.Close() }, nil},
		"CloseNow": {func(_ *getty.Server, s getty.Session) {
			s.CloseNow()
		}, getty.ErrSessionClosed},
		"panic":  {func(*getty.Server, getty.Session) { panic("enough") }, &getty.PanicError{}},
		"Goexit": {func(*getty.Server, getty.Session) { runtime.Goexit() }, &getty.PanicError{}},
		"Shutdown": {func(srv *getty.Server, _ getty.Session) {
			go func() { _, _ = srv.Shutdown(context.Background()) }()
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			eachWire(t, func(t *testing.T, w wire) {
				eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
					l := &readEndTracer{tracer: newTracer(t)}
					l.unordered = d == getty.Unordered
					srv := w.server(t, patientClose, func(o *getty.ServerOptions) {
						o.Dispatch, o.HalfClose = d, -1
						if how.end == nil {
							o.HalfClose = 20 * time.Millisecond
						}
					})
					l.ReadEnd = func(s getty.Session) {
						if how.end != nil {
							how.end(srv, s)
						}
					}
					run(t, srv, prepare(l))
					p := w.dial(t, srv)
					p.halfClose(t, 1)
					go p.discard()
					s := within(t, l.closed, "OnClose")
					var panicked *getty.PanicError
					if errors.As(how.want, &panicked) {
						require.ErrorAs(t, s.Err(), &panicked)
					} else {
						require.Equal(t, how.want, s.Err())
					}
					require.EqualValues(t, 1, l.ends.Load())
					require.Equal(t, 1, l.of(s).messages)
				})
			})
		})
	}
}

// Nothing of that concerns a listener that does not want it, or a stream that ends inside a
// package.
//
// case: 39
func TestThePeersEndWithoutOnReadEnd(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		l.message = echoPkg
		srv := serve(t, prepare(l), getty.WithServerDispatch(d))
		p := dialStream(t, srv)
		p.halfClose(t, 1)
		_, err := p.receive()
		require.NoError(t, err)
		_, err = p.receive()
		require.ErrorIs(t, err, io.EOF)
		require.ErrorIs(t, within(t, l.closed, "OnClose").Err(), io.EOF)

		le := &readEndTracer{tracer: newTracer(t)}
		le.unordered = d == getty.Unordered
		srv = serve(t, prepare(le), getty.WithServerDispatch(d))
		p = dialStream(t, srv)
		_, err = p.conn.Write(frame("half")[:6])
		require.NoError(t, err)
		require.NoError(t, p.conn.CloseWrite())
		require.ErrorIs(t, within(t, le.closed, "OnClose").Err(), io.ErrUnexpectedEOF)
		require.Zero(t, le.ends.Load())
	})
}
