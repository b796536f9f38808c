// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// Any connection becomes a session, with a callback of its own or that of its server, also over
// TLS. It counts for MaxSessions and ends with the server.
//
// acceptance: L16
func TestAdopt(t *testing.T) {
	l, other := newTracer(t), newTracer(t)
	l.message, other.message = echoPkg, echoPkg
	srv := getty.NewConnServer(getty.WithMaxSessions(2))
	run(t, srv, prepare(l))
	require.Nil(t, srv.Addr())
	var peers []net.Conn
	for _, prepared := range []getty.NewSessionCallback{nil, prepare(other)} {
		ours, theirs := net.Pipe()
		s, err := srv.Adopt(ours, prepared)
		require.NoError(t, err)
		require.Equal(t, ours, s.Conn())
		require.Equal(t, srv, s.EndPoint())
		_, err = theirs.Write(frame("hello"))
		require.NoError(t, err)
		require.Equal(t, "hello", readFrame(t, theirs))
		peers = append(peers, theirs)
	}
	require.Equal(t, within(t, l.opened, "OnOpen").EndPoint(), within(t, other.opened, "OnOpen").EndPoint())
	ours, theirs := net.Pipe()
	_, err := srv.Adopt(ours, nil)
	require.ErrorIs(t, err, getty.ErrTooManySessions)
	_, err = theirs.Read(make([]byte, 1))
	require.Error(t, err, "it is closed")
	st := srv.Stats()
	require.EqualValues(t, []uint64{2, 3, 1}, []uint64{uint64(st.Open), st.Accepts, st.Refused})
	for _, p := range peers {
		go discardThenClose(p)
	}
}

// acceptance: L16
func TestAdoptOverTLS(t *testing.T) {
	l := newTracer(t)
	l.message = echoPkg
	srv := getty.NewConnServer(getty.WithServerTLS(localTLS().server),
		func(o *getty.ServerOptions) { o.HandshakeTimeout = 100 * time.Millisecond })
	run(t, srv, prepare(l))
	ours, theirs := net.Pipe()
	_, err := srv.Adopt(ours, nil)
	require.ErrorContains(t, err, "handshake", "the peer says nothing")
	_, err = theirs.Read(make([]byte, 1))
	require.Error(t, err, "it is closed")

	a, b := net.Pipe()
	peer := tls.Client(b, localTLS().client)
	go func() { _, _ = srv.Adopt(a, nil) }()
	require.NoError(t, peer.HandshakeContext(t.Context()))
	go func() { _, _ = peer.Write(frame("hello")) }()
	require.Equal(t, "hello", readFrame(t, peer))
	st, ok := within(t, l.opened, "OnOpen").ConnectionState()
	require.True(t, ok)
	require.True(t, st.HandshakeComplete)
	go discardThenClose(peer)
}

// What cannot be adopted is an error, and closed.
func TestAdoptInVain(t *testing.T) {
	ours, _ := net.Pipe()
	srv := getty.NewConnServer()
	_, err := srv.Adopt(nil, nil)
	require.ErrorContains(t, err, "without a connection")
	_, err = srv.Adopt((*net.TCPConn)(nil), nil)
	require.ErrorContains(t, err, "without a connection")
	_, err = srv.Adopt(ours, nil)
	require.ErrorContains(t, err, "before RunEventLoop")
	_, err = ours.Write([]byte("x"))
	require.Error(t, err)
	srv.Close()
	_, err = srv.Adopt(ours, nil)
	require.ErrorIs(t, err, getty.ErrEndpointClosed)
	ws := getty.NewWSServer()
	run(t, ws, prepare(newTracer(t)))
	_, err = ws.Adopt(ours, nil)
	require.ErrorContains(t, err, "NewWSServer")
}
