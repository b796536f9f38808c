// SPDX-License-Identifier: Apache-2.0

// Package wsecho holds one WebSocket echo server per peer, each a process of its own. All echo
// binary messages on the path /ws, with compression off.
package wsecho

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"

	"github.com/coder/websocket"
	gobwas "github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	nbws "github.com/lesismal/nbio/nbhttp/websocket"
	"github.com/lxzan/gws"

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
func (p Peer) Server() string { return "ws/" + p.Name }

// Peers are all servers, ours first.
func Peers() []Peer {
	return []Peer{
		{"ours", "", serveOurs},
		{"ours-inline", "", serveInline},
		{"gorilla", "github.com/gorilla/websocket", onHTTP(echoGorilla)},
		{"gws", "github.com/lxzan/gws", onHTTP(gwsHandler())},
		{"coder", "github.com/coder/websocket", onHTTP(echoCoder)},
		{"gobwas", "github.com/gobwas/ws", onHTTP(echoGobwas)},
		{"nbio", "github.com/lesismal/nbio", serveNbio},
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

// onHTTP serves a handler on net/http.
func onHTTP(handler http.HandlerFunc) func(c *proc.Child) error {
	return func(c *proc.Child) error {
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // as where peers make their own sockets
		ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		mux := http.NewServeMux()
		mux.HandleFunc("/ws", handler)
		go func() {
			err := http.Serve(ln, mux)
			fmt.Fprintln(os.Stderr, "server ended:", err)
			os.Exit(1)
		}()
		if err := c.Ready(ln.Addr().String()); err != nil {
			return err
		}
		return c.Commands(nil)
	}
}

var upgrader gorilla.Upgrader

func echoGorilla(w http.ResponseWriter, r *http.Request) {
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer conn.Close()
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			return
		}
		if err := conn.WriteMessage(kind, message); err != nil {
			return
		}
	}
}

type gwsEcho struct{ gws.BuiltinEventHandler }

func (gwsEcho) OnMessage(conn *gws.Conn, message *gws.Message) {
	defer message.Close()
	if err := conn.WriteMessage(message.Opcode, message.Bytes()); err != nil {
		conn.NetConn().Close()
	}
}

// gwsHandler reads on a goroutine of its own, as its documentation advises, so that what net/http
// holds for the request is freed.
func gwsHandler() http.HandlerFunc {
	up := gws.NewUpgrader(gwsEcho{}, &gws.ServerOption{})
	return func(w http.ResponseWriter, r *http.Request) {
		conn, err := up.Upgrade(w, r)
		if err != nil {
			return
		}
		go conn.ReadLoop()
	}
}

func echoCoder(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := context.Background()
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if err := conn.Write(ctx, kind, message); err != nil {
			return
		}
	}
}

func echoGobwas(w http.ResponseWriter, r *http.Request) {
	conn, _, _, err := gobwas.UpgradeHTTP(r, w)
	if err != nil {
		return
	}
	go func() {
		defer conn.Close()
		for {
			message, op, err := wsutil.ReadClientData(conn)
			if err != nil {
				return
			}
			if err := wsutil.WriteServerMessage(conn, op, message); err != nil {
				return
			}
		}
	}()
}

func serveNbio(c *proc.Child) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return err
	}
	logging.SetLevel(logging.LevelError)
	mux := http.NewServeMux()
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		up := nbws.NewUpgrader()
		up.OnMessage(func(conn *nbws.Conn, kind nbws.MessageType, data []byte) {
			if err := conn.WriteMessage(kind, data); err != nil {
				conn.Close()
			}
		})
		_, _ = up.Upgrade(w, r, nil)
	})
	engine := nbhttp.NewEngine(nbhttp.Config{Network: "tcp", Addrs: []string{addr}, Handler: mux, MaxLoad: 1 << 20, NPoller: runtime.NumCPU()})
	if err := engine.Start(); err != nil {
		return err
	}
	if err := c.Ready(addr); err != nil {
		return err
	}
	return c.Commands(nil)
}

// message is the simplest codec: a package is the bytes of one message. It copies them, because
// handlers of Ordered sessions run while the next message is read.
type message struct{}

func (message) Read(_ getty.Session, b []byte) (any, int, error) {
	return append([]byte(nil), b...), len(b), nil
}

func (message) Write(_ getty.Session, pkg any) ([]byte, error) { return pkg.([]byte), nil }

func (message) AppendPkg(dst []byte, _ getty.Session, pkg any) ([]byte, error) {
	return append(dst, pkg.([]byte)...), nil
}

type ourHandler struct{}

func (ourHandler) OnOpen(getty.Session) error   { return nil }
func (ourHandler) OnClose(getty.Session)        {}
func (ourHandler) OnError(getty.Session, error) {}
func (ourHandler) OnCron(getty.Session)         {}

func (ourHandler) OnMessage(s getty.Session, pkg any) {
	_, _, err := s.WritePkg(pkg, 0)
	if errors.Is(err, getty.ErrSessionBlocked) {
		_, _, err = s.WritePkg(pkg, -1) // the queue is full: wait for room, and read no more
	}
	if err != nil {
		s.CloseNow()
	}
}

// serveOurs is ours with its shipping defaults, which is Ordered on WebSocket.
func serveOurs(c *proc.Child) error { return runOurs(c) }

func serveInline(c *proc.Child) error { return runOurs(c, getty.WithServerDispatch(getty.Inline)) }

func runOurs(c *proc.Child, options ...getty.ServerOption) error {
	options = append(options, getty.WithLocalAddress("127.0.0.1:0"), func(o *getty.ServerOptions) { o.WebSocket.Path = "/ws" })
	server := getty.NewWSServer(options...)
	err := server.RunEventLoop(func(s getty.Session) error {
		if err := s.SetEventListener(ourHandler{}); err != nil {
			return err
		}
		return s.SetPkgHandler(message{})
	})
	if err != nil {
		return err
	}
	if err := c.Ready(server.Addr().String()); err != nil {
		return err
	}
	return c.Commands(nil)
}
