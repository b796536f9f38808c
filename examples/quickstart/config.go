// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"io"
	"net"

	"github.com/gostkit/kit/getty"
)

// A config is what the flags say.
type config struct {
	serve    bool
	messages int
	size     int
	sessions int
	tcp      string
	udp      string
	ws       string
	pool     string
}

// maxSize keeps a window of messages below what a session queues at most, so that
// no client waits for a server that waits for it; and a message within a datagram.
const maxSize = 60000

// parse reads the flags. What it complains about fits one line.
func parse(args []string, help io.Writer) (*config, error) {
	var c config
	f := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the caller prints the error, once
	f.BoolVar(&c.serve, "serve", false, "keep the servers up until interrupted, and say how to try them")
	f.IntVar(&c.messages, "messages", 30000, "messages that each client sends, over all of its sessions")
	f.IntVar(&c.size, "size", 64, fmt.Sprintf("`bytes` of a message, %d to %d", minSize, maxSize))
	f.IntVar(&c.sessions, "sessions", 8, "sessions of each client, 1 to 1000")
	f.StringVar(&c.tcp, "tcp", "127.0.0.1:0", "`address` of the TCP server")
	f.StringVar(&c.udp, "udp", "127.0.0.1:0", "`address` of the UDP server")
	f.StringVar(&c.ws, "ws", "127.0.0.1:0", "`address` of the WebSocket server")
	f.StringVar(&c.pool, "pool", "none", "where the servers handle messages: ordered, unordered, or none for each transport's default")
	if err := f.Parse(args); err != nil {
		if err == flag.ErrHelp {
			fmt.Fprintln(help, "Usage: quickstart [flags]")
			f.SetOutput(help)
			f.PrintDefaults()
		}
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case c.messages < 1 || c.messages > 100_000_000:
		return nil, fmt.Errorf("-messages %d: want 1 to 100000000", c.messages)
	case c.size < minSize || c.size > maxSize:
		return nil, fmt.Errorf("-size %d: want %d to %d", c.size, minSize, maxSize)
	case c.sessions < 1 || c.sessions > 1000:
		return nil, fmt.Errorf("-sessions %d: want 1 to 1000", c.sessions)
	case c.sessions > c.messages:
		return nil, fmt.Errorf("-sessions %d: more than -messages %d", c.sessions, c.messages)
	}
	if _, err := c.dispatch(); err != nil {
		return nil, err
	}
	for _, a := range []struct{ name, addr string }{{"tcp", c.tcp}, {"udp", c.udp}, {"ws", c.ws}} {
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			return nil, fmt.Errorf("-%s %q: want host:port", a.name, a.addr)
		}
	}
	return &c, nil
}

// dispatch translates -pool.
func (c *config) dispatch() (getty.Dispatch, error) {
	switch c.pool {
	case "none":
		return getty.DispatchAuto, nil
	case "ordered":
		return getty.Ordered, nil
	case "unordered":
		return getty.Unordered, nil
	}
	return 0, fmt.Errorf("-pool %q: want ordered, unordered or none", c.pool)
}

// Messages on their way per session. A socket's receive buffer holds a few
// hundred datagrams, and all sessions of the UDP server share one.
const (
	streamWindow   = 16
	datagramWindow = 4
)

// lanes divides the messages among the sessions.
func (c *config) lanes(stream bool) []*lane {
	window := datagramWindow
	if stream {
		window = streamWindow
	}
	lanes := make([]*lane, c.sessions)
	for i := range lanes {
		share := c.messages / c.sessions
		if i < c.messages%c.sessions {
			share++
		}
		l := newLane(i, c.size, share, window)
		l.lossy = !stream
		l.inOrder = stream && c.pool != "unordered" // such servers answer in any order
		lanes[i] = l
	}
	return lanes
}
