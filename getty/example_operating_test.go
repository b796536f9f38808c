// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
)

// listen starts s for lines, which l hears.
func listen(s getty.EndPoint, l getty.EventListener) error {
	return s.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(l)
		return s.SetPkgHandler(&codec.Line{})
	})
}

// shutDown ends endpoints.
func shutDown(all ...getty.EndPoint) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, e := range all {
		_, _ = e.Shutdown(ctx)
	}
}

// What a server sets that strangers can reach.
func ExampleServerOptions() {
	banned := net.ParseIP("127.0.0.1")
	server := getty.NewTCPServer(getty.WithLocalAddress("127.0.0.1:0"), func(o *getty.ServerOptions) {
		o.MaxSessions = 10_000
		o.MaxSessionsPerAddr = 100
		o.Admit = func(addr net.Addr) error { // before anything is done for a connection
			if tcp, ok := addr.(*net.TCPAddr); ok && tcp.IP.Equal(banned) {
				return errors.New("banned")
			}
			return nil
		}
		o.MaxMsgLen = 64 << 10
		o.IdleTimeout = 2 * time.Minute
		o.ReadRate = getty.ReadRate{Packages: 1000, Bytes: 1 << 20} // of each session, in a second
		o.MemoryBudget = 512 << 20                                  // of all sessions together
		o.MaxLifetime = time.Hour
	})
	if err := listen(server, getty.Funcs{Message: upper}); err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = conn.Read(make([]byte, 1)) // closed
	fmt.Println(err != nil, server.Stats().Refusals.Admit)
	// Output: true 1
}

// The context of a session ends with it: what a handler has begun for a client that has gone is
// given up.
func ExampleSession_Context() {
	given := make(chan error, 1)
	server := getty.NewTCPServer()
	err := listen(server, getty.Funcs{Message: func(s getty.Session, _ any) {
		go func() { // a query of a database, for example
			<-s.Context().Done()
			given <- context.Cause(s.Context())
		}()
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()))
	_ = listen(client, getty.Funcs{Open: func(s getty.Session) error {
		_, _, err := s.WritePkg("what is the answer?", 0)
		s.Close()
		return err
	}})
	fmt.Println(<-given)
	shutDown(client, server)
	// Output: EOF
}

// A WebSocket peer is told why its session is closed.
func ExampleSession_CloseWith() {
	server := getty.NewWSServer()
	err := listen(server, getty.Funcs{Open: func(s getty.Session) error {
		s.CloseWith(&getty.CloseError{Code: 4001, Reason: "logged in elsewhere"})
		return nil
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	cause := make(chan error, 1)
	client := getty.NewWSClient(getty.WithServerAddress("ws://"+server.Addr().String()+"/"),
		func(o *getty.ClientOptions) { o.ReconnectInterval = time.Minute })
	_ = listen(client, getty.Funcs{Error: func(_ getty.Session, err error) { cause <- err }})
	var told *getty.CloseError
	fmt.Println(errors.As(<-cause, &told), told.Code, told.Reason)
	shutDown(client, server)
	// Output: true 4001 logged in elsewhere
}

// A room keeps its members: whatever ends a session removes it.
func ExampleSession_OnEnd() {
	var members atomic.Int64
	empty := make(chan int64, 1)
	server := getty.NewTCPServer()
	err := listen(server, getty.Funcs{Message: func(s getty.Session, _ any) {
		members.Add(1)
		s.OnEnd(func(getty.Session) { empty <- members.Add(-1) })
		s.Close()
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()),
		func(o *getty.ClientOptions) { o.ReconnectInterval = time.Minute })
	_ = listen(client, getty.Funcs{Open: func(s getty.Session) error {
		_, _, err := s.WritePkg("join", 0)
		return err
	}})
	fmt.Println(<-empty)
	shutDown(client, server)
	// Output: 0
}

// What a server does, seen from outside of its handlers.
func ExampleTrace() {
	var decoded atomic.Int64
	ended := make(chan error, 1)
	server := getty.NewTCPServer(func(o *getty.ServerOptions) {
		o.TimeCallbacks = true
		o.SlowHandler = time.Second // logged with the handler's stack
		o.Trace = &getty.Trace{
			Decoded: func(_ getty.Session, pkgs int) { decoded.Add(int64(pkgs)) },
			Ended:   func(_ getty.Session, err error) { ended <- err },
		}
	})
	if err := listen(server, getty.Funcs{}); err != nil {
		fmt.Println(err)
		return
	}
	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = conn.Write([]byte("one\ntwo\n"))
	_ = conn.Close()
	fmt.Println(<-ended, decoded.Load())
	shutDown(server)
	// Output: EOF 2
}
