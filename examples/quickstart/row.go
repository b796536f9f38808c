// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// stall is how long a row may go without a single echo before it is given up.
const stall = 3 * time.Second

var errStalled = errors.New("nothing came back for " + stall.String())

// A row of the table: one client against one server.
type row struct {
	transport string
	client    string
	lanes     []*lane
}

// A drive connects the lanes to a server and returns when all of them have ended
// and the connections are gone. When ctx ends it gives up.
type drive func(ctx context.Context, lanes []*lane) error

// each makes a drive of a client that serves one lane: a goroutine for each.
func each(addr string, one func(ctx context.Context, addr string, l *lane) error) drive {
	return func(ctx context.Context, lanes []*lane) error {
		var wg sync.WaitGroup
		for _, l := range lanes {
			wg.Go(func() {
				err := one(ctx, addr, l)
				switch {
				case ctx.Err() != nil:
					err = context.Cause(ctx) // and not what closing the connection looks like
				case err == nil:
					err = io.ErrUnexpectedEOF
				}
				l.fail(err) // no effect on a lane that has ended
			})
		}
		wg.Wait()
		return nil
	}
}

// run drives the row to its end and shows how far it has come.
func (r *row) run(ctx context.Context, d drive, p *progress) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := d(ctx, r.lanes); err != nil {
			r.fail(err)
		}
	}()

	defer context.AfterFunc(ctx, func() { r.fail(context.Cause(ctx)) })()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	last, since := r.echoes(), time.Now()
	for {
		select {
		case <-ended:
			p.show(r, true)
			return
		case now := <-tick.C:
			n := r.echoes()
			if n != last {
				last, since = n, now
			}
			if now.Sub(since) > stall {
				cancel(errStalled)
			}
			p.show(r, false)
		}
	}
}

func (r *row) fail(err error) {
	for _, l := range r.lanes {
		l.fail(err)
	}
}

func (r *row) echoes() int64 {
	var n int64
	for _, l := range r.lanes {
		n += l.echoes.Load()
	}
	return n
}

// A result is what a row has to tell once it has ended.
type result struct {
	transport, client string
	sessions          int
	messages          int
	bytes             int
	elapsed           time.Duration
	p50, p99          time.Duration
	errors            int
	resent            int
	err               error
}

func (r *row) result() result {
	res := result{transport: r.transport, client: r.client, sessions: len(r.lanes)}
	var all []time.Duration
	var begin, end time.Time
	for _, l := range r.lanes {
		l.mu.Lock()
		all = append(all, l.latencies...)
		res.bytes += len(l.latencies) * l.size
		res.errors += l.errors
		res.resent += l.resent
		if res.err == nil {
			res.err = l.err
		}
		if begin.IsZero() || l.begin.Before(begin) {
			begin = l.begin
		}
		if l.end.After(end) {
			end = l.end
		}
		l.mu.Unlock()
	}
	slices.Sort(all)
	res.messages = len(all)
	res.elapsed = end.Sub(begin)
	res.p50, res.p99 = percentile(all, 50), percentile(all, 99)
	return res
}

// percentile returns the smallest value that p percent of the sorted values do
// not exceed, 0 if there are none.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*p+99)/100-1]
}

// table prints the results and, below them, what the columns do not say. It
// reports whether everything came back.
func table(w io.Writer, results []result) bool {
	fmt.Fprintln(w, "transport  client       sessions  messages       bytes  messages/s       p50       p99    errors")
	ok := true
	for _, r := range results {
		rate := float64(r.messages) / max(r.elapsed.Seconds(), 1e-9)
		fmt.Fprintf(w, "%-9s  %-11s  %8d  %8d  %10d  %10.0f  %8s  %8s  %8d\n", r.transport, r.client,
			r.sessions, r.messages, r.bytes, rate, short(r.p50), short(r.p99), r.errors)
		ok = ok && r.errors == 0
	}
	for _, r := range results {
		if r.resent > 0 {
			fmt.Fprintf(w, "%s %s: %d datagrams were sent again after %v without an echo\n", r.transport, r.client, r.resent, resendAfter)
		}
		if r.err != nil {
			fmt.Fprintf(w, "%s %s: %v\n", r.transport, r.client, r.err)
		}
	}
	return ok
}

// short rounds d to three digits or so.
func short(d time.Duration) time.Duration {
	switch {
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(100 * time.Nanosecond)
}
