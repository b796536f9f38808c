// SPDX-License-Identifier: Apache-2.0

package tcpecho

import (
	"fmt"
	"net"
	"time"

	alex "github.com/AlexStocks/getty/transport"
	alexlog "github.com/AlexStocks/getty/util"
	dubbo "github.com/apache/dubbo-getty"
	gxsync "github.com/dubbogo/gost/sync"

	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/wire"
)

// The predecessors. Their sessions are set up as their own benchmark sets them up, with the read
// timeout of their examples. A package is its payload; the reader copies it, because the buffer
// is reused while a pool still works on the package.

// oldRead is the Reader of both.
func oldRead(data []byte) (any, int, error) {
	n, err := wire.Size(data)
	if err != nil || n == 0 {
		return nil, 0, err
	}
	if len(data) < n {
		return nil, n, nil
	}
	return append([]byte(nil), data[wire.Header:n]...), n, nil
}

// oldWrite is the Writer of both.
func oldWrite(pkg any) ([]byte, error) {
	payload, ok := pkg.([]byte)
	if !ok {
		return nil, fmt.Errorf("unexpected package %T", pkg)
	}
	return wire.Append(make([]byte, 0, wire.Header+len(payload)), payload), nil
}

// tune sets the socket options of their benchmark.
func tune(conn net.Conn) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("unexpected connection %T", conn)
	}
	if err := tcp.SetNoDelay(true); err != nil {
		return err
	}
	if err := tcp.SetReadBuffer(262144); err != nil {
		return err
	}
	return tcp.SetWriteBuffer(524288)
}

const (
	oldMaxMsgLen    = 128 << 10
	oldReadTimeout  = time.Second
	oldWriteTimeout = 5 * time.Second
	oldCronPeriod   = 20000 // milliseconds
	oldWaitTime     = time.Second
	// OldPause between connects: without it they panic, because the queue of their timer is full.
	OldPause = time.Millisecond / 2
)

type dubboHandler struct{}

func (dubboHandler) OnOpen(dubbo.Session) error   { return nil }
func (dubboHandler) OnClose(dubbo.Session)        {}
func (dubboHandler) OnError(dubbo.Session, error) {}
func (dubboHandler) OnCron(dubbo.Session)         {}

func (dubboHandler) OnMessage(s dubbo.Session, pkg interface{}) {
	if _, _, err := s.WritePkg(pkg, oldWriteTimeout); err != nil {
		s.Close()
	}
}

func (dubboHandler) Read(_ dubbo.Session, data []byte) (interface{}, int, error) {
	return oldRead(data)
}

func (dubboHandler) Write(_ dubbo.Session, pkg interface{}) ([]byte, error) { return oldWrite(pkg) }

func serveDubbo(_ Config, c *proc.Child) error {
	return runDubbo(c, dubboHandler{}, dubbo.CompressNone)
}

// ServeDubboZip is the body of a dubbo-getty server whose connections are DEFLATE streams. With its
// CompressSnappy it sends nothing before 64 KiB of answers wait, since it never flushes.
func ServeDubboZip(c *proc.Child) error { return runDubbo(c, dubboHandler{}, dubbo.CompressZip) }

// serveDubboPool hands messages to a pool, as its documentation advises for handlers that take
// long. It may reorder the messages of a session.
func serveDubboPool(_ Config, c *proc.Child) error {
	return runDubbo(c, dubboHandler{}, dubbo.CompressNone, dubbo.WithServerTaskPool(gxsync.NewTaskPoolSimple(2000)))
}

func runDubbo(c *proc.Child, listener dubbo.EventListener, compress dubbo.CompressType, options ...dubbo.ServerOption) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	if err := dubbo.SetLoggerLevel(dubbo.LoggerLevelError); err != nil {
		return err
	}
	server := dubbo.NewTCPServer(append(options, dubbo.WithLocalAddress(addr))...)
	server.RunEventLoop(func(s dubbo.Session) error {
		if err := tune(s.Conn()); err != nil {
			return err
		}
		if compress != dubbo.CompressNone { // with which it speaks DEFLATE of level 0
			s.SetCompressType(compress)
		}
		s.SetMaxMsgLen(oldMaxMsgLen)
		s.SetReadTimeout(oldReadTimeout)
		s.SetWriteTimeout(oldWriteTimeout)
		s.SetCronPeriod(oldCronPeriod)
		s.SetWaitTime(oldWaitTime)
		s.SetPkgHandler(dubboHandler{})
		s.SetEventListener(listener)
		return nil
	})
	if err := c.Ready(addr); err != nil {
		return err
	}
	return c.Commands(nil)
}

type alexHandler struct{}

func (alexHandler) OnOpen(alex.Session) error   { return nil }
func (alexHandler) OnClose(alex.Session)        {}
func (alexHandler) OnError(alex.Session, error) {}
func (alexHandler) OnCron(alex.Session)         {}

func (alexHandler) OnMessage(s alex.Session, pkg any) {
	if _, _, err := s.WritePkg(pkg, oldWriteTimeout); err != nil {
		s.Close()
	}
}

func (alexHandler) Read(_ alex.Session, data []byte) (any, int, error) { return oldRead(data) }

func (alexHandler) Write(_ alex.Session, pkg any) ([]byte, error) { return oldWrite(pkg) }

func serveAlex(_ Config, c *proc.Child) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	alexlog.SetLoggerLevel(alexlog.LoggerLevelError)
	server := alex.NewTCPServer(alex.WithLocalAddress(addr))
	server.RunEventLoop(func(s alex.Session) error {
		if err := tune(s.Conn()); err != nil {
			return err
		}
		s.SetMaxMsgLen(oldMaxMsgLen)
		s.SetReadTimeout(oldReadTimeout)
		s.SetWriteTimeout(oldWriteTimeout)
		s.SetCronPeriod(oldCronPeriod)
		s.SetWaitTime(oldWaitTime)
		s.SetPkgHandler(alexHandler{})
		s.SetEventListener(alexHandler{})
		return nil
	})
	if err := c.Ready(addr); err != nil {
		return err
	}
	return c.Commands(nil)
}
