// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// password is what a connection has to begin with in these tests.
const password = "open sesame"

// sesame is a Handshake that asks for the password.
func sesame(_ context.Context, conn net.Conn) (net.Conn, error) {
	b := make([]byte, len(password))
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, err
	}
	if string(b) != password {
		return nil, errors.New("wrong password")
	}
	return conn, nil
}

func saySesame(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err == nil {
		_, err = io.WriteString(conn, password)
	}
	return conn, err
}

// A Handshake comes before TLS, an upgrade and the session, on every transport that has one.
func TestHandshakeHook(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		if c.name == "udp" || c.name == "unix" { // nothing is accepted; its client has no Dial
			return
		}
		l, got := newTracer(t), make(chan struct{}, 1)
		l.message = echoPkg
		srv := c.server(func(o *getty.ServerOptions) { o.Handshake = sesame })
		run(t, srv, prepare(l))
		cl := newTracer(t)
		cl.message = func(getty.Session, any) { got <- struct{}{} }
		client := c.client(srv.Addr().String(), func(o *getty.ClientOptions) { o.Dial = saySesame })
		run(t, client, prepare(cl))
		_, _, err := ready(t, client).WritePkg("hello", 0)
		require.NoError(t, err)
		within(t, got, "the echo")
	})
}

// A Handshake that fails, panics, calls Goexit, returns nothing, or takes too long costs its connection, and nobody
// waits for it.
func TestHandshakeHookFails(t *testing.T) {
	for name, fail := range map[string]func(ctx context.Context, conn net.Conn) (net.Conn, error){
		"error":   func(_ context.Context, c net.Conn) (net.Conn, error) { return c, errors.New("no") },
		"panic":   func(context.Context, net.Conn) (net.Conn, error) { panic("no") },
		"goexit":  func(context.Context, net.Conn) (net.Conn, error) { runtime.Goexit(); return nil, nil },
		"nothing": func(context.Context, net.Conn) (net.Conn, error) { return nil, nil },
		"late":    func(ctx context.Context, _ net.Conn) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
	} {
		t.Run(name, func(t *testing.T) {
			book := newLogBook()
			var first atomic.Bool
			l := newTracer(t)
			l.message = echoPkg
			srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
				o.Logger, o.HandshakeTimeout = book.Logger, 100*time.Millisecond
				o.Handshake = func(ctx context.Context, conn net.Conn) (net.Conn, error) {
					if first.CompareAndSwap(false, true) {
						return fail(ctx, conn)
					}
					return conn, nil
				}
			})
			gone(t, dial(t, srv))
			echoOnce(t, dial(t, srv))
			eventually(t, "it is counted", func() bool { return srv.Stats().Refusals.Handshake == 1 })
			require.EqualValues(t, 1, getty.Places(srv))
		})
	}
}

// closeCounter counts how often it is closed.
type closeCounter struct {
	net.Conn
	closed *atomic.Int64
}

func (c closeCounter) Close() error { c.closed.Add(1); return c.Conn.Close() }

// What a Handshake returned is closed also where TLS fails behind it.
func TestHandshakeHookBeforeBadTLS(t *testing.T) {
	var closed atomic.Int64
	srv := getty.NewTCPServer(getty.WithServerTLS(localTLS().server), func(o *getty.ServerOptions) {
		o.Logger = newLogBook().Logger
		o.Handshake = func(_ context.Context, conn net.Conn) (net.Conn, error) { return closeCounter{conn, &closed}, nil }
	})
	run(t, srv, prepare(newTracer(t)))
	c := dial(t, srv)
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, c)
	eventually(t, "it is closed", func() bool { return closed.Load() > 0 })
}

// Silent peers hold places, but no more than there are, and none for long.
func TestHandshakeHookOfSilentPeers(t *testing.T) {
	srv := serve(t, prepare(newTracer(t)), func(o *getty.ServerOptions) {
		o.Handshake, o.MaxSessions, o.HandshakeTimeout = sesame, 3, 100*time.Millisecond
		o.Logger = newLogBook().Logger
	})
	for range 3 {
		dial(t, srv)
	}
	eventually(t, "they have their places", func() bool { return getty.Places(srv) == 3 })
	gone(t, dial(t, srv))
	require.EqualValues(t, 1, srv.Stats().Refusals.Full)
	eventually(t, "the places are free", func() bool { return getty.Places(srv) == 0 })
	c, err := saySesame(t.Context(), "tcp", srv.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	eventually(t, "one is open", func() bool { return srv.Stats().Open == 1 })
}
