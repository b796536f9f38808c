// SPDX-License-Identifier: Apache-2.0

// Package idle measures what a TCP session costs that does nothing, and whether a server survives
// that all come at once.
package idle

import (
	"fmt"
	"runtime"
	"time"

	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/tcpecho"
)

const (
	sessions   = 9000
	loadServer = "idle-load"
	serverCPU  = 0
	loadCPU    = 1
	patience   = 50 * time.Second
)

// Family returns the comparison.
func Family() harness.Family {
	return harness.Family{
		Name:    "idle",
		Doc:     "resident memory of an idle TCP session that has exchanged one message, and a burst of connects",
		Servers: map[string]proc.Server{loadServer: load.Serve}, // the servers are those of family tcp
		Cases: []harness.Case{
			{Name: fmt.Sprintf("sessions=%d", sessions), Unit: "KiB/session", Sample: time.Second, Subjects: subjects(resident)},
			{Name: fmt.Sprintf("burst=%d", sessions), Unit: "ms", Sample: time.Second, Subjects: subjects(burst)},
		},
	}
}

func subjects(measure func(p tcpecho.Peer, r *harness.Run) (harness.Sample, error)) []harness.Subject {
	var list []harness.Subject
	for _, p := range tcpecho.IdlePeers() {
		list = append(list, harness.Subject{Name: p.Name, Module: p.Module, Measure: func(r *harness.Run) (harness.Sample, error) {
			return measure(p, r)
		}})
	}
	return list
}

// start begins both processes. The returned function ends them.
func start(p tcpecho.Peer, pause time.Duration) (server, client *proc.Process, stop func(), err error) {
	server, err = proc.Start(p.Server(), tcpecho.Config{CPUs: runtime.NumCPU()}, serverCPU, patience)
	if err != nil {
		return nil, nil, nil, err
	}
	client, err = proc.Start(loadServer, load.Echo{Addr: server.Addr, Conns: sessions, InFlight: 1, Payload: 64, Pause: pause}, loadCPU, patience)
	if err != nil {
		server.Stop()
		return nil, nil, nil, err
	}
	return server, client, func() { server.Stop(); client.Stop() }, nil
}

// resident connects 64 at a time (the predecessors one by one, they do not survive more), exchanges one message on each connection, and compares the
// server's resident set before and after; both are read after its garbage was given back, so
// that the figure is what sessions hold and not when the collector last ran.
func resident(p tcpecho.Peer, r *harness.Run) (harness.Sample, error) {
	var s harness.Sample
	server, client, stop, err := start(p, p.Pause)
	if err != nil {
		return s, err
	}
	defer stop()
	before, err := server.Settle()
	if err != nil {
		return s, err
	}
	err = client.Ask("dial", nil, patience)
	if err == nil {
		err = client.Ask("once 64", nil, patience)
	}
	if err == nil {
		time.Sleep(r.Budget) // what the server lets go after a while, it has let go
	}
	after, died := server.Settle()
	switch {
	case died != nil:
		return s, died
	case err != nil:
		return s, err
	}
	return s.Add("KiB/session", float64(after.Resident-before.Resident)/1024/sessions).
		Add("goroutines", float64(after.Goroutines)/sessions), nil
}

// burst connects all at once.
func burst(p tcpecho.Peer, _ *harness.Run) (harness.Sample, error) {
	var s harness.Sample
	server, client, stop, err := start(p, 0)
	if err != nil {
		return s, err
	}
	defer stop()
	var b load.BurstResult
	err = client.Ask("burst", &b, patience)
	if _, died := server.Usage(); died != nil {
		return s, died
	}
	if err != nil {
		return s, err
	}
	return s.Add("ms", float64(b.Elapsed)/float64(time.Millisecond)).Add("unserved", float64(b.Unserved)), nil
}
