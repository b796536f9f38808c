// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
)

// The servers here are not getty's: they show that the foreign clients and the
// checks are right, and they misbehave on demand. tamper gets each message and
// returns what to send back instead, nil for nothing.

type tamper func(n int, b []byte) []byte

func honest(_ int, b []byte) []byte { return b }

func plainTCP(t *testing.T, change tamper) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				for n := 0; ; n++ {
					var head [4]byte
					if _, err := io.ReadFull(conn, head[:]); err != nil {
						return
					}
					b := make([]byte, binary.BigEndian.Uint32(head[:]))
					if _, err := io.ReadFull(conn, b); err != nil {
						return
					}
					if b = change(n, b); b != nil {
						binary.BigEndian.PutUint32(head[:], uint32(len(b)))
						conn.Write(append(head[:], b...))
					}
				}
			})
		}
	})
	return ln.Addr().String()
}

func plainUDP(t *testing.T, change tamper) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	wg.Go(func() {
		b := make([]byte, 64<<10)
		for n := 0; ; n++ {
			size, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if out := change(n, b[:size]); out != nil {
				pc.WriteTo(out, from)
			}
		}
	})
	return pc.LocalAddr().String()
}

func plainWS(t *testing.T, change tamper) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var up websocket.Upgrader
	var wg sync.WaitGroup
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wg.Add(1)
		defer wg.Done()
		conn, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for n := 0; ; n++ {
			kind, b, err := conn.ReadMessage()
			if err != nil {
				return
			}
			if b = change(n, b); b != nil {
				conn.WriteMessage(kind, b)
			}
		}
	})}
	wg.Go(func() { s.Serve(ln) })
	t.Cleanup(func() { s.Close(); wg.Wait() })
	return "ws://" + ln.Addr().String() + "/"
}

type foreign struct {
	name   string
	server func(t *testing.T, change tamper) string
	client func(ctx context.Context, addr string, l *lane) error
	stream bool
}

var foreigners = []foreign{
	{"tcp", plainTCP, foreignTCP, true},
	{"udp", plainUDP, foreignUDP, false},
	{"ws", plainWS, foreignWS, true},
}

// runRow drives a small row against addr and returns its result.
func runRow(f foreign, addr string) result {
	c := config{messages: 200, size: 64, sessions: 3}
	r := &row{transport: f.name, client: "test", lanes: c.lanes(f.stream)}
	r.run(context.Background(), each(addr, f.client), newProgress(io.Discard))
	return r.result()
}

func TestForeignClients(t *testing.T) {
	for _, f := range foreigners {
		res := runRow(f, f.server(t, honest))
		require.NoError(t, res.err, f.name)
		require.Zero(t, res.errors, f.name)
		require.Equal(t, 200, res.messages, f.name)
		require.Equal(t, 200*64, res.bytes, f.name)
		require.NotZero(t, res.p50, f.name)
		require.GreaterOrEqual(t, res.p99, res.p50, f.name)
	}
}

// A server that changes one byte is found out on every transport.
func TestForeignClientsFindAChangedByte(t *testing.T) {
	for _, f := range foreigners {
		res := runRow(f, f.server(t, func(n int, b []byte) []byte {
			if n == 20 {
				b[len(b)-1] ^= 1
			}
			return b
		}))
		require.ErrorIs(t, res.err, errMismatch, f.name)
		require.NotZero(t, res.errors, f.name)
		require.Equal(t, 200, res.messages+res.errors, "%s: what did not come back counts", f.name)
		var out strings.Builder
		require.False(t, table(&out, []result{res}), f.name)
		require.Contains(t, out.String(), "changed", f.name)
	}
}

// A message lost on a stream is an error: the next one is out of order.
func TestForeignClientsFindALoss(t *testing.T) {
	for _, f := range foreigners {
		if f.stream {
			res := runRow(f, f.server(t, func(n int, b []byte) []byte {
				if n == 20 {
					return nil
				}
				return b
			}))
			require.ErrorContains(t, res.err, "came back where", f.name)
		}
	}
}

// A datagram lost on the way is sent again, counted, and no error.
func TestForeignUDPSendsAgain(t *testing.T) {
	f := foreigners[1]
	res := runRow(f, f.server(t, func(n int, b []byte) []byte {
		if n%40 == 7 {
			return nil
		}
		return b
	}))
	require.NoError(t, res.err)
	require.Zero(t, res.errors)
	require.Equal(t, 200, res.messages)
	require.NotZero(t, res.resent)
	var out strings.Builder
	require.True(t, table(&out, []result{res}))
	require.Contains(t, out.String(), "sent again")
}

// A server that stops answering, and one that is not there, end the row.
func TestForeignClientsGiveUp(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the stall limit")
	}
	for _, f := range foreigners {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			res := runRow(f, f.server(t, func(n int, b []byte) []byte {
				if n < 9 {
					return b
				}
				return nil
			}))
			require.ErrorIs(t, res.err, errStalled, f.name)
			require.Equal(t, 200, res.messages+res.errors, f.name)
		})
	}
	res := runRow(foreigners[0], "127.0.0.1:1")
	require.Error(t, res.err)
	require.Equal(t, 200, res.errors)
}

// When the context ends, so does the row.
func TestRowInterrupted(t *testing.T) {
	var served atomic.Int64
	var ended atomic.Pointer[time.Time]
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("enough")
	addr := plainTCP(t, func(n int, b []byte) []byte {
		if served.Add(1) == 30 {
			now := time.Now()
			ended.Store(&now)
			cancel(reason)
		}
		return b
	})
	c := config{messages: 1_000_000, size: 64, sessions: 2}
	r := &row{transport: "tcp", client: "test", lanes: c.lanes(true)}
	r.run(ctx, each(addr, foreignTCP), newProgress(io.Discard))
	require.ErrorIs(t, r.result().err, reason)
	require.Less(t, time.Since(*ended.Load()), stall)
}
