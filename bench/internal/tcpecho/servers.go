// SPDX-License-Identifier: Apache-2.0

// Package tcpecho holds one TCP echo server per peer, each a process of its own. All speak the
// frames of package wire, answer every frame with a frame of the same payload, and are written
// and configured as their authors advise: parse all that has arrived, answer in one write.
package tcpecho

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/wire"
)

// Config is what a server process is started with.
type Config struct {
	// CPUs is the machine's number of CPUs; the process itself sees only its own.
	CPUs int
}

// Peer is one server.
type Peer struct {
	// Name is the subject's name, Module the Go module behind it.
	Name, Module string
	// Unordered is true when the answers of one connection may overtake each other.
	Unordered bool
	// Pause is what a load should wait between two connects, zero for most. See load.Echo.
	Pause time.Duration
	serve func(cfg Config, c *proc.Child) error
}

// Server is the name of the process that runs this peer.
func (p Peer) Server() string { return "tcp/" + p.Name }

// Peers are all servers, ours first.
func Peers() []Peer {
	return []Peer{
		{Name: "ours-inline", serve: serveInline},
		{Name: "ours-ordered", serve: serveOrdered},
		{Name: "net", serve: serveNet},
		{Name: "gnet", Module: "github.com/panjf2000/gnet/v2", serve: serveGnet},
		{Name: "netpoll", Module: "github.com/cloudwego/netpoll", serve: serveNetpoll},
		{Name: "netpoll-cores", Module: "github.com/cloudwego/netpoll", serve: serveNetpollCores},
		{Name: "nbio", Module: "github.com/lesismal/nbio", serve: serveNbio},
		{Name: "gev", Module: "github.com/Allenxuxu/gev", serve: serveGev},
		{Name: "evio", Module: "github.com/tidwall/evio", serve: serveEvio},
		{Name: "dubbo-getty", Module: "github.com/apache/dubbo-getty", Pause: OldPause, serve: serveDubbo},
		{Name: "dubbo-getty-pool", Module: "github.com/apache/dubbo-getty", Unordered: true, Pause: OldPause, serve: serveDubboPool},
		{Name: "alex-getty", Module: "github.com/AlexStocks/getty", Pause: OldPause, serve: serveAlex},
	}
}

// IdlePeers are the servers whose idle sessions are weighed: one entry for each that holds memory
// in its own way.
func IdlePeers() []Peer {
	var list []Peer
	for _, p := range Peers() {
		if p.Name != "netpoll-cores" && p.Name != "dubbo-getty-pool" {
			list = append(list, p)
		}
	}
	return list
}

// Servers are the bodies of the processes, by name.
func Servers() map[string]proc.Server {
	servers := map[string]proc.Server{}
	for _, p := range Peers() {
		servers[p.Server()] = p.body
	}
	for _, p := range Writers() {
		servers[p.WritersServer()] = p.body
	}
	return servers
}

func (p Peer) body(c *proc.Child) error {
	var cfg Config
	if err := c.Config(&cfg); err != nil {
		return err
	}
	return p.serve(cfg, c)
}

// freeAddr finds a loopback port for servers that cannot say which one they were given. Between
// the check and the use somebody else could take it; the sample then fails and is taken again.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// serveNet is what a Go programmer writes by hand, done well: a goroutine per connection, one
// buffer, all frames of a read parsed, one write per read.
func serveNet(_ Config, c *proc.Child) error {
	// Multipath TCP, which Go's listeners ask for by default, is off as it is with the peers that
	// make their own sockets.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go Loop(conn)
		}
	}()
	if err := c.Ready(ln.Addr().String()); err != nil {
		return err
	}
	return c.Commands(nil)
}

// netBuffer is the size of the hand-written loop's buffers. A frame that does not fit makes the
// read buffer grow.
const netBuffer = 16 << 10

// Loop parses all frames of a read, and answers them in one write.
func Loop(conn net.Conn) {
	defer conn.Close()
	in, out := make([]byte, netBuffer), make([]byte, 0, netBuffer)
	have := 0
	for {
		n, err := conn.Read(in[have:])
		if err != nil {
			return
		}
		have += n
		var used int
		out, used, err = wire.Echo(out[:0], in[:have])
		if err != nil {
			return
		}
		if len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return
			}
		}
		have = copy(in, in[used:have])
		if have == len(in) {
			in = append(in, make([]byte, len(in))...)
		}
	}
}
