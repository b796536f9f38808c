// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"reflect"
	"sync"
	"time"

	"github.com/gostkit/kit/netx"
	"github.com/gostkit/kit/taskpool"
	"github.com/gostkit/kit/timerwheel"
)

// Defaults of [ClientOptions].
const (
	DefaultDialTimeout       = 3 * time.Second
	DefaultReconnectInterval = 300 * time.Millisecond
	DefaultReconnectMax      = 30 * time.Second
)

// ClientOptions configure a [Client]. The zero value of each field means its default.
type ClientOptions struct {
	// SessionOptions are what every session starts with.
	SessionOptions

	// Addr is the server: "host:port"; the path of a Unix socket; for WebSocket
	// "ws://host:port/path", or with "wss://" over TLS.
	Addr string

	// Connections is how many sessions the client keeps open, 65536 at most. 0: 1.
	Connections int

	// DialTimeout limits one attempt to connect, name lookup and handshake included.
	// 0: DefaultDialTimeout.
	DialTimeout time.Duration

	// ReconnectInterval is the first back-off and ReconnectMax the largest: after a failure the
	// client waits a random part of a span that doubles with each further failure. A session that
	// read something, or stayed open for longer than ReconnectMax, sets the span back to the first.
	// After an answer of status 4xx to a WebSocket upgrade, but 408 and 429, it is the largest at
	// once.
	// 0: DefaultReconnectInterval, DefaultReconnectMax.
	ReconnectInterval, ReconnectMax time.Duration

	// Socket are options for every connection. Linger is used if it is negative: a session waits
	// for its peer as WaitTime says, never in the kernel.
	Socket netx.SocketOptions

	// Dial makes the connections, such as through a proxy; nil: the network's own. network is
	// "tcp" and addr the "host:port" of Addr. ctx ends with DialTimeout and Close, and Dial must
	// return then. The client closes what it gets; TLS in it must have shaken hands. Dial may be
	// called from several goroutines at once. With it, Socket must be zero.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// WebSocket are the options that only WebSocket clients use.
	WebSocket WebSocketClientOptions

	// UDP are the options that only UDP clients use.
	UDP UDPClientOptions

	// TLSOptions turn TLS on.
	TLSOptions
}

// A ClientOption changes one of the options.
type ClientOption func(*ClientOptions)

// WithServerAddress sets Addr.
func WithServerAddress(addr string) ClientOption { return func(o *ClientOptions) { o.Addr = addr } }

// WithConnectionNumber sets Connections.
func WithConnectionNumber(n int) ClientOption { return func(o *ClientOptions) { o.Connections = n } }

// WithReconnectInterval sets ReconnectInterval.
func WithReconnectInterval(d time.Duration) ClientOption {
	return func(o *ClientOptions) { o.ReconnectInterval = d }
}

// WithClientTaskPool sets Pool, and with it Ordered dispatch unless another is chosen.
func WithClientTaskPool(p taskpool.Pool) ClientOption { return func(o *ClientOptions) { o.Pool = p } }

// WithClientDispatch sets Dispatch.
func WithClientDispatch(d Dispatch) ClientOption { return func(o *ClientOptions) { o.Dispatch = d } }

// maxConnections is more than one address has ports.
const maxConnections = 64 << 10

func (o *ClientOptions) complete(k kind) {
	o.Connections = cmp.Or(o.Connections, 1)
	o.DialTimeout = cmp.Or(o.DialTimeout, DefaultDialTimeout)
	o.ReconnectInterval = cmp.Or(o.ReconnectInterval, DefaultReconnectInterval)
	o.ReconnectMax = cmp.Or(o.ReconnectMax, max(DefaultReconnectMax, o.ReconnectInterval))
	o.SessionOptions.complete()
	o.WebSocket.complete()
	o.UDP.complete()
	if k == wsClient && !o.TLSOptions.on() && isWSS(o.Addr) {
		o.TLS = new(tls.Config)
	}
	o.TLSOptions.complete(k)
}

func (o *ClientOptions) check(k kind) error {
	switch {
	case o.Connections < 0:
		return errors.New("getty: Connections is negative")
	case o.Connections > maxConnections:
		return fmt.Errorf("getty: Connections is %d, more than %d", o.Connections, maxConnections)
	case o.DialTimeout < 0:
		return errors.New("getty: DialTimeout is negative")
	case o.ReconnectInterval < 0 || o.ReconnectMax < o.ReconnectInterval:
		return errors.New("getty: want 0 <= ReconnectInterval <= ReconnectMax")
	case k == wsClient && o.TLSOptions.on() && !isWSS(o.Addr):
		return errors.New("getty: TLS is set, but Addr does not begin with wss://")
	case o.Dial != nil && !reflect.ValueOf(o.Socket).IsZero():
		return errors.New("getty: Socket has no effect on the connections of Dial")
	}
	return cmp.Or(o.SessionOptions.check(), checkServerAddr(o.Addr, k), o.WebSocket.check(),
		o.UDP.check(), checkSocket(&o.Socket, k), o.TLSOptions.check(k))
}

// A Client keeps a number of sessions to one server open. Make one with [NewTCPClient],
// [NewUnixClient], [NewWSClient] or [NewUDPClient]. All its methods may be called from any goroutine.
//
// Its goroutines are one per session and one per dial in progress; waiting for the next attempt
// holds none. Done tells when all have ended.
type Client struct {
	ep   *endpoint
	opts ClientOptions
	err  error // from the options, reported by RunEventLoop
	dial dialer

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	prepare NewSessionCallback

	mu       sync.Mutex
	slots    int               // guarded by mu: sessions with a descriptor, and dials in progress
	failures int               // guarded by mu: since a session proved itself
	waiting  bool              // guarded by mu: the back-off timer is set
	timer    *timerwheel.Timer // guarded by mu
	changed  chan struct{}     // guarded by mu: closed when a session has opened or the client was closed
	lastErr  error             // guarded by mu: of the latest dial
	next     int               // guarded by mu: round robin of Session
}

var _ EndPoint = (*Client)(nil)

// A dialer makes one connection; ctx carries the dial timeout and ends with Close.
type dialer func(ctx context.Context, o *ClientOptions) (protocol, error)

func newClient(opts []ClientOption, dial dialer, k kind) *Client {
	c := &Client{dial: dial, changed: make(chan struct{})}
	c.err = settle(&c.opts, k, opts)
	c.ep = newEndpoint(c, "client", &c.opts.SessionOptions)
	if c.opts.Dial != nil {
		c.opts.Dial = c.ep.containDial(c.opts.Dial)
	}
	c.ep.onFreed = c.freed
	c.ep.onOpened = c.opened
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// NewTCPClient returns a client of plain TCP sessions. What is wrong with the options is reported
// by RunEventLoop.
func NewTCPClient(opts ...ClientOption) *Client {
	return newClient(opts, dialTCP, tcpClient)
}

func dialTCP(ctx context.Context, o *ClientOptions) (protocol, error) {
	conn, err := dialConn(ctx, o, o.Addr)
	if err != nil {
		return nil, err
	}
	return newStream(conn, o.Compress), nil
}

// dialConn connects to addr and, with TLS, shakes hands.
func dialConn(ctx context.Context, o *ClientOptions, addr string) (net.Conn, error) {
	conn, err := dialPlain(ctx, o, addr)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(addr)
	return o.TLSOptions.secured(ctx, conn, host)
}

func dialPlain(ctx context.Context, o *ClientOptions, addr string) (net.Conn, error) {
	if o.Dial != nil {
		return o.Dial(ctx, "tcp", addr)
	}
	d := netx.Dialer{Options: withoutLinger(o.Socket)}
	return d.DialContext(ctx, "tcp", addr)
}

// ID implements [EndPoint].
func (c *Client) ID() uint64 { return c.ep.id }

// RunEventLoop begins to dial and returns. Only bad options are errors: a server that is not there
// is dialled again until Close. newSession prepares each session. Use Ready to wait for the first
// one.
func (c *Client) RunEventLoop(newSession NewSessionCallback) error {
	switch {
	case c.err != nil:
		return c.err
	case newSession == nil:
		return errors.New("getty: RunEventLoop without a new-session callback")
	}
	if err := c.ep.begin(); err != nil {
		return err
	}
	c.prepare = newSession
	c.refill()
	return nil
}

// Ready waits until a session is open and returns it, as Session does. It may end at any time, like
// every session. When ctx ends first, the error tells also why the latest dial failed.
func (c *Client) Ready(ctx context.Context) (Session, error) {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if c.ep.isClosed() {
			return nil, ErrEndpointClosed
		}
		if s, err := c.Session(); err == nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			c.mu.Lock()
			last := c.lastErr
			c.mu.Unlock()
			if last != nil {
				return nil, fmt.Errorf("getty: client not ready: %w; latest dial: %w", context.Cause(ctx), last)
			}
			return nil, fmt.Errorf("getty: client not ready: %w", context.Cause(ctx))
		}
	}
}

// Session returns a live session, each time another one if there are several, or ErrNoSession.
func (c *Client) Session() (Session, error) {
	if c.ep.isClosed() {
		return nil, ErrEndpointClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	live := c.ep.live()
	if len(live) == 0 {
		return nil, ErrNoSession
	}
	c.next++
	return live[c.next%len(live)], nil
}

// Sessions implements [EndPoint].
func (c *Client) Sessions() iter.Seq[Session] { return c.ep.openSessions() }

// SessionByID implements [EndPoint].
func (c *Client) SessionByID(id uint64) (Session, bool) { return c.ep.sessionByID(id) }

// Stats implements [EndPoint].
func (c *Client) Stats() EndPointStats { return c.ep.statsSnapshot() }

// IsClosed implements [EndPoint].
func (c *Client) IsClosed() bool { return c.ep.isClosed() }

// Done implements [EndPoint].
func (c *Client) Done() <-chan struct{} { return c.ep.doneCh }

// Close implements [EndPoint]. Dials in progress are cancelled.
func (c *Client) Close() {
	c.stop()
	for _, ss := range c.ep.snapshot() {
		ss.Close()
	}
}

// Shutdown implements [EndPoint].
func (c *Client) Shutdown(ctx context.Context) (Report, error) {
	c.stop()
	return c.ep.shutdown(ctx)
}

func (c *Client) stop() {
	c.ep.beginClose()
	c.cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.signalLocked()
}

// signalLocked wakes Ready.
func (c *Client) signalLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// refill dials for every free slot, each on a goroutine of its own that ends with the attempt.
func (c *Client) refill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = false
	for c.slots < c.opts.Connections {
		if !c.ep.spawnUnlessClosing(c.attempt) {
			return
		}
		c.slots++
	}
}

// attempt is one dial.
func (c *Client) attempt() {
	c.ep.stats.dials.Add(1)
	ctx, cancel := context.WithTimeout(c.ctx, c.opts.DialTimeout)
	defer cancel()
	tr, err := c.dial(ctx, &c.opts)
	if err == nil {
		if _, err = c.ep.open(tr, c.prepare); err == nil {
			return
		}
		_ = tr.close()
	} else if c.ctx.Err() == nil {
		c.ep.stats.dialErrs.Add(1)
		c.ep.log.Warn("getty: dial failed", "server", c.opts.Addr, "error", limitText(err))
	}
	c.lost(err, false)
}

// opened is the report of a session whose OnOpen succeeded.
func (c *Client) opened(*session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.signalLocked()
}

// freed is the report of a session whose descriptor is free: the refill does not wait for its
// OnClose.
func (c *Client) freed(s *session) {
	proved := s.Stats().BytesRead > 0 || now()-s.bornAt > int64(c.opts.ReconnectMax)
	c.lost(s.Err(), proved)
}

// lost gives a slot back and sets the back-off timer, unless it is set already: whatever is missing
// when it fires is dialled then.
func (c *Client) lost(err error, proved bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots--
	if err != nil {
		c.lastErr = err
	}
	if proved {
		c.failures = 0
	}
	if e := (*UpgradeError)(nil); errors.As(err, &e) && e.lasting() {
		c.failures = max(c.failures, 63) // the longest back-off: the next answer will be the same
	}
	if c.waiting || c.ctx.Err() != nil {
		// One timer serves all slots. A second one would dial twice as often as the back-off says.
		return
	}
	c.waiting = true
	// A random part of the whole span, not a fixed time with a little jitter: clients that lost the
	// same server at the same moment would come back together.
	delay := time.Duration(rand.Int64N(int64(backOff(&c.opts, c.failures))))
	c.failures++
	// The timer holds no goroutine while it waits, and Close stops it.
	if c.timer == nil {
		c.timer = c.ep.wheel.AfterFunc(delay, c.refill)
	} else {
		c.timer.Reset(delay)
	}
}

// backOff returns the span of which a client waits a random part after so many failures in a row.
func backOff(o *ClientOptions, failures int) time.Duration {
	if span := o.ReconnectInterval << min(failures, 63); span>>min(failures, 63) == o.ReconnectInterval && span > 0 {
		return min(span, o.ReconnectMax)
	}
	return o.ReconnectMax // the doubled span is longer than any duration
}
