// SPDX-License-Identifier: Apache-2.0

// Package streamecho holds echo servers over TLS and Unix sockets, each a process of its own, and
// what a Go programmer writes by hand in their place. All speak the frames of package wire.
package streamecho

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"

	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/tcpecho"
	"github.com/gostkit/kit/bench/internal/wire"
)

// Peer is one server.
type Peer struct {
	// What it is compared in.
	kind string
	// Name is the subject's name.
	Name string
	// Network is what the load dials, and TLS whether it encrypts.
	Network string
	TLS     bool
	// Snappy and Deflate are how both sides compress, if they do.
	Snappy, Deflate bool
	// Pause is how long to wait between two connects, for a server that does not survive more.
	Pause time.Duration
	serve func(c *proc.Child) error
}

// IdleSnappy are a compressed server of ours and a plain one.
func IdleSnappy() []Peer {
	return []Peer{
		{kind: "snappy", Name: "ours-snappy", Network: "tcp", Snappy: true, serve: serveOurs(func(o *getty.ServerOptions) { o.Compress = getty.CompressSnappy })},
		{kind: "snappy", Name: "ours-plain", Network: "tcp", serve: serveOurs()},
	}
}

// Compressed are a compressed server of ours, and one of the predecessor with the compression of
// its that answers.
func Compressed() []Peer {
	return []Peer{
		IdleSnappy()[0],
		{kind: "deflate", Name: "dubbo-getty", Network: "tcp", Deflate: true, Pause: tcpecho.OldPause, serve: tcpecho.ServeDubboZip},
	}
}

// Echoes are all of these, each once.
func Echoes() []Peer {
	return slices.Concat(TLS(), IdleTLS()[1:], Unix(), IdleSnappy(), Compressed()[1:])
}

// Load is what drives p: what is compressed is text.
func (p Peer) Load(conns, inFlight, payload int) load.Echo {
	return load.Echo{Conns: conns, InFlight: inFlight, Payload: payload, Network: p.Network, TLS: p.TLS,
		Snappy: p.Snappy, Deflate: p.Deflate, Text: p.Snappy || p.Deflate, Pause: p.Pause}
}

// Server is the name of the process that runs this peer.
func (p Peer) Server() string { return "stream/" + p.kind + "/" + p.Name }

// TLS are the servers over TLS, ours first. "each" answers every frame with a write of its own, as
// most programs do; "net" answers all frames of a read in one write.
func TLS() []Peer {
	return []Peer{
		{kind: "tls", Name: "ours", Network: "tcp", TLS: true, serve: serveOurs(func(o *getty.ServerOptions) { o.TLS = serverTLS() })},
		{kind: "tls", Name: "net", Network: "tcp", TLS: true, serve: serveLoop("tcp", serverTLS, tcpecho.Loop)},
		{kind: "tls", Name: "each", Network: "tcp", TLS: true, serve: serveLoop("tcp", serverTLS, loopEach(buffer))},
	}
}

// IdleTLS are the servers whose idle sessions are weighed: "bare" has hardly more than the
// connection and a goroutine that waits in Read.
func IdleTLS() []Peer {
	return append(TLS()[:1], Peer{kind: "tls", Name: "bare", Network: "tcp", TLS: true, serve: serveLoop("tcp", serverTLS, loopEach(wire.Header+64))})
}

// Unix are the servers over Unix sockets.
func Unix() []Peer {
	return []Peer{
		{kind: "unix", Name: "ours", Network: "unix", serve: serveUnix},
		{kind: "unix", Name: "net", Network: "unix", serve: serveLoop("unix", nil, tcpecho.Loop)},
	}
}

// Servers are the bodies of the processes, by name.
func Servers() map[string]proc.Server {
	servers := map[string]proc.Server{}
	for _, p := range append(Echoes(), Proxies()...) {
		if servers[p.Server()] != nil {
			panic("two servers have the name " + p.Server())
		}
		servers[p.Server()] = func(c *proc.Child) error { return p.serve(c) }
	}
	return servers
}

// serverTLS has a new certificate. Tickets are off on all sides: nobody comes back.
func serverTLS() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // of the system's random numbers
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		SessionTicketsDisabled: true,
	}
}

// serveOurs is this project's server with its shipping defaults.
func serveOurs(opts ...getty.ServerOption) func(c *proc.Child) error {
	return func(c *proc.Child) error {
		return begin(c, getty.NewTCPServer(append(opts, getty.WithLocalAddress("127.0.0.1:0"))...), echo)
	}
}

func serveUnix(c *proc.Child) error {
	dir, path, err := socketPath()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	return begin(c, getty.NewUnixServer(getty.WithLocalAddress(path)), echo)
}

// echo prepares a session that answers every frame with itself.
func echo(s getty.Session) error {
	if err := s.SetEventListener(tcpecho.Handler{}); err != nil {
		return err
	}
	return s.SetPkgHandler(frames)
}

var frames = &codec.LengthField{}

func begin(c *proc.Child, server *getty.Server, newSession getty.NewSessionCallback) error {
	if err := server.RunEventLoop(newSession); err != nil {
		return err
	}
	if err := c.Ready(server.Addr().String()); err != nil {
		return err
	}
	return c.Commands(nil)
}

func socketPath() (dir, path string, err error) {
	dir, err = os.MkdirTemp("", "stream")
	return dir, filepath.Join(dir, "echo.sock"), err
}

// serveLoop is a goroutine for each connection that runs loop.
func serveLoop(network string, config func() *tls.Config, loop func(net.Conn)) func(c *proc.Child) error {
	return func(c *proc.Child) error {
		addr := "127.0.0.1:0"
		if network == "unix" {
			dir, path, err := socketPath()
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			addr = path
		}
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // as ours
		ln, err := lc.Listen(context.Background(), network, addr)
		if err != nil {
			return err
		}
		addr = ln.Addr().String()
		if config != nil {
			ln = tls.NewListener(ln, config())
		}
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				go loop(conn)
			}
		}()
		if err := c.Ready(addr); err != nil {
			return err
		}
		return c.Commands(nil)
	}
}

// buffer is the size of a buffer that no frame of these comparisons exceeds.
const buffer = 16 << 10

// loopEach reads one frame of at most size bytes and answers it, again and again.
func loopEach(size int) func(net.Conn) {
	return func(conn net.Conn) { answerEach(conn, make([]byte, size)) }
}

func answerEach(conn net.Conn, b []byte) {
	defer conn.Close()
	for {
		if _, err := io.ReadFull(conn, b[:wire.Header]); err != nil {
			return
		}
		n, err := wire.Size(b[:wire.Header])
		if err != nil || n > len(b) {
			fmt.Fprintln(os.Stderr, "a frame of", n, "bytes:", err)
			return
		}
		if _, err := io.ReadFull(conn, b[wire.Header:n]); err != nil {
			return
		}
		if _, err := conn.Write(b[:n]); err != nil {
			return
		}
	}
}
