// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// A carrier is one transport, for tests that hold for all of them.
type carrier struct {
	name   string
	server func(...getty.ServerOption) *getty.Server
	client func(addr string, opts ...getty.ClientOption) *getty.Client
}

var carriers = []carrier{
	{"tcp", getty.NewTCPServer, func(addr string, opts ...getty.ClientOption) *getty.Client {
		return getty.NewTCPClient(append(opts, getty.WithServerAddress(addr))...)
	}},
	{"ws", getty.NewWSServer, func(addr string, opts ...getty.ClientOption) *getty.Client {
		return getty.NewWSClient(append(opts, getty.WithServerAddress("ws://"+addr+"/"))...)
	}},
	{"udp", getty.NewUDPEndPoint, func(addr string, opts ...getty.ClientOption) *getty.Client {
		return getty.NewUDPClient(append(opts, getty.WithServerAddress(addr))...)
	}},
	{"tls", func(opts ...getty.ServerOption) *getty.Server {
		return getty.NewTCPServer(append(opts, getty.WithServerTLS(localTLS().server))...)
	}, func(addr string, opts ...getty.ClientOption) *getty.Client {
		opts = append(opts, getty.WithServerAddress(addr), getty.WithClientTLS(localTLS().client))
		return getty.NewTCPClient(opts...)
	}},
	{"wss", func(opts ...getty.ServerOption) *getty.Server {
		return getty.NewWSServer(append(opts, getty.WithServerTLS(localTLS().server))...)
	}, func(addr string, opts ...getty.ClientOption) *getty.Client {
		opts = append(opts, getty.WithServerAddress("wss://"+addr+"/"), getty.WithClientTLS(localTLS().client))
		return getty.NewWSClient(opts...)
	}},
	{"unix", func(opts ...getty.ServerOption) *getty.Server {
		return getty.NewUnixServer(append([]getty.ServerOption{getty.WithLocalAddress(unixPath())}, opts...)...)
	}, func(addr string, opts ...getty.ClientOption) *getty.Client {
		return getty.NewUnixClient(append(opts, getty.WithServerAddress(addr))...)
	}},
	{"snappy", func(opts ...getty.ServerOption) *getty.Server {
		return getty.NewTCPServer(append(opts, compressServer(getty.CompressSnappy))...)
	}, func(addr string, opts ...getty.ClientOption) *getty.Client {
		return getty.NewTCPClient(append(opts, getty.WithServerAddress(addr), compressClient(getty.CompressSnappy))...)
	}},
	{"tls, deflate", func(opts ...getty.ServerOption) *getty.Server {
		opts = append(opts, getty.WithServerTLS(localTLS().server), compressServer(getty.CompressBestSpeed))
		return getty.NewTCPServer(opts...)
	}, func(addr string, opts ...getty.ClientOption) *getty.Client {
		opts = append(opts, getty.WithServerAddress(addr), getty.WithClientTLS(localTLS().client),
			compressClient(getty.CompressZip)) // the levels need not be the same
		return getty.NewTCPClient(opts...)
	}},
}

var unixPaths atomic.Int64

// unixPath returns the path of a socket that nobody has.
func unixPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("getty-%d-%d.sock", os.Getpid(), unixPaths.Add(1)))
}

func eachCarrier(t *testing.T, f func(t *testing.T, c carrier)) {
	for _, c := range carriers {
		t.Run(c.name, func(t *testing.T) { f(t, c) })
	}
}

// run starts an endpoint that must end completely with the test.
func run(t testing.TB, e getty.EndPoint, newSession getty.NewSessionCallback) {
	t.Helper()
	require.NoError(t, e.RunEventLoop(newSession))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := e.Shutdown(ctx)
		require.NoError(t, err, "Shutdown")
	})
}

// start starts an endpoint that the test itself ends, and ends it for a test that has failed before: the tests
// after it may need that no endpoint runs.
func start(t testing.TB, e getty.EndPoint, newSession getty.NewSessionCallback) {
	t.Helper()
	require.NoError(t, e.RunEventLoop(newSession))
	t.Cleanup(func() { endIfFailed(t, e) })
}

// endIfFailed ends e at once if the test has failed.
func endIfFailed(t testing.TB, e getty.EndPoint) {
	if t.Failed() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_, _ = e.Shutdown(now)
	}
}

func ready(t testing.TB, c *getty.Client) getty.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := c.Ready(ctx)
	require.NoError(t, err)
	return s
}

// A client's package comes back as it was, whatever carries it, for each dispatch.
func TestEchoOverEveryTransport(t *testing.T) {
	eachCarrier(t, func(t *testing.T, c carrier) {
		eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
			sl, cl := newTracer(t), newTracer(t)
			sl.unordered = d == getty.Unordered
			sl.message = echoPkg
			srv := c.server(getty.WithServerDispatch(d))
			run(t, srv, prepare(sl))
			got := make(chan string, 1)
			cl.message = func(_ getty.Session, pkg any) { got <- pkg.(*codec.Frame).String() }
			client := c.client(srv.Addr().String())
			run(t, client, prepare(cl))
			s := ready(t, client)
			for _, size := range []int{1, 200, 4000, 60000} {
				p := strings.Repeat("x", size)
				total, sent, err := s.WritePkg(p, 0)
				require.NoError(t, err)
				require.Equal(t, total, sent)
				require.Greater(t, total, size)
				require.Equal(t, p, within(t, got, fmt.Sprintf("the echo of %d bytes", size)))
			}
			// What a call brought is counted when it has returned.
			eventually(t, "all is counted", func() bool {
				st := s.Stats()
				return st.PkgsRead == 4 && st.PkgsWritten == 4
			})
		})
	})
}

// One package is one message, up to the limit, in both directions and for both ends of every pairing with
// gorilla's own client.
//
// acceptance: W11
func TestWebSocketWithGorilla(t *testing.T) {
	l := newTracer(t)
	l.message = echoPkg
	srv := getty.NewWSServer(briefClose, func(o *getty.ServerOptions) { o.WebSocket.Path = "/echo"; o.WebSocket.Compression = true })
	run(t, srv, prepare(l))
	for code, compress := range map[int]bool{websocket.CloseNormalClosure: false, websocket.CloseGoingAway: true} {
		d := websocket.Dialer{EnableCompression: compress}
		ws, _, err := d.Dial("ws://"+srv.Addr().String()+"/echo", nil)
		require.NoError(t, err)
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, 900_000} {
			msg := frame(strings.Repeat("y", size))
			require.NoError(t, ws.WriteMessage(websocket.BinaryMessage, msg))
			kind, back, err := ws.ReadMessage()
			require.NoError(t, err)
			require.Equal(t, websocket.BinaryMessage, kind)
			require.Equal(t, msg, back)
		}
		_, err = within(t, l.opened, "OnOpen").WriteBytesArray(frame("one"), frame("two"))
		require.NoError(t, err)
		for _, want := range []string{"one", "two"} {
			_, back, err := ws.ReadMessage()
			require.NoError(t, err)
			require.Equal(t, frame(want), back, "a message each")
		}
		// The close handshake is answered with the same code. (acceptance: L18)
		require.NoError(t, ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, "bye"), time.Now().Add(patience)))
		_, _, err = ws.ReadMessage()
		require.True(t, websocket.IsCloseError(err, code), "%v", err)
		s := within(t, l.closed, "OnClose")
		require.ErrorContains(t, s.Err(), "EOF")
		require.Empty(t, l.of(s).errs, "a close frame is a clean end")
		_ = ws.Close()
	}
	_, resp, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/other", nil)
	require.Error(t, err)
	require.Equal(t, 404, resp.StatusCode)
}

// acceptance: L18 fault: 78
func TestWebSocketShutdownSaysGoodbye(t *testing.T) {
	srv := getty.NewWSServer()
	run(t, srv, prepare(newTracer(t)))
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
	require.NoError(t, err)
	defer ws.Close()
	code := make(chan error, 1)
	go func() {
		_, _, err := ws.ReadMessage()
		code <- err
	}()
	eventually(t, "the session is open", func() bool { return srv.Stats().Opened == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	report, err := srv.Shutdown(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, report.Drained)
	require.True(t, websocket.IsCloseError(within(t, code, "the close frame"), 1001))
}

// acceptance: R05 fault: 67
func TestWebSocketLimitHoldsAfterDecompression(t *testing.T) {
	l := newTracer(t)
	l.message = func(getty.Session, any) { t.Error("OnMessage") }
	srv := getty.NewWSServer(func(o *getty.ServerOptions) { o.MaxMsgLen = 64 << 10; o.WebSocket.Compression = true })
	run(t, srv, prepare(l))
	d := websocket.Dialer{EnableCompression: true}
	ws, _, err := d.Dial("ws://"+srv.Addr().String()+"/", nil)
	require.NoError(t, err)
	defer ws.Close()
	require.NoError(t, ws.WriteMessage(websocket.BinaryMessage, make([]byte, 4<<20)))
	_, _, err = ws.ReadMessage()
	require.True(t, websocket.IsCloseError(err, 1009), "%v", err)
	_ = ws.Close()
	require.ErrorIs(t, within(t, l.closed, "OnClose").Err(), getty.ErrTooLong)
}

// acceptance: R07 fault: 72
func TestWebSocketOriginPolicy(t *testing.T) {
	srv := getty.NewWSServer(func(o *getty.ServerOptions) { o.WebSocket.AllowedOrigins = []string{"https://friend.example"} })
	run(t, srv, prepare(newTracer(t)))
	addr := srv.Addr().String()
	for origin, want := range map[string]int{
		"": 101, "http://" + addr: 101, "https://friend.example": 101, "https://evil.example": 403, "null": 403,
	} {
		h := map[string][]string{}
		if origin != "" {
			h["Origin"] = []string{origin}
		}
		ws, resp, err := websocket.DefaultDialer.Dial("ws://"+addr+"/", h)
		require.Equal(t, want, resp.StatusCode, "origin %q: %v", origin, err)
		if err == nil {
			_ = ws.Close()
		}
	}
}

// acceptance: R08 fault: 72
func TestWebSocketSlowHandshakeIsClosed(t *testing.T) {
	srv := getty.NewWSServer(func(o *getty.ServerOptions) { o.HandshakeTimeout = 50 * time.Millisecond })
	run(t, srv, prepare(newTracer(t)))
	var wg sync.WaitGroup
	for range 50 {
		c, err := net.Dial("tcp", srv.Addr().String())
		require.NoError(t, err)
		wg.Go(func() {
			defer c.Close()
			_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nUpg"))
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if n, err := c.Read(make([]byte, 1)); n == 0 && strings.Contains(err.Error(), "timeout") {
				t.Error("still open")
			}
		})
	}
	wg.Wait()
}

// acceptance: W07 fault: 76
func TestWebSocketManyWritersAndPings(t *testing.T) {
	const writers, each = 8, 200
	l := newTracer(t)
	var wg sync.WaitGroup
	both := make(chan struct{}) // a ping and a pong have come
	l.open = func(s getty.Session) error {
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					timeout := time.Duration(0)
					if i%3 == 0 {
						timeout = patience
					}
					switch {
					case i == each/2:
						<-both // a session under traffic is not pinged
					case i%25 == 0:
						time.Sleep(5 * time.Millisecond) // in a pause there are pings
					}
					if _, _, err := s.WritePkg(fmt.Sprintf("%d %d", w, i), timeout); err != nil {
						t.Error(err)
					}
				}
			})
		}
		return nil
	}
	srv := getty.NewWSServer(func(o *getty.ServerOptions) {
		o.WebSocket.PingPeriod = time.Millisecond
		o.CronPeriod = time.Millisecond
	})
	run(t, srv, prepare(l))
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
	require.NoError(t, err)
	defer ws.Close()
	require.NoError(t, ws.SetReadDeadline(time.Now().Add(patience)))
	var pings, pongs int
	count := func(n, other *int) {
		if *n++; *n == 1 && *other > 0 {
			close(both)
		}
	}
	answer := ws.PingHandler()
	ws.SetPingHandler(func(data string) error { count(&pings, &pongs); return answer(data) })
	ws.SetPongHandler(func(string) error { count(&pongs, &pings); return nil })
	next := make([]int, writers)
	for i := range writers * each {
		if i%10 == 0 {
			require.NoError(t, ws.WriteControl(websocket.PingMessage, []byte("ping"), time.Now().Add(patience)))
		}
		_, b, err := ws.ReadMessage()
		require.NoError(t, err)
		var w, i int
		_, err = fmt.Sscanf(string(b[4:]), "%d %d", &w, &i)
		require.NoError(t, err)
		require.Equal(t, next[w], i, "writer %d", w)
		next[w]++
	}
	wg.Wait()
}

// A handler that takes its time does not keep pings from being answered.
//
// fault: 71
func TestWebSocketAnswersPingsWhileAHandlerRuns(t *testing.T) {
	l := newTracer(t)
	release, running := make(chan struct{}), make(chan struct{})
	l.message = func(getty.Session, any) { close(running); <-release }
	srv := getty.NewWSServer()
	run(t, srv, prepare(l))
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
	require.NoError(t, err)
	defer ws.Close()
	pong := make(chan string, 1)
	ws.SetPongHandler(func(data string) error { pong <- data; return nil })
	go func() { _, _, _ = ws.ReadMessage() }()
	require.NoError(t, ws.WriteMessage(websocket.BinaryMessage, frame("x")))
	within(t, running, "the handler")
	require.NoError(t, ws.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(patience)))
	require.Equal(t, "are you there", within(t, pong, "the pong"))
	close(release)
}

// The limit set in the new-session callback is the one that holds on a client too.
//
// acceptance: R06
func TestWebSocketClientLimit(t *testing.T) {
	sl, cl := newTracer(t), newTracer(t)
	sl.open = func(s getty.Session) error { _, _, err := s.WritePkg(strings.Repeat("z", 8000), 0); return err }
	srv := getty.NewWSServer()
	run(t, srv, prepare(sl))
	got := make(chan int, 1)
	cl.message = func(_ getty.Session, pkg any) { got <- pkg.(*codec.Frame).Len() }
	client := getty.NewWSClient(getty.WithServerAddress("ws://"+srv.Addr().String()+"/"), func(o *getty.ClientOptions) { o.MaxMsgLen = 100 })
	run(t, client, func(s getty.Session) error {
		s.SetMaxMsgLen(1 << 20)
		return prepare(cl)(s)
	})
	require.Equal(t, 8000, within(t, got, "the package"))
}

// A peer that pings and never reads gets no more answers than fit, though the session itself writes nothing.
func TestWebSocketPingsWithoutReading(t *testing.T) {
	l := newTracer(t)
	srv := getty.NewWSServer(func(o *getty.ServerOptions) { o.WriteTimeout = time.Hour })
	run(t, srv, prepare(l))
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
	require.NoError(t, err)
	defer ws.Close()
	s := within(t, l.opened, "OnOpen")
	ping := append([]byte{0x80 | websocket.PingMessage, 0x80 | 125}, make([]byte, 4+125)...) // the mask is 0
	pings := bytes.Repeat(ping, 1000)
	most := 0
	for range 250 { // 32 MB of answers, more than the kernel's buffers take
		_, err = ws.NetConn().Write(pings)
		require.NoError(t, err)
		most = max(most, getty.ControlHeld(s))
	}
	require.Positive(t, most)
	require.LessOrEqual(t, most, 4<<10)
	require.False(t, s.IsClosed())
}

// A Reader that panics takes no package with it that it had decoded before from the same bytes.
func TestWebSocketReaderPanics(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		var all []*countedPkg
		srv := getty.NewWSServer(getty.WithServerDispatch(d))
		run(t, srv, prepare(l, readerFunc(func(b []byte) (any, int, error) {
			if string(b) == "panic" {
				panic("boom")
			}
			all = append(all, &countedPkg{})
			return all[len(all)-1], len(b), nil
		})))
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
		require.NoError(t, err)
		defer ws.Close()
		var out []byte
		for _, p := range []string{"one", "two", "panic"} {
			out = append(out, 0x80|websocket.BinaryMessage, 0x80|byte(len(p)), 0, 0, 0, 0) // the mask is 0
			out = append(out, p...)
		}
		_, err = ws.NetConn().Write(out)
		require.NoError(t, err)
		s := within(t, l.closed, "OnClose")
		st := s.Stats()
		require.EqualValues(t, 2, st.PkgsRead)
		require.EqualValues(t, 2, uint64(l.of(s).messages)+st.Undelivered)
		require.Len(t, all, 2)
		for _, p := range all {
			require.EqualValues(t, 1, p.released.Load())
		}
	})
}

// A peer that floods an inline session and reads late gets every answer: the session pauses between two messages
// at the high mark, also where one read brought both.
func TestWebSocketPausesBetweenMessages(t *testing.T) {
	const questions = 30
	l := newTracer(t)
	answer := strings.Repeat("a", 100_000)
	l.message = func(s getty.Session, pkg any) {
		if _, _, err := s.WritePkg(answer, 0); err != nil {
			t.Errorf("an answer is refused: %v", err)
		}
	}
	srv := getty.NewWSServer(getty.WithServerDispatch(getty.Inline), func(o *getty.ServerOptions) {
		o.HighWater = 200_000
		o.Socket.WriteBuffer = 64 << 10
	})
	run(t, srv, prepare(l, codec.Message{}))
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
	require.NoError(t, err)
	defer ws.Close()
	one := []byte{0x80 | websocket.BinaryMessage, 0x80 | 1, 0, 0, 0, 0, 'q'} // the mask is 0
	_, err = ws.NetConn().Write(bytes.Repeat(one, questions))
	require.NoError(t, err)
	eventually(t, "the high mark", func() bool { return srv.Stats().Total.Queued >= 200_000 })
	require.NoError(t, ws.SetReadDeadline(time.Now().Add(patience)))
	for range questions {
		_, got, err := ws.ReadMessage()
		require.NoError(t, err)
		require.Len(t, got, len(answer))
	}
}
