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
	"github.com/gostkit/kit/netx"
)

// UDPServerOptions are the part of [ServerOptions] that only UDP endpoints use.
type UDPServerOptions struct {
	// IgnoreProbes gives the dial probes of clients to the Reader like any other datagram, instead of
	// answering them.
	IgnoreProbes bool
}

// UDPClientOptions are the part of [ClientOptions] that only UDP clients use.
type UDPClientOptions struct {
	// ProbeWait is how long a dial waits for an answer to its probe. A refusal fails the dial, an
	// answer ends the wait, silence for so long counts as connected. 0: 200 ms; negative: no wait.
	ProbeWait time.Duration

	// ProbePayload is a datagram to send instead of the probe that getty's endpoint answers; whatever
	// comes back is the first package.
	ProbePayload []byte

	// NoProbe dials without a probe: a peer that is not there shows with the first write.
	NoProbe bool

	// KeepOnRefused keeps a session open when the peer's host reports later that nobody has the port; it
	// is then told to OnPacketError. The default ends the session, and the client dials again.
	KeepOnRefused bool
}

// A PacketErrorListener is an EventListener that wants to know of datagrams that went wrong without ending
// the session: those that the Reader refused, that were truncated, and what the kernel reported while
// reading, such as an ICMP refusal. It follows the rules of OnMessage. Errors of writing are returned to
// the writer instead.
type PacketErrorListener interface {
	OnPacketError(s Session, err error)
}

// ErrTruncated reports a datagram that was longer than MaxMsgLen; its rest is lost.
var ErrTruncated = errors.New("getty: datagram truncated")

// maxDatagram is more than a UDP datagram can carry.
const maxDatagram = 64 << 10

// NewUDPEndPoint returns an unconnected UDP endpoint. It is one session; its packages are [UDPContext],
// and so must be what is written to it. With a pool its dispatch is Unordered unless Ordered is asked
// for, which would serve all peers one after the other. When the session ends, by a panic of its handler too,
// the endpoint is closed: Serve returns and Done is closed. If that comes before RunEventLoop returns, so does
// its result: [ErrEndpointClosed].
func NewUDPEndPoint(opts ...ServerOption) *Server {
	return newServer(opts, &packetService{}, func(o *ServerOptions) {
		if o.Dispatch == DispatchAuto && o.Pool != nil {
			o.Dispatch = Unordered
		}
	})
}

// NewUDPClient returns a client of connected UDP sessions, whose packages are what its codec makes of
// one datagram each.
func NewUDPClient(opts ...ClientOption) *Client {
	return newClient(opts, dialUDP, nil)
}

// packetService runs the one session of an unconnected endpoint.
type packetService struct{}

func (v *packetService) start(s *Server, prepare NewSessionCallback) (net.Addr, error) {
	if s.opts.Listener != nil {
		return nil, errors.New("a UDP endpoint takes no Listener")
	}
	lc := net.ListenConfig{Control: s.opts.Socket.Control}
	pc, err := lc.ListenPacket(context.Background(), "udp", s.opts.Addr)
	if err != nil {
		return nil, err
	}
	conn := pc.(*net.UDPConn)
	t := &datagrams{conn: conn, answer: !s.opts.IgnoreProbes}
	s.ep.onFreed = func(*session) { s.ep.beginClose() } // nothing would come any more
	if _, err := s.ep.open(t, 0, prepare); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn.LocalAddr(), nil
}

func (v *packetService) stop() {}

// A probe is what a client sends to learn whether anybody is there: a magic word, a nonce, and padding that
// makes it longer than its answer, so that nobody can use an endpoint to amplify traffic.
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

// answersTo reports whether b is an endpoint's answer to probe, or the probe itself, which a plain echo server
// sends back.
func answersTo(probe, b []byte) bool {
	return bytes.Equal(b, probe) || len(b) == answerSize && string(b[:len(answerMagic)]) == answerMagic &&
		string(b[len(answerMagic):]) == string(probe[len(probeMagic):len(probeMagic)+nonceSize])
}

func isProbe(b []byte) bool {
	return len(b) == probeSize && string(b[:len(probeMagic)]) == probeMagic
}

func dialUDP(ctx context.Context, o *ClientOptions) (transport, error) {
	p := netx.Probe{Wait: o.ProbeWait}
	var probe []byte
	switch {
	case o.NoProbe:
	case o.ProbePayload != nil:
		p.Payload = o.ProbePayload
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
	return &datagrams{conn: conn, connected: true, probe: probe, first: res.Reply, keepRefused: o.KeepOnRefused}, nil
}

// datagrams is the transport of UDP. Nothing is queued: a datagram is sent, or refused, in the call that
// writes it.
type datagrams struct {
	conn      *net.UDPConn
	connected bool

	answer bool       // of endpoints: answer probes
	rate   probeLimit // of endpoints

	probe       []byte // of clients: its answer may come late
	first       []byte // of clients: a datagram that came while dialling; nil: none
	keepRefused bool   // of clients
}

func (t *datagrams) queues() bool                       { return false }
func (t *datagrams) netConn() net.Conn                  { return t.conn }
func (t *datagrams) localAddr() net.Addr                { return t.conn.LocalAddr() }
func (t *datagrams) remoteAddr() net.Addr               { return t.conn.RemoteAddr() }
func (t *datagrams) close() error                       { return t.conn.Close() }
func (t *datagrams) write(*session, *batch, bool) error { return nil }
func (t *datagrams) closeWrite(s *session) error        { s.closeHard(); return nil }
func (t *datagrams) refused(err error) bool             { return errors.Is(err, syscall.ECONNREFUSED) }

func (t *datagrams) farewell(*session) []byte { return nil }

func (t *datagrams) discard(*session) error { return io.EOF } // what comes destroys nothing

// encode sends one datagram.
func (t *datagrams) encode(s *session, pkg any, _ *waiter) (int, error) {
	var to netip.AddrPort
	if !t.connected {
		switch c := pkg.(type) {
		case UDPContext:
			pkg, to = c.Pkg, c.PeerAddr
		case *UDPContext:
			pkg, to = c.Pkg, c.PeerAddr
		default:
			return 0, fmt.Errorf("getty: an unconnected UDP endpoint writes UDPContext, not %T", pkg)
		}
		if !to.IsValid() {
			return 0, errors.New("getty: UDPContext without a peer address")
		}
	}
	buf := bytespool.Get(2048)
	defer bytespool.Put(buf)
	p, err := s.marshal(buf[:0], pkg)
	if err != nil {
		return 0, err
	}
	return t.send(s, p, to)
}

// encodeRaw sends a datagram for each package.
func (t *datagrams) encodeRaw(s *session, one []byte, more [][]byte) (int, error) {
	if !t.connected {
		return 0, errors.New("getty: an unconnected UDP endpoint writes UDPContext, which names the peer")
	}
	return oneByOne(one, more, func(p []byte) (int, error) { return t.send(s, p, netip.AddrPort{}) })
}

func (t *datagrams) send(s *session, p []byte, to netip.AddrPort) (int, error) {
	n, err := netx.WriteUDP(t.conn, p, to)
	if err != nil {
		if s.has(flagHard) {
			err = s.refusal()
		}
		return n, err
	}
	s.qMu.Lock()
	s.count.Writes++
	s.count.BytesWritten += uint64(n)
	s.count.PkgsWritten++
	s.qMu.Unlock()
	s.clock.touch()
	return n, nil
}

// serve reads datagrams until the socket is closed. No error about a datagram ends it, but for a refusal on a
// client's session.
func (t *datagrams) serve(s *session) error {
	if t.first != nil {
		if err := t.received(s, t.first, netip.AddrPort{}, false); err != nil {
			return err
		}
		s.endRead()
		t.first = nil
	}
	var in packetReader
	in.init(t.conn, t.connected)
	failures := 0
	for {
		b, from, truncated, err := in.read()
		if err == nil {
			failures = 0
			err = t.received(s, b, from, truncated)
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
		case t.connected && t.refused(err) && !t.keepRefused:
			return err
		case !netx.IsPacketError(err):
			return err
		}
		if err := s.packetError(err); err != nil {
			return err
		}
		if failures++; failures > 64 { // the kernel hands out errors without end: do not spin on them
			time.Sleep(time.Millisecond)
		}
	}
}

// received handles one datagram.
func (t *datagrams) received(s *session, b []byte, from netip.AddrPort, truncated bool) error {
	s.tallyRead(len(b))
	switch {
	case s.flags.Or(flagReading)&(flagClosing|flagDrain) != 0:
		// Nothing new: a flood must not put the end off.
		s.tally(&s.count.Dropped, 1)
		return nil
	case t.answer && isProbe(b):
		if t.rate.allow() {
			reply := append([]byte(answerMagic), b[len(probeMagic):len(probeMagic)+nonceSize]...)
			_, _ = netx.WriteUDP(t.conn, reply, from)
		}
		return nil
	case t.probe != nil && answersTo(t.probe, b):
		return nil
	case truncated || len(b) > int(s.maxMsgLen.Load()):
		s.tally(&s.count.Dropped, 1)
		return s.packetError(fmt.Errorf("%w: more than %d bytes from %s", ErrTruncated, min(len(b), int(s.maxMsgLen.Load())), from))
	}
	err := s.turnDatagram(b, from)
	s.clock.touch()
	return err
}

// turnDatagram decodes and delivers one datagram, a turn of its own. The error ends the session.
func (s *session) turnDatagram(b []byte, from netip.AddrPort) error {
	pkg, bad, err := s.decodeDatagram(b)
	if err != nil {
		return err
	}
	if bad != nil {
		s.tally(&s.count.Dropped, 1)
		return s.packetError(bad)
	}
	if from.IsValid() {
		pkg = UDPContext{Pkg: pkg, PeerAddr: from}
	}
	if s.box == nil {
		return s.deliver(pkg)
	}
	s.tally(&s.count.PkgsRead, 1)
	if !s.box.hasRoom() {
		s.tally(&s.count.Dropped, 1) // there is no way to slow a sender down
		releaseGuarded(pkg)
		return nil
	}
	s.postMails([]mail{{pkg, len(b)}})
	return nil
}

// decodeDatagram calls the Reader. bad concerns this datagram only; err is a panic.
func (s *session) decodeDatagram(b []byte) (pkg any, bad, err error) {
	done := false
	defer func() {
		if !done {
			err = s.panicked("Reader", recover())
		}
	}()
	var n int
	pkg, n, bad = s.reader.Read(s, b)
	switch {
	case bad != nil:
	case pkg == nil:
		bad = fmt.Errorf("%w: a datagram of %d bytes holds no whole package", io.ErrUnexpectedEOF, len(b))
	case n != len(b):
		release(pkg)
		bad = fmt.Errorf("%w: Read took %d bytes of a datagram of %d", ErrBadReader, n, len(b))
	}
	done = true
	return pkg, bad, err
}

// deliver runs OnMessage for one package, as a turn on the goroutine that reads.
func (s *session) deliver(pkg any) (err error) {
	s.beginTurn()
	where, done := "OnMessage", false
	defer func() {
		if !done {
			err = s.panicked(where, recover())
		}
		s.endTurn(1, false)
	}()
	if s.has(flagsAttended) {
		s.servePending(&where)
	}
	if s.has(flagClosing) {
		s.tally(&s.count.Undelivered, 1)
	} else {
		where = "OnMessage"
		s.listener.OnMessage(s, pkg)
	}
	where = "Release"
	release(pkg)
	done = true
	return nil
}

// packetError tells the listener of a datagram that went wrong. The error ends the session: a panic.
func (s *session) packetError(bad error) (err error) {
	l, ok := s.listener.(PacketErrorListener)
	if !ok {
		return nil
	}
	s.beginTurn()
	done := false
	defer func() {
		if !done {
			err = s.panicked("OnPacketError", recover())
		}
		s.endTurn(0, false)
	}()
	if !s.has(flagClosing) {
		l.OnPacketError(s, bad)
	}
	done = true
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

// packetReader reads datagrams. A connected client leases its buffer when a datagram is there, where the
// platform can do that; an endpoint holds one.
type packetReader struct {
	conn *net.UDPConn
	buf  []byte
	raw  rawPacket
}

func (r *packetReader) init(conn *net.UDPConn, connected bool) {
	r.conn = conn
	if !connected || !r.raw.init(conn) {
		r.buf = make([]byte, maxDatagram)
	}
}

func (r *packetReader) read() (b []byte, from netip.AddrPort, truncated bool, err error) {
	if r.buf == nil {
		b, err = r.raw.read()
		return b, from, false, err
	}
	n, from, truncated, err := netx.ReadUDP(r.conn, r.buf)
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
