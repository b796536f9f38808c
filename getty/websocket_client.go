// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/gostkit/kit/getty/internal/wsframe"
)

// WebSocketClientOptions are the part of [ClientOptions] that only WebSocket clients use.
type WebSocketClientOptions struct {
	// Header is sent with the upgrade request: Origin, cookies, authorisation.
	Header http.Header

	// Subprotocols are asked for in the order of preference.
	Subprotocols []string

	// Compression offers permessage-deflate (RFC 7692) without context takeover. A server may
	// decline.
	Compression bool

	// TextMessages sends text instead of binary messages; see TypedWriter for a choice per package.
	TextMessages bool

	// PingPeriod is how often a session pings whose peer is silent; the answer is a sign of life
	// for IdleTimeout, the ping is none. 0: never.
	PingPeriod time.Duration

	// MaxHeaderBytes bounds the server's answer to the upgrade request. 0: 16 KiB.
	MaxHeaderBytes int
}

func (o *WebSocketClientOptions) complete() {
	o.MaxHeaderBytes = cmp.Or(o.MaxHeaderBytes, wsMaxHeaderBytes)
	o.Header = o.Header.Clone()
	o.Subprotocols = slices.Clone(o.Subprotocols)
}

func (o *WebSocketClientOptions) check() error {
	if err := checkHeader(o.Header, len(o.Subprotocols) > 0); err != nil {
		return fmt.Errorf("getty: WebSocket.Header: %w", err)
	}
	return checkWebSocket(o.PingPeriod, o.MaxHeaderBytes, o.Subprotocols)
}

// NewWSClient returns a client of WebSocket sessions; its address is "ws://host:port/path", or
// "wss://host:port/path" for TLS.
func NewWSClient(opts ...ClientOption) *Client {
	return newClient(opts, dialWebSocket, wsClient)
}

// errLongAnswer fails a dial.
var errLongAnswer = errors.New(
	"getty: websocket: the server's answer is longer than WebSocket.MaxHeaderBytes")

func dialWebSocket(ctx context.Context, o *ClientOptions) (protocol, error) {
	u, err := url.Parse(o.Addr)
	if err != nil {
		return nil, err
	}
	ws := &o.WebSocket
	offer := wsframe.Offer{Protocols: ws.Subprotocols, Deflate: ws.Compression}
	addr := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), webPort(u)))
	u.Scheme, u.Fragment = "http", ""
	req := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: ws.Header.Clone()}
	if req.Header == nil {
		req.Header = make(http.Header)
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	if err := offer.Request(req); err != nil {
		return nil, fmt.Errorf("getty: websocket: %w", err)
	}
	conn, err := dialConn(ctx, o, addr)
	if err != nil {
		return nil, err
	}
	t, err := shakeHands(ctx, conn, req, &offer, ws.MaxHeaderBytes)
	if err != nil {
		_ = conn.Close()
		return nil, err // an interface without a value in it
	}
	t.text, t.pings = ws.TextMessages, ws.PingPeriod
	return t, nil
}

// shakeHands sends the upgrade request and checks the answer, until ctx ends.
func shakeHands(
	ctx context.Context, conn net.Conn, req *http.Request, offer *wsframe.Offer, most int,
) (*webSocket, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	t, err := exchange(conn, req, offer, most)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// exchange is shakeHands without its limit of time.
func exchange(
	conn net.Conn, req *http.Request, offer *wsframe.Offer, most int,
) (*webSocket, error) {
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: int64(most)}
	br := bufio.NewReaderSize(limited, 1<<10)
	resp, err := http.ReadResponse(br, req)
	for err == nil && resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
		resp, err = http.ReadResponse(br, req) // any number of interim answers may come first
	}
	if err != nil {
		if limited.N <= 0 {
			return nil, errLongAnswer
		}
		return nil, fmt.Errorf("getty: websocket: %w", err)
	}
	deflate, err := offer.CheckResponse(resp)
	if err != nil {
		return nil, fmt.Errorf("getty: websocket: %w", err)
	}
	early, _ := br.Peek(br.Buffered())
	return newWebSocket(newStream(conn), true, deflate, early), nil
}
