// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/proxyproto"
)

// A gateway connects each session of its server with a backend, byte for byte. The session of the
// client and that of the backend are a pair: what one reads the other writes, and while that one's
// peer takes nothing, nothing more is read.
type gateway struct {
	front *getty.Server // clients
	back  *getty.Server // connections to the backend, each adopted
	cfg   config
}

// A config says what a gateway does.
type config struct {
	Backend string // host:port

	// Proxy is the version of the PROXY header that the backend gets, 0: none.
	Proxy int

	// Front changes the options of the server: its address, TLS, a Handshake that reads headers.
	Front func(*getty.ServerOptions)
}

// start begins to serve.
func start(cfg config) (*gateway, error) {
	both := func(o *getty.ServerOptions) {
		// A handler that waits for the other side stops the reading of its own: that is all the
		// backpressure there has to be. What is read is then still in the buffer of the read.
		o.Dispatch = getty.Inline
		o.HighWater = 64 << 10
		o.WriteTimeout = 2 * time.Minute
		o.IdleTimeout = 10 * time.Minute
	}
	g := &gateway{cfg: cfg, back: getty.NewConnServer(both)}
	g.front = getty.NewTCPServer(both, cfg.Front)
	// Every connection is adopted with a preparation of its own.
	if err := g.back.RunEventLoop(func(getty.Session) error { return errNotAdopted }); err != nil {
		return nil, err
	}
	if err := g.front.RunEventLoop(g.client); err != nil {
		g.back.Close()
		return nil, err
	}
	return g, nil
}

var errNotAdopted = errors.New("gateway: a connection without a client")

// shutdown lets what was read reach the other side, and ends. The backends are last: until then
// they may answer.
func (g *gateway) shutdown(ctx context.Context) error {
	_, err := g.front.Shutdown(ctx)
	_, err2 := g.back.Shutdown(ctx)
	return errors.Join(err, err2)
}

// client prepares the session of a client.
func (g *gateway) client(s getty.Session) error {
	p := &pair{gateway: g, client: s, opened: make(chan getty.Session, 1)}
	return p.prepare(s)
}

// A pair is a client and its backend, and the listener of both.
type pair struct {
	gateway         *gateway
	client, backend getty.Session
	opened          chan getty.Session // tells connect of the backend
	ended           atomic.Int32       // directions whose stream has ended
}

// prepare prepares either session.
func (p *pair) prepare(s getty.Session) error {
	if err := s.SetEventListener(p); err != nil {
		return err
	}
	return s.SetPkgHandler(raw{})
}

// connect dials the backend. It runs in the client's OnOpen, which delays nobody else.
func (p *pair) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.gateway.cfg.Backend)
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	if v := p.gateway.cfg.Proxy; v != 0 {
		head, err := proxyproto.Header(v, p.client.Conn().RemoteAddr(), p.client.Conn().LocalAddr())
		if err == nil {
			_, err = conn.Write(head) // the first bytes of a connection find room
		}
		if err != nil {
			_ = conn.Close()
			return err
		}
	}
	s, err := p.gateway.back.Adopt(conn, p.prepare)
	if err != nil {
		_ = conn.Close()
		return err
	}
	select {
	case p.backend = <-p.opened:
		return nil
	case <-ctx.Done():
		s.CloseNow()
		return ctx.Err()
	}
}

// OnOpen implements getty.EventListener.
func (p *pair) OnOpen(s getty.Session) error {
	if s == p.client {
		return p.connect()
	}
	p.opened <- s
	return nil
}

// other is the session that the bytes of s go to.
func (p *pair) other(s getty.Session) getty.Session {
	if s == p.client {
		return p.backend
	}
	return p.client
}

// OnMessage implements getty.EventListener: it passes on what was read, and returns when the kernel
// has it. b is the buffer of the read, which is not used again before.
func (p *pair) OnMessage(s getty.Session, pkg any) {
	to := p.other(s)
	if _, err := to.WriteBytesContext(to.Context(), pkg.([]byte)); err != nil {
		s.CloseWith(fmt.Errorf("gateway: the other side: %w", err))
	}
}

// OnReadEnd implements getty.ReadEndListener: the end of one direction is passed on, and the other
// direction goes on.
func (p *pair) OnReadEnd(s getty.Session) {
	to := p.other(s)
	if err := to.CloseWrite(); err != nil {
		to.Close()
	}
	if p.ended.Add(1) == 2 {
		to.Close()
		s.Close()
	}
}

// OnClose implements getty.EventListener.
func (p *pair) OnClose(s getty.Session) {
	if to := p.other(s); to != nil { // a client whose backend could not be reached has none
		to.Close()
	}
}

// OnCron implements getty.EventListener.
func (p *pair) OnCron(getty.Session) {}

// OnError implements getty.EventListener. The session that fails logs nothing by itself.
func (p *pair) OnError(getty.Session, error) {}

// raw is a codec for which all that was read is one package.
type raw struct{}

func (raw) Read(_ getty.Session, b []byte) (any, int, error) { return b, len(b), nil }

func (raw) Write(_ getty.Session, pkg any) ([]byte, error) {
	return nil, fmt.Errorf("gateway: a package %T", pkg) // only bytes are written
}
