// SPDX-License-Identifier: Apache-2.0

//go:build unix

package wire

import (
	"bytes"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// counting makes l count its system calls.
func counting(l Link) (recvs, sends, pendings *atomic.Int64) {
	s := l.(*socket)
	recvs, sends, pendings = new(atomic.Int64), new(atomic.Int64), new(atomic.Int64)
	s.sys = &sysCalls{
		recv: func(fd uintptr, b []byte, inq bool) (int, bool, error) {
			recvs.Add(1)
			return recv(fd, b, inq)
		},
		send: func(fd uintptr, runs [][]byte) (int, error) {
			sends.Add(1)
			return send(fd, runs)
		},
		pending: func(fd uintptr) error {
			pendings.Add(1)
			return systemCalls.pending(fd)
		},
	}
	return recvs, sends, pendings
}

// A turn that reads and answers costs one read and one write.
func TestSystemCallsOfATurn(t *testing.T) {
	a, b := pair(t, "tcp")
	link := New(a)
	if !link.(*socket).inq {
		t.Skip("the system does not tell how much is queued (TCP_INQ)")
	}
	recvs, sends, pendings := counting(link)
	var in Input
	ended := make(chan error)
	go func() {
		ended <- link.Run(&in, handler{received: func(int) bool {
			q := &queue{runs: [][]byte{bytes.Clone(in.Bytes())}}
			in.Consume(in.Len())
			return link.Write(q, Held) == nil
		}})
	}()
	const turns = 1000
	buf := make([]byte, 64)
	for range turns {
		_, err := b.Write(buf)
		require.NoError(t, err)
		_, err = io.ReadFull(b, buf)
		require.NoError(t, err)
	}
	require.EqualValues(t, turns, sends.Load())
	require.Zero(t, pendings.Load())
	// One more for the first: every Run reads before it waits, and one for the FIN. The kernel may
	// wake the reader without cause now and then.
	require.NoError(t, b.Close())
	require.Equal(t, io.EOF, <-ended)
	require.LessOrEqual(t, recvs.Load(), int64(turns+2+turns/100))
	require.NoError(t, link.Close())
}

// What a reader is told when data and the end arrive together, so that one edge stands for both.
func TestDataAndEndInOneEdge(t *testing.T) {
	for _, end := range []string{"fin", "reset"} {
		t.Run(end, func(t *testing.T) {
			for range 50 {
				a, b := pair(t, "tcp")
				link := New(a)
				var in Input
				first := true
				var inHandler, proceed = make(chan struct{}), make(chan struct{})
				ended := make(chan error)
				go func() {
					ended <- link.Run(&in, handler{received: func(int) bool {
						in.Consume(in.Len())
						if first {
							first = false
							close(inHandler)
							<-proceed
						}
						return true
					}})
				}()
				_, err := b.Write([]byte("x"))
				require.NoError(t, err)
				<-inHandler
				_, err = b.Write([]byte("y"))
				require.NoError(t, err)
				if end == "reset" {
					require.NoError(t, b.(*net.TCPConn).SetLinger(0))
				}
				require.NoError(t, b.Close())
				runtime.Gosched()
				close(proceed)
				if end == "fin" {
					require.Equal(t, io.EOF, <-ended)
				} else {
					require.ErrorIs(t, <-ended, syscall.ECONNRESET)
				}
				require.NoError(t, link.Close())
			}
		})
	}
}

// stress plays connections whose peer sends bytes and ends the stream at every moment around the
// wait, and fails if Run misses any of it. Every fourth Run is interrupted all the time.
func stress(t *testing.T, connections, turns int) {
	for i := range connections {
		a, b := pair(t, "tcp")
		link := New(a)
		var in Input
		total := 0
		ended := make(chan error)
		answer := i%2 == 0
		over := make(chan struct{})
		go func() {
			err := ErrInterrupted
			for err == ErrInterrupted {
				err = link.Run(&in, handler{received: func(n int) bool {
					total += n
					in.Consume(in.Len())
					if answer {
						_ = link.Write(&queue{runs: [][]byte{{1}}}, Held)
					}
					return true
				}})
			}
			close(over)
			ended <- err
		}()
		if i%4 < 2 {
			go func() {
				for {
					select {
					case <-over:
						return
					default:
						link.(Interrupter).Interrupt()
						runtime.Gosched()
					}
				}
			}()
		}
		reset := i%3 == 0
		go func() {
			b := b.(*net.TCPConn)
			one := make([]byte, 1)
			for j := range turns {
				_, _ = b.Write(one)
				if answer && j%4 != 0 {
					_, _ = b.Read(one)
				}
				for range (i*7 + j*13) % 50 { // a moment that differs from turn to turn
					runtime.Gosched()
				}
			}
			if reset {
				_ = b.SetLinger(0)
				_ = b.Close()
				return
			}
			_ = b.CloseWrite()
			_, _ = io.Copy(io.Discard, b)
			_ = b.Close()
		}()
		select {
		case err := <-ended:
			if reset {
				require.Error(t, err)
			} else {
				require.Equal(t, io.EOF, err)
				require.Equal(t, turns, total)
			}
		case <-time.After(20 * time.Second):
			require.FailNow(t, "a wake-up was lost", "connection %d, %d bytes of %d", i, total, turns)
		}
		require.NoError(t, link.Close())
	}
}

func TestNoWakeUpIsLost(t *testing.T) {
	connections := 300
	if os.Getenv("GOSTKIT_LONG") != "" {
		connections = 20000
	}
	stress(t, connections, 100)
}

// An interrupted Run loses nothing, may be called again by another goroutine, and leaves no deadline
// behind. A deadline of the user's is told as such.
func TestInterrupt(t *testing.T) {
	a, b := pair(t, "tcp")
	link := New(a)
	var in Input
	got := make(chan byte, 1)
	h := handler{received: func(int) bool {
		got <- in.Bytes()[0]
		in.Consume(1)
		return true
	}}
	ended := make(chan error, 1)
	run := func() { ended <- link.Run(&in, h) }
	for i := range 100 {
		if i%2 == 0 {
			link.(Interrupter).Interrupt() // also before there is a Run
		}
		go run()
		if i%2 == 1 {
			link.(Interrupter).Interrupt()
		}
		require.Equal(t, ErrInterrupted, <-ended)
		require.Zero(t, in.Held())
		go run()
		_, err := b.Write([]byte{byte(i)})
		require.NoError(t, err)
		require.EqualValues(t, i, <-got)
		require.NoError(t, a.SetReadDeadline(time.Unix(1, 0)))
		require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)
		require.NoError(t, a.SetReadDeadline(time.Time{}))
	}
	require.NoError(t, link.Close())
}

// fake makes reads of l return what script says, one entry per call; after the last one the real
// calls come back.
func fake(l Link, script ...func(b []byte) (int, bool, error)) {
	s := l.(*socket)
	next := 0
	s.sys = &sysCalls{send: send, pending: systemCalls.pending, recv: func(fd uintptr, b []byte, inq bool) (int, bool, error) {
		if next == len(script) {
			return recv(fd, b, inq)
		}
		next++
		return script[next-1](b)
	}}
}

func fails(err error) func([]byte) (int, bool, error) {
	return func([]byte) (int, bool, error) { return -1, true, err }
}

func gives(more bool, s string) func([]byte) (int, bool, error) {
	return func(b []byte) (int, bool, error) { return copy(b, s), more, nil }
}

// Odd answers of a descriptor: interrupted calls, wake-ups without cause, counts that were wrong.
func TestOddReads(t *testing.T) {
	a, b := pair(t, "tcp")
	link := New(a)
	nothing := make(chan struct{}, 1)
	fake(link,
		fails(syscall.EINTR), fails(syscall.EINTR), gives(true, "a"),
		fails(syscall.EAGAIN), // after it said that there is more: wait
		gives(true, "b"), gives(false, "c"),
		func([]byte) (int, bool, error) { // an edge without cause: wait again
			nothing <- struct{}{}
			return -1, true, syscall.EAGAIN
		},
	)
	var in Input
	var got []byte
	seen := make(chan struct{}, 10)
	ended := make(chan error)
	go func() {
		ended <- link.Run(&in, handler{received: func(int) bool {
			got = append(got, in.Bytes()...)
			in.Consume(in.Len())
			seen <- struct{}{}
			return true
		}})
	}()
	<-seen
	_, err := b.Write([]byte("1")) // an edge; what it brought stays in the socket
	require.NoError(t, err)
	<-seen
	<-seen
	_, err = b.Write([]byte("2"))
	require.NoError(t, err)
	<-nothing
	_, err = b.Write([]byte("3"))
	require.NoError(t, err)
	require.NoError(t, b.(*net.TCPConn).CloseWrite())
	require.Equal(t, io.EOF, <-ended)
	require.Equal(t, "abc123", string(got))
	require.NoError(t, link.Close())
}

func TestReadErrors(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ECONNRESET, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENOMEM} {
		a, _ := pair(t, "tcp")
		link := New(a)
		fake(link, fails(errno))
		var in Input
		require.ErrorIs(t, link.Run(&in, handler{}), errno)
		require.Zero(t, in.Held())
		require.NoError(t, link.Close())
	}
}

// A reset that came with the data is found though the read said that nothing is left.
func TestPendingErrorIsLookedAt(t *testing.T) {
	a, _ := pair(t, "tcp")
	link := New(a)
	s := link.(*socket)
	s.sys = &sysCalls{send: send,
		recv:    func(_ uintptr, b []byte, _ bool) (int, bool, error) { return copy(b, "x"), false, nil },
		pending: func(uintptr) error { return syscall.ECONNRESET },
	}
	var in Input
	require.ErrorIs(t, link.Run(&in, handler{received: func(int) bool {
		in.Consume(in.Len())
		return true
	}}), syscall.ECONNRESET)
	in.Drop()
	require.NoError(t, link.Close())
}

// Without TCP_INQ everything is as with it, but for the empty read.
func TestWithoutInq(t *testing.T) {
	a, b := pair(t, "tcp")
	link := New(a)
	link.(*socket).inq = false
	var in Input
	ended := make(chan error)
	total := 0
	go func() {
		ended <- link.Run(&in, handler{received: func(n int) bool {
			total += n
			in.Consume(in.Len())
			return true
		}})
	}()
	for range 100 {
		_, err := b.Write([]byte("x"))
		require.NoError(t, err)
		runtime.Gosched()
	}
	require.NoError(t, b.Close())
	require.Equal(t, io.EOF, <-ended)
	require.Equal(t, 100, total)
	require.NoError(t, link.Close())
}

// Close returns at once while the Handler is at work, also when the Handler calls it. The peer sees
// the end, and the descriptor is free after the next Close.
func TestCloseBelowTheHandler(t *testing.T) {
	for _, who := range []string{"the handler", "another goroutine"} {
		t.Run(who, func(t *testing.T) {
			a, b := pair(t, "tcp")
			link := New(a)
			_, err := b.Write([]byte("x"))
			require.NoError(t, err)
			var in Input
			calls := 0
			err = link.Run(&in, handler{received: func(int) bool {
				calls++
				if who == "the handler" {
					require.NoError(t, link.Close())
				} else {
					closed := make(chan error)
					go func() { closed <- link.Close() }()
					require.NoError(t, <-closed)
				}
				_, err := b.Read(make([]byte, 1))
				require.Equal(t, io.EOF, err, "the peer sees it while the handler is at work")
				require.Error(t, link.Write(&queue{runs: [][]byte{{1}}}, Held))
				return true
			}})
			require.Error(t, err)
			require.Equal(t, 1, calls)
			in.Drop()
			require.NoError(t, link.Close())
			_, err = a.Write([]byte("x"))
			require.ErrorIs(t, err, net.ErrClosed, "the descriptor is free")
		})
	}
}

// A Handler may end its goroutine; whoever called Run closes the link.
func TestGoexitInTheHandler(t *testing.T) {
	a, b := pair(t, "tcp")
	link := New(a)
	_, err := b.Write([]byte("x"))
	require.NoError(t, err)
	var in Input
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = link.Run(&in, handler{received: func(int) bool {
			runtime.Goexit()
			return true
		}})
	}()
	<-gone
	in.Drop()
	require.NoError(t, link.Close())
	_, err = b.Read(make([]byte, 1))
	require.Error(t, err)
}

func TestTryWrites(t *testing.T) {
	a, b := pair(t, "tcp")
	link := New(a)
	require.NoError(t, a.(*net.TCPConn).SetWriteBuffer(4096))
	q := &queue{runs: [][]byte{make([]byte, 8<<20)}}
	require.Equal(t, ErrWouldBlock, link.Write(q, Try))
	left := len(q.runs[0])
	require.Less(t, left, 8<<20)
	require.Positive(t, left)
	go func() { _, _ = io.Copy(io.Discard, b) }()
	require.NoError(t, link.Write(q, Wait))
	require.Empty(t, q.runs)
	require.NoError(t, link.Close())
}

// A user may have made the descriptor a blocking one.
func TestBlockingDescriptor(t *testing.T) {
	a, b := pair(t, "tcp")
	link := New(a)
	f, err := a.(*net.TCPConn).File()
	require.NoError(t, err)
	_ = f.Fd() // the duplicate shares its flags with the original
	require.NoError(t, f.Close())
	if runtime.GOOS != "linux" {
		t.Skip("here only calls on Linux say for themselves that they do not wait")
	}
	q := &queue{runs: [][]byte{make([]byte, 64<<20)}}
	require.Equal(t, ErrWouldBlock, link.Write(q, Try))
	var in Input
	ended := make(chan error)
	go func() { ended <- link.Run(&in, handler{}) }()
	_, err = b.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, link.Close())
	require.Error(t, <-ended)
	in.Drop()
}
