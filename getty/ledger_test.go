// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// How lost data is judged: every package that WritePkg took is handed to the peer's handler, or the session
// that carried it ends with a cause; what is missing is then a tail. A ledger records one direction of one
// connection, and judge compares it with what both sessions say about themselves.

// A ledger is what was written and delivered in one direction.
type ledger struct {
	epoch uint64 // tells this direction's packages from all others

	mu        sync.Mutex
	outcomes  []error // guarded by mu: of each write, in the order of the calls; nil: accepted
	late      int     // guarded by mu: writes that failed and may have been accepted first
	delivered []int   // guarded by mu: numbers, in the order of OnMessage
	foreign   []string
}

var ledgerEpochs atomic.Uint64

func newLedger() *ledger { return &ledger{epoch: ledgerEpochs.Add(1)} }

// pkg is package n: epoch, number, filler and a checksum of all that.
func (g *ledger) pkg(n, filler int) string {
	b := binary.BigEndian.AppendUint64(nil, g.epoch)
	b = binary.BigEndian.AppendUint32(b, uint32(n))
	for i := range filler {
		b = append(b, byte(n+i))
	}
	return string(binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b)))
}

// deliver records a package that came.
func (g *ledger) deliver(p string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(p) < 16 || crc32.ChecksumIEEE([]byte(p[:len(p)-4])) != binary.BigEndian.Uint32([]byte(p[len(p)-4:])) ||
		binary.BigEndian.Uint64([]byte(p)) != g.epoch {
		g.foreign = append(g.foreign, fmt.Sprintf("%.20q", p))
		return
	}
	g.delivered = append(g.delivered, int(binary.BigEndian.Uint32([]byte(p[8:]))))
}

func (g *ledger) result(total int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.outcomes = append(g.outcomes, err)
	if err != nil && total > 0 {
		g.late++
	}
}

func (g *ledger) arrived() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.delivered)
}

// An end is what a session says of itself when it has ended. A plain socket's end has no stats.
type end struct {
	stats *getty.SessionStats
	err   error
}

func endOf(s getty.Session) end {
	st := s.Stats()
	return end{&st, s.Err()}
}

// judge returns what is wrong with a direction whose two sessions have ended, I1 to I8 being the invariants of
// the fault catalogue.
func (g *ledger) judge(from, to end, ordered bool) (wrong []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	var accepted []int
	for n, err := range g.outcomes {
		if err == nil {
			accepted = append(accepted, n)
		}
	}
	if len(g.foreign) > 0 {
		say("I1: %d packages nobody wrote, such as %s", len(g.foreign), g.foreign[0])
	}
	got := slices.Clone(g.delivered)
	if ordered && !slices.IsSorted(got) {
		say("I3: out of order: %v", got)
	}
	slices.Sort(got)
	if len(slices.Compact(slices.Clone(got))) != len(got) {
		say("I2: delivered twice: %v", got)
	}
	read := len(got)
	if to.stats != nil {
		read = int(to.stats.PkgsRead)
		if u := int(to.stats.Undelivered); len(got)+u != read {
			say("I8: %d read, %d delivered, %d undelivered", read, len(got), u)
		}
		if to.stats.Queued != 0 {
			say("I8: the receiver has %d bytes queued", to.stats.Queued)
		}
	}
	// What was read is a prefix of what was accepted, and what was delivered a prefix of that; the tasks of an
	// unordered session may leave holes in it, which are counted as undelivered.
	if read > len(accepted) {
		say("I4: %d read of %d accepted", read, len(accepted))
	} else if ordered && !slices.Equal(got, accepted[:min(len(got), len(accepted))]) {
		say("I4, I7: a hole, or a refused package came: %v of %v", got, accepted)
	} else {
		for _, n := range got {
			if !slices.Contains(accepted[:read], n) {
				say("I4, I7: package %d came and is not among the first %d accepted", n, read)
			}
		}
	}
	if st := from.stats; st != nil {
		// A call that failed may have been accepted first, but not if it was withdrawn.
		known := int(st.PkgsWritten + st.Unsent - st.Unacked)
		most := len(accepted) + g.late - int(st.Withdrawn)
		if known < len(accepted) || known > most || st.Queued != 0 {
			say("I8: %d accepted, %d more perhaps, %d of them withdrawn, but %d written, %d unsent, %d bytes queued",
				len(accepted), g.late, st.Withdrawn, st.PkgsWritten, st.Unsent, st.Queued)
		}
		if int(st.PkgsWritten) < read {
			say("I8: %d written, %d read", st.PkgsWritten, read)
		}
		if st.Unsent > 0 && from.err == nil {
			say("I6: %d unsent and no cause", st.Unsent)
		}
	}
	// Our graceful close drained, and the peer did not end by itself: then it saw that end, and got everything.
	if from.stats != nil && from.err == nil && !ownEnd(to.err) && (to.err != io.EOF || len(got) != len(accepted)) {
		say("I5: a clean end that the peer saw as %v, %d delivered of %d accepted", to.err, len(got), len(accepted))
	}
	return wrong
}

// ownEnd reports whether a session with that cause ended by itself, whatever its peer did: also when the time
// of a write was over and a part of its package had left.
func ownEnd(err error) bool {
	var p *getty.PanicError
	return err == nil || errors.Is(err, getty.ErrSessionClosed) || errors.Is(err, getty.ErrWriteTimeout) || errors.As(err, &p)
}

// The judge itself is judged: it finds fault with each kind of loss, and with nothing else.
func TestLedgerJudge(t *testing.T) {
	no := getty.ErrSessionBlocked
	for name, test := range map[string]struct {
		outcomes  []error
		delivered []int
		foreign   bool
		from, to  getty.SessionStats
		err       error // of the sender
		toErr     error // of the receiver; nil: the end of the stream
		unordered bool
		want      string
	}{
		"all is well":            {outcomes: []error{nil, no, nil}, delivered: []int{0, 2}, from: getty.SessionStats{PkgsWritten: 2}, to: getty.SessionStats{PkgsRead: 2}},
		"a tail is lost, named":  {outcomes: []error{nil, nil, nil}, delivered: []int{0}, from: getty.SessionStats{PkgsWritten: 2, Unsent: 1}, to: getty.SessionStats{PkgsRead: 1}, err: io.EOF},
		"unordered":              {outcomes: []error{nil, nil, nil}, delivered: []int{2, 0}, unordered: true, from: getty.SessionStats{PkgsWritten: 3}, to: getty.SessionStats{PkgsRead: 3, Undelivered: 1}, err: io.EOF},
		"invented":               {outcomes: []error{nil}, delivered: []int{0}, foreign: true, from: getty.SessionStats{PkgsWritten: 1}, to: getty.SessionStats{PkgsRead: 1}, want: "I1"},
		"twice":                  {outcomes: []error{nil, nil}, delivered: []int{0, 0}, from: getty.SessionStats{PkgsWritten: 2}, to: getty.SessionStats{PkgsRead: 2}, want: "I2"},
		"out of order":           {outcomes: []error{nil, nil}, delivered: []int{1, 0}, from: getty.SessionStats{PkgsWritten: 2}, to: getty.SessionStats{PkgsRead: 2}, want: "I3"},
		"a hole":                 {outcomes: []error{nil, nil, nil}, delivered: []int{0, 2}, from: getty.SessionStats{PkgsWritten: 3}, to: getty.SessionStats{PkgsRead: 2}, err: io.EOF, want: "I4"},
		"a hole, unordered":      {outcomes: []error{nil, nil, nil}, delivered: []int{2, 0}, unordered: true, from: getty.SessionStats{PkgsWritten: 3}, to: getty.SessionStats{PkgsRead: 2}, err: io.EOF, want: "I4"},
		"a clean end, one lost":  {outcomes: []error{nil, nil}, delivered: []int{0}, from: getty.SessionStats{PkgsWritten: 2}, to: getty.SessionStats{PkgsRead: 1}, want: "I5"},
		"a clean end, a reset":   {outcomes: []error{nil}, delivered: []int{0}, from: getty.SessionStats{PkgsWritten: 1}, to: getty.SessionStats{PkgsRead: 1}, toErr: syscall.ECONNRESET, want: "I5"},
		"withdrawn and counted":  {outcomes: []error{getty.ErrWriteTimeout}, from: getty.SessionStats{Withdrawn: 1, Unsent: 1}, err: io.EOF, want: "I8"},
		"unsent without a cause": {outcomes: []error{nil, nil}, delivered: []int{0}, from: getty.SessionStats{PkgsWritten: 1, Unsent: 1}, to: getty.SessionStats{PkgsRead: 1}, want: "I6"},
		"refused and delivered":  {outcomes: []error{nil, no}, delivered: []int{0, 1}, from: getty.SessionStats{PkgsWritten: 2}, to: getty.SessionStats{PkgsRead: 2}, want: "I4"},
		"not accounted, sender":  {outcomes: []error{nil, nil}, delivered: []int{0}, from: getty.SessionStats{PkgsWritten: 1}, to: getty.SessionStats{PkgsRead: 1}, err: io.EOF, want: "I8"},
		"not accounted, reader":  {outcomes: []error{nil, nil}, delivered: []int{0}, from: getty.SessionStats{PkgsWritten: 2}, to: getty.SessionStats{PkgsRead: 2}, err: io.EOF, want: "I8"},
		"still queued":           {outcomes: []error{nil}, delivered: []int{0}, from: getty.SessionStats{PkgsWritten: 1, Queued: 1}, to: getty.SessionStats{PkgsRead: 1}, want: "I8"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newLedger()
			g.outcomes, g.delivered, g.late = test.outcomes, test.delivered, int(test.from.Withdrawn)
			if test.foreign {
				g.deliver(newLedger().pkg(0, 1))
			}
			if test.toErr == nil {
				test.toErr = io.EOF
			}
			wrong := strings.Join(g.judge(end{&test.from, test.err}, end{&test.to, test.toErr}, !test.unordered), "; ")
			if test.want == "" {
				require.Empty(t, wrong)
			} else {
				require.Contains(t, wrong, test.want)
			}
		})
	}
}

// A relay passes a connection on, as a network would that is cut, or worse, one that loses, doubles or swaps.
type relay struct {
	ln     net.Listener
	to     string
	cutAt  int64                        // so many bytes go up, then the stream ends; 0: no limit
	mangle func(n int, f []byte) []byte // what frame n, on its way up, becomes; nil: frames pass
	drip   time.Duration                // every byte on its way up takes so long
	conns  [2]*net.TCPConn              // the client's and the server's, once ready is closed
	ready  chan struct{}
	done   sync.WaitGroup
}

func newRelay() *relay { return &relay{ready: make(chan struct{})} }

func (r *relay) start(t testing.TB, to string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r.ln, r.to = ln, to
	r.done.Go(func() {
		defer ln.Close()
		c, err := ln.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", to)
		if err != nil {
			_ = c.Close()
			return
		}
		client, server := c.(*net.TCPConn), s.(*net.TCPConn)
		r.conns = [2]*net.TCPConn{client, server}
		close(r.ready)
		var both sync.WaitGroup
		both.Go(func() { r.up(client, server) })
		both.Go(func() { _, _ = io.Copy(client, server); _ = client.CloseWrite() })
		both.Wait()
		_ = client.Close()
		_ = server.Close()
	})
	return ln.Addr().String()
}

func (r *relay) up(client, server *net.TCPConn) {
	switch {
	case r.cutAt > 0:
		_, _ = io.CopyN(server, client, r.cutAt)
		_ = server.CloseWrite()
		_, _ = io.Copy(io.Discard, client)
	case r.drip > 0:
		var b [1]byte
		for {
			if _, err := client.Read(b[:]); err != nil {
				break
			}
			time.Sleep(r.drip)
			if _, err := server.Write(b[:]); err != nil {
				break
			}
		}
	case r.mangle != nil:
		for n := 0; ; n++ {
			p, err := tryReadFrame(client)
			if err != nil {
				break
			}
			if _, err = server.Write(r.mangle(n, frame(p))); err != nil {
				break
			}
		}
	default:
		_, _ = io.Copy(server, client)
	}
	_ = server.CloseWrite()
}

// reset ends both connections as a crash in the middle does.
func (r *relay) reset() {
	<-r.ready
	for _, c := range r.conns {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
}

// A ledgerListener delivers into a ledger.
type ledgerListener struct {
	in      *ledger
	message func(s getty.Session, n int)
	opened  chan getty.Session
}

func newLedgerListener(in *ledger) *ledgerListener {
	return &ledgerListener{in: in, opened: make(chan getty.Session, 1)}
}

func (l *ledgerListener) OnOpen(s getty.Session) error { l.opened <- s; return nil }
func (l *ledgerListener) OnMessage(s getty.Session, pkg any) {
	l.in.deliver(pkg.(*codec.Frame).String())
	if l.message != nil {
		l.message(s, l.in.arrived())
	}
}
func (l *ledgerListener) OnCron(getty.Session)         {}
func (l *ledgerListener) OnError(getty.Session, error) {}
func (l *ledgerListener) OnClose(getty.Session)        {}

// writeLedger writes packages with each kind of patience until the session ends or most were written.
func writeLedger(s getty.Session, g *ledger, rnd *rand.Rand, most int) {
	for n := range most {
		timeout := []time.Duration{0, 0, 0, -1, patience, time.Millisecond}[rnd.IntN(6)]
		total, _, err := s.WritePkg(g.pkg(n, rnd.IntN(1500)), timeout)
		g.result(total, err)
		switch {
		case errors.Is(err, getty.ErrSessionBlocked):
			time.Sleep(50 * time.Microsecond)
		case s.IsClosed():
			return
		case rnd.IntN(40) == 0:
			time.Sleep(time.Duration(rnd.IntN(200)) * time.Microsecond)
		}
	}
}

// A ledgerFault ends a connection, in the middle of traffic, in one way.
type ledgerFault struct {
	name   string
	relay  bool
	slow   bool // the handlers are slow, so that queues fill
	panics bool
	strike func(c *ledgerCase)
}

// A ledgerCase is one connection with both its ends.
type ledgerCase struct {
	rnd            *rand.Rand
	srv            *getty.Server
	relay          *relay
	client, server getty.Session
}

func reset(s getty.Session) {
	conn := s.Conn()
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	s.CloseNow()
}

func (c *ledgerCase) shutdown(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	_, _ = c.srv.Shutdown(ctx)
}

var ledgerFaults = []ledgerFault{
	{name: "own close", strike: func(c *ledgerCase) { c.client.Close() }},
	{name: "own close, slow reader", slow: true, strike: func(c *ledgerCase) { c.client.Close() }},
	{name: "close now", strike: func(c *ledgerCase) { c.client.CloseNow() }},
	{name: "peer resets", strike: func(c *ledgerCase) { reset(c.server) }},
	{name: "peer closes, slow reader", slow: true, strike: func(c *ledgerCase) { c.server.Close() }},
	{name: "both close", strike: func(c *ledgerCase) { go c.client.Close(); c.server.Close() }},
	{name: "shutdown", strike: func(c *ledgerCase) { c.shutdown(patience) }},
	{name: "shutdown, slow reader", slow: true, strike: func(c *ledgerCase) { c.shutdown(patience) }},
	{name: "shutdown, forced", slow: true, strike: func(c *ledgerCase) { c.shutdown(time.Millisecond) }},
	{name: "handler panics", panics: true, strike: func(c *ledgerCase) { c.client.Close() }},
	{name: "stream is cut", relay: true, strike: func(*ledgerCase) {}},
	{name: "network resets", relay: true, strike: func(c *ledgerCase) { c.relay.reset() }},
}

// ledgerRound runs one connection to its end and returns what the judge finds wrong in both directions.
func ledgerRound(t *testing.T, f ledgerFault, d getty.Dispatch, seed uint64) (wrong []string) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	up, down := newLedger(), newLedger()
	sl, cl := newLedgerListener(up), newLedgerListener(down)
	bombAt := 1 + rnd.IntN(50)
	sl.message = func(_ getty.Session, n int) {
		if f.slow && n%16 == 0 {
			time.Sleep(time.Millisecond)
		}
		if f.panics && n == bombAt {
			panic("bomb")
		}
	}
	opts := func(o *getty.SessionOptions) {
		o.Dispatch, o.HighWater, o.MailboxLen = d, 16<<10, 32
		o.WaitTime = longClose
	}
	c := &ledgerCase{rnd: rnd, srv: getty.NewTCPServer(func(o *getty.ServerOptions) {
		opts(&o.SessionOptions)
		o.Socket.WriteBuffer = 16 << 10
	})}
	require.NoError(t, c.srv.RunEventLoop(prepare(sl)))
	defer endIfFailed(t, c.srv)
	addr := c.srv.Addr().String()
	if f.relay {
		c.relay = newRelay()
		if f.name == "stream is cut" {
			c.relay.cutAt = 1 + rnd.Int64N(100_000)
		}
		addr = c.relay.start(t, addr)
		defer c.relay.done.Wait()
	}
	client := getty.NewTCPClient(getty.WithServerAddress(addr), getty.WithReconnectInterval(time.Hour), func(o *getty.ClientOptions) {
		opts(&o.SessionOptions)
		o.ReconnectMax = time.Hour
	})
	require.NoError(t, client.RunEventLoop(prepare(cl)))
	defer endIfFailed(t, client)
	c.client, c.server = within(t, cl.opened, "OnOpen of the client"), within(t, sl.opened, "OnOpen of the server")
	var writers sync.WaitGroup
	writers.Go(func() { writeLedger(c.client, up, rand.New(rand.NewPCG(seed, 2)), 100_000) })
	writers.Go(func() { writeLedger(c.server, down, rand.New(rand.NewPCG(seed, 3)), 100_000) })
	time.Sleep(time.Duration(rnd.IntN(2000)) * time.Microsecond)
	f.strike(c)
	within(t, c.client.Done(), "the client's end")
	within(t, c.server.Done(), "the server's end")
	writers.Wait()
	client.Close()
	c.srv.Close()
	within(t, client.Done(), "Done of the client")
	within(t, c.srv.Done(), "Done of the server")
	ce, se := endOf(c.client), endOf(c.server)
	ordered := d != getty.Unordered
	for _, w := range up.judge(ce, se, ordered) {
		wrong = append(wrong, fmt.Sprintf("up (%v to %v): %s", ce.err, se.err, w))
	}
	for _, w := range down.judge(se, ce, ordered) {
		wrong = append(wrong, fmt.Sprintf("down (%v to %v): %s", se.err, ce.err, w))
	}
	return wrong
}

// Connections end in every way in the middle of traffic in both directions, and the ledger balances.
//
// acceptance: R13 fault: 25, 26, 133
func TestLedger(t *testing.T) {
	rounds := 12
	if os.Getenv("GOSTKIT_LONG") != "" {
		rounds = 1000
	}
	for _, f := range ledgerFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				for range rounds {
					seed := rand.Uint64()
					if wrong := ledgerRound(t, f, d, seed); len(wrong) > 0 {
						t.Fatalf("seed %d: %s", seed, strings.Join(wrong, "\n"))
					}
				}
			})
		})
	}
}

// A peer that is no getty half-closes after its last package: all of them are delivered, all answers arrive.
//
// fault: 4
func TestLedgerOfAHalfClose(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		rounds := 8
		if os.Getenv("GOSTKIT_LONG") != "" {
			rounds = 1000
		}
		for range rounds {
			up, down := newLedger(), newLedger()
			var answers atomic.Int32
			sl := newLedgerListener(up)
			sl.message = func(s getty.Session, _ int) {
				for {
					down.mu.Lock() // the order of the calls is the order of the ledger
					n := len(down.outcomes)
					_, _, err := s.WritePkg(down.pkg(n, n%100), 0)
					down.outcomes = append(down.outcomes, err)
					down.mu.Unlock()
					if !errors.Is(err, getty.ErrSessionBlocked) {
						answers.Add(1)
						return
					}
					time.Sleep(50 * time.Microsecond)
				}
			}
			srv := getty.NewTCPServer(getty.WithServerDispatch(d), func(o *getty.ServerOptions) { o.HighWater = 4 << 10 })
			require.NoError(t, srv.RunEventLoop(prepare(sl)))
			defer endIfFailed(t, srv)
			c := dial(t, srv)
			s := within(t, sl.opened, "OnOpen")
			go func() {
				for n := range 200 {
					total, err := c.Write(frame(up.pkg(n, n)))
					up.result(total, err)
				}
				_ = c.CloseWrite()
			}()
			var err error
			for err == nil {
				var p string
				if p, err = tryReadFrame(c); err == nil {
					down.deliver(p)
				}
			}
			require.ErrorIs(t, err, io.EOF)
			_ = c.Close()
			within(t, s.Done(), "Done")
			srv.Close()
			within(t, srv.Done(), "the server's Done")
			require.Empty(t, up.judge(end{}, endOf(s), d != getty.Unordered))
			require.Equal(t, 200, up.arrived())
			require.Empty(t, down.judge(endOf(s), end{}, true))
			require.EqualValues(t, 200, down.arrived())
		}
	})
}

// The judge sees what a network does that drops, doubles, swaps or changes one package of many: a judge that
// passes these would prove nothing.
func TestLedgerControls(t *testing.T) {
	const n, at = 200, 77
	var held []byte
	for name, mangle := range map[string]func(int, []byte) []byte{
		"nothing": func(_ int, f []byte) []byte { return f },
		"drop": func(i int, f []byte) []byte {
			if i == at {
				return nil
			}
			return f
		},
		"double": func(i int, f []byte) []byte {
			if i == at {
				return append(f, f...)
			}
			return f
		},
		"swap": func(i int, f []byte) []byte {
			switch i {
			case at:
				held = f
				return nil
			case at + 1:
				return append(f, held...)
			}
			return f
		},
		"change": func(i int, f []byte) []byte {
			if i == at {
				f[len(f)-1] ^= 1
			}
			return f
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				up := newLedger()
				sl := newLedgerListener(up)
				srv := serve(t, prepare(sl), getty.WithServerDispatch(d))
				r := newRelay()
				r.mangle = mangle
				client := connect(t, newTracer(t), r.start(t, srv.Addr().String()), func(o *getty.ClientOptions) {
					o.ReconnectInterval, o.ReconnectMax = time.Hour, time.Hour
				})
				defer r.done.Wait()
				c := ready(t, client)
				s := within(t, sl.opened, "OnOpen")
				for i := range n {
					total, _, err := c.WritePkg(up.pkg(i, i), patience)
					require.NoError(t, err)
					up.result(total, err)
				}
				c.Close()
				within(t, c.Done(), "the client's end")
				within(t, s.Done(), "the server's end")
				wrong := up.judge(endOf(c), endOf(s), d != getty.Unordered)
				if name == "nothing" || name == "swap" && d == getty.Unordered {
					require.Empty(t, wrong)
				} else {
					require.NotEmpty(t, wrong)
				}
			})
		})
	}
}

// Peers stall, for longer or shorter than the WaitTime of a Close: one that ends without a cause
// has lost nothing, and what the others may have lost is counted.
//
// case: 41, 42
func TestLedgerOfStalls(t *testing.T) {
	rounds := 6
	if os.Getenv("GOSTKIT_LONG") != "" {
		rounds = 1000
	}
	for _, c := range carriers {
		if c.name == "udp" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				t.Parallel()
				for range rounds {
					seed := rand.Uint64()
					wrong := stallRound(t, c, d, rand.New(rand.NewPCG(seed, 1)))
					if len(wrong) > 0 {
						t.Fatalf("seed %d: %s", seed, strings.Join(wrong, "\n"))
					}
				}
			})
		})
	}
}

func stallRound(t *testing.T, c carrier, d getty.Dispatch, rnd *rand.Rand) []string {
	up := newLedger()
	sl, cl := newLedgerListener(up), newLedgerListener(newLedger())
	at, stall := 1+rnd.IntN(100), time.Duration(rnd.IntN(60))*time.Millisecond
	sl.message = func(_ getty.Session, n int) {
		if n == at {
			time.Sleep(stall)
		}
	}
	srv := c.server(func(o *getty.ServerOptions) {
		o.Dispatch, o.MailboxLen = d, 32
		o.Socket.ReadBuffer = 32 << 10
		o.WaitTime = longClose
	})
	require.NoError(t, srv.RunEventLoop(prepare(sl)))
	defer endIfFailed(t, srv)
	client := c.client(srv.Addr().String(), func(o *getty.ClientOptions) {
		o.WaitTime = 20 * time.Millisecond
		o.HighWater = 64 << 10
		o.Socket.WriteBuffer = 64 << 10 << rnd.IntN(4)
		o.ReconnectInterval, o.ReconnectMax = time.Hour, time.Hour
	})
	require.NoError(t, client.RunEventLoop(prepare(cl)))
	defer endIfFailed(t, client)
	from := within(t, cl.opened, "OnOpen of the client")
	to := within(t, sl.opened, "OnOpen of the server")
	var writer sync.WaitGroup
	most, dice := 100+rnd.IntN(3000), rand.New(rand.NewPCG(rnd.Uint64(), 2))
	writer.Go(func() { writeLedger(from, up, dice, most) })
	if rnd.IntN(2) == 0 {
		writer.Wait()
	} else {
		time.Sleep(time.Duration(rnd.IntN(5000)) * time.Microsecond)
	}
	switch rnd.IntN(8) {
	case 0:
		reset(to)
	case 1:
		from.CloseNow()
	default:
		from.Close()
	}
	within(t, from.Done(), "the client's end")
	within(t, to.Done(), "the server's end")
	writer.Wait()
	client.Close()
	srv.Close()
	within(t, client.Done(), "Done of the client")
	within(t, srv.Done(), "Done of the server")
	return up.judge(endOf(from), endOf(to), d != getty.Unordered)
}
