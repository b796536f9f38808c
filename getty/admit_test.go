// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/gettytest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// from dials srv from a loopback address.
func from(t testing.TB, ip string, srv *getty.Server) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.Dial("tcp", srv.Addr().String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c.(*net.TCPConn), nil
}

func skipUnlessLoopbackIsWide(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
}

// gone reports that the other side has closed c.
func gone(t testing.TB, c net.Conn) {
	t.Helper()
	_, err := c.Read(make([]byte, 1))
	require.Error(t, err)
	require.False(t, errors.Is(err, os.ErrDeadlineExceeded))
}

// Admit decides before anything else is done for a connection; what it does costs one connection at
// most.
func TestAdmit(t *testing.T) {
	for name, server := range map[string]func(...getty.ServerOption) *getty.Server{
		"tcp": getty.NewTCPServer, "ws": getty.NewWSServer,
	} {
		t.Run(name, func(t *testing.T) {
			skipUnlessLoopbackIsWide(t)
			book := newLogBook()
			l := newTracer(t)
			srv := server(func(o *getty.ServerOptions) {
				o.Logger = book.Logger
				o.Admit = func(a net.Addr) error {
					switch {
					case strings.HasPrefix(a.String(), "127.0.0.2:"):
						return errors.New("not you")
					case strings.HasPrefix(a.String(), "127.0.0.3:"):
						panic("enough")
					case strings.HasPrefix(a.String(), "127.0.0.4:"):
						runtime.Goexit()
					}
					return nil
				}
				o.WebSocket.OnUpgrade = nil
			})
			run(t, srv, prepare(l))
			for range 3 {
				for _, ip := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} {
					c, err := from(t, ip, srv)
					require.NoError(t, err)
					gone(t, c)
				}
			}
			require.EqualValues(t, 9, srv.Stats().Refusals.Admit)
			require.EqualValues(t, 9, srv.Stats().Refused)
			require.Equal(t, 3, book.count("callback panicked"))
			require.NotZero(t, book.count("not you"))
			if name == "ws" {
				ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
				require.NoError(t, err)
				defer ws.Close()
			} else {
				dial(t, srv)
			}
			within(t, l.opened, "OnOpen")
			require.EqualValues(t, 1, getty.Places(srv))
		})
	}
}

// One address has its share of the places, whatever its connections do; the places of those who are
// gone are free, and nothing is kept of an address that has none.
func TestMaxSessionsPerAddr(t *testing.T) {
	skipUnlessLoopbackIsWide(t)
	const most = 3
	limit := func(o *getty.ServerOptions) { o.MaxSessionsPerAddr = most }
	t.Run("tcp", func(t *testing.T) {
		l := newTracer(t)
		srv := getty.NewTCPServer(limit)
		run(t, srv, prepare(l))
		for range 3 {
			var all []*net.TCPConn
			for i := range 2 * most {
				for _, ip := range []string{"127.0.0.2", "127.0.0.3"} {
					c, err := from(t, ip, srv)
					require.NoError(t, err)
					if i >= most {
						gone(t, c)
						continue
					}
					all = append(all, c)
					within(t, l.opened, "OnOpen")
				}
			}
			require.EqualValues(t, 2*most, getty.Places(srv))
			for _, c := range all {
				_ = c.Close()
				within(t, l.closed, "OnClose")
			}
			require.Zero(t, getty.Places(srv))
			require.Zero(t, getty.AddrsKnown(srv))
		}
		require.EqualValues(t, 3*2*most, srv.Stats().Refusals.PerAddr)
	})
	// Connections that never ask for an upgrade, or shake no hands, count as well.
	for name, server := range map[string]*getty.Server{
		"ws":  getty.NewWSServer(limit),
		"tls": getty.NewTCPServer(limit, getty.WithServerTLS(serverTLS())),
	} {
		t.Run(name, func(t *testing.T) {
			run(t, server, prepare(newTracer(t)))
			var all []*net.TCPConn
			for range most {
				c, err := from(t, "127.0.0.2", server)
				require.NoError(t, err)
				all = append(all, c)
			}
			eventually(t, "they have their places", func() bool { return getty.Places(server) == most })
			c, err := from(t, "127.0.0.2", server)
			require.NoError(t, err)
			_, _ = io.WriteString(c, upgradeRequest+"\r\n")
			if name == "ws" {
				answer := make([]byte, 12)
				_, err = io.ReadFull(c, answer)
				require.NoError(t, err)
				require.Equal(t, "HTTP/1.1 503", string(answer))
				_ = c.Close()
			} else {
				gone(t, c)
			}
			eventually(t, "it is counted", func() bool { return server.Stats().Refusals.PerAddr == 1 })
			for _, c := range all {
				_ = c.Close()
			}
			eventually(t, "all have left", func() bool { return getty.Places(server) == 0 && getty.AddrsKnown(server) == 0 })
		})
	}
	t.Run("mounted", func(t *testing.T) {
		wsServers(t, func(t *testing.T, start func(*tracer, ...getty.ServerOption) (getty.EndPoint, string)) {
			l := newTracer(t)
			e, addr := start(l, limit)
			var all []*websocket.Conn
			for range most {
				ws, _, err := websocket.DefaultDialer.Dial("ws://"+addr+"/", nil)
				require.NoError(t, err)
				all = append(all, ws)
			}
			_, resp, err := websocket.DefaultDialer.Dial("ws://"+addr+"/", nil)
			require.Error(t, err)
			require.Equal(t, 503, resp.StatusCode)
			for _, ws := range all {
				_ = ws.Close()
				within(t, l.closed, "OnClose")
			}
			eventually(t, "all have left", func() bool { return getty.Places(e) == 0 && getty.AddrsKnown(e) == 0 })
		})
	})
}

// What counts as one address.
func TestNeighbourhood(t *testing.T) {
	tcp := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		require.NoError(t, err)
		return a
	}
	for _, c := range []struct{ a, b net.Addr }{
		{tcp("1.2.3.4:5"), tcp("1.2.3.4:6")},
		{tcp("1.2.3.4:5"), tcp("[::ffff:1.2.3.4]:6")},
		{tcp("[2001:db8:1:2::1]:1"), tcp("[2001:db8:1:2:ffff::9]:2")},
		{tcp("1.2.3.4:5"), textAddr("1.2.3.4:5")},
		{textAddr("/run/x.sock"), textAddr("@")}, // no address: no limit
		{nil, textAddr("")},
	} {
		require.Equal(t, getty.Neighbourhood(c.a), getty.Neighbourhood(c.b), "%v %v", c.a, c.b)
	}
	require.NotEqual(t, getty.Neighbourhood(tcp("1.2.3.4:5")), getty.Neighbourhood(tcp("1.2.3.5:5")))
	require.NotEqual(t, getty.Neighbourhood(tcp("[2001:db8:1:2::1]:1")), getty.Neighbourhood(tcp("[2001:db8:1:3::1]:1")))
	require.Empty(t, getty.Neighbourhood(nil))
}

// A textAddr is an address that only has a text.
type textAddr string

func (a textAddr) Network() string { return "text" }
func (a textAddr) String() string  { return string(a) }

// A flood of connects from one address leaves others their rate.
func TestFloodFromOneAddress(t *testing.T) {
	skipUnlessLoopbackIsWide(t)
	l := newCrowdEcho(t)
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.MaxSessionsPerAddr = 10
		o.Logger = newLogBook().Logger
	})
	var flood atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				if c, err := d.Dial("tcp", srv.Addr().String()); err == nil {
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
					flood.Add(1)
				}
			}
		})
	}
	const others = 200
	begun := time.Now()
	for range others {
		c, err := from(t, "127.0.0.3", srv)
		require.NoError(t, err)
		echoOnce(t, c)
		_ = c.Close()
	}
	took := time.Since(begun)
	for time.Since(begun) < 200*time.Millisecond {
		time.Sleep(10 * time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d connects of the flood, %d others were served in %v", flood.Load(), others, took)
	require.Greater(t, flood.Load(), int64(others))
	_, err := srv.Shutdown(t.Context())
	require.NoError(t, err)
	eventually(t, "no place is taken", func() bool { return getty.Places(srv) == 0 })
}

// Reading keeps to the rate, on every transport, in packages and in bytes, and nothing is lost on a
// stream.
func TestReadRate(t *testing.T) {
	length, perSecond, exact := time.Second, 1000, false
	if os.Getenv("GOSTKIT_LONG") != "" {
		length, perSecond, exact = 10*time.Second, 20_000, true
	}
	const size = 100
	eachWire(t, func(t *testing.T, w wire) {
		for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
			for name, rate := range map[string]getty.ReadRate{
				"packages": {Packages: perSecond},
				"bytes":    {Bytes: perSecond * (size + 4)},
			} {
				t.Run(d.String()+" "+name, func(t *testing.T) {
					t.Parallel()
					l := newTracer(t)
					var handled atomic.Int64
					l.message = func(getty.Session, any) { handled.Add(1) }
					srv := w.server(t, getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
						o.ReadRate = rate
						o.MailboxLen = 1 << 20
					})
					run(t, srv, prepare(l))
					p := w.dial(t, srv)
					one := p.encode(frame(noise(size)))
					go func() {
						for { // as much as the session takes
							if _, err := p.conn.Write(one); err != nil {
								return
							}
						}
					}()
					s := within(t, l.opened, "OnOpen")
					before, begun := int64(0), time.Now()
					if exact { // the burst is over
						time.Sleep(time.Second)
						before, begun = handled.Load(), time.Now()
					}
					time.Sleep(length)
					n, took := handled.Load()-before, time.Since(begun)
					require.NoError(t, s.Err())
					s.CloseNow()
					_ = p.conn.Close()
					ratio := float64(n) / (float64(perSecond) * took.Seconds())
					t.Logf("%d packages in %v: %.3f of the rate", n, took, ratio)
					if exact && w.name == "tcp" {
						require.InDelta(t, 1, ratio, 0.02)
						return
					}
					// A burst of a tenth of a second, and one read, may come at once.
					over := 0.1/took.Seconds() + 65536/float64(perSecond*(size+4))/took.Seconds()
					require.Less(t, ratio, 1.02+over)
					if name == "bytes" && w.name == "websocket" || w.name == "wss" {
						return // the headers count as well
					}
					require.Greater(t, ratio, 0.5, "on a busy machine it may be less than the rate, but not nothing: %v", s.Err())
				})
			}
		}
	})
}

// Packages that are never completed are cut too: with reading stopped they would stay for ever.
func TestMemoryBudgetOfIncompletePackages(t *testing.T) {
	l := newTracer(t)
	l.message = echoPkg
	srv := getty.NewTCPServer(func(o *getty.ServerOptions) {
		o.MemoryBudget, o.MaxMsgLen = 1<<20, 1<<20
	})
	run(t, srv, prepare(l))
	for range 20 {
		c := dial(t, srv)
		_, err := c.Write(frame(noise(1 << 19))[:1<<18])
		require.NoError(t, err)
	}
	require.ErrorIs(t, within(t, l.closed, "OnClose").Err(), getty.ErrMemoryBudget)
	c := dial(t, srv)
	echoOnce(t, c)
}

// While reading pauses, the limits of the peer stand still.
func TestLimitsStandStillWhilePaced(t *testing.T) {
	for name, opts := range map[string]func(*getty.ServerOptions){
		"idle": func(o *getty.ServerOptions) { o.IdleTimeout = 100 * time.Millisecond },
		"read": func(o *getty.ServerOptions) { o.ReadTimeout = 100 * time.Millisecond },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ln := gettytest.Listen()
				l := newTracer(t)
				got := make(chan struct{}, 100)
				l.message = func(getty.Session, any) { got <- struct{}{} }
				srv := getty.NewTCPServer(getty.WithListener(ln), opts, func(o *getty.ServerOptions) {
					o.ReadRate = getty.ReadRate{Packages: 1}
				})
				run(t, srv, prepare(l))
				c := dialMemory(t, ln)
				s := <-l.opened
				const n = 5
				begun := time.Now()
				for i := range n { // a package and a half each time; the next read comes after a second
					b := append(numbered(i), numbered(i)[:5]...)
					if i > 0 {
						b = append(numbered(i)[5:], b...)
					}
					_, err := c.Write(b)
					require.NoError(t, err)
					select {
					case <-got:
					case <-s.Done():
						require.FailNow(t, "it has ended", "after %v: %v", time.Since(begun), s.Err())
					}
				}
				require.GreaterOrEqual(t, time.Since(begun), (n-2)*time.Second-time.Second/2) // less a burst
			})
		})
	}
}

// A session that pauses for its rate ends as any other does.
func TestEndsWhilePaced(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for _, end := range []string{"Close", "CloseNow", "Shutdown", "the peer's end"} {
			t.Run(end, func(t *testing.T) {
				l := newTracer(t)
				l.unordered = d == getty.Unordered
				var handled atomic.Int64
				l.message = func(getty.Session, any) { handled.Add(1) }
				srv := serve(t, prepare(l), getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
					o.ReadRate = getty.ReadRate{Packages: 1} // the second package comes after hours
				})
				c := dial(t, srv)
				for i := range 100 {
					_, err := c.Write(numbered(i))
					require.NoError(t, err)
				}
				s := within(t, l.opened, "OnOpen")
				eventually(t, "it pauses", func() bool { return getty.IsPaced(s) })
				switch end {
				case "Close":
					s.Close()
					go discardThenClose(c)
				case "CloseNow":
					s.CloseNow()
				case "Shutdown":
					go discardThenClose(c)
				case "the peer's end":
					_ = c.Close()
					s.Close() // its end would be met behind the packages before it
				}
				_, err := srv.Shutdown(t.Context())
				require.NoError(t, err)
				within(t, s.Done(), "Done")
				st := s.Stats()
				require.EqualValues(t, st.PkgsRead, handled.Load()+int64(st.Undelivered))
			})
		}
	})
}

// Datagrams beyond the rate wait in the kernel, or are dropped by it.
func TestReadRateOverUDP(t *testing.T) {
	l := newTracer(t)
	var handled atomic.Int64
	l.message = func(getty.Session, any) { handled.Add(1) }
	srv := getty.NewUDPEndPoint(func(o *getty.ServerOptions) { o.ReadRate = getty.ReadRate{Packages: 100} })
	run(t, srv, prepare(l))
	client := getty.NewUDPClient(getty.WithServerAddress(srv.Addr().String()), func(o *getty.ClientOptions) { o.UDP.NoProbe = true })
	run(t, client, prepare(newTracer(t)))
	s := ready(t, client)
	begun := time.Now()
	for time.Since(begun) < 300*time.Millisecond {
		_, _, _ = s.WritePkg("x", 0)
		time.Sleep(100 * time.Microsecond)
	}
	n, took := handled.Load(), time.Since(begun)
	require.Less(t, float64(n), 100*took.Seconds()+100*0.1+2)
	require.Positive(t, n)
}

// A budget holds while many peers flood and never read: reading pauses, and the largest queues are
// cut. A peer that reads what it asked for keeps its session.
func TestMemoryBudget(t *testing.T) {
	peers := 200
	if os.Getenv("GOSTKIT_LONG") != "" {
		peers = 2000
	}
	const budget = 16 << 20
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
		t.Run(d.String(), func(t *testing.T) {
			l := newCrowdEcho(t)
			srv := serve(t, prepare(echoMuch{l}), getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
				o.MemoryBudget, o.WriteTimeout, o.WaitTime = budget, -1, -1
				o.Socket.WriteBuffer = 16 << 10
				o.Logger = newLogBook().Logger
			})
			polite := dial(t, srv)
			big := frame(noise(1000))
			var conns []net.Conn
			var wg sync.WaitGroup
			for range peers {
				c := dial(t, srv)
				require.NoError(t, c.SetReadBuffer(4<<10))
				conns = append(conns, c)
				wg.Go(func() {
					for {
						if _, err := c.Write(big); err != nil {
							return
						}
					}
				})
			}
			most := int64(0)
			for begun := time.Now(); time.Since(begun) < time.Second || srv.Stats().Cut == 0; time.Sleep(time.Millisecond) {
				most = max(most, srv.Stats().Held)
				require.Less(t, time.Since(begun), patience)
			}
			t.Logf("at most %d of %d bytes held, %d sessions cut", most, budget, srv.Stats().Cut)
			require.Less(t, most, int64(budget+budget/10))
			for range 5 {
				echoOnceMuch(t, polite)
			}
			for _, c := range conns {
				_ = c.Close()
			}
			wg.Wait()
			_ = polite.Close()
			_, err := srv.Shutdown(t.Context())
			require.NoError(t, err)
			require.Zero(t, srv.Stats().Held, "every byte that was counted is counted out")
		})
	}
}

// echoMuch answers each package ten times.
type echoMuch struct{ echoListener }

func (l echoMuch) OnMessage(s getty.Session, pkg any) {
	for range 10 {
		_, _, _ = s.WritePkg(pkg, 0)
	}
}

func echoOnceMuch(t testing.TB, c net.Conn) {
	_, err := c.Write(frame("hello"))
	require.NoError(t, err)
	for range 10 {
		require.Equal(t, "hello", readFrame(t, c))
	}
}

// A shortage that comes and goes at any moment stops no session for good: peers that ask, and ask
// again where their session is cut, get all answers.
func TestMemoryBudgetComesAndGoes(t *testing.T) {
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered, getty.Unordered} {
		t.Run(d.String(), func(t *testing.T) {
			l := newCrowdEcho(t)
			srv := serve(t, prepare(l), getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
				o.MemoryBudget, o.WaitTime = 64<<10, -1
				o.Logger = newLogBook().Logger
			})
			big := frame(noise(7 << 10))
			ask := func(answered *int) error {
				c, err := net.Dial("tcp", srv.Addr().String())
				if err != nil {
					return err
				}
				defer c.Close()
				for in := make([]byte, len(big)); *answered < 100; *answered++ {
					_ = c.SetDeadline(time.Now().Add(patience))
					if _, err := c.Write(big); err != nil {
						return err
					}
					if _, err := io.ReadFull(c, in); err != nil {
						return err
					}
				}
				return nil
			}
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for answered := 0; answered < 100; {
						if !assert.NotErrorIs(t, ask(&answered), os.ErrDeadlineExceeded, "reading pauses for good") {
							return
						}
					}
				})
			}
			wg.Wait()
			eventually(t, "all is counted out", func() bool { return srv.Stats().Held == 0 })
		})
	}
}

// Queues that writers fill, without any reading, are cut as well, the largest first.
func TestMemoryBudgetCutsTheLargest(t *testing.T) {
	const budget = 4 << 20
	l := newTracer(t)
	srv := getty.NewTCPServer(func(o *getty.ServerOptions) {
		o.MemoryBudget, o.HighWater, o.WriteTimeout, o.WaitTime = budget, 64<<20, -1, -1
		o.Socket.WriteBuffer = 16 << 10
		o.MaxMsgLen = 64 << 20
	})
	run(t, srv, prepare(l))
	var all []getty.Session
	for range 3 {
		c := dial(t, srv)
		require.NoError(t, c.SetReadBuffer(4<<10))
		all = append(all, within(t, l.opened, "OnOpen"))
	}
	fill := func(s getty.Session, n int) {
		_, _, err := s.WritePkg(strings.Repeat("x", n), 0)
		require.NoError(t, err)
	}
	fill(all[0], budget/8)
	fill(all[1], budget/4)
	fill(all[2], budget*3/4)
	s := within(t, l.closed, "the end of the largest")
	require.Same(t, all[2], s)
	require.ErrorIs(t, s.Err(), getty.ErrMemoryBudget)
	eventually(t, "the rest is within the budget", func() bool { return srv.Stats().Held <= budget })
	require.EqualValues(t, 1, srv.Stats().Cut)
	require.False(t, all[0].IsClosed())
	require.False(t, all[1].IsClosed())
}

// Sessions end after their lifetime, spread over its last eighth: what was read is answered, the end
// is clean, and a WebSocket peer is told that it may come back.
func TestMaxLifetime(t *testing.T) {
	const limit = 8 * time.Hour
	bubble(t, func(t *testing.T) {
		ln := gettytest.Listen()
		l := newTracer(t)
		l.message = echoPkg
		srv := getty.NewTCPServer(getty.WithListener(ln), func(o *getty.ServerOptions) { o.MaxLifetime = limit })
		run(t, srv, prepare(l))
		born := time.Now()
		const n = 64
		for range n {
			c := dialMemory(t, ln)
			go discardThenClose(c)
			<-l.opened
		}
		var ends []time.Duration
		for range n {
			s := <-l.closed
			require.NoError(t, s.Err())
			ends = append(ends, time.Since(born))
		}
		sum := time.Duration(0)
		for _, at := range ends {
			require.LessOrEqual(t, at, limit+time.Second)
			require.GreaterOrEqual(t, at, limit-limit/8)
			sum += at
		}
		require.InDelta(t, float64(limit-limit/16), float64(sum/n), float64(limit)/100)
		require.Greater(t, ends[n-1]-ends[0], limit/10)
	})
	t.Run("websocket", func(t *testing.T) {
		l := newTracer(t)
		srv := getty.NewWSServer(func(o *getty.ServerOptions) { o.MaxLifetime = 20 * time.Millisecond })
		run(t, srv, prepare(l))
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+srv.Addr().String()+"/", nil)
		require.NoError(t, err)
		_, _, err = ws.ReadMessage()
		require.True(t, websocket.IsCloseError(err, 1001), "%v", err)
		_ = ws.Close()
		require.NoError(t, within(t, l.closed, "OnClose").Err())
	})
	t.Run("a client comes back", func(t *testing.T) {
		srv := getty.NewTCPServer()
		run(t, srv, prepare(newTracer(t)))
		l := newTracer(t)
		client := getty.NewTCPClient(getty.WithServerAddress(srv.Addr().String()), func(o *getty.ClientOptions) {
			o.MaxLifetime, o.ReconnectInterval = 10*time.Millisecond, time.Millisecond
		})
		run(t, client, prepare(l))
		for range 5 {
			within(t, l.closed, "OnClose")
		}
	})
}

// Bad values are named.
func TestBadRates(t *testing.T) {
	for _, r := range []getty.ReadRate{{Packages: -1}, {Bytes: -1}, {Packages: 1, Burst: -1}, {Burst: 1}} {
		err := getty.NewTCPServer(func(o *getty.ServerOptions) { o.ReadRate = r }).RunEventLoop(prepare(newTracer(t)))
		require.ErrorContains(t, err, "ReadRate", fmt.Sprint(r))
	}
	for _, r := range []getty.ReadRate{{Packages: math.MaxInt}, {Bytes: math.MaxInt}, {Packages: 1, Burst: math.MaxInt64}} {
		l := newTracer(t)
		l.message = echoPkg
		c := dial(t, serve(t, prepare(l), func(o *getty.ServerOptions) { o.ReadRate = r }))
		_, err := c.Write(frame("x"))
		require.NoError(t, err)
		require.Equal(t, "x", readFrame(t, c))
	}
}
