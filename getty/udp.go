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
	// IgnoreProbes gives the dial probes of clients to the Reader like any other datagram, instead
	// of answering them.
	IgnoreProbes bool
}

// UDPClientOptions are the part of [ClientOptions] that only UDP clients use.
type UDPClientOptions struct {
	// ProbeWait is how long a dial waits for an answer to its probe. A refusal fails the dial, an
	// answer ends the wait, silence for so long counts as connected. 0: 200 ms; negative: no wait.
	ProbeWait time.Duration

	// ProbePayload is a datagram to send instead of the probe that getty's endpoint answers;
	// whatever comes back is the first package.
	ProbePayload []byte

	// NoProbe dials without a probe: a peer that is not there shows with the first write.
	NoProbe bool

	// KeepOnRefused keeps a session open when the peer's host reports later that nobody has the
	// port; it is then told to OnPacketError, or to the writer that met it. The default ends the
	// session, and the client dials again, as it does whenever only a new socket helps: the address
	// of this host that the session used has gone, or its device is down.
	KeepOnRefused bool
}

func (o *UDPClientOptions) complete() { o.ProbePayload = bytes.Clone(o.ProbePayload) }

func (o *UDPClientOptions) check() error {
	if n := len(o.ProbePayload); n > maxPayload {
		return fmt.Errorf("getty: UDP.ProbePayload has %d bytes, more than %d", n, maxPayload)
	}
	return nil
}

// A PacketErrorListener is an EventListener that wants to know of datagrams that went wrong without
// ending the session: those that the Reader refused, that were truncated, and what the kernel
// reported while reading, such as an ICMP refusal. It follows the rules of OnMessage. Errors of
// writing are returned to the writer instead.
type PacketErrorListener interface {
	OnPacketError(s Session, err error)
}

// ErrTruncated reports a datagram that was longer than MaxMsgLen; its rest is lost.
var ErrTruncated = errors.New("getty: datagram truncated")

const (
	maxDatagram = 64 << 10        // more than a UDP datagram can carry
	maxPayload  = 64<<10 - 1 - 28 // what one carries over IPv4
)

// NewUDPEndPoint returns an unconnected UDP endpoint. It is one session; its packages are
// [UDPContext], and so must be what is written to it. With a pool its dispatch is Unordered unless
// Ordered is asked for, which would serve all peers one after the other. When the session ends, by
// a panic of its handler too, the endpoint is closed: Serve returns and Done is closed.
// RunEventLoop returns when OnOpen has, or HandshakeTimeout has passed. A session that does not
// open is its error, which also matches [ErrEndpointClosed].
func NewUDPEndPoint(opts ...ServerOption) *Server {
	return newServer(opts, &packetService{quit: make(chan struct{})}, udpEndPoint)
}

// NewUDPClient returns a client of connected UDP sessions, whose packages are what its codec makes
// of one datagram each.
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
		// Without packet info the kernel chooses from which address an answer leaves.
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
	s.ep.onFreed = func(ss *session) { // nothing would come any more
		if err := ss.Err(); err != nil && !s.ep.isClosed() {
			s.setCause(err)
		}
		s.ep.beginClose()
		close(freed)
	}
	ss, err := s.ep.open(t, 0, prepare)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	limit := time.NewTimer(s.opts.HandshakeTimeout) // OnOpen may wait for the caller
	defer limit.Stop()
	select {
	case <-opened:
	case <-freed: // perhaps after OnOpen
		if !ss.has(flagOpen) {
			return nil, fmt.Errorf("the session did not open: %w (%w)", ss.life.failure(), ErrEndpointClosed)
		}
	case <-v.quit: // while OnOpen runs
	case <-limit.C:
	}
	return conn.LocalAddr(), nil
}

func (v *packetService) stop() { v.once.Do(func() { close(v.quit) }) }

// A probe is what a client sends to learn whether anybody is there: a magic word, a nonce, and
// padding that makes it longer than its answer, so that nobody can use an endpoint to amplify
// traffic.
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
	return bytes.Equal(b, probe) || len(b) == answerSize && string(b[:len(answerMagic)]) == answerMagic &&
		string(b[len(answerMagic):]) == string(probe[len(probeMagic):len(probeMagic)+nonceSize])
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
	out       packetWriter // guarded by encMu: the same, but for tests
	connected bool

	answer bool       // of endpoints: answer probes
	rate   probeLimit // of endpoints

	probe       []byte // of clients: its answer may come late
	first       []byte // of clients: a datagram that came while dialling; nil: none
	keepRefused bool   // of clients
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
func (t *datagrams) discard() error                      { return io.EOF } // what comes destroys nothing

// ends reports whether err, from a read or write of a client, ends its session, so that the client
// dials again: nobody has the port, or only a new socket helps.
func (t *datagrams) ends(err error) bool {
	return t.connected && (errors.Is(err, syscall.ECONNREFUSED) && !t.keepRefused || netx.NeedsNewSocket(t.conn, err))
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
			return 0, fmt.Errorf("getty: an unconnected UDP endpoint writes UDPContext, not %T", pkg)
		}
		if !to.IsValid() {
			return 0, errors.New("getty: UDPContext without a peer address")
		}
	}
	buf := bytespool.Get(2048)
	defer bytespool.Put(buf)
	p, _, err := t.s.codec.marshal(buf[:0], pkg)
	if err != nil {
		return 0, err
	}
	return t.send(p, to, local)
}

// encodeRaw sends a datagram for each package.
func (t *datagrams) encodeRaw(one []byte, more [][]byte) (int, error) {
	if !t.connected {
		return 0, errors.New("getty: an unconnected UDP endpoint writes UDPContext, which names the peer")
	}
	return oneByOne(one, more, func(p []byte) (int, error) { return t.send(p, netip.AddrPort{}, netip.Addr{}) })
}

// send sends one datagram, or says why it cannot be sent now. It does not wait: encMu is held,
// which all other writers need.
func (t *datagrams) send(p []byte, to netip.AddrPort, local netip.Addr) (int, error) {
	s := t.s
	switch err := t.out.TryWrite(p, to, local); {
	case err == nil:
	case err == netx.ErrWouldBlock:
		t.full()
		return 0, ErrSessionBlocked
	case s.has(flagHard):
		return 0, s.outbox.refusal()
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
	return n, nil
}

// full notes that the socket has no room, and starts one goroutine that waits for it and then wakes
// all writers that want to wait. Reading goes on meanwhile: there is no queue that could fall.
func (t *datagrams) full() {
	s := t.s
	if !s.setFlag(flagBlocked) {
		return // one is waiting already
	}
	out := t.out
	s.spawn(func() {
		// The error is that of a closed socket; refuse has woken all writers then.
		_ = out.AwaitWritable()
		s.clearFlag(flagBlocked)
		s.outbox.unblocked()
	})
}

// serve reads datagrams until the socket is closed. No error about a datagram ends it, but for
// those on a client's session that a new socket cures.
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
			s.endRead()
			in.done()
			if err != nil {
				return err
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
		if failures++; failures > 64 { // the kernel hands out errors without end: do not spin on them
			time.Sleep(time.Millisecond)
		}
	}
}

// received handles one datagram.
func (t *datagrams) received(b []byte, from UDPContext, truncated bool) error {
	s := t.s
	s.count.read(len(b))
	switch {
	case s.swapIn(flagReading)&(flagClosing|flagDrain) != 0:
		// Nothing new: a flood must not put the end off.
		s.count.Dropped.Add(1)
		return nil
	case t.answer && isProbe(b):
		if t.rate.allow() {
			reply := append([]byte(answerMagic), b[len(probeMagic):len(probeMagic)+nonceSize]...)
			_ = t.in.TryWrite(reply, from.PeerAddr, from.LocalAddr)
		}
		return nil
	case t.probe != nil && answersTo(t.probe, b):
		return nil
	case truncated || len(b) > int(s.maxMsgLen.Load()):
		s.count.Dropped.Add(1)
		limit := min(len(b), int(s.maxMsgLen.Load()))
		return t.packetError(fmt.Errorf("%w: more than %d bytes from %s", ErrTruncated, limit, from.PeerAddr), from.PeerAddr)
	}
	err := t.deliver(b, from)
	s.clock.touch()
	return err
}

// deliver decodes and delivers one datagram, a turn of its own. The error ends the session: a
// panic.
func (t *datagrams) deliver(b []byte, from UDPContext) error {
	s, where := t.s, "Reader"
	var pkg any
	var bad error // which concerns this datagram only
	err := s.turn.guard(&where, func() error {
		pkg, bad = s.codec.whole("datagram", b, false)
		return nil
	})
	switch {
	case err != nil:
		return err
	case bad != nil:
		s.count.Dropped.Add(1)
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
	}, func(string, bool) { s.count.PkgsRead.Add(1) })
}

// packetError tells the listener of a datagram that went wrong, or the log; from is its sender, if
// that is known. The error ends the session: a panic.
func (t *datagrams) packetError(bad error, from netip.AddrPort) error {
	s := t.s
	if l, ok := s.turn.listener.(PacketErrorListener); ok {
		return s.turn.callback("OnPacketError", func() { l.OnPacketError(s, bad) })
	}
	peer := peerText(t.remoteAddr)
	if from.IsValid() {
		peer = from.String()
	}
	s.ep.log.Warn("getty: datagram dropped", "session", s.id, "peer", peer, "error", limitText(bad))
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

// packetReader reads datagrams. A connected client leases its buffer when a datagram is there,
// where the platform can do that; an endpoint holds one.
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
		from = UDPContext{} // there is one peer, and one address that it knows
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
