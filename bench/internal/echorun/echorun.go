// SPDX-License-Identifier: Apache-2.0

// Package echorun takes the samples that the network families share: a server and its load, each a
// process on a CPU of its own, and what the server has consumed between two quiet moments.
package echorun

import (
	"math"
	"runtime"
	"time"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/tcpecho"
)

// Which CPUs, and how long children may take beyond what they were asked to do.
const (
	serverCPU = 0
	loadCPU   = 1
	// Patience is that time.
	Patience = 20 * time.Second
)

// Pair is a server and its load.
type Pair struct{ Server, Load *proc.Process }

// Start begins the server's process and the load's, whose bodies have these names.
func Start(server, loader string, e load.Echo) (Pair, error) {
	s, err := proc.Start(server, tcpecho.Config{CPUs: runtime.NumCPU()}, serverCPU, Patience)
	if err != nil {
		return Pair{}, err
	}
	e.Addr = s.Addr
	l, err := proc.Start(loader, e, loadCPU, Patience)
	if err != nil {
		s.Stop()
		return Pair{}, err
	}
	return Pair{s, l}, nil
}

// Ask gives the load a command. When it fails because the server has died, the server's last words
// are the error.
func (p Pair) Ask(command string, v any, wait time.Duration) error {
	err := p.Load.Ask(command, v, wait)
	if err == nil {
		return nil
	}
	if _, died := p.Server.Usage(); died != nil {
		return died
	}
	return err
}

// Stop ends both.
func (p Pair) Stop() {
	p.Load.Stop()
	p.Server.Stop()
}

// Measure takes one sample: fresh processes, a warm-up, and a run whose beginning and end are
// quiet, so that every message of it and nothing else is between the two readings of the server's
// clock.
func Measure(server, loader string, e load.Echo, warmUp, run string) (harness.Sample, error) {
	var s harness.Sample
	pair, err := Start(server, loader, e)
	if err != nil {
		return s, err
	}
	defer pair.Stop()
	var r load.UDPResult // which is a Result where nothing can be lost
	if err := pair.Ask("dial", nil, Patience); err != nil {
		return s, err
	}
	if err := pair.Ask(warmUp, &r, 2*Patience); err != nil {
		return s, err
	}
	before, err := pair.Server.Usage()
	if err != nil {
		return s, err
	}
	if err := pair.Ask(run, &r, 2*Patience); err != nil {
		return s, err
	}
	after, err := pair.Server.Usage()
	if err != nil {
		return s, err
	}
	used := after.Sub(before)
	n := float64(r.Messages)
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	s = s.Add("us/msg", micros(used.CPU())/n).
		Add("user-us/msg", micros(used.User)/n).
		Add("msg/s", n/r.Elapsed.Seconds()).
		Add("p50-us", micros(r.P50)).
		Add("p99-us", micros(r.P99))
	// A server that uses recv, send and their kind has calls that are not counted, and gets no column.
	for _, calls := range []struct {
		name string
		n    int64
	}{{"reads/msg", used.Reads}, {"writes/msg", used.Writes}} {
		if per := float64(calls.n) / n; per > 1e-4 {
			s = s.Add(calls.name, per)
		}
	}
	s = s.Add("allocs/msg", math.Round(float64(used.Mallocs)/n*100)/100)
	if r.Lost > 0 {
		s = s.Add("lost-%", 100*float64(r.Lost)/(n+float64(r.Lost)))
	}
	return s, nil
}

// quiet is how long connections are idle before they are weighed, so that what a server lets go
// after a second it has let go. Connections whose memory matters are idle for longer.
const quiet = 2 * time.Second

// Resident weighs idle sessions: it connects 64 at a time (or with e's pause), exchanges one message
// on each connection, waits for quiet, and compares the server's resident set before and after. Both
// are read after garbage was given back, so that the figure is what sessions hold, and not when the
// collector last ran.
func Resident(server, loader string, e load.Echo) (harness.Sample, error) {
	var s harness.Sample
	pair, err := Start(server, loader, e)
	if err != nil {
		return s, err
	}
	defer pair.Stop()
	before, err := pair.Server.Settle()
	if err != nil {
		return s, err
	}
	if err := pair.Ask("dial", nil, 2*Patience); err != nil {
		return s, err
	}
	if err := pair.Ask("once 64", nil, 2*Patience); err != nil {
		return s, err
	}
	time.Sleep(quiet)
	after, err := pair.Server.Settle()
	if err != nil {
		return s, err
	}
	n := float64(e.Conns)
	return s.Add("KiB/session", float64(after.Resident-before.Resident)/1024/n).
		Add("goroutines", float64(after.Goroutines)/n), nil
}
