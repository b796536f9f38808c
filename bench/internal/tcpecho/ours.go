// SPDX-License-Identifier: Apache-2.0

package tcpecho

import (
	"errors"
	"fmt"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"

	"github.com/gostkit/kit/bench/internal/proc"
)

// Ours is this project's server with its shipping defaults: the length-field codec, sessions,
// callbacks and all limits on.

// Handler is the listener of this project's servers: it echoes.
type Handler struct{}

func (Handler) OnOpen(getty.Session) error   { return nil }
func (Handler) OnClose(getty.Session)        {}
func (Handler) OnError(getty.Session, error) {}
func (Handler) OnCron(getty.Session)         {}

func (Handler) OnMessage(s getty.Session, pkg any) {
	_, _, err := s.WritePkg(pkg, 0)
	if errors.Is(err, getty.ErrSessionBlocked) {
		_, _, err = s.WritePkg(pkg, -1) // the queue is full: wait for room, and read no more
	}
	if err != nil {
		s.CloseNow()
	}
}

func serveInline(_ Config, c *proc.Child) error { return runOurs(c, getty.Inline, Handler{}) }

// serveOrdered runs the handlers on the engine's own elastic pool.
func serveOrdered(_ Config, c *proc.Child) error { return runOurs(c, getty.Ordered, Handler{}) }

func runOurs(c *proc.Child, dispatch getty.Dispatch, listener getty.EventListener) error {
	frames := &codec.LengthField{}
	server := getty.NewTCPServer(getty.WithLocalAddress("127.0.0.1:0"), getty.WithServerDispatch(dispatch))
	err := server.RunEventLoop(func(s getty.Session) error {
		if err := s.SetEventListener(listener); err != nil {
			return err
		}
		return s.SetPkgHandler(frames)
	})
	if err != nil {
		return err
	}
	if err := c.Ready(server.Addr().String()); err != nil {
		return err
	}
	return c.Commands(held(server))
}

// held answers what the sessions hold of accepted and unsent packages, in bytes.
func held(server *getty.Server) func(command string) (any, error) {
	return func(command string) (any, error) {
		if command != "held" {
			return nil, fmt.Errorf("unknown command %q", command)
		}
		var bytes uint64
		for s := range server.Sessions() {
			bytes += s.Stats().Queued
		}
		return bytes, nil
	}
}

// HighWater is the bound of one session's queue without its last package, in bytes.
const HighWater = getty.DefaultHighWater

// ourWriters answers a request by writing from many goroutines.
type ourWriters struct{ Handler }

func (ourWriters) OnMessage(s getty.Session, pkg any) {
	n, length := order(pkg.(*codec.Frame).Bytes())
	go writeAll(n, length, func(payload []byte) error {
		_, _, err := s.WritePkg(payload, 0)
		if errors.Is(err, getty.ErrSessionBlocked) {
			_, _, err = s.WritePkg(payload, -1) // wait for room
		}
		return err
	})
}

func writersOurs(_ Config, c *proc.Child) error { return runOurs(c, getty.Inline, ourWriters{}) }
