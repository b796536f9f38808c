// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// block makes the socket of conn a blocking one, as the Fd method of a copy does.
func block(t testing.TB, conn net.Conn) {
	t.Helper()
	f, err := conn.(interface{ File() (*os.File, error) }).File()
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	require.NoError(t, syscall.SetNonblock(int(f.Fd()), false))
}

// A descriptor that the user made a blocking one changes nothing: no write that must not wait
// waits, and CloseNow closes.
//
// case: 21
func TestBlockingDescriptor(t *testing.T) {
	for _, c := range carriers[:2] {
		for _, how := range []string{"writing", "reading", "one package"} {
			t.Run(c.name+" "+how, func(t *testing.T) {
				sl, cl := newTracer(t), newTracer(t)
				hold := make(chan struct{})
				sl.message = func(s getty.Session, p any) { <-hold; echoPkg(s, p) }
				srv := c.server(getty.WithServerDispatch(getty.Inline))
				run(t, srv, prepare(sl))
				got := make(chan struct{}, 10)
				cl.message = func(getty.Session, any) { got <- struct{}{} }
				client := c.client(srv.Addr().String())
				run(t, client, prepare(cl))
				s := ready(t, client)
				block(t, s.Conn())
				done := make(chan struct{})
				go func() {
					defer close(done)
					var err error
					switch how {
					case "writing": // until no more fits
						for err == nil {
							_, _, err = s.WritePkg(noise(100_000), 0)
						}
					case "one package": // the reader comes by
						_, _, _ = s.WritePkg("x", 0)
						hold <- struct{}{}
						<-got
					}
					s.CloseNow()
				}()
				within(t, done, "CloseNow")
				close(hold)
				require.ErrorIs(t, within(t, cl.closed, "OnClose").Err(), getty.ErrSessionClosed)
			})
		}
	}
}

// A connected UDP session's socket is read the same way.
//
// case: 21
func TestBlockingDescriptorUDP(t *testing.T) {
	sl, cl := newTracer(t), newTracer(t)
	sl.message = echoPkg
	srv := getty.NewUDPEndPoint()
	run(t, srv, prepare(sl))
	got := make(chan struct{}, 10)
	cl.message = func(getty.Session, any) { got <- struct{}{} }
	client := getty.NewUDPClient(getty.WithServerAddress(srv.Addr().String()))
	run(t, client, prepare(cl))
	s := ready(t, client)
	block(t, s.Conn())
	_, _, err := s.WritePkg("x", 0)
	require.NoError(t, err)
	within(t, got, "the echo")
	done := make(chan struct{})
	go func() { s.CloseNow(); close(done) }()
	within(t, done, "CloseNow")
	within(t, cl.closed, "OnClose")
}

// A listener whose descriptor somebody has made blocking, as exec does with what File of package net returns, keeps
// neither Close nor Shutdown: they return, and the endpoint has ended with the next connection.
//
// case: 21
func TestBlockingListener(t *testing.T) {
	for _, c := range carriers[:2] {
		t.Run(c.name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			f, err := ln.(*net.TCPListener).File()
			require.NoError(t, err)
			require.NoError(t, syscall.SetNonblock(int(f.Fd()), false))
			require.NoError(t, f.Close())
			l := newTracer(t)
			srv := c.server(getty.WithListener(ln))
			require.NoError(t, srv.RunEventLoop(prepare(l)))
			client := c.client(srv.Addr().String())
			run(t, client, prepare(newTracer(t)))
			within(t, l.opened, "OnOpen") // the next Accept waits in the kernel
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			begun := time.Now()
			report, err := srv.Shutdown(ctx)
			require.Less(t, time.Since(begun), patience/2)
			require.Zero(t, report.Forced)
			t.Log(report, err)
			srv.Close()
			client.Close()
			if conn, err := net.Dial("tcp", ln.Addr().String()); err == nil { // that wakes it
				_ = conn.Close()
			}
			within(t, srv.Done(), "Done")
		})
	}
}
