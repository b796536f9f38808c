// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"fmt"
	"iter"
	"reflect"
)

// A kind is a constructor of endpoints.
type kind uint16

const (
	tcpServer kind = 1 << iota
	wsServer
	wsHandler
	udpEndPoint
	tcpClient
	wsClient
	udpClient
	unixServer
	unixClient
	connServer

	wsServers = wsServer | wsHandler
	streams   = tcpServer | unixServer | connServer // servers of byte streams
	listeners = tcpServer | unixServer | wsServer   // what accepts connections
	servers   = streams | wsServers | udpEndPoint
	clients   = tcpClient | wsClient | udpClient | unixClient
	queued    = all &^ (udpEndPoint | udpClient) // what is written waits in a queue
	secure    = streams | wsServer | tcpClient | wsClient | unixClient
	all       = servers | clients
)

// String names the constructor.
func (k kind) String() string {
	return map[kind]string{
		tcpServer: "NewTCPServer", wsServer: "NewWSServer",
		wsHandler: "WSHandler", udpEndPoint: "NewUDPEndPoint",
		tcpClient: "NewTCPClient", wsClient: "NewWSClient", udpClient: "NewUDPClient",
		unixServer: "NewUnixServer", unixClient: "NewUnixClient", connServer: "NewConnServer",
	}[k]
}

// network returns what its sockets are for, "tcp", "udp" or "unix".
func (k kind) network() string {
	switch {
	case k&(udpEndPoint|udpClient) != 0:
		return "udp"
	case k&(unixServer|unixClient) != 0:
		return "unix"
	}
	return "tcp"
}

// optionUse says which constructors use an option, by the name that users write. One that is set
// and not used is an error, since its user expects something of it. An option that is not listed is
// used by all; TestEveryOptionIsListed wants it here.
var optionUse = map[string]kind{
	// SessionOptions
	"MaxMsgLen":        all,
	"ReadTimeout":      queued, // a datagram has no first and last byte
	"IdleTimeout":      all,
	"WriteTimeout":     all,
	"WaitTime":         all,
	"HalfClose":        queued, // a datagram ends no stream
	"CronPeriod":       all,
	"HighWater":        queued,
	"LowWater":         queued,
	"ReadWhileBlocked": queued,
	"SlowConsumer":     queued,
	"Dispatch":         all,
	"Pool":             all,
	"MailboxLen":       all,
	"MailboxBytes":     all,
	"Logger":           all,
	"ReadRate":         all,
	"Trace":            all,
	"TimeCallbacks":    all,
	"SlowHandler":      all,
	"ProfileLabels":    all,
	"MemoryBudget":     all,
	"Compress":         streams | tcpClient | unixClient,
	"MaxLifetime":      all &^ udpEndPoint, // it ends with its one session

	// ServerOptions
	"Listener":           listeners,
	"MaxSessions":        streams | wsServers,
	"MaxSessionsPerAddr": streams | wsServers,
	"Admit":              listeners,
	"Handshake":          listeners,
	"DrainTimeout":       servers &^ wsHandler, // it has no Serve
	"HandshakeTimeout":   servers,
	"MultipathTCP":       tcpServer | wsServer,

	// both
	"Addr":     all &^ (wsHandler | connServer),
	"Socket":   all,
	"TLS":      secure,
	"TLSFiles": secure,

	// ClientOptions
	"Connections":       clients,
	"DialTimeout":       clients,
	"Dial":              tcpClient | wsClient,
	"ReconnectInterval": clients,
	"ReconnectMax":      clients,

	// WebSocketServerOptions and WebSocketClientOptions
	"WebSocket.Path":                 wsServer,
	"WebSocket.AllowedOrigins":       wsServers,
	"WebSocket.Subprotocols":         wsServers | wsClient,
	"WebSocket.Compression":          wsServers | wsClient,
	"WebSocket.CompressionLevel":     wsServers | wsClient,
	"WebSocket.CompressionThreshold": wsServers | wsClient,
	"WebSocket.RequireSubprotocol":   wsServers | wsClient,
	"WebSocket.CheckOrigin":          wsServers,
	"WebSocket.OnUpgrade":            wsServers,
	"WebSocket.Proxy":                wsClient,
	"WebSocket.Jar":                  wsClient,
	"WebSocket.TextMessages":         wsServers | wsClient,
	"WebSocket.PingPeriod":           wsServers | wsClient,
	"WebSocket.MaxHeaderBytes":       wsServer | wsClient, // a mounted handler has that of its http.Server
	"WebSocket.Header":               wsClient,

	// UnixServerOptions
	"Unix.Mode":      unixServer,
	"Unix.KeepStale": unixServer,

	// UDPServerOptions and UDPClientOptions
	"UDP.IgnoreProbes":  udpEndPoint,
	"UDP.ProbeWait":     udpClient,
	"UDP.ProbePayload":  udpClient,
	"UDP.NoProbe":       udpClient,
	"UDP.KeepOnRefused": udpClient,
}

// unusedOption returns an error that names an option which is set and which k does not use. o
// points to ServerOptions or ClientOptions without defaults.
func unusedOption(k kind, o any) error {
	for name, v := range optionsIn(reflect.ValueOf(o).Elem(), "") {
		if use, listed := optionUse[name]; listed && use&k == 0 && !v.IsZero() {
			return fmt.Errorf("getty: %v does not use the option %s", k, name)
		}
	}
	return nil
}

// optionsIn yields the options in v, a struct, and their names as they are written after prefix. A
// struct within is an option itself if it is listed; else the options are its fields.
func optionsIn(v reflect.Value, prefix string) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name := prefix + f.Name
			if _, listed := optionUse[name]; listed || f.Type.Kind() != reflect.Struct {
				if !yield(name, v.Field(i)) {
					return
				}
				continue
			}
			inner := name + "."
			if f.Anonymous { // its fields are written like those of v
				inner = prefix
			}
			for name, v := range optionsIn(v.Field(i), inner) {
				if !yield(name, v) {
					return
				}
			}
		}
	}
}
