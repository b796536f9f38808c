// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

const patience = time.Minute

func TestRun(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(&out))
	require.Equal(t, "hello, the client's address\ngood bye, the client's address\n", out.String())
}

// through returns a gateway to a backend that gives each connection to serve.
func through(t testing.TB, serve func(*net.TCPConn)) *gateway {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	g, err := start(config{Backend: ln.Addr().String(), Front: func(o *getty.ServerOptions) {
		o.Logger = slog.New(slog.DiscardHandler)
	}})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = g.shutdown(ctx) // perhaps with stuck ones
		_ = ln.Close()
		all.Wait()
	})
	return g
}

func dial(t testing.TB, g *gateway) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", g.front.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c.(*net.TCPConn)
}

// All bytes pass, in both directions at once, and each direction ends by itself.
func TestBytesPass(t *testing.T) {
	random := make([]byte, 5<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random)
	g := through(t, func(c *net.TCPConn) { // echoes, and says good bye when the client has
		_, _ = io.Copy(c, c)
		_, _ = io.WriteString(c, "good bye")
	})
	var all sync.WaitGroup
	for range 5 {
		c := dial(t, g)
		all.Go(func() {
			go func() {
				_, _ = c.Write(random)
				_ = c.CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, append(bytes.Clone(random), "good bye"...)) {
				t.Errorf("%d bytes came back: %v", len(got), err)
			}
		})
	}
	all.Wait()
}

// The end of a backend is that of its client, and a backend that cannot be reached costs its client only.
func TestEndsPass(t *testing.T) {
	g := through(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "closed") })
	c := dial(t, g)
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.Equal(t, "closed", string(got))

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	g, err = start(config{Backend: ln.Addr().String(), Front: func(o *getty.ServerOptions) {
		o.Logger = slog.New(slog.DiscardHandler)
	}})
	require.NoError(t, err)
	c = dial(t, g)
	_, err = c.Read(make([]byte, 1))
	require.Error(t, err)
	require.NoError(t, g.shutdown(t.Context()))
}

// While one side takes nothing, the other is not read: a stalled pair costs what lies in the kernel's buffers, and
// little memory of the gateway, in both directions.
func TestStalledPairs(t *testing.T) {
	const pairs = 50
	release := make(chan struct{})
	g := through(t, func(c *net.TCPConn) {
		_ = c.SetReadBuffer(4 << 10)
		done := make(chan struct{})
		go func() { // a flood, which the client does not read
			defer close(done)
			for b := make([]byte, 64<<10); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}()
		<-release
		_ = c.Close()
		<-done
	})
	t.Cleanup(func() { close(release) })
	before := heap()
	var all sync.WaitGroup
	for range pairs {
		c := dial(t, g)
		_ = c.SetReadBuffer(4 << 10)
		all.Go(func() {
			for b := make([]byte, 64<<10); ; {
				_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				if _, err := c.Write(b); err != nil {
					return // nothing more is taken
				}
			}
		})
	}
	all.Wait()
	floods := int64(2 * pairs * 64 << 10) // those of this test
	const marks = 2 * 64 << 10            // of each pair, the HighWater of both sessions
	held := heap() - before - floods
	t.Logf("%d pairs hold %d KiB each", pairs, held/pairs>>10)
	require.Less(t, held/pairs, int64(marks+64<<10))
	require.Equal(t, pairs, g.front.Stats().Open)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
