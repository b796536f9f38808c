// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

var compressTypes = []getty.CompressType{
	getty.CompressNone, getty.CompressZip, getty.CompressHuffman, getty.CompressBestSpeed, 4,
	getty.CompressBestCompression, getty.CompressSnappy,
}

// Every type carries packages of every size, and those beyond the list are errors. A package of a few bytes
// leaves at once.
//
// acceptance: W04
func TestCompressTypes(t *testing.T) {
	sizes := []int{0, 1, 5, 31, 32, 1000, 65_531, 65_532, 65_533, 300_000}
	for _, compress := range compressTypes {
		for _, c := range []carrier{carriers[0], carriers[3], carriers[5]} {
			t.Run(fmt.Sprint(int(compress), " ", c.name), func(t *testing.T) {
				t.Parallel()
				l, cl := newTracer(t), newTracer(t)
				l.message = echoPkg
				got := make(chan string, 1)
				cl.message = func(_ getty.Session, pkg any) { got <- pkg.(*codec.Frame).String() }
				srv := c.server(compressServer(compress))
				run(t, srv, prepare(l))
				client := c.client(srv.Addr().String(), compressClient(compress))
				run(t, client, prepare(cl))
				s := ready(t, client)
				for _, n := range sizes {
					for _, p := range []string{noise(n), strings.Repeat("z", n)} {
						_, _, err := s.WritePkg(p, 0)
						require.NoError(t, err)
						require.Equal(t, p, within(t, got, "the echo"))
					}
				}
				// They count as if they were not compressed.
				require.Equal(t, s.Stats().BytesRead, s.Stats().BytesWritten)
			})
		}
	}
	for _, bad := range []getty.CompressType{-3, 11, 100} {
		require.ErrorContains(t, getty.NewTCPServer(compressServer(bad)).RunEventLoop(prepare(newTracer(t))), "Compress")
	}
	require.ErrorContains(t, getty.NewWSServer(compressServer(1)).RunEventLoop(prepare(newTracer(t))), "does not use the option Compress")
}

// Ends that do not agree end at once, on both sides, with an error that says so.
//
// fault: 46
func TestCompressionMismatch(t *testing.T) {
	for _, m := range [][2]getty.CompressType{
		{getty.CompressSnappy, getty.CompressNone}, {getty.CompressNone, getty.CompressSnappy},
		{getty.CompressNone, getty.CompressZip}, {getty.CompressSnappy, getty.CompressZip},
	} {
		for _, c := range []carrier{carriers[0], carriers[3]} {
			t.Run(fmt.Sprint(m, c.name), func(t *testing.T) {
				sl, cl := newTracer(t), newTracer(t)
				srv := c.server(compressServer(m[0]))
				run(t, srv, prepare(sl))
				client := c.client(srv.Addr().String(), compressClient(m[1]), getty.WithReconnectInterval(time.Hour),
					func(o *getty.ClientOptions) { o.ReconnectMax = time.Hour })
				run(t, client, prepare(cl))
				peer, s := within(t, sl.opened, "OnOpen of the server"), within(t, cl.opened, "OnOpen")
				_, _, err := s.WritePkg("hello", 0)
				require.NoError(t, err)
				within(t, peer.Done(), "Done of the server's session")
				within(t, s.Done(), "Done")
				if m[0] != getty.CompressNone {
					require.ErrorIs(t, peer.Err(), getty.ErrCompression)
					require.ErrorContains(t, peer.Err(), "not at all")
				} else { // it takes the identifier for the length of a package
					require.ErrorIs(t, peer.Err(), getty.ErrTooLong)
				}
			})
		}
	}
}

// What came before a chunk that is none is delivered and answered; then the session ends with the reason. A
// stream that is cut inside a chunk did not end well, one between two chunks did.
//
// fault: 40, 41, 43
func TestBrokenChunks(t *testing.T) {
	for name, c := range map[string]struct {
		more string
		want error
	}{
		"unknown type": {"\x02\x04\x00\x00abcd", getty.ErrCompression},
		"bad checksum": {"\x01\x05\x00\x00\x00\x00\x00\x00x", getty.ErrCompression},
		"cut":          {"\x01\x05\x00\x00\x00", io.ErrUnexpectedEOF},
		"cut header":   {"\x01", io.ErrUnexpectedEOF},
		"between":      {"", io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				l.message = func(s getty.Session, pkg any) {
					time.Sleep(time.Millisecond) // the end comes meanwhile
					echoPkg(s, pkg)
				}
				srv := serve(t, prepare(l), compressServer(getty.CompressSnappy), getty.WithServerDispatch(d))
				p := dialSnappy(t, srv).conn.(*snappyPeer)
				const n = 20
				for i := range n {
					_, err := p.w.Write(numbered(i))
					require.NoError(t, err)
				}
				require.NoError(t, p.w.Flush())
				_, err := p.peerConn.Write([]byte(c.more))
				require.NoError(t, err)
				if c.want != getty.ErrCompression {
					require.NoError(t, p.CloseWrite())
				}
				for range n {
					readFrame(t, p)
				}
				_, err = p.Read(make([]byte, 1))
				require.Equal(t, io.EOF, err)
				_ = p.Close()
				s := within(t, l.closed, "OnClose")
				require.ErrorIs(t, s.Err(), c.want)
				require.Equal(t, n, l.of(s).messages)
			})
		})
	}
}

// A stream that inflates a thousand times costs no more memory than one that does not: MaxMsgLen bounds the
// package, and a chunk what is inflated at once.
//
// fault: 44
func TestCompressedBomb(t *testing.T) {
	l := newTracer(t)
	srv := serve(t, prepare(l), compressServer(getty.CompressSnappy), briefClose)
	p := dialSnappy(t, srv).conn.(*snappyPeer)
	before := live()
	zeros := make([]byte, 64<<10)
	_, err := p.Write([]byte{0x00, 0x0f, 0xff, 0xf0}) // a package of nearly MaxMsgLen
	require.NoError(t, err)
	for range 14 {
		_, err := p.Write(zeros)
		require.NoError(t, err)
	}
	s := within(t, l.opened, "OnOpen")
	eventually(t, "all but the end of the package is read", func() bool { return s.Stats().BytesRead >= 14*64<<10 })
	require.Less(t, live(), before+10<<20)
	for err == nil { // and then another one, which is too large
		_, err = p.Write([]byte(strings.Repeat("\xff", 64<<10)))
	}
	within(t, l.closed, "OnClose")
	require.ErrorIs(t, s.Err(), getty.ErrTooLong)
	require.LessOrEqual(t, l.of(s).messages, 1)
}

// A compressed session whose peer reads nothing keeps its time limits: a write that waits returns in time, and the
// session ends when nothing was taken for WriteTimeout.
//
// acceptance: W15 fault: 48
func TestCompressedWritesKeepTheirTime(t *testing.T) {
	for _, compress := range []getty.CompressType{getty.CompressSnappy, getty.CompressBestSpeed} {
		t.Run(fmt.Sprint(int(compress)), func(t *testing.T) {
			p := noise(100_000)
			t.Run("a write", func(t *testing.T) {
				s, _ := stalled(t, carriers[0], compressServer(compress), func(o *getty.ServerOptions) {
					o.HighWater, o.WriteTimeout = 1<<20, -1
				})
				ended := make(chan error)
				go func() {
					for {
						if _, _, err := s.WritePkg(p, 50*time.Millisecond); err != nil {
							ended <- err
							return
						}
					}
				}()
				require.ErrorIs(t, within(t, ended, "the end of the wait"), getty.ErrWriteTimeout)
			})
			t.Run("a session", func(t *testing.T) {
				s, _ := stalled(t, carriers[0], compressServer(compress), func(o *getty.ServerOptions) {
					o.HighWater, o.WriteTimeout = 1<<20, 100*time.Millisecond
				})
				fill(t, s, p)
				within(t, s.Done(), "Done")
				require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
			})
		})
	}
}

// Bytes that come in drips come out whole, while a time limit is set that is shorter than all of them. Neither that
// nor an idle connection takes reads for nothing.
//
// acceptance: R01 fault: 36, 37
func TestCompressedDrips(t *testing.T) {
	for _, compress := range []getty.CompressType{getty.CompressSnappy, getty.CompressZip, getty.CompressNone} {
		t.Run(fmt.Sprint(int(compress)), func(t *testing.T) {
			t.Parallel()
			l := newTracer(t)
			got := make(chan string, 10)
			l.message = func(_ getty.Session, pkg any) { got <- pkg.(*codec.Frame).String() }
			srv := serve(t, prepare(l), compressServer(compress), func(o *getty.ServerOptions) {
				if compress != getty.CompressNone {
					o.ReadTimeout = 50 * time.Millisecond // a package begins with its chunk
				}
			})
			r := newRelay()
			r.drip = time.Millisecond
			cl := newTracer(t)
			client := getty.NewTCPClient(getty.WithServerAddress(r.start(t, srv.Addr().String())), compressClient(compress))
			run(t, client, prepare(cl))
			s := ready(t, client)
			for i := range 3 {
				p := noise(100 + i)
				_, _, err := s.WritePkg(p, 0)
				require.NoError(t, err)
				require.Equal(t, p, within(t, got, "the package"))
			}
			peer := within(t, l.opened, "OnOpen")
			reads := peer.Stats().Reads
			time.Sleep(100 * time.Millisecond) // an idle connection: nothing is read
			require.Equal(t, reads, peer.Stats().Reads)
			require.False(t, peer.IsClosed())
		})
	}
}

// Many sessions that share compressors, some of which end in the middle, never see the bytes of another one, and
// arrays of packages mix with single ones.
//
// acceptance: W05 fault: 49
func TestCompressorsAreShared(t *testing.T) {
	for _, compress := range []getty.CompressType{getty.CompressSnappy, getty.CompressBestSpeed} {
		t.Run(fmt.Sprint(int(compress)), func(t *testing.T) {
			l := newTracer(t)
			l.message = echoPkg
			srv := serve(t, prepare(l), compressServer(compress), getty.WithServerDispatch(getty.Ordered))
			var wg sync.WaitGroup
			for k := range 16 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(uint64(k), 0))
					conn, err := net.Dial("tcp", srv.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					if k%4 == 0 { // it ends in the middle
						_, _ = conn.Write(snappy.Encode(nil, make([]byte, rnd.IntN(1000))))
						_ = conn.Close()
						return
					}
					_ = conn.Close()
					echoes(t, srv, compress, k, rnd)
				})
			}
			wg.Wait()
		})
	}
}

// echoes writes packages of its own kind, from several goroutines and in every way, and checks what comes back.
func echoes(t *testing.T, srv *getty.Server, compress getty.CompressType, kind int, rnd *rand.Rand) {
	const writers, each = 4, 25
	var wrong atomic.Int64
	got := make(chan struct{}, writers*each*3)
	mark := fmt.Sprintf("<%d>", kind)
	client := getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()), compressClient(compress))
	err := client.RunEventLoop(prepare(getty.Funcs{Message: func(_ getty.Session, pkg any) {
		p := pkg.(*codec.Frame).String()
		if strings.ReplaceAll(p, mark, "") != "" {
			wrong.Add(1)
		}
		got <- struct{}{}
	}}))
	if err != nil {
		t.Error(err)
		return
	}
	defer shutDown(client)
	s := ready(t, client)
	sizes := make([]int, writers*each)
	for i := range sizes {
		sizes[i] = rnd.IntN(3000)
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for _, n := range sizes[w*each : (w+1)*each] {
				p := strings.Repeat(mark, n)
				_, _, err := s.WritePkg(p, -1)
				if err == nil {
					_, err = s.WriteBytesArray(frame(p), frame(mark))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	for range writers * each * 3 {
		within(t, got, "an echo")
	}
	if wrong.Load() > 0 {
		t.Errorf("%d packages of others", wrong.Load())
	}
}
