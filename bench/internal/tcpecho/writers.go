// SPDX-License-Identifier: Apache-2.0

package tcpecho

import (
	"context"
	"encoding/binary"
	"net"
	"sync"

	dubbo "github.com/apache/dubbo-getty"
	"github.com/lesismal/nbio"
	nbiolog "github.com/lesismal/nbio/logging"
	"github.com/panjf2000/gnet/v2"
	gnetlog "github.com/panjf2000/gnet/v2/pkg/logging"

	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/wire"
)

// Servers of many writers: asked by one frame that begins with a number, 64 goroutines each send
// so many frames on that connection, with the call that the engine offers for writing from any
// goroutine.

// Writers are these servers.
func Writers() []Peer {
	return []Peer{
		{Name: "ours-inline", serve: writersOurs},
		{Name: "net-write-each", serve: writersNet},
		{Name: "gnet", Module: "github.com/panjf2000/gnet/v2", serve: writersGnet},
		{Name: "nbio", Module: "github.com/lesismal/nbio", serve: writersNbio},
		{Name: "dubbo-getty", Module: "github.com/apache/dubbo-getty", serve: writersDubbo},
	}
}

// WritersServer is the name of the process that runs this one of [Writers].
func (p Peer) WritersServer() string { return "tcp-writers/" + p.Name }

// writeAll lets 64 goroutines send n payloads each and waits for them. send must not keep the
// payload.
func writeAll(n uint64, size int, send func(payload []byte) error) {
	var wg sync.WaitGroup
	for writer := range uint64(load.Writers) {
		wg.Go(func() {
			payload := make([]byte, size)
			for i := range n {
				wire.Fill(payload, writer, i)
				if send(payload) != nil {
					return // the connection is gone, and the load says so
				}
			}
		})
	}
	wg.Wait()
}

// order is what a request asks for: frames per writer, and their size.
func order(payload []byte) (n uint64, size int) {
	if len(payload) < 16 {
		return 0, 0
	}
	return binary.BigEndian.Uint64(payload), len(payload)
}

// writersNet makes one system call per package, which is what net.Conn offers to writers that do
// not know of each other.
func writersNet(_ Config, c *proc.Child) error {
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
			go func() {
				defer conn.Close()
				buf := make([]byte, netBuffer)
				have := 0
				for {
					got, err := conn.Read(buf[have:])
					if err != nil {
						return
					}
					have += got
					size, err := wire.Size(buf[:have])
					if err != nil {
						return
					}
					if size == 0 || have < size {
						continue
					}
					n, length := order(buf[wire.Header:size])
					have = copy(buf, buf[size:have])
					pool := sync.Pool{New: func() any { return new([]byte) }}
					writeAll(n, length, func(payload []byte) error {
						frame := pool.Get().(*[]byte)
						*frame = wire.Append((*frame)[:0], payload)
						_, err := conn.Write(*frame)
						pool.Put(frame)
						return err
					})
				}
			}()
		}
	}()
	if err := c.Ready(ln.Addr().String()); err != nil {
		return err
	}
	return c.Commands(nil)
}

// gnet writes from other goroutines by AsyncWrite, which keeps the slice.
type gnetWriters struct{ gnetServer }

func (s *gnetWriters) OnTraffic(c gnet.Conn) gnet.Action {
	in, err := c.Peek(-1)
	if err != nil {
		return gnet.Close
	}
	size, err := wire.Size(in)
	if err != nil {
		return gnet.Close
	}
	if size == 0 || len(in) < size {
		return gnet.None
	}
	n, length := order(in[wire.Header:size])
	if _, err := c.Discard(size); err != nil {
		return gnet.Close
	}
	go writeAll(n, length, func(payload []byte) error {
		return c.AsyncWrite(wire.Append(make([]byte, 0, wire.Header+length), payload), nil)
	})
	return gnet.None
}

func writersGnet(_ Config, c *proc.Child) error {
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
		return gnet.Run(&gnetWriters{gnetServer{ready: func() { close(booted) }}}, "tcp://"+addr,
			gnet.WithMulticore(true), gnet.WithLogLevel(gnetlog.ErrorLevel))
	})
}

// nbio's Write may be called from anywhere.
func writersNbio(_ Config, c *proc.Child) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	nbiolog.SetLevel(nbiolog.LevelError)
	engine := nbio.NewEngine(nbio.Config{Network: "tcp", Addrs: []string{addr}})
	pool := sync.Pool{New: func() any { return new([]byte) }}
	engine.OnData(func(conn *nbio.Conn, data []byte) {
		// The request is one small frame and arrives whole.
		size, err := wire.Size(data)
		if err != nil || size == 0 || len(data) < size {
			conn.Close()
			return
		}
		n, length := order(data[wire.Header:size])
		go writeAll(n, length, func(payload []byte) error {
			frame := pool.Get().(*[]byte)
			*frame = wire.Append((*frame)[:0], payload)
			_, err := conn.Write(*frame)
			pool.Put(frame)
			return err
		})
	})
	if err := engine.Start(); err != nil {
		return err
	}
	if err := c.Ready(addr); err != nil {
		return err
	}
	return c.Commands(nil)
}

// dubbo-getty: WritePkg from any goroutine.
type dubboWriters struct{ dubboHandler }

func (dubboWriters) OnMessage(s dubbo.Session, pkg interface{}) {
	n, length := order(pkg.([]byte))
	go writeAll(n, length, func(payload []byte) error {
		_, _, err := s.WritePkg(payload, oldWriteTimeout)
		return err
	})
}

func writersDubbo(_ Config, c *proc.Child) error {
	return runDubbo(c, dubboWriters{}, dubbo.CompressNone)
}
