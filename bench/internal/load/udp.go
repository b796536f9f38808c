// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/wire"
)

// udpLoss is how long an answer to a datagram may take before it counts as lost.
const udpLoss = 200 * time.Millisecond

// udpConn is one connected socket. Its round sends InFlight datagrams and waits for their answers
// in any order; what is lost is counted and not sent again.
type udpConn struct {
	net.Conn
	id, number  uint64
	in, out     []byte
	hist        *Histogram
	count, lost int64
}

// ServeUDP is the body of the load's process for UDP. Its configuration is an [Echo], of which Conns,
// InFlight and Payload count; the commands are "dial" and "run DURATION". The latter is answered
// with a [UDPResult].
func ServeUDP(c *proc.Child) error {
	var e Echo
	if err := c.Config(&e); err != nil {
		return err
	}
	if err := c.Ready(""); err != nil {
		return err
	}
	var conns []*udpConn
	return c.Commands(func(command string) (any, error) {
		var d time.Duration
		switch {
		case command == "dial":
			for i := range e.Conns {
				conn, err := net.Dial("udp", e.Addr)
				if err != nil {
					return nil, err
				}
				conns = append(conns, &udpConn{Conn: conn, id: uint64(i), in: make([]byte, 2048), out: make([]byte, e.Payload)})
			}
			return nil, nil
		case scan(command, "run %d", &d):
			return runUDP(e, conns, d)
		}
		return nil, fmt.Errorf("unknown command %q", command)
	})
}

// UDPResult is a [Result] with the datagrams that did not come back.
type UDPResult struct {
	Result
	Lost int64 `json:"lost"`
}

func runUDP(e Echo, conns []*udpConn, d time.Duration) (UDPResult, error) {
	start := time.Now()
	stop := start.Add(d)
	err := parallel(len(conns), len(conns), func(i int) error {
		c := conns[i]
		c.count, c.lost, c.hist = 0, 0, &Histogram{}
		for {
			if err := c.round(e); err != nil {
				return fmt.Errorf("socket %d: %w", i, err)
			}
			if !time.Now().Before(stop) {
				return nil
			}
		}
	})
	r := UDPResult{Result: Result{Elapsed: time.Since(start)}}
	var hist Histogram
	for _, c := range conns {
		r.Messages += c.count
		r.Lost += c.lost
		if c.hist != nil {
			hist.Merge(c.hist)
		}
	}
	r.P50, r.P99 = hist.Quantile(0.5), hist.Quantile(0.99)
	return r, err
}

func (c *udpConn) round(e Echo) error {
	first := c.number
	start := time.Now()
	for range e.InFlight {
		wire.Fill(c.out, c.id, c.number)
		c.number++
		if _, err := c.Write(c.out); err != nil {
			return err
		}
	}
	if err := c.SetReadDeadline(start.Add(udpLoss)); err != nil {
		return err
	}
	var seen uint64
	for done := 0; done < e.InFlight; {
		n, err := c.Read(c.in)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.lost += int64(e.InFlight - done)
			return nil
		}
		if err != nil {
			return err
		}
		if n != e.Payload {
			return fmt.Errorf("answer of %d bytes", n)
		}
		number := binary.BigEndian.Uint64(c.in[8:])
		if number < first {
			continue // late, and counted as lost already
		}
		if number >= c.number || seen&(1<<(number-first)) != 0 {
			return errors.New("an answer that was not due")
		}
		seen |= 1 << (number - first)
		wire.Fill(c.out, c.id, number)
		if !bytes.Equal(c.in[:n], c.out) {
			return fmt.Errorf("answer %d is not what was sent", number)
		}
		done++
		c.count++
		if c.hist != nil {
			c.hist.Add(time.Since(start), 1)
		}
	}
	return nil
}
