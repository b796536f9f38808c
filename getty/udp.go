// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
	"github.com/gostkit/kit/netx"
)

// UDPServerOptions are the part of [ServerOptions] that only UDP endpoints use.
type UDPServerOptions struct {
	// IgnoreProbes passes the dial probes of clients to the Reader like any other datagram, instead
	// of answering them.
	IgnoreProbes bool
}

// UDPClientOptions are the part of [ClientOptions] that only UDP clients use.
type UDPClientOptions struct {
	// ProbeWait is how long a dial waits for an answer to its probe. A refusal fails the dial, an
	// answer ends the wait, silence for so long counts as connected. 0: 200 ms; negative: no wait.
	ProbeWait time.Duration

	// ProbePayload is a datagram to send instead of the probe that getty's endpoint answers. The
	// first datagram that comes back is the first package.
	ProbePayload []byte

	// NoProbe dials without a probe: a peer that is not there shows with the first write.
	NoProbe bool

	// KeepOnRefused keeps a session open when the peer's host reports later that no socket has the
	// port; the error then goes to OnPacketError, or to the writer that met it. The default ends
	// the session, and the client dials again. It does so too, with either setting, whenever only a
	// new socket helps: the address of this host that the session used has gone, or its device is
	// down.
	KeepOnRefused bool
}

func (o *UDPClientOptions) complete() { o.ProbePayload = bytes.Clone(o.ProbePayload) }

func (o *UDPClientOptions) check() error {
	if n := len(o.ProbePayload); n > maxPayload {
		return fmt.Errorf("getty: UDP.ProbePayload has %d bytes, more than %d", n, maxPayload)
	}
	return nil
}

// A PacketErrorListener is an EventListener that is told of errors that concern single datagrams
// and do not end the session: a datagram that the Reader refused or that was truncated, or an error
// that the kernel reported while reading, such as an ICMP refusal. OnPacketError follows the rules
// of OnMessage. Errors of writing are returned to the writer instead.
type PacketErrorListener interface {
	OnPacketError(s Session, err error)
}

// ErrTruncated reports a datagram that was longer than MaxMsgLen; its rest is lost.
var ErrTruncated = errors.New("getty: datagram truncated")

const (
	maxDatagram = 64 << 10        // more than a UDP datagram can carry
	maxPayload  = 64<<10 - 1 - 28 // the most that one can carry over IPv4
)

// NewUDPEndPoint returns an unconnected UDP endpoint. It has one session. Its packages are
// [UDPContext] values, and only such can be written to it.
//
// With a pool its dispatch is Unordered. If Ordered is asked for, all peers are served one after
// the other.
//
// When the session ends, for example by a panic of its handler, the endpoint is closed: Serve
// returns and Done is closed. RunEventLoop returns when OnOpen has returned, or when
// HandshakeTimeout has passed. If the session does not open, RunEventLoop returns an error that
// also matches [ErrEndpointClosed].
func NewUDPEndPoint(opts ...ServerOption) *Server {
	return newServer(opts, &packetService{quit: make(chan struct{})}, udpEndPoint)
}

// NewUDPClient returns a client of connected UDP sessions. Each datagram is one package.
func NewUDPClient(opts ...ClientOption) *Client {
	return newClient(opts, dialUDP, udpClient)
}

// packetService runs the one session of an unconnected endpoint.
type packetService struct {
	once sync.Once
	quit chan struct{} // closed by stop, to end the wait for OnOpen
}

func (v *packetService) start(s *Server, prepare NewSessionCallback) (net.Addr, error) {
	lc := net.ListenConfig{Control: func(network, address string, c syscall.RawConn) error {
		if err := s.opts.Socket.Control(network, address, c); err != nil {
			return err
		}
		// Without packet info the kernel chooses the address from which an answer leaves, and a
		// connected peer drops an answer from another address than it has asked.
		err := netx.EnablePacketInfo(network, address, c)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		return err
	}}
	pc, err := lc.ListenPacket(context.Background(), "udp", s.opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("Addr: %w", err)
	}
	conn := pc.(*net.UDPConn)
	t, err := newDatagrams(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	t.answer = !s.opts.UDP.IgnoreProbes
	s.setAddr(conn.LocalAddr()) // for OnOpen
	opened, freed := make(chan struct{}), make(chan struct{})
	s.ep.onOpened = func(*session) { close(opened) }
	s.ep.onFreed = func(ss *session) {
		// An endpoint without its session would look alive and never receive anything.
		if err := ss.Err(); err != nil && !s.ep.isClosed() {
			s.setCause(err)
		}
		s.ep.beginClose()
		close(freed)
	}
	ss, err := s.ep.open(t, prepare)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	// Limited, since OnOpen may wait for something that the caller does next.
	limit := time.NewTimer(s.opts.HandshakeTimeout)
	defer limit.Stop()
	select {
	case <-opened:
	case <-freed:
		// The session may have opened before it ended: select chooses at random.
		if !ss.has(flagOpen) {
			return nil, fmt.Errorf("the session did not open: %w (%w)",
				ss.life.failure(), ErrEndpointClosed)
		}
	case <-v.quit: // Close was called while OnOpen runs
	case <-limit.C:
	}
	return conn.LocalAddr(), nil
}

func (v *packetService) stop() { v.once.Do(func() { close(v.quit) }) }

// A probe is a datagram that a client sends to learn whether its peer is there: a magic word, a
// nonce, and padding that makes it longer than the answer. So an endpoint cannot be used to amplify
// traffic to a forged address.
const (
	probeMagic  = "getty\x00?1"
	answerMagic = "getty\x00!1"
	nonceSize   = 16
	probeSize   = 40
	answerSize  = len(answerMagic) + nonceSize
)

func newProbe() []byte {
	p := make([]byte, probeSize)
	copy(p, probeMagic)
	_, _ = rand.Read(p[len(probeMagic) : len(probeMagic)+nonceSize])
	return p
}

// answersTo reports whether b is an endpoint's answer to probe, or the probe itself, which a plain
// echo server sends back.
func answersTo(probe, b []byte) bool {
	if bytes.Equal(b, probe) {
		return true
	}
	nonce := probe[len(probeMagic) : len(probeMagic)+nonceSize]
	return len(b) == answerSize && string(b[:len(answerMagic)]) == answerMagic &&
		string(b[len(answerMagic):]) == string(nonce)
}

func isProbe(b []byte) bool {
	return len(b) == probeSize && string(b[:len(probeMagic)]) == probeMagic
}

func dialUDP(ctx context.Context, o *ClientOptions) (protocol, error) {
	p := netx.Probe{Wait: o.UDP.ProbeWait}
	var probe []byte
	switch {
	case o.UDP.NoProbe:
	case o.UDP.ProbePayload != nil:
		p.Payload = o.UDP.ProbePayload
	default:
		// The probe is kept: an answer that comes after ProbeWait is not a package.
		probe = newProbe()
		p.Payload = probe
		p.Match = func(b []byte) bool { return answersTo(probe, b) }
	}
	d := netx.Dialer{Options: o.Socket}
	conn, res, err := d.DialUDP(ctx, "udp", o.Addr, p)
	if err != nil {
		return nil, err
	}
	t, err := newDatagrams(conn)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	t.connected, t.probe, t.first, t.keepRefused = true, probe, res.Reply, o.UDP.KeepOnRefused
	return t, nil
}

// datagrams is the protocol of UDP. Nothing is queued: a datagram is sent, or refused, in the call
// that writes it.
type datagrams struct {
	s         *session
	conn      *net.UDPConn
	in        *netx.PacketConn
	out       packetWriter // guarded by encMu: in, unless a test replaces it
	connected bool         // the session of a client

	// Of endpoints.
	answer bool // answer probes
	rate   probeLimit

	// Of clients.
	probe       []byte // the probe of the dial, whose answer may come late; nil: none
	first       []byte // a datagram that came while dialling; nil: none
	keepRefused bool
}

// packetWriter is the writing half of a [netx.PacketConn].
type packetWriter interface {
	TryWrite(b []byte, to netip.AddrPort, local netip.Addr) error
	AwaitWritable() error
}

func newDatagrams(conn *net.UDPConn) (*datagrams, error) {
	p, err := netx.NewPacketConn(conn)
	if err != nil {
		return nil, err
	}
	return &datagrams{conn: conn, in: p, out: p}, nil
}

func (t *datagrams) attach(s *session)                   { t.s = s }
func (t *datagrams) queues() bool                        { return false }
func (t *datagrams) netConn() net.Conn                   { return t.conn }
func (t *datagrams) localAddr() net.Addr                 { return t.conn.LocalAddr() }
func (t *datagrams) remoteAddr() net.Addr                { return t.conn.RemoteAddr() }
func (t *datagrams) close() error                        { return t.conn.Close() }
func (t *datagrams) write(*sendq.Batch, wire.Mode) error { return nil }
func (t *datagrams) closeWrite() error                   { t.s.life.closeHard(); return nil }
func (t *datagrams) farewell() []byte                    { return nil }
func (t *datagrams) discard() error                      { return io.EOF } // no reset to prevent

// ends reports whether err, from a read or a write, ends the session of a client, so that the
// client dials again: no socket has the port, or only a new socket of our own helps.
func (t *datagrams) ends(err error) bool {
	if !t.connected {
		return false
	}
	refused := errors.Is(err, syscall.ECONNREFUSED) && !t.keepRefused
	return refused || netx.NeedsNewSocket(t.conn, err)
}

// encode sends one datagram.
func (t *datagrams) encode(pkg any, _ *sendq.Waiter) (int, error) {
	var to netip.AddrPort
	var local netip.Addr
	if !t.connected {
		switch c := pkg.(type) {
		case UDPContext:
			pkg, to, local = c.Pkg, c.PeerAddr, c.LocalAddr
		case *UDPContext:
			if c != nil {
				pkg, to, local = c.Pkg, c.PeerAddr, c.LocalAddr
			}
		default:
			return 0, fmt.Errorf("getty: an unconnected UDP endpoint writes UDPContext, not %T",
				pkg)
		}
		if !to.IsValid() {
			return 0, errors.New("getty: UDPContext without a peer address")
		}
	}
	// Enough for most datagrams, which fit into one packet of the network; a Writer that appends
	// more gets memory of its own.
	buf := bytespool.Get(2048)
	defer bytespool.Put(buf)
	p, _, err := t.s.codec.marshal(buf[:0], pkg)
	if err != nil {
		return 0, err
	}
	return t.send(p, to, local)
}

// encodeRaw sends a datagram for each package.
func (t *datagrams) encodeRaw(one []byte, more [][]byte, _ *sendq.Waiter) (int, error) {
	if !t.connected {
		return 0, errors.New(
			"getty: an unconnected UDP endpoint writes UDPContext, which names the peer")
	}
	return oneByOne(one, more, func(p []byte) (int, error) {
		return t.send(p, netip.AddrPort{}, netip.Addr{})
	})
}

// send sends one datagram, or returns why it cannot be sent now.
func (t *datagrams) send(p []byte, to netip.AddrPort, local netip.Addr) (int, error) {
	s := t.s
	// It does not wait for room in the socket: encMu is held, which all other writers need. Writers
	// that want to wait do so in line.
	switch err := t.out.TryWrite(p, to, local); {
	case err == nil:
	case err == netx.ErrWouldBlock:
		t.full()
		return 0, ErrSessionBlocked
	case s.has(flagHard):
		return 0, s.outbox.refusal() // err only says that the socket is closed
	case t.ends(err):
		s.life.fail(err)
		return 0, err
	default:
		return 0, err
	}
	n := len(p)
	s.count.Writes.Add(1)
	s.count.BytesWritten.Add(uint64(n))
	s.count.PkgsWritten.Add(1)
	s.traceFlushed(n)
	return n, nil
}

// full notes that the socket has no room, and starts a goroutine that waits for room and then
// admits the writers in line. Reading goes on meanwhile.
func (t *datagrams) full() {
	s := t.s
	if !s.setFlag(flagBlocked) {
		return // such a goroutine is waiting already
	}
	out := t.out
	s.spawn(func() {
		// An error means that the socket is closed. Then outbox.refuse has woken all writers.
		_ = out.AwaitWritable()
		s.clearFlag(flagBlocked)
		s.outbox.unblocked()
	})
}

// serve reads datagrams until the socket is closed. Errors about single datagrams do not end it,
// unless a client needs a new socket after them.
func (t *datagrams) serve() error {
	s := t.s
	if t.first != nil {
		if err := t.received(t.first, UDPContext{}, false); err != nil {
			return err
		}
		s.endRead()
		t.first = nil
	}
	var in packetReader
	in.init(t)
	failures := 0
	for {
		b, from, truncated, err := in.read()
		if err == nil {
			failures = 0
			err = t.received(b, from, truncated)
			s.pace(len(b))
			s.endRead()
			in.done()
			if err != nil {
				return err
			}
			if s.paced() || s.ep.budget.exceeded() {
				s.awaitWhile(s.withheld)
			}
			continue
		}
		in.done()
		switch {
		case s.has(flagHard):
			return err
		case t.ends(err) || !netx.IsPacketError(err):
			return err
		}
		if err := t.packetError(err, netip.AddrPort{}); err != nil {
			return err
		}
		// A kernel that reports errors without end must not cost a whole processor.
		if failures++; failures > 64 {
			time.Sleep(time.Millisecond)
		}
	}
}

// received handles one datagram.
func (t *datagrams) received(b []byte, from UDPContext, truncated bool) error {
	s := t.s
	s.count.read(len(b))
	s.traceRead(len(b))
	switch {
	case s.swapIn(flagReading)&(flagClosing|flagDrain) != 0:
		// The session is to end, and a peer that sends without end must not put that off.
		s.count.rarely().Dropped.Add(1)
		return nil
	case t.answer && isProbe(b):
		// Not through the session: a client that dials is no peer yet, and the probe is no package.
		if t.rate.allow() {
			reply := append([]byte(answerMagic), b[len(probeMagic):len(probeMagic)+nonceSize]...)
			_ = t.in.TryWrite(reply, from.PeerAddr, from.LocalAddr)
		}
		return nil
	case t.probe != nil && answersTo(t.probe, b):
		return nil
	case truncated || len(b) > s.MaxMsgLen():
		s.count.rarely().Dropped.Add(1)
		limit := min(len(b), s.MaxMsgLen())
		err := fmt.Errorf("%w: more than %d bytes from %s", ErrTruncated, limit, from.PeerAddr)
		return t.packetError(err, from.PeerAddr)
	}
	err := t.deliver(b, from)
	s.clock.heard()
	return err
}

// deliver decodes one datagram and delivers it in a turn of its own. Its error, that of a panic,
// ends the session.
func (t *datagrams) deliver(b []byte, from UDPContext) error {
	s, where := t.s, "Reader"
	var pkg any
	var bad error // concerns this datagram only
	err := s.turn.guard(&where, func() error {
		pkg, bad = s.codec.whole("datagram", b, false)
		return nil
	})
	switch {
	case err != nil:
		return err
	case bad != nil:
		s.count.rarely().Dropped.Add(1)
		return t.packetError(bad, from.PeerAddr)
	}
	if from.PeerAddr.IsValid() {
		from.Pkg = pkg
		pkg = from
	}
	if s.inbox != nil {
		s.inbox.postDatagram(pkg, len(b))
		return nil
	}
	given := false
	return s.turn.run(wire.Try, func() (any, bool) {
		first := !given
		given = true
		return pkg, first
	}, func(string, bool) {
		s.count.PkgsRead.Add(1)
		s.traceDecoded(1)
	})
}

// packetError passes bad, the error of one datagram, to the listener, or to the log. from is the
// sender of the datagram, if that is known. Its own error, that of a panic, ends the session.
func (t *datagrams) packetError(bad error, from netip.AddrPort) error {
	s := t.s
	if l, ok := s.turn.listener.(PacketErrorListener); ok {
		return s.turn.callback("OnPacketError", func() { l.OnPacketError(s, bad) })
	}
	peer := peerText(t.remoteAddr)
	if from.IsValid() {
		peer = from.String()
	}
	s.ep.log.Warn("getty: datagram dropped",
		"session", s.id, "peer", peer, "error", limitText(bad))
	return nil
}

// A probeLimit bounds how many probes an endpoint answers: 1000 a second, 100 at once.
type probeLimit struct {
	mu     sync.Mutex
	tokens float64 // guarded by mu
	at     int64   // guarded by mu
}

func (l *probeLimit) allow() bool {
	const perSecond, burst = 1000, 100
	l.mu.Lock()
	defer l.mu.Unlock()
	t := now()
	if l.at == 0 {
		l.tokens = burst
	} else {
		l.tokens = min(burst, l.tokens+float64(t-l.at)/1e9*perSecond)
	}
	l.at = t
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

// packetReader reads datagrams. A client takes a buffer from bytespool only when there is a
// datagram, where the platform can do that: most of its sessions are idle. An endpoint keeps one
// buffer.
type packetReader struct {
	packets   *netx.PacketConn
	connected bool
	buf       []byte
	raw       rawPacket
}

func (r *packetReader) init(t *datagrams) {
	r.packets, r.connected = t.in, t.connected
	if !t.connected || !r.raw.init(t.conn) {
		r.buf = make([]byte, maxDatagram)
	}
}

// read returns a datagram and, for an endpoint, where it came from and to which address.
func (r *packetReader) read() (b []byte, from UDPContext, truncated bool, err error) {
	if r.buf == nil {
		b, err = r.raw.read()
		return b, from, false, err
	}
	var n int
	n, from.PeerAddr, from.LocalAddr, truncated, err = r.packets.Read(r.buf)
	if r.connected {
		from = UDPContext{} // a client's packages name no peer: there is only one
	}
	if err != nil {
		return nil, from, false, err
	}
	return r.buf[:n], from, truncated, nil
}

func (r *packetReader) done() {
	if r.buf == nil {
		r.raw.done()
	}
}
