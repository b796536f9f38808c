// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// Every option is listed with the constructors that use it, and nothing else is.
func TestEveryOptionIsListed(t *testing.T) {
	options := map[string]bool{}
	for _, o := range []any{new(getty.ServerOptions), new(getty.ClientOptions)} {
		for name := range getty.OptionsIn(o) {
			options[name] = true
		}
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(options)), getty.OptionNames(),
		"optionuse.go says which constructors use an option")
}

// fields returns the settable fields of an options struct, by the names that users write.
func fields(opts any) map[string]reflect.Value {
	all := maps.Collect(getty.OptionsIn(opts))
	socket := all["Socket"]
	for i := range socket.NumField() {
		all["Socket."+socket.Type().Field(i).Name] = socket.Field(i)
	}
	return all
}

// Every option that is a number, at its limits, on every transport, on servers and on clients: the
// endpoint works, or RunEventLoop names the option. Where it works, packages pass in both
// directions unless the value is a time or a size that is too small for that; in any case the
// endpoint ends.
//
// case: 17
func TestOptionsAtTheirLimits(t *testing.T) {
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for name, f := range fields(new(getty.ServerOptions)) {
				for _, v := range limitsOf(f) {
					limitsOnce(t, c, name, v, true)
				}
			}
			for name, f := range fields(new(getty.ClientOptions)) {
				for _, v := range limitsOf(f) {
					limitsOnce(t, c, name, v, false)
				}
			}
		})
	}
}

func limitsOf(f reflect.Value) []int64 {
	if f.Type() == reflect.TypeFor[getty.CompressType]() {
		return nil // both ends must agree; see TestCompressTypes
	}
	switch f.Kind() {
	case reflect.Int64:
		return []int64{0, 1, math.MaxInt64, math.MaxInt64 - 1, -1, math.MinInt64}
	case reflect.Int, reflect.Int8:
		most := int64(math.MaxInt)
		if f.Kind() == reflect.Int8 {
			most = math.MaxInt8
		}
		return []int64{0, 1, most, most - 1, -1, -most - 1}
	}
	return nil
}

func limitsOnce(t *testing.T, c carrier, name string, v int64, onServer bool) {
	t.Helper()
	what := fmt.Sprintf("%s=%d on the server: %v", name, v, onServer)
	l, cl := newTracer(t), newTracer(t)
	l.unordered, cl.unordered = true, true
	l.message = echoPkg
	got := make(chan struct{}, 100)
	cl.message = func(getty.Session, any) { got <- struct{}{} }
	// fits is whether a package can pass: times and sizes of 1 are kept to the letter.
	fits := v != 1
	switch name {
	case "MaxSessions", "Connections", "LowWater", "HighWater", "MailboxLen", "MailboxBytes", "Dispatch", "SlowConsumer",
		"DrainTimeout", "WriteTimeout", "WaitTime", "WebSocket.MaxHeaderBytes", "ReconnectInterval", "ReconnectMax", "CronPeriod", "WebSocket.PingPeriod",
		"UDP.ProbeWait", "Socket.NoDelay", "Socket.ReadBuffer", "Socket.WriteBuffer", "Socket.TOS", "Socket.Linger":
		fits = true
	}
	if name == "WebSocket.MaxHeaderBytes" && !onServer || name == "WriteTimeout" {
		fits = v != 1
	}
	if name == "Socket.TCPUserTimeout" || name == "ReconnectMax" && v == 1 {
		fits = v != 1
	}
	named := func(err error) {
		t.Helper()
		if name == "IdleTimeout" && v == 1 && errors.Is(err, getty.ErrIdleTimeout) {
			return // a UDP endpoint ends with its session, perhaps at once
		}
		require.ErrorContains(t, err, strings.TrimPrefix(name, "Socket."), what)
	}
	srv := c.server(func(o *getty.ServerOptions) {
		if onServer {
			fields(o)[name].SetInt(v)
		}
	})
	if err := srv.RunEventLoop(prepare(l)); err != nil {
		require.True(t, onServer)
		named(err)
		return
	}
	defer func() {
		srv.Close()
		within(t, srv.Done(), "Done of the server: "+what)
	}()
	client := c.client(srv.Addr().String(), func(o *getty.ClientOptions) {
		o.ReconnectInterval = time.Millisecond
		o.WaitTime = 50 * time.Millisecond
		if !onServer {
			fields(o)[name].SetInt(v)
		}
	})
	if err := client.RunEventLoop(prepare(cl)); err != nil {
		require.False(t, onServer)
		named(err)
		return
	}
	defer func() {
		client.Close()
		within(t, client.Done(), "Done of the client: "+what)
	}()
	if !fits {
		return
	}
	s := within(t, cl.opened, "OnOpen: "+what)
	for _, p := range []string{"a", strings.Repeat("b", 3000)} {
		_, _, err := s.WritePkg(p, time.Duration(math.MaxInt64))
		require.NoError(t, err, what)
		within(t, got, "the echo: "+what)
	}
	for _, d := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, 0, math.MinInt64} {
		s.SetReadTimeout(d)
		s.SetIdleTimeout(d)
		s.SetWriteTimeout(d)
		s.SetWaitTime(d)
		s.SetCronPeriod(d)
	}
	for _, n := range []int{1, math.MinInt, math.MaxInt} {
		s.SetMaxMsgLen(n)
	}
	_, _, err := s.WritePkg(strings.Repeat("c", 5000), 0)
	require.NoError(t, err, what)
	within(t, got, "the echo after the setters: "+what)
}

// A message of any size up to a limit that has no successor.
//
// case: 17
func TestLimitOfMaxInt(t *testing.T) {
	for _, c := range carriers[:2] {
		for _, n := range []int{math.MaxInt, math.MaxInt - 1, 1 << 20} {
			l := newTracer(t)
			l.message = echoPkg
			srv := c.server(func(o *getty.ServerOptions) { o.MaxMsgLen = n })
			run(t, srv, prepare(l))
			got := make(chan struct{}, 1)
			cl := newTracer(t)
			cl.message = func(getty.Session, any) { got <- struct{}{} }
			client := c.client(srv.Addr().String())
			run(t, client, prepare(cl))
			_, _, err := ready(t, client).WritePkg(strings.Repeat("x", 1<<20-4), -1)
			require.NoError(t, err)
			within(t, got, "the echo")
		}
	}
}

// An option that its constructor does not use is an error that names it.
//
// case: 17
func TestUnusedOptions(t *testing.T) {
	type so = getty.ServerOptions
	type co = getty.ClientOptions
	for name, set := range map[string]func(*so){
		"WebSocket.PingPeriod":     func(o *so) { o.WebSocket.PingPeriod = time.Second },
		"WebSocket.AllowedOrigins": func(o *so) { o.WebSocket.AllowedOrigins = []string{"*"} },
		"WebSocket.Path":           func(o *so) { o.WebSocket.Path = "/" },
		"WebSocket.MaxHeaderBytes": func(o *so) { o.WebSocket.MaxHeaderBytes = 1000 },
		"UDP.IgnoreProbes":         func(o *so) { o.UDP.IgnoreProbes = true },
	} {
		require.ErrorContains(t, getty.NewTCPServer(set).RunEventLoop(prepare(newTracer(t))), "NewTCPServer does not use the option "+name)
	}
	for name, set := range map[string]func(*so){
		"MaxSessions":           func(o *so) { o.MaxSessions = 5 },
		"HighWater":             func(o *so) { o.HighWater = 5 },
		"SlowConsumer":          func(o *so) { o.SlowConsumer = getty.SlowClose },
		"ReadTimeout":           func(o *so) { o.ReadTimeout = 5 },
		"Listener":              func(o *so) { o.Listener = newHandedListener() },
		"WebSocket.Compression": func(o *so) { o.WebSocket.Compression = true },
	} {
		require.ErrorContains(t, getty.NewUDPEndPoint(set).RunEventLoop(prepare(newTracer(t))), "NewUDPEndPoint does not use the option "+name)
	}
	require.ErrorContains(t, getty.NewWSServer(func(o *so) { o.UDP.IgnoreProbes = true }).RunEventLoop(prepare(newTracer(t))), "UDP.IgnoreProbes")
	require.ErrorContains(t, getty.NewTCPClient(getty.WithServerAddress("h:1"), func(o *co) { o.WebSocket.Header = http.Header{} }).
		RunEventLoop(prepare(newTracer(t))), "NewTCPClient does not use the option WebSocket.Header")
	require.ErrorContains(t, getty.NewUDPClient(getty.WithServerAddress("h:1"), func(o *co) { o.LowWater = 1 }).
		RunEventLoop(prepare(newTracer(t))), "NewUDPClient does not use the option LowWater")
	require.ErrorContains(t, getty.NewWSClient(getty.WithServerAddress("ws://h"), func(o *co) { o.UDP.NoProbe = true }).
		RunEventLoop(prepare(newTracer(t))), "NewWSClient does not use the option UDP.NoProbe")
	// A handler is part of a program that runs: its bad options are a 500 and a line in the log.
	book := newLogBook()
	e := getty.WSHandler(prepare(newTracer(t)), func(o *so) { o.Logger, o.WebSocket.Path = book.Logger, "/chat" })
	w := &answer{header: http.Header{}}
	e.ServeHTTP(w, &http.Request{})
	require.Equal(t, 500, w.status)
	require.Equal(t, 1, book.count("WSHandler does not use the option WebSocket.Path"))
	e = getty.WSHandler(prepare(newTracer(t)), func(o *so) { o.HandshakeTimeout = -1 }) // without a Logger
	e.ServeHTTP(w, &http.Request{})
	require.Equal(t, 500, w.status)
}

// Options are settled when the endpoint is made: what its maker does later with what it has set
// changes nothing that was checked.
func TestOptionsAreCopied(t *testing.T) {
	header, asks := http.Header{"X-Name": {"gopher"}}, []string{"chat"}
	asked := make(chan http.Header, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.Header:
		default: // dialled again
		}
	})}
	go func() { _ = hs.Serve(ln) }()
	defer hs.Close()
	client := getty.NewWSClient(func(o *getty.ClientOptions) {
		o.Addr = "ws://" + ln.Addr().String() + "/"
		o.WebSocket.Header, o.WebSocket.Subprotocols = header, asks
	})
	header["X-Name"][0], asks[0] = "a\nb", "not a token"
	header.Set("Upgrade", "nothing")
	run(t, client, prepare(newTracer(t)))
	got := within(t, asked, "the upgrade request")
	require.Equal(t, []string{"gopher"}, got["X-Name"])
	require.Equal(t, "chat", got.Get("Sec-WebSocket-Protocol"))
	client.Close()
	within(t, client.Done(), "Done")

	origins, names := []string{"https://friend.example"}, []string{"chat"}
	srv := getty.NewWSServer(func(o *getty.ServerOptions) {
		o.WebSocket.AllowedOrigins, o.WebSocket.Subprotocols = origins, names
	})
	origins[0], names[0] = "https://stranger.example", "not a token"
	run(t, srv, prepare(newTracer(t)))
	dialer := websocket.Dialer{Subprotocols: []string{"chat"}}
	conn, _, err := dialer.Dial("ws://"+srv.Addr().String()+"/",
		http.Header{"Origin": {"https://friend.example"}})
	require.NoError(t, err)
	require.Equal(t, "chat", conn.Subprotocol())
	_ = conn.Close()
}

// An answer is a http.ResponseWriter that notes the status.
type answer struct {
	header http.Header
	status int
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) Write(p []byte) (int, error) { return len(p), nil }
func (a *answer) WriteHeader(status int)      { a.status = status }

// What cannot work is an error of RunEventLoop that names the option: nothing panics, and nothing
// is dialled for ever.
//
// acceptance: L08 case: 19
func TestImpossibleOptions(t *testing.T) {
	type so = getty.ServerOptions
	type co = getty.ClientOptions
	fails := func(e getty.EndPoint, name, value string) {
		t.Helper()
		require.ErrorContains(t, e.RunEventLoop(prepare(newTracer(t))), "getty: "+name, "%q", value)
		e.Close()
		within(t, e.Done(), "Done")
	}
	for _, path := range []string{
		"chat", "/a b", "/{", "GET /x", "/{id}", "/%20", "/{$}", "/a?b", "/a#b", "/\x00", "/\xff", "/a\nb", "example.com/", "/a/../b", "/./",
		"/a%2fb", "/\\", " /",
	} {
		fails(getty.NewWSServer(func(o *so) { o.WebSocket.Path = path }), "WebSocket.Path", path)
	}
	for _, path := range []string{"/", "/chat", "//", "/a/b/", "/a:b@c;d=e,f", "/чат", "/~a!$&'()*+"} {
		srv := getty.NewWSServer(func(o *so) { o.WebSocket.Path = path })
		run(t, srv, prepare(newTracer(t)))
		client := getty.NewWSClient(getty.WithServerAddress("ws://" + srv.Addr().String() + path))
		run(t, client, prepare(newTracer(t)))
		ready(t, client)
		client.Close()
	}
	for _, addr := range []string{
		"", "localhost", "localhost:", "localhost:0", "localhost:70000", "localhost:-1", "localhost:no such port", "a b:1", "http://localhost:80",
		"999.1.1.1:1", "[::g]:1", "::1:80", "[::1]", "a..b:1", strings.Repeat("a", 64) + ".example:1", "a/b:1", "user@host:1", "\x00:1",
	} {
		fails(getty.NewTCPClient(getty.WithServerAddress(addr)), "", addr)
		if addr != "" {
			fails(getty.NewTCPClient(getty.WithServerAddress(addr)), "Addr", addr)
			fails(getty.NewUDPClient(getty.WithServerAddress(addr)), "Addr", addr)
		}
		if addr != "localhost" && addr != "[::1]" && addr != "a/b:1" { // port 80
			fails(getty.NewWSClient(getty.WithServerAddress("ws://"+addr+"/")), "Addr", addr)
		}
	}
	for _, addr := range []string{
		"localhost:80", "/chat", "http://localhost/", "ws:localhost", "ws://", "ws:///x", "ws://user:pw@localhost/", "ws://localhost/#x",
		"ws://localhost:x/", "ws://local host/", "ws://localhost/%zz",
	} {
		fails(getty.NewWSClient(getty.WithServerAddress(addr)), "Addr", addr)
	}
	for _, addr := range []string{"localhost", "127.0.0.1:70000", "no such host:1"} {
		for _, c := range carriers {
			if c.name != "unix" { // there it is a path
				fails(c.server(getty.WithLocalAddress(addr)), "Addr", addr)
			}
		}
	}
	for _, h := range []http.Header{
		{"Upgrade": {"x"}}, {"Connection": {"x"}}, {"Sec-Websocket-Key": {"x"}}, {"Sec-Websocket-Version": {"x"}}, {"sec-websocket-key": {"x"}},
		{"Sec-Websocket-Extensions": {"x"}}, {"A b": {"x"}}, {"": {"x"}}, {"X": {"a\r\nb"}}, {"X": {"a\x00"}}, {"Host": {"a b"}}, {"Host": {}},
		{"X:": {"x"}}, {"Content-Length": {"5"}},
	} {
		fails(getty.NewWSClient(getty.WithServerAddress("ws://h/"), func(o *co) { o.WebSocket.Header = h }), "WebSocket.Header", fmt.Sprint(h))
	}
	fails(getty.NewWSClient(getty.WithServerAddress("ws://h/"), func(o *co) {
		o.WebSocket.Header, o.WebSocket.Subprotocols = http.Header{"Sec-Websocket-Protocol": {"x"}}, []string{"x"}
	}), "WebSocket.Header", "")
	for _, p := range []string{"", "a b", "a,b", "a\r\n", "é", "twice"} {
		list := []string{p, "twice"}
		fails(getty.NewWSClient(getty.WithServerAddress("ws://h/"), func(o *co) { o.WebSocket.Subprotocols = list }), "WebSocket.Subprotocols", p)
		fails(getty.NewWSServer(func(o *so) { o.WebSocket.Subprotocols = list }), "WebSocket.Subprotocols", p)
	}
	for _, origin := range []string{"example.com", "https://example.com/", "https://", "https://a/b", "", "https://u@a", "https://a?b"} {
		fails(getty.NewWSServer(func(o *so) { o.WebSocket.AllowedOrigins = []string{origin} }), "WebSocket.AllowedOrigins", origin)
	}
	fails(getty.NewTCPServer(getty.WithListener((*net.TCPListener)(nil))), "Listener", "nil")
	fails(getty.NewUDPClient(getty.WithServerAddress("127.0.0.1:1"), func(o *co) { o.UDP.ProbePayload = make([]byte, 65_508) }), "UDP.ProbePayload", "")
	for _, c := range carriers {
		fails(c.server(func(o *so) { o.Socket.ReadBuffer = -1 }), "Socket", "-1")
		fails(c.client("127.0.0.1:1", func(o *co) { o.Socket.TOS = 256 }), "Socket", "256")
	}
}

// endless answers an upgrade with headers that never end.
func endless(t *testing.T, answer string) (addr string, took func() int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan int, 1)
	go func() {
		conn, err := ln.Accept()
		_ = ln.Close()
		if err != nil {
			return
		}
		defer conn.Close()
		n, err := conn.Write([]byte(answer))
		line := []byte("X-Endless: " + strings.Repeat("x", 1000) + "\r\n")
		for err == nil {
			var m int
			m, err = conn.Write(line)
			n += m
		}
		done <- n
	}()
	return ln.Addr().String(), func() int { return within(t, done, "the end of the endless answer") }
}

// What a server says before the session is bounded, as its request is on the other side.
//
// case: 16
func TestEndlessAnswerToAnUpgrade(t *testing.T) {
	for _, begin := range []string{"HTTP/1.1 101 Switching Protocols\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 101 " + strings.Repeat("x", 100_000)} {
		for _, compress := range []bool{false, true} {
			addr, took := endless(t, begin)
			client := getty.NewWSClient(getty.WithServerAddress("ws://"+addr+"/"), func(o *getty.ClientOptions) {
				o.DialTimeout = patience
				o.ReconnectInterval, o.ReconnectMax = time.Hour, time.Hour
				o.WebSocket.Compression = compress
			})
			run(t, client, prepare(newTracer(t)))
			require.Less(t, took(), 16<<20, "what the kernel took; none of it was kept")
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			eventually(t, "the cause", func() bool { // it is kept a moment after the dial is counted
				_, err := client.Ready(ctx)
				return strings.Contains(fmt.Sprint(err), "WebSocket.MaxHeaderBytes")
			})
			require.EqualValues(t, 1, client.Stats().DialErrs)
		}
	}
	// An answer of that many bytes passes, and the frames behind it are no part of it.
	l := newTracer(t)
	up := websocket.Upgrader{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, http.Header{"X-Large": {strings.Repeat("x", 15_000)}})
		if err == nil {
			_ = ws.WriteMessage(websocket.BinaryMessage, frame(strings.Repeat("y", 100_000)))
		}
	})}
	go func() { _ = hs.Serve(ln) }()
	defer hs.Close()
	got := make(chan struct{}, 1)
	l.message = func(getty.Session, any) { got <- struct{}{} }
	run(t, getty.NewWSClient(getty.WithServerAddress("ws://"+ln.Addr().String()+"/")), prepare(l))
	within(t, got, "the package")
}

// docs/limits.md has a row for every option that is a limit: a number, a time, or what decides about
// connections. Those that are neither are named here.
func TestEveryLimitIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/limits.md")
	require.NoError(t, err)
	others := []string{
		"Addr", "Dispatch", "HalfClose", "KeepStale", "Listener", "Logger", "MultipathTCP", "Pool",
		"ReadWhileBlocked", "SlowConsumer", "Socket", "TLS", "Trace", "TimeCallbacks", "ProfileLabels", "TLSFiles", "Dial",
		"Unix.Mode", "Unix.KeepStale", "UDP.IgnoreProbes", "UDP.KeepOnRefused", "UDP.NoProbe", "UDP.ProbePayload",
		"Compress", "Handshake", "WebSocket.AllowedOrigins", "WebSocket.CheckOrigin", "WebSocket.Compression", "WebSocket.CompressionLevel",
		"WebSocket.Header", "WebSocket.Jar", "WebSocket.OnUpgrade", "WebSocket.Path", "WebSocket.Proxy",
		"WebSocket.RequireSubprotocol", "WebSocket.Subprotocols", "WebSocket.TextMessages",
	}
	for _, name := range getty.OptionNames() {
		if !slices.Contains(others, name) {
			require.Contains(t, string(page), "`"+name+"`", "docs/limits.md has no row for it")
		}
	}
}
