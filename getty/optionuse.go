// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"fmt"
	"reflect"
)

// A kind is a constructor of endpoints.
type kind uint8

const (
	tcpServer kind = 1 << iota
	wsServer
	wsHandler
	udpEndPoint
	tcpClient
	wsClient
	udpClient

	wsServers = wsServer | wsHandler
	servers   = tcpServer | wsServers | udpEndPoint
	clients   = tcpClient | wsClient | udpClient
	queued    = tcpServer | wsServers | tcpClient | wsClient // what is written waits in a queue
	all       = servers | clients
)

// String names the constructor.
func (k kind) String() string {
	return map[kind]string{
		tcpServer: "NewTCPServer", wsServer: "NewWSServer",
		wsHandler: "WSHandler", udpEndPoint: "NewUDPEndPoint",
		tcpClient: "NewTCPClient", wsClient: "NewWSClient", udpClient: "NewUDPClient",
	}[k]
}

// optionUse says which constructors use an option. One that is set and not used is an error, since
// whoever set it expects something. An option that is not listed is used by all;
// TestEveryOptionIsListed wants it here.
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

	// ServerOptions
	"Listener":         tcpServer | wsServer,
	"MaxSessions":      tcpServer | wsServers,
	"DrainTimeout":     servers &^ wsHandler, // it has no Serve
	"HandshakeTimeout": servers,
	"MultipathTCP":     tcpServer | wsServer,

	// both
	"Addr":   all &^ wsHandler,
	"Socket": all,

	// WebSocketServerOptions and WebSocketClientOptions
	"Path":           wsServer,
	"AllowedOrigins": wsServers,
	"Subprotocols":   wsServers | wsClient,
	"Compression":    wsServers | wsClient,
	"TextMessages":   wsServers | wsClient,
	"PingPeriod":     wsServers | wsClient,
	"MaxHeaderBytes": wsServer | wsClient, // a mounted handler has the limit of the user's http.Server
	"Header":         wsClient,

	// UDPServerOptions
	"IgnoreProbes": udpEndPoint,

	// ClientOptions
	"Connections":       clients,
	"DialTimeout":       clients,
	"ReconnectInterval": clients,
	"ReconnectMax":      clients,

	// UDPClientOptions
	"ProbeWait":     udpClient,
	"ProbePayload":  udpClient,
	"NoProbe":       udpClient,
	"KeepOnRefused": udpClient,
}

// unused returns an error that names an option which is set and which k does not use. opts points
// to ServerOptions or ClientOptions without defaults.
func unused(k kind, opts any) error {
	return unusedIn(k, reflect.ValueOf(opts).Elem())
}

func unusedIn(k kind, v reflect.Value) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			if err := unusedIn(k, v.Field(i)); err != nil {
				return err
			}
			continue
		}
		if use, listed := optionUse[f.Name]; listed && use&k == 0 && !v.Field(i).IsZero() {
			return fmt.Errorf("getty: %v does not use the option %s", k, f.Name)
		}
	}
	return nil
}
