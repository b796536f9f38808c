// SPDX-License-Identifier: Apache-2.0

// Package tcp compares TCP echo servers: frames of 64 bytes, the server a process of its own on
// one CPU, the load another on the next.
package tcp

import (
	"fmt"
	"runtime"
	"time"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/tcpecho"
)

// loadServer is the name of the load's process.
const loadServer = "tcp-load"

// Which CPUs, and how long children may take beyond what they were asked to do.
const (
	serverCPU = 0
	loadCPU   = 1
	patience  = 20 * time.Second
)

// Family returns the comparison.
func Family() harness.Family {
	servers := tcpecho.Servers()
	servers[loadServer] = load.Serve
	return harness.Family{
		Name:    "tcp",
		Doc:     "TCP echo of 64-byte frames, 100 connections; server CPU (user and system) per message",
		Servers: servers,
		Cases: []harness.Case{
			echoCase(16, 500*time.Millisecond),
			echoCase(1, 1500*time.Millisecond),
		},
	}
}

// echoCase is the closed loop: every connection sends inFlight frames in one write, waits for
// all answers, and begins again.
func echoCase(inFlight int, sample time.Duration) harness.Case {
	c := harness.Case{Name: fmt.Sprintf("echo/inflight=%d", inFlight), Unit: "us/msg", Sample: sample}
	for _, p := range tcpecho.Peers() {
		c.Subjects = append(c.Subjects, harness.Subject{Name: p.Name, Module: p.Module, Measure: func(r *harness.Run) (harness.Sample, error) {
			return echo(p, load.Echo{Conns: 100, InFlight: inFlight, Payload: 64, Unordered: p.Unordered, Pause: p.Pause}, r.Budget)
		}})
	}
	return c
}

// echo takes one sample: fresh processes, a warm-up, a run whose beginning and end are quiet, so
// that every message of it and nothing else is between the two readings of the server's clock.
func echo(p tcpecho.Peer, e load.Echo, d time.Duration) (harness.Sample, error) {
	var s harness.Sample
	server, err := proc.Start(p.Server(), tcpecho.Config{CPUs: runtime.NumCPU()}, serverCPU, patience)
	if err != nil {
		return s, err
	}
	defer server.Stop()
	e.Addr = server.Addr
	client, err := proc.Start(loadServer, e, loadCPU, patience)
	if err != nil {
		return s, err
	}
	defer client.Stop()
	// When the load fails because the server has died, the server's last words are the cause.
	blame := func(err error) error {
		if _, died := server.Usage(); died != nil {
			return died
		}
		return err
	}
	if err := client.Ask("dial", nil, patience); err != nil {
		return s, blame(err)
	}
	var r load.Result
	if err := client.Ask(fmt.Sprintf("run %d", d/5), &r, d+patience); err != nil {
		return s, blame(err)
	}
	before, err := server.Usage()
	if err != nil {
		return s, err
	}
	if err := client.Ask(fmt.Sprintf("run %d", d), &r, d+patience); err != nil {
		return s, blame(err)
	}
	after, err := server.Usage()
	if err != nil {
		return s, err
	}
	used := after.Sub(before)
	n := float64(r.Messages)
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return s.Add("us/msg", micros(used.CPU())/n).
		Add("user-us/msg", micros(used.User)/n).
		Add("msg/s", n/r.Elapsed.Seconds()).
		Add("p50-us", micros(r.P50)).
		Add("p99-us", micros(r.P99)).
		Add("reads/msg", float64(used.Reads)/n).
		Add("writes/msg", float64(used.Writes)/n).
		Add("allocs/msg", float64(int(float64(used.Mallocs)/n*100+0.5))/100), nil
}
