// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// A packetTracer also hears of datagrams that went wrong.
type packetTracer struct {
	*tracer
	bad chan error
}

func newPacketTracer(t testing.TB) packetTracer {
	return packetTracer{newTracer(t), make(chan error, 10000)}
}

func (l packetTracer) OnPacketError(s getty.Session, err error) {
	l.HearsPacketErrors().OnPacketError(s, err)
	l.bad <- err
}

// A rawCodec's packages are the datagrams themselves, as strings; it refuses those that begin with "bad".
type rawCodec struct{}

func (rawCodec) Read(_ getty.Session, b []byte) (any, int, error) {
	switch p := string(b); {
	case strings.HasPrefix(p, "bad"):
		return nil, 0, errors.New("refused: " + p)
	case strings.HasPrefix(p, "half"):
		return nil, 0, nil
	case strings.HasPrefix(p, "more"):
		return p, len(b) - 1, nil
	default:
		return p, len(b), nil
	}
}

func (rawCodec) Write(_ getty.Session, pkg any) ([]byte, error) { return []byte(pkg.(string)), nil }

// endpoint runs a UDP endpoint and returns its session.
func endpoint(t testing.TB, l getty.EventListener, opened <-chan getty.Session, opts ...getty.ServerOption) (*getty.Server, getty.Session) {
	t.Helper()
	srv := getty.NewUDPEndPoint(opts...)
	run(t, srv, prepare(l, rawCodec{}))
	return srv, within(t, opened, "OnOpen")
}

// udpSocket is a plain socket that is connected to addr.
func udpSocket(t testing.TB, addr net.Addr) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, addr.(*net.UDPAddr))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// A datagram that the Reader refuses, or does not take whole, costs nothing but itself; an empty one is a
// package like any other.
//
// acceptance: R15 fault: 87
func TestBadDatagrams(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newPacketTracer(t)
		l.unordered = d == getty.Unordered
		got := make(chan getty.UDPContext, 10)
		l.message = func(_ getty.Session, pkg any) { got <- pkg.(getty.UDPContext) }
		srv, s := endpoint(t, l, l.opened, getty.WithServerDispatch(d))
		c := udpSocket(t, srv.Addr())
		for _, p := range []string{"bad", "half", "more", "", "good", "connect-ping"} {
			_, err := c.Write([]byte(p))
			require.NoError(t, err)
		}
		require.ErrorContains(t, within(t, l.bad, "the refused datagram"), "refused: bad")
		require.ErrorIs(t, within(t, l.bad, "the incomplete datagram"), io.ErrUnexpectedEOF)
		require.ErrorIs(t, within(t, l.bad, "the datagram not taken whole"), getty.ErrBadReader)
		seen := make(map[any]bool)
		for range 3 {
			p := within(t, got, "a package")
			require.Equal(t, c.LocalAddr().String(), p.PeerAddr.String())
			require.Equal(t, c.LocalAddr().String(), p.String())
			seen[p.Pkg] = true
		}
		require.Equal(t, map[any]bool{"": true, "good": true, "connect-ping": true}, seen)
		require.EqualValues(t, 3, s.Stats().Dropped)
		eventually(t, "all is counted", func() bool { return s.Stats().PkgsRead == 3 })
		require.False(t, s.IsClosed())
	})
}

// acceptance: R14
func TestUDPWithoutReader(t *testing.T) {
	for name, newSession := range map[string]getty.NewSessionCallback{
		"reader":   func(s getty.Session) error { return s.SetEventListener(newTracer(t)) },
		"listener": func(s getty.Session) error { return s.SetPkgHandler(rawCodec{}) },
	} {
		t.Run(name, func(t *testing.T) {
			srv := getty.NewUDPEndPoint()
			if err := srv.RunEventLoop(newSession); err != nil { // the endpoint may have ended with its session already
				require.ErrorIs(t, err, getty.ErrEndpointClosed)
			}
			within(t, srv.Done(), "the end of the endpoint")
			eventually(t, "the session is refused", func() bool { return srv.Stats().Refused == 1 })
		})
	}
	// Without a Writer a write is an error.
	l := newTracer(t)
	srv := getty.NewUDPEndPoint()
	run(t, srv, func(s getty.Session) error {
		_ = s.SetEventListener(l)
		return s.SetReader(rawCodec{})
	})
	s := within(t, l.opened, "OnOpen")
	_, _, err := s.WritePkg(getty.UDPContext{Pkg: "x", PeerAddr: netip.MustParseAddrPort("127.0.0.1:9")}, 0)
	require.ErrorIs(t, err, getty.ErrBadReader)
	require.False(t, s.IsClosed())
}

// What a caller passes is encoded each time and never changed; bytes that are encoded already go out as they
// are, one datagram each.
//
// acceptance: W12, W13
func TestUDPWrites(t *testing.T) {
	sl, cl := newPacketTracer(t), newPacketTracer(t)
	fromServer, fromClient := make(chan any, 10), make(chan getty.UDPContext, 10)
	sl.message = func(_ getty.Session, pkg any) { fromClient <- pkg.(getty.UDPContext) }
	cl.message = func(_ getty.Session, pkg any) { fromServer <- pkg }
	srv, s := endpoint(t, sl, sl.opened)
	client := getty.NewUDPClient(getty.WithServerAddress(srv.Addr().String()))
	run(t, client, prepare(cl, rawCodec{}))
	c := ready(t, client)

	n, err := c.WriteBytes([]byte("bytes"))
	require.NoError(t, err)
	require.Equal(t, 5, n)
	n, err = c.WriteBytesArray([]byte("one"), []byte("two"))
	require.NoError(t, err)
	require.Equal(t, 6, n)
	n, err = c.WriteBytesArray([]byte("three"), make([]byte, 1<<16), []byte("four")) // the second is too long
	require.Error(t, err)
	require.Equal(t, 5, n)
	var peer netip.AddrPort
	for _, want := range []string{"bytes", "one", "two", "three"} {
		p := within(t, fromClient, "a datagram")
		require.Equal(t, want, p.Pkg)
		peer = p.PeerAddr
	}
	ctx := &getty.UDPContext{Pkg: "twice", PeerAddr: peer}
	for range 2 {
		total, sent, err := s.WritePkg(ctx, 0)
		require.NoError(t, err)
		require.Equal(t, []int{5, 5}, []int{total, sent})
		require.Equal(t, getty.UDPContext{Pkg: "twice", PeerAddr: peer}, *ctx)
		require.Equal(t, "twice", within(t, fromServer, "a datagram"))
	}
	for _, timeout := range []time.Duration{-1, time.Second} {
		_, _, err = s.WritePkg(*ctx, timeout)
		require.NoError(t, err)
		require.Equal(t, "twice", within(t, fromServer, "a datagram"))
	}
	for _, bad := range []any{"no address", getty.UDPContext{Pkg: "none"}, (*int)(nil), (*getty.UDPContext)(nil)} {
		_, sent, err := s.WritePkg(bad, 0)
		require.Error(t, err)
		require.Zero(t, sent)
	}
	_, err = s.WriteBytes([]byte("to whom?"))
	require.Error(t, err)
	require.False(t, s.IsClosed())
}

// A port that is closed shows in the session's end, after which the client dials again, or in OnPacketError,
// as chosen. No read spins.
//
// fault: 79
func TestUDPRefused(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) {
			peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(own())})
			require.NoError(t, err)
			l := newPacketTracer(t)
			client := getty.NewUDPClient(getty.WithServerAddress(peer.LocalAddr().String()), getty.WithReconnectInterval(time.Hour),
				func(o *getty.ClientOptions) {
					o.UDP.NoProbe, o.UDP.KeepOnRefused, o.ReconnectMax = true, keep, time.Hour
				})
			run(t, client, prepare(l, rawCodec{}))
			s := ready(t, client)
			require.NoError(t, peer.Close())
			_, _, err = s.WritePkg("anybody?", 0)
			require.NoError(t, err, "the first one leaves")
			if keep {
				require.ErrorIs(t, within(t, l.bad, "OnPacketError"), syscall.ECONNREFUSED)
				require.False(t, s.IsClosed())
				time.Sleep(20 * time.Millisecond) // nothing announces that no second one comes
				require.Empty(t, l.bad, "one refusal, one report")
			} else {
				within(t, l.closed, "OnClose")
				require.ErrorIs(t, s.Err(), syscall.ECONNREFUSED)
				require.Len(t, l.of(s).errs, 1)
			}
		})
	}
	// A refusal of the probe is a failed dial.
	l := newTracer(t)
	client := getty.NewUDPClient(getty.WithServerAddress(freed(t)), getty.WithReconnectInterval(time.Hour))
	run(t, client, prepare(l, rawCodec{}))
	eventually(t, "the dial fails", func() bool { return client.Stats().DialErrs == 1 })
	require.Empty(t, l.opened)
}

// A datagram beyond MaxMsgLen is dropped as a whole, reported and counted.
//
// fault: 81
func TestUDPTooLong(t *testing.T) {
	for _, side := range []string{"endpoint", "client"} {
		t.Run(side, func(t *testing.T) {
			l := newPacketTracer(t)
			got := make(chan any, 10)
			l.message = func(_ getty.Session, pkg any) { got <- pkg }
			var s getty.Session
			var write func(p string)
			if side == "endpoint" {
				var srv *getty.Server
				srv, s = endpoint(t, l, l.opened, func(o *getty.ServerOptions) { o.MaxMsgLen = 1000 })
				c := udpSocket(t, srv.Addr())
				write = func(p string) { _, err := c.Write([]byte(p)); require.NoError(t, err) }
			} else {
				peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
				require.NoError(t, err)
				defer peer.Close()
				client := getty.NewUDPClient(getty.WithServerAddress(peer.LocalAddr().String()),
					func(o *getty.ClientOptions) { o.UDP.NoProbe, o.MaxMsgLen = true, 1000 })
				run(t, client, prepare(l, rawCodec{}))
				s = ready(t, client)
				to := s.Conn().LocalAddr().(*net.UDPAddr).AddrPort()
				write = func(p string) { _, err := peer.WriteToUDPAddrPort([]byte(p), to); require.NoError(t, err) }
			}
			write(strings.Repeat("x", 1001))
			require.ErrorIs(t, within(t, l.bad, "OnPacketError"), getty.ErrTruncated)
			write(strings.Repeat("y", 1000))
			within(t, got, "the next one")
			require.EqualValues(t, 1, s.Stats().Dropped)
			require.Empty(t, got)
		})
	}
}

// A datagram that no packet can carry is refused to its writer; the session lives.
//
// fault: 82
func TestUDPMessageSize(t *testing.T) {
	sl, cl := newPacketTracer(t), newTracer(t)
	got := make(chan any, 10)
	sl.message = func(_ getty.Session, pkg any) { got <- pkg.(getty.UDPContext).Pkg }
	srv, _ := endpoint(t, sl, sl.opened)
	client := getty.NewUDPClient(getty.WithServerAddress(srv.Addr().String()))
	run(t, client, prepare(cl, rawCodec{}))
	c := ready(t, client)
	_, sent, err := c.WritePkg(strings.Repeat("x", 65508), 0)
	require.ErrorIs(t, err, syscall.EMSGSIZE)
	require.Zero(t, sent)
	_, _, err = c.WritePkg("fits", 0)
	require.NoError(t, err)
	require.Equal(t, "fits", within(t, got, "the next one"))
}

// A connected client hears its peer only.
//
// fault: 85
func TestUDPThirdParty(t *testing.T) {
	peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer peer.Close()
	other, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer other.Close()
	l := newTracer(t)
	got := make(chan any, 10)
	l.message = func(_ getty.Session, pkg any) { got <- pkg }
	client := getty.NewUDPClient(getty.WithServerAddress(peer.LocalAddr().String()), func(o *getty.ClientOptions) { o.UDP.NoProbe = true })
	run(t, client, prepare(l, rawCodec{}))
	to := ready(t, client).Conn().LocalAddr().(*net.UDPAddr).AddrPort()
	_, err = other.WriteToUDPAddrPort([]byte("psst"), to)
	require.NoError(t, err)
	_, err = peer.WriteToUDPAddrPort([]byte("hello"), to)
	require.NoError(t, err)
	require.Equal(t, "hello", within(t, got, "the peer's datagram"))
	require.Empty(t, got)
}

// Datagrams that are lost, doubled, delayed and out of order are delivered as they come, each at most as
// often as it came, and the counters explain them.
//
// fault: 88
func TestUDPThroughABadNetwork(t *testing.T) {
	const n = 2000
	l := newPacketTracer(t)
	var mu sync.Mutex
	got := make(map[string]int)
	l.message = func(_ getty.Session, pkg any) {
		mu.Lock()
		defer mu.Unlock()
		got[pkg.(getty.UDPContext).Pkg.(string)]++
	}
	srv, s := endpoint(t, l, l.opened)
	c := udpSocket(t, srv.Addr())
	rnd := rand.New(rand.NewPCG(3, 4))
	sent := make(map[string]int)
	var held []string
	send := func(p string) {
		_, err := c.Write([]byte(p))
		require.NoError(t, err)
		sent[p]++
	}
	total := 0
	for i := range n {
		p := fmt.Sprint(i)
		switch rnd.IntN(10) {
		case 0: // lost
		case 1:
			send(p)
			send(p)
			total += 2
		case 2:
			held = append(held, p)
		default:
			send(p)
			total++
		}
		if len(held) > 0 && rnd.IntN(5) == 0 {
			send(held[len(held)-1])
			held = held[:len(held)-1]
			total++
		}
		eventually(t, "the socket's buffer is not full", func() bool { return int(s.Stats().Reads) > total-50 })
	}
	eventually(t, "all that was sent is handled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		handled := 0
		for _, n := range got {
			handled += n
		}
		return handled == total
	})
	require.Equal(t, sent, got)
	eventually(t, "all is counted", func() bool { return s.Stats().PkgsRead == uint64(total) })
	st := s.Stats()
	require.Zero(t, st.Dropped)
	require.EqualValues(t, total, st.Reads)
}

// Closing an endpoint while datagrams pour in ends it at once, with one OnClose and no storm of errors.
//
// fault: 91
func TestUDPCloseWhileReceiving(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for round := range 10 {
			l := newPacketTracer(t)
			l.unordered = d == getty.Unordered
			srv := getty.NewUDPEndPoint(getty.WithServerDispatch(d))
			start(t, srv, prepare(l, rawCodec{}))
			s := within(t, l.opened, "OnOpen")
			stop := make(chan struct{})
			var wg sync.WaitGroup
			c := udpSocket(t, srv.Addr())
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, _ = c.Write([]byte("x"))
					}
				}
			})
			eventually(t, "datagrams come", func() bool { return s.Stats().Reads > 10 })
			if round%2 == 0 {
				srv.Close()
			} else {
				s.CloseNow()
				within(t, l.closed, "OnClose")
				srv.Close()
			}
			within(t, srv.Done(), "Done")
			close(stop)
			wg.Wait()
			require.Empty(t, l.bad)
			require.Empty(t, l.of(s).errs)
			_, _, err := s.WritePkg(getty.UDPContext{Pkg: "late", PeerAddr: netip.MustParseAddrPort("127.0.0.1:9")}, 0)
			require.ErrorIs(t, err, getty.ErrSessionClosed)
		}
	})
}

// A probe is answered with a shorter datagram and reaches no Reader; a flood of probes is not answered in
// full, and an answer is never answered.
//
// fault: 84
func TestUDPProbes(t *testing.T) {
	l := newPacketTracer(t)
	got := make(chan any, 10)
	l.message = func(_ getty.Session, pkg any) { got <- pkg.(getty.UDPContext).Pkg }
	srv, s := endpoint(t, l, l.opened)
	client := getty.NewUDPClient(getty.WithServerAddress(srv.Addr().String()), func(o *getty.ClientOptions) { o.UDP.ProbeWait = time.Hour })
	run(t, client, prepare(newTracer(t), rawCodec{}))
	ready(t, client) // answered: with an hour of ProbeWait silence would not do

	c := udpSocket(t, srv.Addr())
	probe := append([]byte("getty\x00?1"), make([]byte, 32)...)
	const flood = 2000
	before, begun := s.Stats().Reads, time.Now()
	var answers atomic.Int32
	last := make(chan []byte, 1)
	go func() {
		var answer []byte
		for {
			b := make([]byte, 100)
			k, err := c.Read(b)
			if err != nil {
				last <- answer
				return
			}
			answers.Add(1)
			answer = b[:k]
		}
	}()
	for i := range flood {
		_, err := c.Write(probe)
		require.NoError(t, err)
		eventually(t, "the socket's buffer is not full", func() bool { return int(s.Stats().Reads-before) > i-50 })
	}
	eventually(t, "all probes are read", func() bool { return s.Stats().Reads-before == flood })
	took := time.Since(begun)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	answer := within(t, last, "the last answer")
	require.NoError(t, c.SetReadDeadline(time.Time{}))
	require.NotEmpty(t, answer)
	require.Less(t, len(answer), len(probe))
	require.LessOrEqual(t, float64(answers.Load()), 101+1000*took.Seconds(), "100 at once and 1000 a second")
	require.Empty(t, got)
	_, err := c.Write(answer)
	require.NoError(t, err)
	require.Equal(t, string(answer), within(t, got, "an answer out of the blue is a package"))

	// An endpoint may want the probes for itself.
	srv, _ = endpoint(t, l, l.opened, func(o *getty.ServerOptions) { o.UDP.IgnoreProbes = true })
	_, err = udpSocket(t, srv.Addr()).Write(probe)
	require.NoError(t, err)
	require.Equal(t, string(probe), within(t, got, "the probe"))
}

// A payload of the user's own is the probe; what it brings back is the first package.
func TestUDPOwnProbe(t *testing.T) {
	sl, cl := newTracer(t), newTracer(t)
	sl.message = func(s getty.Session, pkg any) {
		_, _, _ = s.WritePkg(getty.UDPContext{Pkg: "welcome", PeerAddr: pkg.(getty.UDPContext).PeerAddr}, 0)
	}
	got := make(chan any, 10)
	cl.message = func(_ getty.Session, pkg any) { got <- pkg }
	srv, _ := endpoint(t, sl, sl.opened)
	client := getty.NewUDPClient(getty.WithServerAddress(srv.Addr().String()),
		func(o *getty.ClientOptions) { o.UDP.ProbePayload, o.UDP.ProbeWait = []byte("hello"), time.Hour })
	run(t, client, prepare(cl, rawCodec{}))
	require.Equal(t, "welcome", within(t, got, "the first package"))
}

// A full mailbox drops datagrams, since nothing slows their sender down, and counts them.
func TestUDPOverload(t *testing.T) {
	const n = 100
	l := newPacketTracer(t)
	hold := make(chan struct{})
	l.message = func(getty.Session, any) { <-hold }
	srv, s := endpoint(t, l, l.opened, getty.WithServerDispatch(getty.Ordered), func(o *getty.ServerOptions) { o.MailboxLen = 10 })
	c := udpSocket(t, srv.Addr())
	for range n {
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
	}
	eventually(t, "all are read", func() bool { return s.Stats().Reads == n })
	eventually(t, "what has no room is dropped", func() bool { return s.Stats().Dropped == n-10 })
	close(hold)
	eventually(t, "the rest is delivered", func() bool { return l.of(s).messages == 10 })
}

// With a pool an endpoint is unordered unless told otherwise, so that one peer's handler holds up no other.
func TestUDPWithPool(t *testing.T) {
	pool := taskpool.NewOrdered(taskpool.Config{Workers: 2}) // by itself it has as many as there are processors
	t.Cleanup(func() { _ = pool.Close() })
	l := newTracer(t)
	l.unordered = true
	both := make(chan struct{})
	var inside atomic.Int32
	l.message = func(s getty.Session, pkg any) {
		if inside.Add(1) == 2 {
			close(both)
		}
		<-both
		f := pkg.(getty.UDPContext)
		_, _, _ = s.WritePkg(getty.UDPContext{Pkg: f.Pkg.(*codec.Frame).String(), PeerAddr: f.PeerAddr}, 0)
	}
	srv := getty.NewUDPEndPoint(getty.WithServerTaskPool(pool))
	run(t, srv, prepare(l))
	for _, c := range []*net.UDPConn{udpSocket(t, srv.Addr()), udpSocket(t, srv.Addr())} {
		_, err := c.Write(frame("x"))
		require.NoError(t, err)
		defer func() {
			b := make([]byte, 10)
			n, err := c.Read(b)
			require.NoError(t, err)
			require.Equal(t, frame("x"), b[:n])
		}()
	}
	within(t, both, "two handlers at once")
}

// An endpoint whose session has ended does not look as if it still served somebody.
func TestUDPEndpointEndsWithItsSession(t *testing.T) {
	for name, end := range map[string]func(l packetTracer) getty.NewSessionCallback{
		"panic": func(l packetTracer) getty.NewSessionCallback {
			l.message = func(getty.Session, any) { panic("boom") }
			return prepare(l, rawCodec{})
		},
		"close": func(l packetTracer) getty.NewSessionCallback {
			l.message = func(s getty.Session, _ any) { s.Close() }
			return prepare(l, rawCodec{})
		},
		"preparation": func(packetTracer) getty.NewSessionCallback {
			return func(getty.Session) error { return errors.New("not today") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := getty.NewUDPEndPoint()
			served := make(chan error, 1)
			newSession := end(newPacketTracer(t))
			go func() { served <- srv.Serve(context.Background(), newSession) }()
			if name != "preparation" {
				eventually(t, "it listens", func() bool { return srv.Addr() != nil })
				_, err := udpSocket(t, srv.Addr()).Write([]byte("x"))
				require.NoError(t, err)
			}
			require.ErrorIs(t, within(t, served, "the end of Serve"), getty.ErrEndpointClosed)
			require.True(t, srv.IsClosed())
			within(t, srv.Done(), "Done")
		})
	}
}

// A fragilePkg's Release panics if it was dropped.
type fragilePkg struct{ delivered atomic.Bool }

func (p *fragilePkg) Release() {
	if !p.delivered.Load() {
		panic("boom")
	}
}

// A package that is dropped because the mailbox is full costs nothing, whatever its Release does.
func TestUDPDroppedPackagePanics(t *testing.T) {
	l := newPacketTracer(t)
	hold, in := make(chan struct{}), make(chan struct{}, 2)
	l.message = func(_ getty.Session, pkg any) {
		pkg.(getty.UDPContext).Pkg.(*fragilePkg).delivered.Store(true)
		in <- struct{}{}
		<-hold
	}
	srv := getty.NewUDPEndPoint(getty.WithServerDispatch(getty.Ordered), func(o *getty.ServerOptions) { o.MailboxLen = 1 })
	run(t, srv, prepare(l, readerFunc(func(b []byte) (any, int, error) { return new(fragilePkg), len(b), nil })))
	s := within(t, l.opened, "OnOpen")
	c := udpSocket(t, srv.Addr())
	for range 2 {
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
	}
	within(t, in, "the first package")
	eventually(t, "the second is dropped", func() bool { return s.Stats().Dropped == 1 })
	close(hold)
	eventually(t, "the first is handled", func() bool {
		_, err := c.Write([]byte("y"))
		return err == nil && len(in) > 0
	})
}
