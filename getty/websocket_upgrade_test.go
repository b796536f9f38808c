// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// wsServers are a server of its own and a handler that is mounted on the user's.
func wsServers(t *testing.T, test func(t *testing.T,
	start func(l *tracer, opts ...getty.ServerOption) (e getty.EndPoint, addr string))) {
	t.Run("server", func(t *testing.T) {
		test(t, func(l *tracer, opts ...getty.ServerOption) (getty.EndPoint, string) {
			srv := getty.NewWSServer(opts...)
			run(t, srv, prepare(l, codec.Message{}))
			return srv, srv.Addr().String()
		})
	})
	t.Run("mounted", func(t *testing.T) {
		test(t, func(l *tracer, opts ...getty.ServerOption) (getty.EndPoint, string) {
			e := getty.WSHandler(prepare(l, codec.Message{}), opts...)
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			srv := &http.Server{Handler: e}
			over := make(chan struct{})
			go func() { defer close(over); _ = srv.Serve(ln) }()
			t.Cleanup(func() {
				_, err := e.Shutdown(context.Background())
				require.NoError(t, err)
				_ = srv.Close()
				<-over
			})
			return e, ln.Addr().String()
		})
	})
}

// The user's hook refuses as it says, adds headers, and what it let in is seen by the session until
// it has opened. A refusal takes no place.
func TestOnUpgrade(t *testing.T) {
	wsServers(t, func(t *testing.T, start func(*tracer, ...getty.ServerOption) (getty.EndPoint, string)) {
		l, book := newTracer(t), newLogBook()
		type account struct{}
		seen := make(chan string, 1)
		l.open = func(s getty.Session) error {
			r := getty.WSRequest(s)
			c, err := r.Cookie("id")
			require.NoError(t, err)
			s.SetAttribute(account{}, c.Value)
			seen <- r.URL.Query().Get("room") + " " + r.Header.Get("X-Mine") + " " + getty.WSSubprotocol(s)
			return nil
		}
		e, addr := start(l, func(o *getty.ServerOptions) {
			o.Logger = book.Logger
			o.WebSocket.Subprotocols = []string{"chat"}
			o.WebSocket.OnUpgrade = func(r *http.Request) (http.Header, error) {
				switch r.URL.Query().Get("room") {
				case "full":
					return nil, &getty.UpgradeError{
						Status: http.StatusConflict,
						Header: http.Header{"Retry-After": {"7"}}, Body: "come later\n",
					}
				case "odd":
					return nil, &getty.UpgradeError{Status: 200}
				case "secret":
					return nil, errors.New("wrong password of Alice")
				case "panic":
					panic("enough")
				}
				return http.Header{
					"X-Served-By": {"one\r\nX-Evil: two"}, "Set-Cookie": {"a=1", "b=2"},
					"Sec-Websocket-Accept": {"mine"}, "upgrade": {"mine"},
				}, nil
			}
		})
		dial := func(room string) (*websocket.Conn, *http.Response, error) {
			d := websocket.Dialer{Subprotocols: []string{"chat"}}
			return d.Dial("ws://"+addr+"/?room="+room, http.Header{"Cookie": {"id=7"}, "X-Mine": {"m"}})
		}
		for _, c := range []struct {
			room   string
			status int
			body   string
		}{{"full", 409, "come later\n"}, {"odd", 403, "Forbidden\n"}, {"secret", 403, "Forbidden\n"},
			{"panic", 500, "Internal Server Error\n"}} {
			_, resp, err := dial(c.room)
			require.Error(t, err)
			require.Equal(t, c.status, resp.StatusCode, c.room)
			body, _ := io.ReadAll(resp.Body)
			require.Equal(t, c.body, string(body))
			require.Equal(t, c.room == "full", resp.Header.Get("Retry-After") == "7")
		}
		require.Equal(t, 1, book.count("wrong password of Alice"))
		require.Equal(t, 1, book.count("callback panicked"))
		require.EqualValues(t, 4, e.Stats().Refused)
		eventually(t, "no place is taken", func() bool { return getty.Places(e) == 0 })
		ws, resp, err := dial("5")
		require.NoError(t, err)
		defer ws.Close()
		require.Equal(t, "one  X-Evil: two", resp.Header.Get("X-Served-By"))
		require.Empty(t, resp.Header.Get("X-Evil"))
		require.Equal(t, []string{"a=1", "b=2"}, resp.Header.Values("Set-Cookie"))
		require.Equal(t, []string{"websocket"}, resp.Header.Values("Upgrade"))
		s := within(t, l.opened, "OnOpen")
		require.Equal(t, "5 m chat", <-seen)
		require.Equal(t, "7", s.GetAttribute(account{}))
		eventually(t, "the request is let go", func() bool { return getty.WSRequest(s) == nil })
		require.Equal(t, "chat", getty.WSSubprotocol(s))
	})
}

// What a middleware has put into the request's context is there, and the context outlives the
// handler.
func TestWSRequestHasTheContextOfTheUser(t *testing.T) {
	type user struct{}
	l := newTracer(t)
	l.open = func(s getty.Session) error {
		r := getty.WSRequest(s)
		require.Equal(t, "alice", r.Context().Value(user{}))
		time.Sleep(10 * time.Millisecond) // the handler has returned
		return r.Context().Err()
	}
	e := getty.WSHandler(prepare(l))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), user{}, "alice")))
	})}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+ln.Addr().String()+"/", nil)
	require.NoError(t, err)
	within(t, l.opened, "OnOpen")
	_ = ws.Close()
	within(t, l.closed, "OnClose")
	_, err = e.Shutdown(t.Context())
	require.NoError(t, err)
}

// A session of another kind has neither a request nor a subprotocol.
func TestWSRequestOfOthers(t *testing.T) {
	l := newTracer(t)
	dial(t, serve(t, prepare(l)))
	s := within(t, l.opened, "OnOpen")
	require.Nil(t, getty.WSRequest(s))
	require.Empty(t, getty.WSSubprotocol(s))
	require.Nil(t, getty.WSRequest(nil))
}

// Origins are allowed by pattern, or as the user's function says.
func TestOriginPatterns(t *testing.T) {
	wsServers(t, func(t *testing.T, start func(*tracer, ...getty.ServerOption) (getty.EndPoint, string)) {
		_, patterns := start(newTracer(t), func(o *getty.ServerOptions) {
			o.WebSocket.AllowedOrigins = []string{"https://*.example.com", "http://*.port.org:81"}
		})
		_, function := start(newTracer(t), func(o *getty.ServerOptions) {
			o.WebSocket.AllowedOrigins = []string{"*"}
			o.WebSocket.CheckOrigin = func(r *http.Request) bool { return r.Header.Get("Origin") == "https://friend" }
		})
		for origin, want := range map[string]int{
			"https://a.example.com": 101, "HTTPS://a.b.Example.COM": 101, "https://example.com": 403,
			"http://a.example.com": 403, "https://a.example.com:444": 403, "https://aexample.com": 403,
			"https://.example.com.evil": 403, "https://evil/.example.com": 403, "http://a.port.org:81": 101,
			"http://a.port.org": 403, "https://evil#.example.com": 403, "null": 403,
		} {
			require.Equal(t, want, originStatus(t, patterns, origin), origin)
		}
		for origin, want := range map[string]int{"https://friend": 101, "https://a.example.com": 403, "http://" + function: 403} {
			require.Equal(t, want, originStatus(t, function, origin), origin)
		}
	})
}

func originStatus(t *testing.T, addr, origin string) int {
	ws, resp, err := websocket.DefaultDialer.Dial("ws://"+addr+"/", http.Header{"Origin": {origin}})
	if err == nil {
		_ = ws.Close()
	}
	require.NotNil(t, resp, "%v", err)
	return resp.StatusCode
}

// A subprotocol that is required refuses those who have none, on both sides.
func TestRequiredSubprotocol(t *testing.T) {
	l := newTracer(t)
	srv := getty.NewWSServer(func(o *getty.ServerOptions) {
		o.WebSocket.Subprotocols, o.WebSocket.RequireSubprotocol = []string{"v2", "v1"}, true
	})
	run(t, srv, prepare(l))
	url := "ws://" + srv.Addr().String() + "/"
	_, resp, err := websocket.DefaultDialer.Dial(url, nil)
	require.Error(t, err)
	require.Equal(t, 400, resp.StatusCode)

	client := getty.NewWSClient(getty.WithServerAddress(url), func(o *getty.ClientOptions) {
		o.WebSocket.Subprotocols, o.WebSocket.RequireSubprotocol = []string{"v0", "v1"}, true
	})
	run(t, client, prepare(newTracer(t)))
	require.Equal(t, "v1", getty.WSSubprotocol(ready(t, client)))
	require.Equal(t, "v1", getty.WSSubprotocol(within(t, l.opened, "OnOpen")))

	plain := getty.NewWSServer()
	run(t, plain, prepare(newTracer(t)))
	client = getty.NewWSClient(getty.WithServerAddress("ws://"+plain.Addr().String()+"/"), func(o *getty.ClientOptions) {
		o.WebSocket.Subprotocols, o.WebSocket.RequireSubprotocol = []string{"v0"}, true
	})
	run(t, client, prepare(newTracer(t)))
	require.ErrorContains(t, notReady(t, client), "none of the subprotocols")
}

// notReady returns why a client's latest dial failed.
func notReady(t *testing.T, c *getty.Client) error {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var err error
	eventually(t, "a dial has failed", func() bool {
		_, err = c.Ready(ctx)
		require.Error(t, err)
		return strings.Contains(err.Error(), "latest dial")
	})
	return err
}

// A client is told what the server answered, and does not hurry where the answer will be the same.
func TestRefusedUpgrade(t *testing.T) {
	for status, lasting := range map[int]bool{401: true, 404: true, 503: false, 429: false} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			srv := getty.NewWSServer(func(o *getty.ServerOptions) {
				o.WebSocket.OnUpgrade = func(*http.Request) (http.Header, error) {
					asked.Add(1)
					return nil, &getty.UpgradeError{
						Status: status, Header: http.Header{"X-Why": {"because"}}, Body: strings.Repeat("no ", 1000),
					}
				}
			})
			run(t, srv, prepare(newTracer(t)))
			client := getty.NewWSClient(getty.WithServerAddress("ws://"+srv.Addr().String()+"/"),
				func(o *getty.ClientOptions) {
					o.ReconnectInterval, o.ReconnectMax = time.Millisecond, 1000*time.Hour
				})
			run(t, client, prepare(newTracer(t)))
			var e *getty.UpgradeError
			require.ErrorAs(t, notReady(t, client), &e)
			require.Equal(t, status, e.Status)
			require.Equal(t, "because", e.Header.Get("X-Why"))
			require.Len(t, e.Body, 1<<10)
			require.Less(t, len(e.Error()), 400)
			if lasting {
				time.Sleep(20 * time.Millisecond) // a random part of 1000 hours is longer
				require.EqualValues(t, 1, asked.Load())
			} else {
				eventually(t, "it is asked again", func() bool { return asked.Load() > 2 })
			}
		})
	}
}

// Cookies of a jar go out with the request, and those of the answer come into it, refused or not.
func TestCookieJar(t *testing.T) {
	l := newTracer(t)
	var asked atomic.Int32
	srv := getty.NewWSServer(func(o *getty.ServerOptions) {
		o.WebSocket.OnUpgrade = func(r *http.Request) (http.Header, error) {
			cookie := http.Header{"Set-Cookie": {"token=42"}}
			if asked.Add(1) == 1 {
				return nil, &getty.UpgradeError{Status: 503, Header: cookie}
			}
			if c, err := r.Cookie("token"); err != nil || c.Value != "42" {
				return nil, &getty.UpgradeError{Status: 401}
			}
			return nil, nil
		}
	})
	run(t, srv, prepare(l))
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	client := getty.NewWSClient(getty.WithServerAddress("ws://"+srv.Addr().String()+"/"), func(o *getty.ClientOptions) {
		o.WebSocket.Jar, o.ReconnectInterval = jar, time.Millisecond
	})
	run(t, client, prepare(newTracer(t)))
	ready(t, client)
	require.EqualValues(t, 2, asked.Load())
}

// A proxy is an HTTP proxy that knows CONNECT. It counts the tunnels it was asked for.
type proxy struct {
	net.Listener
	tunnels atomic.Int32
	answer  string // in the place of 200
}

func newProxy(t *testing.T, answer string) *proxy {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	p := &proxy{Listener: ln, answer: answer}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil || r.Method != http.MethodConnect {
		return
	}
	p.tunnels.Add(1)
	if user, password, ok := parseProxyAuth(r); !ok || user != "u" || password != "p" {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 3\r\n\r\nwho")
		return
	}
	if p.answer != "" {
		_, _ = io.WriteString(c, p.answer)
		_, _ = io.Copy(io.Discard, c)
		return
	}
	to, err := net.Dial("tcp", r.Host)
	if err != nil {
		return
	}
	defer to.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(to, c)
		_ = to.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(c, to)
}

func parseProxyAuth(r *http.Request) (user, password string, ok bool) {
	r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
	return r.BasicAuth()
}

// A client's connection goes through the tunnel of a proxy, and what the proxy answers is told.
func TestProxy(t *testing.T) {
	sl := newTracer(t)
	sl.message = echoPkg
	srv := getty.NewWSServer()
	run(t, srv, prepare(sl))
	client := func(u string, timeout time.Duration) *getty.Client {
		c := getty.NewWSClient(getty.WithServerAddress("ws://"+srv.Addr().String()+"/"), func(o *getty.ClientOptions) {
			o.DialTimeout, o.ReconnectMax, o.ReconnectInterval = timeout, time.Hour, time.Hour
			o.WebSocket.Proxy = func(*http.Request) (*url.URL, error) {
				if u == "" {
					return nil, nil
				}
				return url.Parse(u)
			}
		})
		run(t, c, prepare(newTracer(t)))
		return c
	}
	good := newProxy(t, "")
	for _, u := range []string{"http://u:p@" + good.Addr().String(), ""} {
		c := getty.NewWSClient(getty.WithServerAddress("ws://"+srv.Addr().String()+"/"), func(o *getty.ClientOptions) {
			o.WebSocket.Proxy = func(*http.Request) (*url.URL, error) {
				if u == "" {
					return nil, nil
				}
				return url.Parse(u)
			}
		})
		cl := newTracer(t)
		got := make(chan string, 1)
		cl.message = func(_ getty.Session, pkg any) { got <- pkg.(*codec.Frame).String() }
		run(t, c, prepare(cl))
		_, _, err := ready(t, c).WritePkg("through", 0)
		require.NoError(t, err)
		require.Equal(t, "through", within(t, got, "the echo"))
	}
	require.EqualValues(t, 1, good.tunnels.Load())

	var e *getty.UpgradeError
	require.ErrorAs(t, notReady(t, client("http://u:wrong@"+good.Addr().String(), patience)), &e)
	require.Equal(t, 407, e.Status)
	require.Equal(t, "who", e.Body)
	for answer, want := range map[string]string{
		"HTTP/1.1 200 OK\r\n\r\nearly": "before the server was asked",
		"HTTP/1.1 502 Bad\r\n\r\n":     "502",
		"nonsense":                     "deadline exceeded", // the proxy keeps the connection open
		"nonsense\r\n\r\n":             "malformed HTTP",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 20<<10): "MaxHeaderBytes",
	} {
		p := newProxy(t, answer)
		timeout := patience
		if want == "deadline exceeded" {
			timeout = 50 * time.Millisecond
		}
		require.ErrorContains(t, notReady(t, client("http://u:p@"+p.Addr().String(), timeout)), want)
	}
	require.ErrorContains(t, notReady(t, client("socks5://127.0.0.1:1", patience)), "not an http proxy")
	require.ErrorContains(t, notReady(t, client("http://127.0.0.1:1", patience)), "refused")
	require.ErrorContains(t, notReady(t, client(":", patience)), "proxy")
}

// compressing is a Writer that chooses.
type compressing struct{ codec.Message }

func (compressing) Compresses(pkg any) bool { return pkg.(string)[0] == 'c' }

// Messages are compressed from a size on, at the level of the options, or as the Writer says.
func TestWhatIsCompressed(t *testing.T) {
	text := func(n int) string { return strings.Repeat("abcdefghij klmnopqrst uvwxyz", n/28+1)[:n] }
	sizes := func(rw getty.ReadWriter, level, threshold int, pkgs ...string) (wire []int, all []bool) {
		l := newTracer(t)
		srv := getty.NewWSServer(briefClose, func(o *getty.ServerOptions) {
			o.WebSocket.Compression = true
			o.WebSocket.CompressionLevel, o.WebSocket.CompressionThreshold = level, threshold
		})
		run(t, srv, prepare(l, rw))
		p := clientOf(t, srv, l, true)
		s := within(t, l.opened, "OnOpen")
		for _, pkg := range pkgs {
			_, _, err := s.WritePkg(pkg, 0)
			require.NoError(t, err)
			first, payload, err := p.next()
			require.NoError(t, err)
			packed := first&wsRsv1 != 0
			wire, all = append(wire, len(payload)), append(all, packed)
			if packed {
				payload = unpacked(t, payload)
			}
			require.Equal(t, pkg, payload)
		}
		return wire, all
	}
	_, packed := sizes(codec.Message{}, 0, 0, text(1), text(511), text(512), text(5000))
	require.Equal(t, []bool{false, false, true, true}, packed)
	_, packed = sizes(codec.Message{}, 0, -1, text(1), text(511))
	require.Equal(t, []bool{true, true}, packed)
	_, packed = sizes(codec.Message{}, 0, 1000, text(999), text(1000))
	require.Equal(t, []bool{false, true}, packed)
	_, packed = sizes(compressing{}, 0, 0, "no "+text(5000), "c"+text(5))
	require.Equal(t, []bool{false, true}, packed)
	fast, _ := sizes(codec.Message{}, 1, 0, text(100_000))
	best, _ := sizes(codec.Message{}, 9, 0, text(100_000))
	require.Less(t, best[0], fast[0])
}

// The round trip of a ping is measured.
func TestRoundTripOfPings(t *testing.T) {
	srv := getty.NewWSServer(func(o *getty.ServerOptions) { o.WebSocket.PingPeriod = 2 * time.Millisecond })
	l := newTracer(t)
	run(t, srv, prepare(l))
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
	require.NoError(t, err)
	defer ws.Close()
	s := within(t, l.opened, "OnOpen")
	const slow = 20 * time.Millisecond
	ws.SetPingHandler(func(data string) error {
		time.Sleep(slow)
		return ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(patience))
	})
	require.Zero(t, s.Stats().RoundTrip)
	go func() { _, _, _ = ws.ReadMessage() }()
	eventually(t, "a pong came", func() bool { return s.Stats().RoundTrip > 0 })
	require.GreaterOrEqual(t, s.Stats().RoundTrip, slow)
	require.Less(t, s.Stats().RoundTrip, patience)
}
