// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/gostkit/kit/bench/internal/wire"
)

// The modes beside the closed loop: an open loop, a stream that drips, peers that never read, a
// server that writes from many goroutines, and a proxy.

// Open sends frames at a fixed rate for all connections together, whether or not answers come,
// and takes the latency of each from the moment at which it was due: a server that stalls pays
// for everything that should have been sent meanwhile.
func (c *Client) Open(rate float64, d time.Duration) (Result, error) {
	interval := time.Duration(float64(len(c.conns)) / rate * float64(time.Second))
	each := int(d / interval)
	start := time.Now()
	err := parallel(len(c.conns), len(c.conns), func(i int) error {
		conn := c.conns[i]
		conn.count, conn.hist = 0, &Histogram{}
		if err := conn.SetDeadline(start.Add(d + lossAfter)); err != nil {
			return err
		}
		// The connections take turns within an interval.
		first := start.Add(interval * time.Duration(i) / time.Duration(len(c.conns)))
		sent := make(chan error, 1)
		begin := conn.number
		go func() { sent <- conn.pace(c.echo.Payload, first, interval, each) }()
		err := conn.answers(c.echo.Payload, begin, first, interval, each)
		if err != nil {
			conn.Close() // ends the sender
		}
		return errors.Join(err, <-sent)
	})
	return c.collect(start, err)
}

// pace sends one frame per interval.
func (c *echoConn) pace(payload int, first time.Time, interval time.Duration, n int) error {
	out := wire.Append(nil, make([]byte, payload))
	for i := range n {
		time.Sleep(time.Until(first.Add(interval * time.Duration(i))))
		wire.Fill(out[wire.Header:], c.id, c.number)
		c.number++
		if _, err := c.Write(out); err != nil {
			return err
		}
	}
	return nil
}

// answers reads and verifies n answers, the first of which answers the frame numbered begin.
func (c *echoConn) answers(payload int, begin uint64, first time.Time, interval time.Duration, n int) error {
	frame := wire.Header + payload
	in := make([]byte, 16*frame)
	want := wire.Append(nil, make([]byte, payload))
	have, done := 0, 0
	for done < n {
		got, err := c.Read(in[have:])
		if err != nil {
			return fmt.Errorf("after %d of %d answers: %w", done, n, err)
		}
		have += got
		now := time.Now()
		rest := in[:have]
		for len(rest) >= frame && done < n {
			wire.Fill(want[wire.Header:], c.id, begin+uint64(done))
			if !bytes.Equal(rest[:frame], want) {
				return fmt.Errorf("answer %d is not what was sent", done)
			}
			if c.hist != nil {
				c.hist.Add(now.Sub(first.Add(interval*time.Duration(done))), 1)
			}
			rest = rest[frame:]
			done++
			c.count++
		}
		have = copy(in, rest)
	}
	return nil
}

// Drip sends n frames on the first connection one byte per write, and verifies the answers.
func (c *Client) Drip(n int) (Result, error) {
	conn := c.conns[0]
	conn.count, conn.hist = 0, &Histogram{}
	start := time.Now()
	if err := conn.SetDeadline(start.Add(6 * lossAfter)); err != nil {
		return Result{}, err
	}
	begin := conn.number
	sent := make(chan error, 1)
	go func() {
		out := wire.Append(nil, make([]byte, c.echo.Payload))
		for range n {
			wire.Fill(out[wire.Header:], conn.id, conn.number)
			conn.number++
			for i := range out {
				if _, err := conn.Write(out[i : i+1]); err != nil {
					sent <- err
					return
				}
			}
		}
		sent <- nil
	}()
	err := conn.answers(c.echo.Payload, begin, start, 0, n)
	if err != nil {
		conn.Close()
	}
	return c.collect(start, errors.Join(err, <-sent))
}

// Slow limits of one connection.
const (
	slowBytes = 2 << 20                // sent at most
	slowStall = 500 * time.Millisecond // without progress means that the server has stopped reading
)

// SlowResult is what peers that never read could send.
type SlowResult struct {
	Conns int   `json:"conns"`
	Bytes int64 `json:"bytes"`
	// Stopped is how many were stopped by the server before they had sent all they would.
	Stopped int `json:"stopped"`
	// Closed is how many the server ended.
	Closed int `json:"closed"`
}

// Slow makes every connection send frames without ever reading, until the server takes no more or
// each has sent 2 MiB. The connections stay open.
func (c *Client) Slow() (SlowResult, error) {
	r := SlowResult{Conns: len(c.conns)}
	results := make([]SlowResult, len(c.conns))
	err := parallel(len(c.conns), len(c.conns), func(i int) error {
		conn := c.conns[i]
		var out []byte
		for len(out) < 16<<10 {
			payload := make([]byte, c.echo.Payload)
			wire.Fill(payload, conn.id, conn.number)
			conn.number++
			out = wire.Append(out, payload)
		}
		for sent := 0; sent < slowBytes; {
			conn.SetWriteDeadline(time.Now().Add(slowStall))
			// A partial write leaves the rest of the frames to the next, so boundaries hold.
			n, err := conn.Write(out[sent%len(out):])
			sent += n
			results[i].Bytes = int64(sent)
			switch {
			case n > 0 || err == nil:
			case errors.Is(err, os.ErrDeadlineExceeded):
				results[i].Stopped = 1
				return nil
			default:
				results[i].Closed = 1
				return nil
			}
		}
		return nil
	})
	for _, one := range results {
		r.Bytes += one.Bytes
		r.Stopped += one.Stopped
		r.Closed += one.Closed
	}
	return r, err
}

// Writers is how many goroutines the server of [Client.Writers] writes from.
const Writers = 64

// Writers asks a server of many writers for n frames per writer and verifies that each writer's
// frames are whole and in its own order.
func (c *Client) Writers(n int) (Result, error) {
	conn := c.conns[0]
	conn.count, conn.hist = 0, nil
	start := time.Now()
	if err := conn.SetDeadline(start.Add(6 * lossAfter)); err != nil {
		return Result{}, err
	}
	payload := make([]byte, c.echo.Payload)
	binary.BigEndian.PutUint64(payload, uint64(n))
	if _, err := conn.Write(wire.Append(nil, payload)); err != nil {
		return Result{}, err
	}
	frame := wire.Header + c.echo.Payload
	in, want := make([]byte, 256<<10), make([]byte, c.echo.Payload)
	var next [Writers]uint64
	have := 0
	for conn.count < int64(Writers*n) {
		got, err := io.ReadAtLeast(conn, in[have:], 1)
		if err != nil {
			return c.collect(start, fmt.Errorf("after %d frames: %w", conn.count, err))
		}
		have += got
		rest := in[:have]
		for len(rest) >= frame {
			body := rest[wire.Header:frame]
			writer := binary.BigEndian.Uint64(body)
			if binary.BigEndian.Uint32(rest) != uint32(c.echo.Payload) || writer >= Writers {
				return c.collect(start, errors.New("a torn frame"))
			}
			wire.Fill(want, writer, next[writer])
			if !bytes.Equal(body, want) {
				return c.collect(start, fmt.Errorf("writer %d: frame %d is not the next one", writer, next[writer]))
			}
			next[writer]++
			conn.count++
			rest = rest[frame:]
		}
		have = copy(in, rest)
	}
	return c.collect(start, nil)
}

// Pass sends n MiB into a proxy that connects the load's two connections with each other, half of
// them in each direction at the same time, in writes of 64 KiB, and verifies that they come out of
// it in order. A message of its result is a MiB.
func (c *Client) Pass(n int) (Result, error) {
	const mib, chunk = 1 << 20, 64 << 10
	start := time.Now()
	for _, conn := range c.conns {
		conn.count, conn.hist = 0, nil
		if err := conn.SetDeadline(start.Add(6 * lossAfter)); err != nil {
			return Result{}, err
		}
	}
	each := n * mib / chunk / 2
	var once sync.Once
	var cause error // the first one: those that follow are of the closed connections
	// The first two of the four send, the others receive.
	_ = parallel(4, 4, func(worker int) error {
		conn, b := c.conns[worker%2], make([]byte, chunk)
		for i := range b {
			b[i] = byte(i * 7)
		}
		got := make([]byte, chunk)
		for number := range each {
			binary.BigEndian.PutUint64(b, uint64(number))
			var err error
			if worker < 2 {
				_, err = conn.Write(b)
			} else if _, err = io.ReadFull(conn, got); err == nil && !bytes.Equal(got, b) {
				err = errors.New("other bytes came out than went in")
			}
			if err != nil {
				once.Do(func() {
					cause = err
					for _, conn := range c.conns { // so that nobody waits for the others
						conn.Close()
					}
				})
				return err
			}
		}
		return nil
	})
	c.conns[0].count = int64(n)
	return c.collect(start, cause)
}
