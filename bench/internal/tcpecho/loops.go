// SPDX-License-Identifier: Apache-2.0

package tcpecho

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/Allenxuxu/gev"
	gevlog "github.com/Allenxuxu/gev/log"
	gevring "github.com/Allenxuxu/ringbuffer"
	"github.com/cloudwego/netpoll"
	"github.com/lesismal/nbio"
	nbiolog "github.com/lesismal/nbio/logging"
	"github.com/panjf2000/gnet/v2"
	gnetlog "github.com/panjf2000/gnet/v2/pkg/logging"
	"github.com/tidwall/evio"

	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/wire"
)

// Engines with event loops of their own.

// answer runs serve in a goroutine and obeys the parent until it hangs up; it fails when serve
// ends first. The process exits afterwards, which is how a server without a parent ends.
func answer(c *proc.Child, serve func() error) error {
	go func() {
		err := serve()
		fmt.Fprintln(os.Stderr, "server ended:", err)
		os.Exit(1)
	}()
	return c.Commands(nil)
}

// gnet: the handler runs on the loop and must drain the inbound buffer.
type gnetServer struct {
	gnet.BuiltinEventEngine
	ready func()
}

func (s *gnetServer) OnBoot(gnet.Engine) gnet.Action {
	s.ready()
	return gnet.None
}

// OnOpen gives a connection its output buffer; it is reused for every answer.
func (s *gnetServer) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	c.SetContext(new([]byte))
	return nil, gnet.None
}

func (s *gnetServer) OnTraffic(c gnet.Conn) gnet.Action {
	in, err := c.Peek(-1)
	if err != nil {
		return gnet.Close
	}
	buf := c.Context().(*[]byte)
	out, used, err := wire.Echo((*buf)[:0], in)
	if err != nil {
		return gnet.Close
	}
	*buf = out
	if used > 0 { // Discard(0) would discard everything
		if _, err := c.Discard(used); err != nil {
			return gnet.Close
		}
		if _, err := c.Write(out); err != nil {
			return gnet.Close
		}
	}
	return gnet.None
}

func serveGnet(_ Config, c *proc.Child) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	booted := make(chan struct{})
	go func() {
		<-booted
		c.Ready(addr)
	}()
	return answer(c, func() error {
		return gnet.Run(&gnetServer{ready: func() { close(booted) }}, "tcp://"+addr,
			gnet.WithMulticore(true), gnet.WithLogLevel(gnetlog.ErrorLevel))
	})
}

// netpoll: the handler runs on a pooled goroutine and reads through a zero-copy reader.
func netpollHandler(_ context.Context, conn netpoll.Connection) error {
	r, w := conn.Reader(), conn.Writer()
	pending := false
	for r.Len() > 0 {
		// What is complete is answered before waiting for more.
		if pending && !netpollComplete(r) {
			if err := w.Flush(); err != nil {
				return err
			}
			pending = false
		}
		head, err := r.Peek(wire.Header)
		if err != nil {
			return err
		}
		n, err := wire.Size(head)
		if err != nil {
			return conn.Close()
		}
		in, err := r.Next(n)
		if err != nil {
			return err
		}
		out, err := w.Malloc(n)
		if err != nil {
			return err
		}
		binary.BigEndian.PutUint32(out, uint32(n-wire.Header))
		copy(out[wire.Header:], in[wire.Header:])
		pending = true
	}
	if err := r.Release(); err != nil {
		return err
	}
	return w.Flush()
}

// netpollComplete reports whether the next frame is there in full.
func netpollComplete(r netpoll.Reader) bool {
	if r.Len() < wire.Header {
		return false
	}
	head, err := r.Peek(wire.Header)
	if err != nil {
		return false
	}
	n, err := wire.Size(head)
	return err == nil && r.Len() >= n
}

func serveNetpoll(_ Config, c *proc.Child) error { return runNetpoll(c) }

// serveNetpollCores sets as many pollers as the machine has CPUs: the default is one per twenty.
func serveNetpollCores(cfg Config, c *proc.Child) error {
	if err := netpoll.Configure(netpoll.Config{PollerNum: cfg.CPUs}); err != nil {
		return err
	}
	return runNetpoll(c)
}

func runNetpoll(c *proc.Child) error {
	ln, err := netpoll.CreateListener("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	loop, err := netpoll.NewEventLoop(netpollHandler)
	if err != nil {
		return err
	}
	if err := c.Ready(ln.Addr().String()); err != nil {
		return err
	}
	return answer(c, func() error { return loop.Serve(ln) })
}

// nbio: the handler gets what a read returned; the rest of a frame is its own business.
type nbioState struct {
	rest, out []byte
}

func serveNbio(_ Config, c *proc.Child) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	nbiolog.SetLevel(nbiolog.LevelError)
	engine := nbio.NewEngine(nbio.Config{Network: "tcp", Addrs: []string{addr}})
	engine.OnOpen(func(conn *nbio.Conn) { conn.SetSession(&nbioState{}) })
	engine.OnData(func(conn *nbio.Conn, data []byte) {
		s := conn.Session().(*nbioState)
		in := data
		if len(s.rest) > 0 {
			s.rest = append(s.rest, data...)
			in = s.rest
		}
		var used int
		var err error
		s.out, used, err = wire.Echo(s.out[:0], in)
		if err == nil && len(s.out) > 0 {
			_, err = conn.Write(s.out)
		}
		if err != nil {
			conn.Close()
			return
		}
		s.rest = append(s.rest[:0], in[used:]...)
	})
	if err := engine.Start(); err != nil {
		return err
	}
	if err := c.Ready(addr); err != nil {
		return err
	}
	return c.Commands(nil)
}

// gev: a protocol cuts packets from the ring, the handler answers each, and the answers of one
// event leave in one write.
type gevServer struct{}

func (gevServer) OnConnect(*gev.Connection) {}
func (gevServer) OnClose(*gev.Connection)   {}

func (gevServer) OnMessage(_ *gev.Connection, _ interface{}, data []byte) interface{} { return data }

func (gevServer) UnPacket(c *gev.Connection, ring *gevring.RingBuffer) (interface{}, []byte) {
	// More than the header, as in its own example: a ring read up to its end counts as full.
	if ring.VirtualLength() <= wire.Header {
		return nil, nil
	}
	var head [wire.Header]byte
	ring.VirtualRead(head[:])
	n, err := wire.Size(head[:])
	if err != nil {
		c.Close()
		return nil, nil
	}
	if ring.VirtualLength() < n-wire.Header {
		ring.VirtualRevert()
		return nil, nil
	}
	payload := make([]byte, n-wire.Header)
	ring.VirtualRead(payload)
	ring.VirtualFlush()
	return nil, payload
}

func (gevServer) Packet(_ *gev.Connection, data interface{}) []byte {
	payload := data.([]byte)
	return wire.Append(make([]byte, 0, wire.Header+len(payload)), payload)
}

func serveGev(_ Config, c *proc.Child) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	gevlog.SetLevel(gevlog.LevelError)
	server, err := gev.NewServer(gevServer{}, gev.Network("tcp"), gev.Address(addr), gev.CustomProtocol(gevServer{}))
	if err != nil {
		return err
	}
	if err := c.Ready(addr); err != nil {
		return err
	}
	return answer(c, func() error { server.Start(); return nil })
}

// evio: the handler gets what a read returned and returns what is to be written.
type evioState struct {
	stream evio.InputStream
	out    []byte
}

func serveEvio(_ Config, c *proc.Child) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	events := evio.Events{NumLoops: -1}
	events.Opened = func(conn evio.Conn) ([]byte, evio.Options, evio.Action) {
		conn.SetContext(&evioState{})
		return nil, evio.Options{}, evio.None
	}
	events.Data = func(conn evio.Conn, in []byte) ([]byte, evio.Action) {
		s, ok := conn.Context().(*evioState)
		if !ok || in == nil {
			return nil, evio.None
		}
		data := s.stream.Begin(in)
		out, used, err := wire.Echo(s.out[:0], data)
		if err != nil {
			return nil, evio.Close
		}
		s.out = out
		s.stream.End(data[used:])
		return out, evio.None
	}
	booted := make(chan struct{})
	events.Serving = func(evio.Server) evio.Action {
		close(booted)
		return evio.None
	}
	go func() {
		<-booted
		c.Ready(addr)
	}()
	return answer(c, func() error { return evio.Serve(events, "tcp://"+addr) })
}
