// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// WebSocketClientOptions are the part of [ClientOptions] that only WebSocket clients use.
type WebSocketClientOptions struct {
	// Header is sent with the upgrade request: Origin, cookies, authorisation.
	Header http.Header

	// Subprotocols are asked for in the order of preference.
	Subprotocols []string

	// Compression offers permessage-deflate. A server whose answer gorilla/websocket cannot use is
	// dialled once more without.
	Compression bool

	// TextMessages sends text instead of binary messages; see TypedWriter for a choice per package.
	TextMessages bool

	// PingPeriod is how often a session pings whose peer is silent; the answer is a sign of life for
	// IdleTimeout, the ping is none.
	// 0: never.
	PingPeriod time.Duration

	// MaxHeaderBytes bounds the server's answer to the upgrade request. 0: 16 KiB.
	MaxHeaderBytes int
}

// errLongAnswer fails a dial.
var errLongAnswer = errors.New("getty: websocket: the server's answer is longer than MaxHeaderBytes")

// NewWSClient returns a client of WebSocket sessions; its address is "ws://host:port/path".
func NewWSClient(opts ...ClientOption) *Client {
	return newClient(opts, dialWebSocket, wsClient)
}

func dialWebSocket(ctx context.Context, o *ClientOptions) (transport, error) {
	t, err := dialUpgrade(ctx, o, o.WebSocketClientOptions.Compression)
	if err != nil && o.WebSocketClientOptions.Compression && strings.Contains(err.Error(), "invalid compression negotiation") {
		// The server left out a hint that gorilla insists on (RFC 7692, section 7.1.1.2, does not).
		t, err = dialUpgrade(ctx, o, false)
	}
	if err != nil {
		return nil, err // an interface without a value in it
	}
	return t, nil
}

func dialUpgrade(ctx context.Context, o *ClientOptions, compress bool) (*webSocket, error) {
	var t *webSocket
	stop := func() bool { return true }
	d := websocket.Dialer{
		ReadBufferSize:    wsReadBuffer,
		WriteBufferSize:   wsClientBuffer,
		WriteBufferPool:   &wsBuffers,
		Subprotocols:      o.WebSocketClientOptions.Subprotocols,
		EnableCompression: compress,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialConn(ctx, o, addr)
			if err != nil {
				return nil, err
			}
			t = &webSocket{stream: newStream(conn), client: true, greeting: o.WebSocketClientOptions.MaxHeaderBytes,
				text: o.WebSocketClientOptions.TextMessages, pings: o.WebSocketClientOptions.PingPeriod}
			stop = context.AfterFunc(ctx, func() { _ = conn.Close() }) // gorilla heeds a deadline only
			return t, nil
		},
	}
	ws, resp, err := d.DialContext(ctx, o.Addr, o.Header)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if t != nil {
			_ = t.close()
		}
		if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
			return nil, errors.New("getty: websocket: the server answered " + resp.Status)
		}
		return nil, err
	}
	t.begin(ws)
	return t, nil
}

var wsBuffers sync.Pool
