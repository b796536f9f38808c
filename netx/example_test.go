// SPDX-License-Identifier: Apache-2.0

package netx_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gostkit/kit/netx"
)

// A pool asks before it hands out an idle connection.
func ExampleAlive() {
	l, _ := netx.ListenRandom(context.Background(), "tcp", "localhost", netx.PortRange{})
	defer l.Close()
	client, _ := net.Dial("tcp", l.Addr().String())
	defer client.Close()
	server, _ := l.Accept()

	state, err := netx.Alive(client)
	fmt.Println(state, err)

	server.Close()
	for state == netx.Open { // the FIN takes its way through the kernel
		state, err = netx.Alive(client)
	}
	fmt.Println(state, err)
	// Output:
	// open <nil>
	// peer closed <nil>
}

func ExampleChecker() {
	l, _ := netx.ListenRandom(context.Background(), "tcp", "localhost", netx.PortRange{})
	defer l.Close()
	client, _ := net.Dial("tcp", l.Addr().String())
	check, err := netx.NewChecker(client)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(check.State())
	client.Close()
	_, err = check.State()
	fmt.Println(errors.Is(err, net.ErrClosed))
	// Output:
	// open <nil>
	// true
}

// A dead peer is known at once, not after the first lost request.
func ExampleDialUDP() {
	server, _ := netx.ListenPacketRandom(context.Background(), "udp", "localhost", netx.PortRange{})
	go func() {
		b := make([]byte, 1500)
		n, from, _, err := netx.ReadUDP(server, b)
		if err == nil {
			netx.WriteUDP(server, b[:n], from)
		}
	}()
	probe := netx.Probe{
		Payload: []byte("are you there? 4711"),
		Match:   func(reply []byte) bool { return string(reply) == "are you there? 4711" },
		Wait:    10 * time.Second,
	}
	addr := server.LocalAddr().String()
	c, res, err := netx.DialUDP(context.Background(), "udp", addr, probe)
	fmt.Println(res.State, err)
	c.Close()

	server.Close()
	_, res, err = netx.DialUDP(context.Background(), "udp", addr, probe)
	fmt.Println(res.State, errors.Is(err, syscall.ECONNREFUSED))
	// Output:
	// answered <nil>
	// refused true
}

func ExampleReadUDP() {
	a, _ := netx.ListenPacketRandom(context.Background(), "udp", "localhost", netx.PortRange{})
	b, _ := netx.ListenPacketRandom(context.Background(), "udp", "localhost", netx.PortRange{})
	defer a.Close()
	defer b.Close()
	netx.WriteUDP(a, []byte("a long datagram"), b.LocalAddr().(*net.UDPAddr).AddrPort())
	buf := make([]byte, 6)
	n, _, truncated, err := netx.ReadUDP(b, buf)
	fmt.Printf("%q truncated=%v %v\n", buf[:n], truncated, err)
	// Output: "a long" truncated=true <nil>
}

func ExampleListenN() {
	shards, err := netx.ListenN(context.Background(), "tcp", "localhost:0", 4)
	if errors.Is(err, errors.ErrUnsupported) {
		fmt.Println("4 listeners, one address: true") // not on this system
		return
	}
	same := true
	for _, l := range shards {
		same = same && netx.SameAddr(l.Addr(), shards[0].Addr())
		defer l.Close()
	}
	fmt.Println(len(shards), "listeners, one address:", same)
	// Output: 4 listeners, one address: true
}

func ExampleListenUnix() {
	dir, _ := os.MkdirTemp("", "nx")
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "app.sock")
	l, err := netx.ListenUnix(context.Background(), path, netx.UnixOptions{Mode: 0o600})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	_, err = netx.ListenUnix(context.Background(), path, netx.UnixOptions{})
	fmt.Println(err != nil) // it is in use, and stays
	// Output: true
}

func ExampleSocketOptions() {
	l, _ := netx.ListenRandom(context.Background(), "tcp", "localhost", netx.PortRange{})
	defer l.Close()
	d := netx.Dialer{Options: netx.SocketOptions{WriteBuffer: 256 << 10, NoDelay: netx.Off}}
	c, err := d.DialContext(context.Background(), "tcp", l.Addr().String())
	fmt.Println(err)
	o := netx.SocketOptions{Linger: 5 * time.Second}
	fmt.Println(o.Apply(c))
	c.Close()
	// Output:
	// <nil>
	// <nil>
}

func ExampleLocalIP() {
	ip, err := netx.LocalIP(context.Background(), netx.LocalIPOptions{Route: "127.0.0.1"})
	fmt.Println(ip, err)
	// Output: 127.0.0.1 <nil>
}

func ExampleSameAddr() {
	a := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[::ffff:192.0.2.1]:80"))
	b := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:80"))
	fmt.Println(netx.SameAddr(a, b), netx.SameAddr(a, nil))
	// Output: true false
}
