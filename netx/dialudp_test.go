// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// long is a wait that only a hang would use up: a test that passes sooner did not wait for it.
const long = 15 * time.Second

// serveUDP answers every datagram with what answer returns for it; nil answers nothing.
func serveUDP(t *testing.T, c *net.UDPConn, answer func(b []byte) [][]byte) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, maxDatagram)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			for _, a := range answer(b[:n]) {
				c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
}

func echo(b []byte) [][]byte { return [][]byte{b} }

// noDeadline checks that c waits for ever: what is sent after any deadline of the dial has passed
// still arrives. A deadline that stayed armed would have fired within the dial's own wait.
func noDeadline(t *testing.T, c *net.UDPConn, send func()) {
	t.Helper()
	got := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1500))
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("read ended by itself: %v", err)
	case <-time.After(30 * time.Millisecond):
	}
	send()
	require.NoError(t, <-got)
}

func TestDialUDPAnswered(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		families(t, func(t *testing.T, loopback string) {
			server, addr := listenUDP(t, loopback)
			serveUDP(t, server, echo)
			c, res, err := DialUDP(testContext(t), "udp", addr.String(), Probe{
				Payload: []byte("nonce"),
				Match:   func(b []byte) bool { return string(b) == "nonce" },
				Wait:    long,
			})
			require.NoError(t, err)
			defer c.Close()
			require.Equal(t, Answered, res.State)
			require.Equal(t, "nonce", string(res.Answer))
			require.Nil(t, res.Reply)
			require.Positive(t, res.Elapsed)
			require.Less(t, res.Elapsed, long)
			require.Equal(t, addr.String(), c.RemoteAddr().String())
			noDeadline(t, c, func() { c.Write([]byte("x")) })
		})
	})
}

// A datagram that is not the answer proves the peer alive and is the caller's, whatever it is;
// the late answer is still to be read.
func TestDialUDPKeepsForeignReply(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		for name, first := range map[string][]byte{"data": []byte("first package"), "empty": {}, "huge": bytes.Repeat([]byte("x"), 60000)} {
			t.Run(name, func(t *testing.T) {
				server, addr := listenUDP(t, "127.0.0.1")
				serveUDP(t, server, func(b []byte) [][]byte { return [][]byte{first, b} })
				c, res, err := DialUDP(testContext(t), "udp", addr.String(), Probe{
					Payload: []byte("nonce"),
					Match:   func(b []byte) bool { return string(b) == "nonce" },
					Wait:    long,
				})
				require.NoError(t, err)
				defer c.Close()
				require.Equal(t, Answered, res.State)
				require.NotNil(t, res.Reply)
				require.Equal(t, string(first), string(res.Reply))
				require.Nil(t, res.Answer)
				b := make([]byte, 16)
				n, err := c.Read(b)
				require.NoError(t, err)
				require.Equal(t, "nonce", string(b[:n]))
			})
		}
	})
}

// A result belongs to the caller: later dials do not write into it.
func TestDialUDPResultsAreOwn(t *testing.T) {
	server, addr := listenUDP(t, "127.0.0.1")
	serveUDP(t, server, echo)
	for _, match := range []func([]byte) bool{nil, func([]byte) bool { return true }} {
		var got [][]byte
		for i := range 8 {
			c, res, err := DialUDP(testContext(t), "udp", addr.String(), Probe{Payload: []byte{'0' + byte(i)}, Match: match, Wait: long})
			require.NoError(t, err)
			c.Close()
			got = append(got, append(res.Answer, res.Reply...)[:1:1])
		}
		require.Equal(t, "01234567", string(bytes.Join(got, nil)))
	}
}

func TestDialUDPWithoutMatchKeepsEverything(t *testing.T) {
	server, addr := listenUDP(t, "127.0.0.1")
	serveUDP(t, server, echo)
	c, res, err := DialUDP(testContext(t), "udp", addr.String(), Probe{Payload: []byte{}, Wait: long})
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, ProbeResult{State: Answered, Reply: []byte{}, Elapsed: res.Elapsed}, res)
}

// fault: 79
func TestDialUDPRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("package net hides ICMP errors here")
	}
	bothSystems(t, func(t *testing.T, stub bool) {
		families(t, func(t *testing.T, loopback string) {
			dead, addr := listenUDP(t, loopback)
			dead.Close()
			for range 20 {
				c, res, err := DialUDP(testContext(t), "udp", addr.String(), Probe{Payload: []byte("?"), Wait: long})
				require.ErrorIs(t, err, syscall.ECONNREFUSED)
				require.Nil(t, c)
				require.Equal(t, Refused, res.State)
			}
		})
	})
}

func TestDialUDPSilent(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		server, addr := listenUDP(t, "127.0.0.1")
		for _, wait := range []time.Duration{0, 20 * time.Millisecond} {
			want := wait
			if wait == 0 {
				want = DefaultProbeWait
			}
			c, res, err := DialUDP(testContext(t), "udp", addr.String(), Probe{Payload: []byte("?"), Wait: wait})
			require.NoError(t, err)
			defer c.Close()
			require.Equal(t, Silent, res.State)
			require.Nil(t, res.Reply)
			require.GreaterOrEqual(t, res.Elapsed, want)
			noDeadline(t, c, func() { server.WriteTo([]byte("x"), c.LocalAddr()) })
		}
		b := make([]byte, 2)
		server.Read(b) // the two probes
		server.Read(b)
	})
}

func TestDialUDPDoesNotWait(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		server, addr := listenUDP(t, "127.0.0.1")
		b := make([]byte, 16)
		c, res, err := DialUDP(testContext(t), "udp", addr.String(), Probe{Payload: []byte("?"), Wait: -1})
		require.NoError(t, err)
		defer c.Close()
		require.Equal(t, Silent, res.State)
		n, err := server.Read(b)
		require.NoError(t, err)
		require.Equal(t, "?", string(b[:n]), "the probe was sent")

		c, res, err = DialUDP(testContext(t), "udp", addr.String(), Probe{})
		require.NoError(t, err)
		defer c.Close()
		require.Equal(t, ProbeResult{}, res)
		server.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
		_, err = server.Read(b)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "without a payload nothing is sent")
	})
}

func TestDialUDPContext(t *testing.T) {
	_, addr := listenUDP(t, "127.0.0.1")
	ctx, cancel := context.WithCancel(testContext(t))
	time.AfterFunc(20*time.Millisecond, cancel)
	c, res, err := DialUDP(ctx, "udp", addr.String(), Probe{Payload: []byte("?"), Wait: long})
	require.ErrorIs(t, err, context.Canceled)
	require.Nil(t, c)
	require.Equal(t, Skipped, res.State)

	_, _, err = DialUDP(ctx, "udp", addr.String(), Probe{})
	require.ErrorIs(t, err, context.Canceled, "a context that is over before")

	ctx, cancel = context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	_, _, err = DialUDP(ctx, "udp", addr.String(), Probe{Payload: []byte("?"), Wait: long})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// Cancelling at every moment around the answer must leave either an error or a connection without a
// deadline.
func TestDialUDPCancelRace(t *testing.T) {
	server, addr := listenUDP(t, "127.0.0.1")
	serveUDP(t, server, echo)
	for i := range 200 {
		ctx, cancel := context.WithCancel(testContext(t))
		timer := time.AfterFunc(time.Duration(i)*time.Microsecond, cancel)
		c, _, err := DialUDP(ctx, "udp", addr.String(), Probe{Payload: []byte("?"), Wait: long})
		timer.Stop()
		cancel()
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
			continue
		}
		_, err = c.Write([]byte("x"))
		require.NoError(t, err, "the write deadline")
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, err, "the read deadline")
		c.Close()
	}
}

// A context that ends together with the answer must not arm a deadline behind the dial's back.
func TestDialUDPCancelWithAnswer(t *testing.T) {
	server, addr := listenUDP(t, "127.0.0.1")
	serveUDP(t, server, echo)
	for range 100 {
		ctx, cancel := context.WithCancel(testContext(t))
		c, res, err := DialUDP(ctx, "udp", addr.String(), Probe{Payload: []byte("?"), Wait: long,
			Match: func([]byte) bool { cancel(); return true }})
		require.NoError(t, err, "the answer came first")
		require.Equal(t, Answered, res.State)
		runtime.Gosched() // whatever is still to run does so before the read
		_, err = c.Write([]byte("x"))
		require.NoError(t, err, "the write deadline")
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, err, "the read deadline")
		c.Close()
	}
}

// fault: 20
func TestDialUDPSelfConnect(t *testing.T) {
	families(t, func(t *testing.T, loopback string) {
		dead, addr := listenUDP(t, loopback)
		dead.Close()
		d := Dialer{Net: net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(addr)}}
		for _, p := range []Probe{{}, {Payload: []byte("?"), Wait: long}} {
			c, res, err := d.DialUDP(testContext(t), "udp", addr.String(), p)
			require.ErrorIs(t, err, ErrSelfConnect)
			require.ErrorIs(t, err, syscall.ECONNREFUSED)
			require.Nil(t, c)
			require.Equal(t, Refused, res.State)
		}
	})
}

func TestDialUDPBadAddress(t *testing.T) {
	ctx := testContext(t)
	for _, c := range []struct{ network, addr string }{
		{"tcp", "127.0.0.1:1"}, {"udp5", "127.0.0.1:1"}, {"udp", "127.0.0.1"}, {"udp", "127.0.0.1:99999"},
		{"udp4", "[::1]:1"}, {"udp6", "127.0.0.1:1"}, {"udp", "127.0.0.1:nosuchservice"},
	} {
		conn, _, err := DialUDP(ctx, c.network, c.addr, Probe{})
		require.Error(t, err, "DialUDP(%q, %q)", c.network, c.addr)
		require.Nil(t, conn)
	}
}

// The dialer's limits hold for the look-up of a name too, as in package net.
func TestDialUDPLookupTimeout(t *testing.T) {
	silent, addr := listenUDP(t, "127.0.0.1")
	defer silent.Close()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", addr.String())
	}}
	for name, nd := range map[string]net.Dialer{
		"Timeout":  {Timeout: 20 * time.Millisecond, Resolver: resolver},
		"Deadline": {Deadline: time.Now().Add(20 * time.Millisecond), Resolver: resolver},
		"both":     {Deadline: time.Now().Add(20 * time.Millisecond), Timeout: time.Hour, Resolver: resolver},
	} {
		d := Dialer{Net: nd}
		ctx := testContext(t)
		_, _, err := d.DialUDP(ctx, "udp", "slow.test:9", Probe{})
		var ne net.Error
		require.ErrorAs(t, err, &ne, name)
		require.True(t, ne.Timeout(), "%s: %v", name, err)
		require.NoError(t, ctx.Err(), name)
	}
}

// A name with several addresses is tried address by address until one is not refused; package net
// would take the first, since connect never fails.
func TestDialUDPTriesEveryAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("127.0.0.2 is not on loopback, or refusals are hidden")
	}
	d := Dialer{Net: net.Dialer{Resolver: twoAddresses(t)}}
	for _, ip := range []string{"127.0.0.1", "127.0.0.2"} {
		server, addr := listenUDP(t, ip)
		serveUDP(t, server, echo)
		_, port, _ := net.SplitHostPort(addr.String())
		p := Probe{Payload: []byte("?"), Wait: long}
		c, res, err := d.DialUDP(testContext(t), "udp", "two.test:"+port, p)
		require.NoError(t, err)
		require.Equal(t, Answered, res.State)
		require.Equal(t, addr.String(), c.RemoteAddr().String())
		c.Close()

		server.Close()
		_, res, err = d.DialUDP(testContext(t), "udp", "two.test:"+port, p)
		require.ErrorIs(t, err, syscall.ECONNREFUSED, "when all refuse")
		require.Equal(t, Refused, res.State)
	}
	_, _, err := d.DialUDP(testContext(t), "udp6", "two.test:1", Probe{})
	require.Error(t, err, "a name without an address of the family")
}

// twoAddresses is a resolver, with a name server of its own, for which every name has the addresses
// 127.0.0.1 and 127.0.0.2.
func twoAddresses(t *testing.T) *net.Resolver {
	server, addr := listenUDP(t, "127.0.0.1")
	serveUDP(t, server, func(q []byte) [][]byte {
		end := 12 // behind the header: the name, its type and class
		for q[end] != 0 {
			end += 1 + int(q[end])
		}
		end += 5
		r := append([]byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, q[12:end]...)
		if q[end-4] == 0 && q[end-3] == 1 { // an A query
			for _, last := range []byte{1, 2} {
				r[7]++
				r = append(r, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, last)
			}
		}
		return [][]byte{r}
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", addr.String())
	}}
}

func TestDialUDPMatchPanics(t *testing.T) {
	server, addr := listenUDP(t, "127.0.0.1")
	serveUDP(t, server, echo)
	require.PanicsWithValue(t, "match", func() {
		DialUDP(testContext(t), "udp", addr.String(), Probe{Payload: []byte("?"), Wait: long,
			Match: func([]byte) bool { panic("match") }})
	})
}

// A refusal of an earlier datagram waits on the socket. The probe must not take it for its own.
func TestProbeUDPDrainsStaleErrors(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		families(t, func(t *testing.T, loopback string) {
			dead, addr := listenUDP(t, loopback)
			dead.Close()
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Write([]byte("lost"))
			require.NoError(t, err)
			if runtime.GOOS == "linux" {
				refusal(t, c)
			}
			server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
			require.NoError(t, err)
			serveUDP(t, server, echo)
			res, err := ProbeUDP(testContext(t), c, Probe{Payload: []byte("?"), Wait: long})
			require.NoError(t, err)
			require.Equal(t, Answered, res.State)
			require.Equal(t, "?", string(res.Reply))
		})
	})
}

func TestProbeUDPNeedsPeer(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		c, _ := listenUDP(t, "127.0.0.1")
		_, err := ProbeUDP(testContext(t), c, Probe{Payload: []byte("?")})
		require.ErrorIs(t, err, syscall.ENOTCONN)
		c.Close()
		_, err = ProbeUDP(testContext(t), c, Probe{Payload: []byte("?")})
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

// Between bind and connect a socket with a given port takes datagrams of everybody. None of them
// may look like the peer's.
// fault: 85
func TestDialUDPDropsForeign(t *testing.T) {
	if _, err := sys.peer(0); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("nothing can be dropped here")
	}
	families(t, func(t *testing.T, loopback string) {
		server, addr := listenUDP(t, loopback)
		third, _ := listenUDP(t, loopback)
		c, mine := listenUDP(t, loopback)
		for range 5 {
			_, err := third.WriteToUDPAddrPort([]byte("foreign"), mine)
			require.NoError(t, err)
		}
		_, err := Reconnect(c, addr)
		require.NoError(t, err)
		for range 5 {
			_, err := third.WriteToUDPAddrPort([]byte("foreign"), mine)
			require.NoError(t, err, "sent after connect: the kernel filters")
		}
		_, err = server.WriteToUDPAddrPort([]byte("peer"), mine)
		require.NoError(t, err)
		b := make([]byte, 16)
		n, from, _, err := ReadUDP(c, b)
		require.NoError(t, err)
		require.Equal(t, "peer", string(b[:n]))
		require.Equal(t, addr, from)
	})
}

// While a third party floods the port from which we dial again and again, only the peer is heard.
// fault: 85
func TestDialUDPUnderFlood(t *testing.T) {
	if _, err := sys.peer(0); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("nothing can be dropped here")
	}
	server, addr := listenUDP(t, "127.0.0.1")
	serveUDP(t, server, echo)
	third, _ := listenUDP(t, "127.0.0.1")
	port, mine := listenUDP(t, "127.0.0.1")
	port.Close()
	stop, flooded := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(flooded)
		for {
			select {
			case <-stop:
				return
			default:
				third.WriteToUDPAddrPort([]byte("foreign"), mine)
			}
		}
	}()
	d := Dialer{Net: net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(mine)}}
	for i := range 100 {
		var p Probe // also without a probe
		if i%2 == 0 {
			p = Probe{Payload: []byte("?"), Wait: long}
		}
		c, res, err := d.DialUDP(testContext(t), "udp", addr.String(), p)
		require.NoError(t, err)
		require.Equal(t, string(p.Payload), string(res.Reply))
		_, err = c.Write([]byte("x"))
		require.NoError(t, err)
		b := make([]byte, 16)
		n, from, _, err := ReadUDP(c, b)
		require.NoError(t, err)
		require.Equal(t, "x", string(b[:n]))
		require.Equal(t, addr, from)
		c.Close()
	}
	close(stop)
	<-flooded
}

// A wait that is over before the probe is sent counts as silence; it is no error.
func TestProbeWithAVeryShortWait(t *testing.T) {
	peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	defer peer.Close()
	for range 20 {
		c, _, err := DialUDP(t.Context(), "udp", peer.LocalAddr().String(), Probe{Payload: []byte("?"), Wait: 1})
		require.NoError(t, err)
		require.NoError(t, c.Close())
	}
}
