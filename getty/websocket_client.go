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

	"github.com/gostkit/kit/getty/internal/deflate"
	"github.com/gostkit/kit/getty/internal/wsframe"
)

// WebSocketClientOptions are the part of [ClientOptions] that only WebSocket clients use.
type WebSocketClientOptions struct {
	// Header is sent with the upgrade request: Origin, cookies, authorisation.
	Header http.Header

	// Subprotocols are asked for in the order of preference; see [WSSubprotocol].
	Subprotocols []string

	// RequireSubprotocol fails a dial whose server chooses none of Subprotocols.
	RequireSubprotocol bool

	// Proxy returns the HTTP proxy for a request, nil for none, as http.Transport.Proxy does;
	// [http.ProxyFromEnvironment] is one. The connection goes through its CONNECT method, with the
	// user and password of the URL. Only "http" proxies are known. nil: no proxy.
	Proxy func(*http.Request) (*url.URL, error)

	// Jar gives the cookies for each upgrade request, and is given those of the answers. nil: none.
	Jar http.CookieJar

	// Compression offers permessage-deflate (RFC 7692) without context takeover. A server may
	// decline.
	Compression bool

	// CompressionLevel is 1 (least time, the default) to 9 (least bytes). 0: 1.
	CompressionLevel int

	// CompressionThreshold is the size in bytes from which messages are compressed: small ones take
	// time and save nothing. See also [CompressingWriter]. 0: 512; negative: all messages.
	CompressionThreshold int

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
	o.CompressionLevel = cmp.Or(o.CompressionLevel, deflate.Fastest)
	o.CompressionThreshold = cmp.Or(o.CompressionThreshold, wsCompressionThreshold)
	o.Header = o.Header.Clone()
	o.Subprotocols = slices.Clone(o.Subprotocols)
}

func (o *WebSocketClientOptions) check() error {
	if err := checkHeader(o.Header, len(o.Subprotocols) > 0); err != nil {
		return fmt.Errorf("getty: WebSocket.Header: %w", err)
	}
	return checkWebSocket(&commonWebSocket{o.PingPeriod, o.MaxHeaderBytes, o.CompressionLevel,
		o.Subprotocols, o.RequireSubprotocol})
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
	if o.TLSOptions.on() {
		u.Scheme = "https" // for the choice of a proxy, and of cookies
	}
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
	if ws.Jar != nil {
		for _, c := range ws.Jar.Cookies(u) {
			req.AddCookie(c)
		}
	}
	conn, err := dialThrough(ctx, o, req, addr)
	if err != nil {
		return nil, err
	}
	t, err := shakeHands(ctx, conn, req, &offer, ws)
	if err != nil {
		_ = conn.Close()
		return nil, err // an interface without a value in it
	}
	t.text, t.pings = ws.TextMessages, ws.PingPeriod
	t.level, t.threshold = ws.CompressionLevel, ws.CompressionThreshold
	return t, nil
}

// dialThrough connects to addr, through the proxy for req if there is one.
func dialThrough(
	ctx context.Context, o *ClientOptions, req *http.Request, addr string,
) (net.Conn, error) {
	var proxy *url.URL
	if choose := o.WebSocket.Proxy; choose != nil {
		var err error
		if proxy, err = choose(req); err != nil {
			return nil, fmt.Errorf("getty: websocket: proxy: %w", err)
		}
	}
	if proxy == nil {
		return dialConn(ctx, o, addr)
	}
	if proxy.Scheme != "http" {
		return nil, fmt.Errorf("getty: websocket: %q is not an http proxy", proxy.Redacted())
	}
	conn, err := dialPlain(ctx, o, net.JoinHostPort(proxy.Hostname(), cmp.Or(proxy.Port(), "80")))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = connect(conn, proxy, addr, o.WebSocket.MaxHeaderBytes)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("getty: websocket: proxy: %w", err)
	}
	return o.TLSOptions.secured(ctx, conn, req.URL.Hostname())
}

// connect asks an HTTP proxy for a tunnel to addr (RFC 9110, section 9.3.6).
func connect(conn net.Conn, proxy *url.URL, addr string, most int) error {
	req := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr,
		Header: make(http.Header),
	}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		basic := &http.Request{Header: make(http.Header)}
		basic.SetBasicAuth(u.Username(), password)
		req.Header.Set("Proxy-Authorization", basic.Header.Get("Authorization"))
	}
	resp, br, err := roundTrip(conn, req, most)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return refusalOf(conn, resp)
	case br.Buffered() > 0:
		return errors.New("bytes before the server was asked")
	}
	return nil
}

// shakeHands sends the upgrade request and checks the answer, until ctx ends.
func shakeHands(
	ctx context.Context, conn net.Conn, req *http.Request, offer *wsframe.Offer,
	o *WebSocketClientOptions,
) (*webSocket, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	t, err := exchange(conn, req, offer, o)
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
	conn net.Conn, req *http.Request, offer *wsframe.Offer, o *WebSocketClientOptions,
) (*webSocket, error) {
	resp, br, err := roundTrip(conn, req, o.MaxHeaderBytes)
	if err != nil {
		return nil, err
	}
	if o.Jar != nil {
		o.Jar.SetCookies(req.URL, resp.Cookies())
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, refusalOf(conn, resp)
	}
	agreed, err := offer.CheckResponse(resp)
	if err == nil && o.RequireSubprotocol && agreed.Protocol == "" {
		err = fmt.Errorf("the server chose none of the subprotocols %q", o.Subprotocols)
	}
	if err != nil {
		return nil, fmt.Errorf("getty: websocket: %w", err)
	}
	early, _ := br.Peek(br.Buffered())
	return newWebSocket(newStream(conn, CompressNone), true, agreed, early), nil
}

// roundTrip sends req and reads the head of the answer, which may have most bytes. br has what
// follows it, up to that bound.
func roundTrip(conn net.Conn, req *http.Request, most int) (*http.Response, *bufio.Reader, error) {
	if err := req.Write(conn); err != nil {
		return nil, nil, err
	}
	limited := &io.LimitedReader{R: conn, N: int64(most)}
	br := bufio.NewReaderSize(limited, 1<<10)
	resp, err := http.ReadResponse(br, req)
	for err == nil && resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
		resp, err = http.ReadResponse(br, req) // any number of interim answers may come first
	}
	switch {
	case err == nil:
		return resp, br, nil
	case limited.N <= 0:
		return nil, nil, errLongAnswer
	}
	return nil, nil, fmt.Errorf("getty: websocket: %w", err)
}

// bodyWait is how long the body of a refusal may take. It only explains.
const bodyWait = 200 * time.Millisecond

// refusalOf returns an answer as an error. The connection is of no use any more.
func refusalOf(conn net.Conn, resp *http.Response) error {
	_ = conn.SetReadDeadline(time.Now().Add(bodyWait))
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // as much of it as has come
	return &UpgradeError{resp.StatusCode, resp.Header, string(body)}
}
