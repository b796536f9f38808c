// SPDX-License-Identifier: Apache-2.0

// Package netx compares asking a connection whether it is alive, and moving datagrams, with what is
// used for it elsewhere.
package netx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	gxnet "github.com/dubbogo/gost/net"
	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/netx"
	"golang.org/x/net/ipv4"
)

const gost = "github.com/dubbogo/gost"

// Family returns the comparisons of module netx.
func Family() harness.Family {
	return harness.Family{
		Name: "netx",
		Doc:  "liveness of a TCP connection, UDP datagrams over loopback, UDP dialling with a probe",
		Cases: []harness.Case{
			{
				Name: "alive", Unit: "ns/op",
				Subjects: append([]harness.Subject{
					idle("ours", "", alive),
					idle("ours-checker", "", checker),
					idle("gost", gost, connCheck),
				}, bareCalls()...),
			},
			{
				// Faults of 1 000 queries beside a reader, see reader.go.
				Name: "alive/reader", Unit: "faults",
				Subjects: []harness.Subject{
					beside("ours", "", alive),
					beside("ours-checker", "", checker),
					beside("gost", gost, connCheck),
				},
			},
			{
				Name: "alive/dead", Unit: "faults",
				Subjects: []harness.Subject{
					harness.Number("ours", "", "faults", func(*harness.Run) (float64, error) { return states(alive) }),
					harness.Number("gost", gost, "faults", func(*harness.Run) (float64, error) { return states(connCheck) }),
				},
			},
			{
				Name: "udp/one", Unit: "ns/op", // one datagram of 64 bytes written and read
				Subjects: []harness.Subject{
					datagrams("ours", "", oursUDP),
					datagrams("net", "", netUDP),
					datagrams("net-udpaddr", "", oldUDP),
				},
			},
			{
				// 16 datagrams of 64 bytes written, then read: single calls against
				// sendmmsg and recvmmsg, per datagram.
				Name: "udp/burst=16", Unit: "ns/op",
				Subjects: []harness.Subject{
					bursts("ours", "", 16, oursBurst),
					bursts("ours-batch", "", 16, oursBatch),
					bursts("x-net-batch", "golang.org/x/net", 16, batchBurst),
				},
			},
			{
				Name: "udp/burst=4", Unit: "ns/op",
				Subjects: []harness.Subject{
					bursts("ours", "", 4, oursBurst),
					bursts("ours-batch", "", 4, oursBatch),
					bursts("x-net-batch", "golang.org/x/net", 4, batchBurst),
				},
			},
			{
				Name: "udp/burst=1", Unit: "ns/op", // what a batch costs where there is none
				Subjects: []harness.Subject{
					bursts("ours", "", 1, oursBurst),
					bursts("ours-batch", "", 1, oursBatch),
					bursts("x-net-batch", "golang.org/x/net", 1, batchBurst),
				},
			},
			{
				// A dial whose probe is answered, against the same by hand with package net.
				Name: "dialudp/answered", Unit: "ns/op",
				Subjects: []harness.Subject{
					dials("ours", oursDial),
					dials("net", netDial),
				},
			},
		},
	}
}

// A question asks c whether it is alive; prepare is done once for a connection.
type question func(c net.Conn) (ask func() (alive bool, err error), err error)

func alive(c net.Conn) (func() (bool, error), error) {
	return func() (bool, error) {
		s, err := netx.Alive(c)
		return s == netx.Open || s == netx.HasData, err
	}, nil
}

func checker(c net.Conn) (func() (bool, error), error) {
	k, err := netx.NewChecker(c)
	if err != nil {
		return nil, err
	}
	return func() (bool, error) {
		s, err := k.State()
		return s == netx.Open || s == netx.HasData, err
	}, nil
}

func connCheck(c net.Conn) (func() (bool, error), error) {
	return func() (bool, error) { return gxnet.ConnCheck(c) == nil, nil }, nil
}

// pair returns the two ends of a TCP connection.
func pair() (near, far *net.TCPConn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	a, err := l.Accept()
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return c.(*net.TCPConn), a.(*net.TCPConn), nil
}

// idle asks about a connection on which nothing happens.
func idle(name, module string, q question) harness.Subject {
	return harness.Prepared(name, module, func() (func(int), func(), error) {
		near, far, err := pair()
		if err != nil {
			return nil, nil, err
		}
		ask, err := q(near)
		if err != nil {
			return nil, nil, err
		}
		return func(n int) {
			for range n {
				if ok, err := ask(); !ok || err != nil {
					panic(fmt.Sprintf("an idle connection: alive %v, %v", ok, err))
				}
			}
		}, func() { near.Close(); far.Close() }, nil
	})
}

// states counts the wrong answers about connections whose state is known, and the bytes that asking
// lost.
func states(q question) (float64, error) {
	faults := 0.0
	for _, c := range []struct {
		prepare func(near, far *net.TCPConn) net.Conn
		alive   bool
		left    int
	}{
		{func(near, far *net.TCPConn) net.Conn { return near }, true, 0},
		{func(near, far *net.TCPConn) net.Conn { far.Write(make([]byte, 10)); return near }, true, 10},
		{func(near, far *net.TCPConn) net.Conn { far.Close(); return near }, false, 0},
		{func(near, far *net.TCPConn) net.Conn {
			far.Close()
			return tls.Client(near, &tls.Config{InsecureSkipVerify: true})
		}, false, 0},
		{func(near, far *net.TCPConn) net.Conn { near.SetReadDeadline(time.Unix(1, 0)); return near }, true, 0},
	} {
		near, far, err := pair()
		if err != nil {
			return 0, err
		}
		conn := c.prepare(near, far)
		time.Sleep(5 * time.Millisecond) // the FIN or the data arrives
		ask, err := q(conn)
		if err != nil {
			return 0, err
		}
		if ok, _ := ask(); ok != c.alive {
			faults++
		}
		far.Close()
		near.SetReadDeadline(time.Time{})
		b := make([]byte, 64)
		total := 0
		for {
			n, err := near.Read(b)
			total += n
			if err != nil {
				break
			}
		}
		if total != c.left {
			faults++
		}
		near.Close()
	}
	return faults, nil
}

// sockets are two UDP sockets on loopback.
type sockets struct {
	a, b  *net.UDPConn
	to    netip.AddrPort
	buf   []byte
	batch [2][]ipv4.Message
	ours  [2][]netx.Datagram
	out   *netx.Batch
	in    *netx.Batch
}

func newSockets(burst int) (*sockets, error) {
	s := &sockets{buf: make([]byte, 64)}
	var err error
	if s.a, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		return nil, err
	}
	if s.b, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		return nil, err
	}
	s.to = s.b.LocalAddr().(*net.UDPAddr).AddrPort()
	if s.out, err = netx.NewBatch(s.a, 16); err != nil {
		return nil, err
	}
	if s.in, err = netx.NewBatch(s.b, 16); err != nil {
		return nil, err
	}
	for i := range s.batch {
		for range burst {
			m := ipv4.Message{Buffers: [][]byte{make([]byte, 64)}}
			if i == 0 {
				m.Addr = s.b.LocalAddr()
			}
			s.batch[i] = append(s.batch[i], m)
			s.ours[i] = append(s.ours[i], netx.Datagram{Buf: make([]byte, 64), Addr: s.to})
		}
	}
	return s, nil
}

func datagrams(name, module string, one func(s *sockets) error) harness.Subject {
	return bursts(name, module, 1, func(s *sockets, _ int) error { return one(s) })
}

// bursts moves n datagrams in bursts.
func bursts(name, module string, burst int, move func(s *sockets, burst int) error) harness.Subject {
	return harness.Prepared(name, module, func() (func(int), func(), error) {
		s, err := newSockets(burst)
		if err != nil {
			return nil, nil, err
		}
		return func(n int) {
			for n > 0 {
				if err := move(s, burst); err != nil {
					panic(err)
				}
				n -= burst
			}
		}, func() { s.a.Close(); s.b.Close() }, nil
	})
}

func oursUDP(s *sockets) error {
	if _, err := netx.WriteUDP(s.a, s.buf, s.to); err != nil {
		return err
	}
	n, _, truncated, err := netx.ReadUDP(s.b, s.buf)
	if err != nil || n != len(s.buf) || truncated {
		return fmt.Errorf("read %d bytes, truncated %v: %w", n, truncated, err)
	}
	return nil
}

func netUDP(s *sockets) error {
	if _, err := s.a.WriteToUDPAddrPort(s.buf, s.to); err != nil {
		return err
	}
	_, _, err := s.b.ReadFromUDPAddrPort(s.buf)
	return err
}

func oldUDP(s *sockets) error {
	if _, err := s.a.WriteToUDP(s.buf, s.b.LocalAddr().(*net.UDPAddr)); err != nil {
		return err
	}
	_, _, err := s.b.ReadFromUDP(s.buf)
	return err
}

func oursBurst(s *sockets, burst int) error {
	for range burst {
		if _, err := netx.WriteUDP(s.a, s.buf, s.to); err != nil {
			return err
		}
	}
	for range burst {
		if _, _, _, err := netx.ReadUDP(s.b, s.buf); err != nil {
			return err
		}
	}
	return nil
}

func oursBatch(s *sockets, burst int) error {
	if n, err := s.out.WriteBatch(s.ours[0]); err != nil || n != burst {
		return fmt.Errorf("wrote %d datagrams: %w", n, err)
	}
	for got := 0; got < burst; {
		n, err := s.in.ReadBatch(s.ours[1][got:])
		if err != nil {
			return err
		}
		got += n
	}
	return nil
}

func batchBurst(s *sockets, burst int) error {
	w, r := ipv4.NewPacketConn(s.a), ipv4.NewPacketConn(s.b)
	for sent := 0; sent < burst; {
		n, err := w.WriteBatch(s.batch[0][sent:], 0)
		if err != nil {
			return err
		}
		sent += n
	}
	for got := 0; got < burst; {
		n, err := r.ReadBatch(s.batch[1][:burst-got], 0)
		if err != nil {
			return err
		}
		got += n
	}
	return nil
}

// dials dials a server that answers, again and again.
func dials(name string, dial func(addr *net.UDPAddr) error) harness.Subject {
	return harness.Prepared(name, "", func() (func(int), func(), error) {
		server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, nil, err
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			b := make([]byte, 64)
			for {
				n, from, err := server.ReadFromUDPAddrPort(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					server.WriteToUDPAddrPort(b[:n], from)
				}
			}
		}()
		addr := server.LocalAddr().(*net.UDPAddr)
		return func(n int) {
			for range n {
				if err := dial(addr); err != nil {
					panic(err)
				}
			}
		}, func() { server.Close(); <-done }, nil
	})
}

var nonce = []byte("0123456789abcdef0123")

func oursDial(addr *net.UDPAddr) error {
	c, res, err := netx.DialUDP(context.Background(), "udp4", addr.String(), netx.Probe{
		Payload: nonce, Match: func(b []byte) bool { return string(b) == string(nonce) }, Wait: time.Second,
	})
	if err != nil {
		return err
	}
	if res.State != netx.Answered || res.Answer == nil {
		return fmt.Errorf("state %v", res.State)
	}
	return c.Close()
}

func netDial(addr *net.UDPAddr) error {
	c, err := net.Dial("udp4", addr.String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write(nonce); err != nil {
		return err
	}
	b := make([]byte, 1500)
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	n, err := c.Read(b)
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	if string(b[:n]) != string(nonce) {
		return fmt.Errorf("answer %q", b[:n])
	}
	return c.SetReadDeadline(time.Time{})
}
