// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
)

// On TCP a message is a frame with four bytes of length before it; a datagram
// and a WebSocket message are messages as they are.
var (
	frames   getty.ReadWriter = &codec.LengthField{MaxLen: maxSize}
	messages getty.ReadWriter = codec.Message{}
)

// servers are the three echo servers.
type servers struct {
	tcp, udp, ws *getty.Server
}

// wsPath is where the WebSocket server answers.
const wsPath = "/echo"

// startServers starts all three or none.
func startServers(c *config) (*servers, error) {
	dispatch, err := c.dispatch()
	if err != nil {
		return nil, err
	}
	with := func(addr string) []getty.ServerOption {
		return []getty.ServerOption{getty.WithLocalAddress(addr), getty.WithServerDispatch(dispatch)}
	}
	s := &servers{
		tcp: getty.NewTCPServer(with(c.tcp)...),
		udp: getty.NewUDPEndPoint(with(c.udp)...),
		ws:  getty.NewWSServer(append(with(c.ws), func(o *getty.ServerOptions) { o.WebSocket.Path = wsPath })...),
	}
	for _, start := range []struct {
		name, addr string
		server     *getty.Server
		codec      getty.ReadWriter
		message    func(getty.Session, any)
	}{
		{"tcp", c.tcp, s.tcp, frames, echoInOrder},
		{"udp", c.udp, s.udp, messages, echoDatagram},
		{"ws", c.ws, s.ws, messages, echoInOrder},
	} {
		err := start.server.RunEventLoop(func(session getty.Session) error {
			return errors.Join(session.SetPkgHandler(start.codec), session.SetEventListener(getty.Funcs{Message: start.message}))
		})
		if err != nil {
			s.stop() // those that run
			return nil, fmt.Errorf("-%s %s: %w", start.name, start.addr, err)
		}
	}
	return s, nil
}

func (s *servers) tcpAddr() string { return s.tcp.Addr().String() }
func (s *servers) udpAddr() string { return s.udp.Addr().String() }
func (s *servers) wsURL() string   { return "ws://" + s.ws.Addr().String() + wsPath }

// stop lets the sessions drain and waits for all of them.
func (s *servers) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for _, server := range []*getty.Server{s.tcp, s.udp, s.ws} {
		report, err := server.Shutdown(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("shutdown: %w, %d sessions drained, %d forced", err, report.Drained, report.Forced))
		}
	}
	return errors.Join(errs...)
}

// describe says where the servers are and how to try them.
func (s *servers) describe(w io.Writer) {
	host, port, _ := net.SplitHostPort(s.tcpAddr())
	fmt.Fprintf(w, "tcp  %s:%s\n", host, port)
	fmt.Fprintf(w, "     printf '\\0\\0\\0\\5hello' | nc -q 1 %s %s | tail -c 5\n", host, port)
	host, port, _ = net.SplitHostPort(s.udpAddr())
	fmt.Fprintf(w, "udp  %s:%s\n", host, port)
	fmt.Fprintf(w, "     printf hello | nc -u -w 1 %s %s\n", host, port)
	// A browser may only connect from a page of the same origin, and a page that
	// says 404 is one.
	fmt.Fprintf(w, "ws   %s\n", s.wsURL())
	fmt.Fprintf(w, "     open http://%s/ in a browser and paste into its console:\n", s.ws.Addr())
	fmt.Fprintf(w, "     w = new WebSocket(%q); w.onmessage = async e => console.log(await new Response(e.data).text()); w.onopen = () => w.send(\"hello\")\n", s.wsURL())
	fmt.Fprintln(w, "interrupt to stop")
}

// echo sends a message back.
func echo(s getty.Session, pkg any) error {
	_, _, err := s.WritePkg(pkg, 0)
	return err
}

// echoDatagram lets go a datagram that cannot be sent: it is a lost one.
func echoDatagram(s getty.Session, pkg any) { _ = echo(s, pkg) }

// echoInOrder closes a session that cannot answer: its peer must not take the next echo for this
// one.
func echoInOrder(s getty.Session, pkg any) {
	if err := echo(s, pkg); err != nil {
		s.Close()
	}
}
