// SPDX-License-Identifier: Apache-2.0

// Package udpecho holds one UDP echo server per peer, each a process of its own on one unconnected
// socket.
package udpecho

import (
	"fmt"
	"net"
	"os"

	"github.com/panjf2000/gnet/v2"
	gnetlog "github.com/panjf2000/gnet/v2/pkg/logging"
	"golang.org/x/net/ipv4"

	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/getty"
)

// Peer is one server.
type Peer struct {
	// Name is the subject's name, Module the Go module behind it.
	Name, Module string
	serve        func(c *proc.Child) error
}

// Server is the name of the process that runs this peer.
func (p Peer) Server() string { return "udp/" + p.Name }

// Peers are all servers, ours first.
func Peers() []Peer {
	return []Peer{
		{"ours", "", serveOurs},
		{"net", "", serveNet},
		{"xnet-batch", "golang.org/x/net", serveBatch},
		{"gnet", "github.com/panjf2000/gnet/v2", serveGnet},
	}
}

// Servers are the bodies of the processes, by name.
func Servers() map[string]proc.Server {
	servers := map[string]proc.Server{}
	for _, p := range Peers() {
		servers[p.Server()] = p.serve
	}
	return servers
}

// datagram is larger than any that the load sends.
const datagram = 2048

func listen() (*net.UDPConn, error) {
	return net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
}

// ended reports a server that stopped serving, and ends its process.
func ended(err error) {
	fmt.Fprintln(os.Stderr, "server ended:", err)
	os.Exit(1)
}

// serveNet reads and writes one datagram at a time, without an allocation.
func serveNet(c *proc.Child) error {
	conn, err := listen()
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, datagram)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				ended(err)
			}
			if _, err := conn.WriteToUDPAddrPort(buf[:n], from); err != nil {
				ended(err)
			}
		}
	}()
	if err := c.Ready(conn.LocalAddr().String()); err != nil {
		return err
	}
	return c.Commands(nil)
}

// serveBatch moves up to 32 datagrams per system call.
func serveBatch(c *proc.Child) error {
	conn, err := listen()
	if err != nil {
		return err
	}
	go func() {
		batch := ipv4.NewPacketConn(conn)
		buffers := make([][]byte, 32)
		messages := make([]ipv4.Message, len(buffers))
		for i := range messages {
			buffers[i] = make([]byte, datagram)
			messages[i].Buffers = [][]byte{nil}
		}
		for {
			for i := range messages {
				messages[i].Buffers[0] = buffers[i]
			}
			n, err := batch.ReadBatch(messages, 0)
			if err != nil {
				ended(err)
			}
			for i := range n {
				messages[i].Buffers[0] = buffers[i][:messages[i].N]
			}
			for sent := 0; sent < n; {
				k, err := batch.WriteBatch(messages[sent:n], 0)
				if err != nil {
					ended(err)
				}
				sent += k
			}
		}
	}()
	if err := c.Ready(conn.LocalAddr().String()); err != nil {
		return err
	}
	return c.Commands(nil)
}

type gnetServer struct {
	gnet.BuiltinEventEngine
	ready func()
}

func (s *gnetServer) OnBoot(gnet.Engine) gnet.Action {
	s.ready()
	return gnet.None
}

func (s *gnetServer) OnTraffic(c gnet.Conn) gnet.Action {
	in, err := c.Next(-1)
	if err != nil {
		return gnet.None
	}
	_, _ = c.Write(in) // a datagram that cannot be sent is a lost one
	return gnet.None
}

func serveGnet(c *proc.Child) error {
	probe, err := listen()
	if err != nil {
		return err
	}
	addr := probe.LocalAddr().String()
	if err := probe.Close(); err != nil {
		return err
	}
	booted := make(chan struct{})
	go func() {
		ended(gnet.Run(&gnetServer{ready: func() { close(booted) }}, "udp://"+addr,
			gnet.WithMulticore(true), gnet.WithLogLevel(gnetlog.ErrorLevel)))
	}()
	<-booted
	if err := c.Ready(addr); err != nil {
		return err
	}
	return c.Commands(nil)
}

// raw is the simplest codec: a package is the bytes of one datagram. It may alias them, because
// the handler runs before the next read.
type raw struct{}

func (raw) Read(_ getty.Session, b []byte) (any, int, error) { return b, len(b), nil }

func (raw) Write(_ getty.Session, pkg any) ([]byte, error) { return pkg.([]byte), nil }

func (raw) AppendPkg(dst []byte, _ getty.Session, pkg any) ([]byte, error) {
	return append(dst, pkg.([]byte)...), nil
}

type ourHandler struct{}

func (ourHandler) OnOpen(getty.Session) error   { return nil }
func (ourHandler) OnClose(getty.Session)        {}
func (ourHandler) OnError(getty.Session, error) {}
func (ourHandler) OnCron(getty.Session)         {}

// OnMessage sends the UDPContext back to where it came from.
func (ourHandler) OnMessage(s getty.Session, pkg any) {
	_, _, _ = s.WritePkg(pkg, 0) // a datagram that cannot be sent is a lost one
}

// serveOurs is ours with its shipping defaults: one unconnected endpoint, Inline.
func serveOurs(c *proc.Child) error {
	server := getty.NewUDPEndPoint(getty.WithLocalAddress("127.0.0.1:0"))
	err := server.RunEventLoop(func(s getty.Session) error {
		if err := s.SetEventListener(ourHandler{}); err != nil {
			return err
		}
		return s.SetPkgHandler(raw{})
	})
	if err != nil {
		return err
	}
	if err := c.Ready(server.Addr().String()); err != nil {
		return err
	}
	return c.Commands(nil)
}
