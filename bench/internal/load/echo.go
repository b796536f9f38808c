// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/gostkit/kit/bench/internal/wire"
)

// Echo drives an echo server over TCP with frames and verifies every answer.
type Echo struct {
	// Addr is the server's.
	Addr string
	// Conns is the number of connections.
	Conns int
	// InFlight is how many frames a connection sends in one write before it waits for all
	// answers. At most 64.
	InFlight int
	// Payload is the size of a frame's payload in bytes, at least 16.
	Payload int
	// Unordered accepts the answers of one write in any order.
	Unordered bool
	// Pause, if positive, makes the connections one after the other with this pause between
	// them, for servers that do not survive more.
	Pause time.Duration
	// Narrow makes connections that look like those of a slow network instead of the loopback:
	// small segments and small buffers, so that the kernel holds little of what is not read.
	Narrow bool
	// Network is what to dial, "tcp" if it is empty.
	Network string
	// TLS encrypts the connections. The server's certificate is not verified.
	TLS bool
	// Snappy frames what is sent as a stream of Snappy, and expects the same.
	Snappy bool
	// Deflate makes what is sent one stream of DEFLATE, flushed with each write, and expects the same.
	Deflate bool
	// Text makes the payloads JSON, which compresses, instead of noise.
	Text bool
	// WebSocket upgrades the connections and sends binary messages instead of frames. Payloads
	// must be shorter than 126 bytes then.
	WebSocket bool
}

// Result is what a run yielded.
type Result struct {
	Messages int64         `json:"messages"`
	Elapsed  time.Duration `json:"elapsed"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
}

// lossAfter is how long an answer may take before it counts as lost.
const lossAfter = 10 * time.Second

// Client is a set of connections of one Echo. Its methods belong to one goroutine.
type Client struct {
	echo  Echo
	conns []*echoConn
}

// echoConn is one connection and its buffers.
type echoConn struct {
	net.Conn
	raw        net.Conn // below TLS and compression
	id, number uint64
	out, in    []byte
	want       []byte     // of in; the same memory as out where both directions look alike
	hist       *Histogram // of the current run
	count      int64
}

// Dial makes the connections, at most 64 at a time, or with pauses.
func (e Echo) Dial() (*Client, error) {
	c := &Client{echo: e, conns: make([]*echoConn, e.Conns)}
	dialer := net.Dialer{Timeout: lossAfter}
	if e.Narrow {
		dialer.Control = narrow
	}
	width := 64
	if e.Pause > 0 {
		width = 1
	}
	err := parallel(e.Conns, width, func(i int) error {
		time.Sleep(e.Pause)
		conn, err := dialer.Dial(cmp.Or(e.Network, "tcp"), e.Addr)
		if err != nil {
			return err
		}
		raw := conn
		if e.TLS {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // it shakes hands with the first write
		}
		if e.Snappy {
			conn = &snappyConn{Conn: conn}
		}
		if e.Deflate {
			conn = newDeflateConn(conn)
		}
		c.conns[i] = &echoConn{Conn: conn, raw: raw, id: uint64(i)}
		if e.WebSocket {
			return upgrade(conn, e.Addr)
		}
		return nil
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close resets all connections, so that none lingers in the kernel.
func (c *Client) Close() {
	for _, conn := range c.conns {
		if conn != nil {
			conn.reset()
		}
	}
}

// reset closes without a goodbye of TLS.
func (c *echoConn) reset() {
	if tcp, ok := c.raw.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.raw.Close()
}

// BurstResult is what a burst of connects yielded.
type BurstResult struct {
	Unserved int           `json:"unserved"`
	Elapsed  time.Duration `json:"elapsed"`
	// Error is the first failure, empty if all were served.
	Error string `json:"error,omitempty"`
}

// Burst makes all connections at once, each of which sends one round as soon as it stands, and
// keeps them open until all are served or have failed.
func (e Echo) Burst() BurstResult {
	var (
		mu    sync.Mutex
		r     BurstResult
		conns = make([]*echoConn, e.Conns)
	)
	start := time.Now()
	dialer := net.Dialer{Timeout: 2 * lossAfter}
	parallel(e.Conns, e.Conns, func(i int) error {
		conn, err := dialer.Dial("tcp", e.Addr)
		if err == nil {
			conns[i] = &echoConn{Conn: conn, raw: conn, id: uint64(i)}
			if err = conn.SetDeadline(time.Now().Add(2 * lossAfter)); err == nil {
				err = conns[i].round(e)
			}
		}
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			if r.Unserved == 0 {
				r.Error = err.Error()
			}
			r.Unserved++
		}
		return nil
	})
	r.Elapsed = time.Since(start)
	for _, conn := range conns {
		if conn != nil {
			conn.reset()
		}
	}
	return r
}

// Run sends and verifies for the given time; then it waits for all answers.
func (c *Client) Run(d time.Duration) (Result, error) {
	start := time.Now()
	stop := start.Add(d)
	err := parallel(len(c.conns), len(c.conns), func(i int) error {
		conn := c.conns[i]
		conn.count, conn.hist = 0, &Histogram{}
		if err := conn.SetDeadline(stop.Add(lossAfter)); err != nil {
			return err
		}
		for {
			if err := conn.round(c.echo); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			if !time.Now().Before(stop) {
				return nil
			}
		}
	})
	return c.collect(start, err)
}

// Once sends one round on every connection, at most width connections at a time.
func (c *Client) Once(width int) (Result, error) {
	start := time.Now()
	err := parallel(len(c.conns), width, func(i int) error {
		conn := c.conns[i]
		conn.count, conn.hist = 0, &Histogram{}
		if err := conn.SetDeadline(time.Now().Add(lossAfter)); err != nil {
			return err
		}
		if err := conn.round(c.echo); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		return nil
	})
	return c.collect(start, err)
}

// collect merges what the connections have counted.
func (c *Client) collect(start time.Time, err error) (Result, error) {
	r := Result{Elapsed: time.Since(start)}
	var hist Histogram
	for _, conn := range c.conns {
		r.Messages += conn.count
		if conn.hist != nil {
			hist.Merge(conn.hist)
			conn.hist = nil // 16 KiB per connection are not kept while idle
		}
	}
	r.P50, r.P99 = hist.Quantile(0.5), hist.Quantile(0.99)
	return r, err
}

// round is one write of InFlight frames and all their answers.
func (c *echoConn) round(e Echo) error {
	// What is sent and what comes back differ in their headers only.
	sendHead, header := wire.Header, wire.Header
	if e.WebSocket {
		sendHead, header = wsClientHeader, wsServerHeader
	}
	sent, frame := sendHead+e.Payload, header+e.Payload
	if len(c.in) != e.InFlight*frame {
		c.prepare(e, sent, frame)
	}
	first := c.number
	for i := range e.InFlight {
		payload := c.want[i*frame+header : (i+1)*frame]
		if e.Text {
			wire.FillText(payload, c.id, c.number)
		} else {
			wire.Fill(payload, c.id, c.number)
		}
		if e.WebSocket {
			mask(c.out[i*sent+sendHead:(i+1)*sent], payload)
		}
		c.number++
	}
	start := time.Now()
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	have, done := 0, 0
	var seen uint64
	for done < e.InFlight {
		n, err := c.Read(c.in[have:])
		if err != nil {
			return fmt.Errorf("after %d of %d answers: %w", done, e.InFlight, err)
		}
		have += n
		complete := have / frame
		for i := done; i < complete; i++ {
			got := c.in[i*frame : (i+1)*frame]
			// In order, an answer is what was sent at its place; otherwise it is looked up by
			// the number it claims, and every number may come once.
			at := i
			if e.Unordered {
				number := binary.BigEndian.Uint64(got[header+8:])
				if number < first || number >= first+uint64(e.InFlight) || seen&(1<<(number-first)) != 0 {
					return errors.New("an answer that was not due")
				}
				at = int(number - first)
				seen |= 1 << at
			}
			if !bytes.Equal(got, c.want[at*frame:(at+1)*frame]) {
				return fmt.Errorf("answer %d is not what was sent", i)
			}
		}
		if c.hist != nil {
			c.hist.Add(time.Since(start), int64(complete-done))
		}
		done = complete
	}
	c.count += int64(e.InFlight)
	return nil
}

// prepare makes the buffers and writes the headers, which never change.
func (c *echoConn) prepare(e Echo, sent, frame int) {
	c.in, c.out = make([]byte, e.InFlight*frame), make([]byte, e.InFlight*sent)
	c.want = c.out
	if e.WebSocket {
		c.want = make([]byte, e.InFlight*frame)
	}
	for i := range e.InFlight {
		if e.WebSocket {
			clientHeader(c.out[i*sent:], e.Payload)
			serverHeader(c.want[i*frame:], e.Payload)
		} else {
			binary.BigEndian.PutUint32(c.out[i*frame:], uint32(e.Payload))
		}
	}
}

// parallel calls f for 0 to n-1 in at most width goroutines, waits for all, and returns the
// first error; after an error no new call begins.
func parallel(n, width int, f func(i int) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int
		first error
	)
	for range min(n, width) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := first != nil || i >= n
				mu.Unlock()
				if stop {
					return
				}
				if err := f(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}
