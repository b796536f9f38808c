// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func randomBytes(seed int64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

// handler is a Handler made of functions; nil ones agree to everything.
type handler struct {
	mayRead  func() bool
	received func(n int) bool
	idle     func() bool
}

func (h handler) MayRead() bool       { return h.mayRead == nil || h.mayRead() }
func (h handler) Idle() bool          { return h.idle == nil || h.idle() }
func (h handler) Received(n int) bool { return h.received == nil || h.received(n) }

// queue is a Source of whole byte slices.
type queue struct {
	mu      sync.Mutex
	runs    [][]byte
	commits int
}

func (q *queue) Offer() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.runs
}

func (q *queue) Commit(int) { q.commits++ }

func (q *queue) Took(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for n > 0 {
		m := min(n, len(q.runs[0]))
		q.runs[0] = q.runs[0][m:]
		n -= m
		if len(q.runs[0]) == 0 {
			q.runs = q.runs[1:]
		}
	}
}

// pair returns two ends of a connection of the network "tcp", "unix", "pipe" or "tls".
func pair(t testing.TB, network string) (a, b net.Conn) {
	t.Helper()
	if network == "tls" {
		return tlsPair(t, "tcp")
	}
	if network == "pipe" {
		a, b = net.Pipe()
	} else {
		addr := "127.0.0.1:0"
		if network == "unix" {
			addr = filepath.Join(t.TempDir(), "s")
		}
		ln, err := net.Listen(network, addr)
		require.NoError(t, err)
		defer ln.Close()
		a, err = net.Dial(network, ln.Addr().String())
		require.NoError(t, err)
		b, err = ln.Accept()
		require.NoError(t, err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// networks runs test over every kind of connection.
func networks(t *testing.T, test func(t *testing.T, link Link, peer net.Conn)) {
	for _, network := range []string{"tcp", "unix", "pipe", "tls"} {
		if network == "unix" && runtime.GOOS == "windows" {
			continue
		}
		t.Run(network, func(t *testing.T) {
			a, b := pair(t, network)
			link := New(a)
			require.Equal(t, a, link.Conn())
			t.Cleanup(func() { link.Close() })
			test(t, link, b)
		})
	}
}

func TestRunReadsEverything(t *testing.T) {
	networks(t, func(t *testing.T, link Link, peer net.Conn) {
		sent := randomBytes(1, 1<<20)
		go func() {
			defer peer.Close()
			for rest := sent; len(rest) > 0; {
				n, _ := peer.Write(rest[:min(len(rest), 1+rand.Intn(10000))])
				rest = rest[n:]
			}
		}()
		var in Input
		var got []byte
		err := link.Run(&in, handler{received: func(n int) bool {
			b := in.Bytes()
			used := len(b) - len(b)%3 // so that something is kept
			got = append(got, b[:used]...)
			in.Consume(used)
			return true
		}})
		require.Equal(t, io.EOF, err)
		got = append(got, in.Bytes()...)
		require.True(t, bytes.Equal(sent, got))
		in.Drop()
	})
}

// Run can be stopped before a read and after one, and continues where it was.
func TestRunStops(t *testing.T) {
	networks(t, func(t *testing.T, link Link, peer net.Conn) {
		var in Input
		no := func() bool { return false }
		require.NoError(t, link.Run(&in, handler{mayRead: no, idle: no}))
		require.NoError(t, link.Run(&in, handler{idle: no}))
		go func() {
			_, _ = peer.Write([]byte("one"))
			_, _ = peer.Write([]byte("two"))
			_ = peer.Close()
		}()
		var got []byte
		for {
			err := link.Run(&in, handler{received: func(int) bool {
				got = append(got, in.Bytes()...)
				in.Consume(in.Len())
				return false
			}})
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
		require.Equal(t, "onetwo", string(got))
	})
}

func TestWriteWaits(t *testing.T) {
	networks(t, func(t *testing.T, link Link, peer net.Conn) {
		sent := randomBytes(2, 4<<20)
		q := &queue{}
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+rand.Intn(200000))
			q.runs = append(q.runs, bytes.Clone(rest[:n]))
			rest = rest[n:]
		}
		received := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(peer)
			received <- b
		}()
		require.NoError(t, link.Write(q, Wait))
		if err := link.CloseWrite(Wait); err != nil {
			require.ErrorIs(t, err, errors.ErrUnsupported)
			require.NoError(t, link.Close())
		}
		require.True(t, bytes.Equal(sent, <-received))
	})
}

func TestCloseEndsRunAndWrite(t *testing.T) {
	networks(t, func(t *testing.T, link Link, peer net.Conn) {
		ended := make(chan error, 2)
		var in Input
		go func() { ended <- link.Run(&in, handler{}) }()
		go func() { ended <- link.Write(&queue{runs: [][]byte{make([]byte, 64<<20)}}, Wait) }()
		_, err := peer.Read(make([]byte, 1)) // the write is under way
		require.NoError(t, err)
		require.NoError(t, link.Close())
		require.Error(t, <-ended)
		require.Error(t, <-ended)
		_ = link.Close()
		require.Error(t, link.Run(&in, handler{}))
		in.Drop()
	})
}

// An idle link holds no buffer, but where it has to.
func TestIdleLinkHoldsNothing(t *testing.T) {
	networks(t, func(t *testing.T, link Link, peer net.Conn) {
		if _, ok := link.(*plain); ok {
			t.Skip("a connection that is not a socket is read with a buffer in hand")
		}
		var in Input
		waits := make(chan struct{}, 1)
		go func() {
			_ = link.Run(&in, handler{
				received: func(int) bool {
					in.Consume(in.Len())
					waits <- struct{}{}
					return true
				}})
			close(waits)
		}()
		_, err := peer.Write([]byte("x"))
		require.NoError(t, err)
		<-waits
		require.NoError(t, link.Close())
		<-waits
		require.Zero(t, in.Held())
	})
}
