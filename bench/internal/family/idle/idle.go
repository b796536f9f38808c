// SPDX-License-Identifier: Apache-2.0

// Package idle measures what a TCP session costs that does nothing, and whether a server survives
// that all come at once.
package idle

import (
	"fmt"
	"time"

	"github.com/gostkit/kit/bench/internal/echorun"
	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/tcpecho"
)

const (
	sessions   = 9000
	loadServer = "idle-load"
)

// Family returns the comparison.
func Family() harness.Family {
	return harness.Family{
		Name:    "idle",
		Doc:     "resident memory of an idle TCP session that has exchanged one message, and a burst of connects",
		Servers: map[string]proc.Server{loadServer: load.Serve}, // the servers are those of family tcp
		Cases: []harness.Case{
			{Name: fmt.Sprintf("sessions=%d", sessions), Unit: "KiB/session", Sample: 300 * time.Millisecond, Subjects: subjects(resident)},
			{Name: fmt.Sprintf("burst=%d", sessions), Unit: "ms", Sample: time.Millisecond, Subjects: subjects(burst)},
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

// resident weighs with everyone connected politely: the predecessors one by one, because they do not
// survive more.
func resident(p tcpecho.Peer, _ *harness.Run) (harness.Sample, error) {
	return echorun.Resident(p.Server(), loadServer, load.Echo{Conns: sessions, InFlight: 1, Payload: 64, Pause: p.Pause})
}

// burst connects all at once.
func burst(p tcpecho.Peer, _ *harness.Run) (harness.Sample, error) {
	var s harness.Sample
	pair, err := echorun.Start(p.Server(), loadServer, load.Echo{Conns: sessions, InFlight: 1, Payload: 64})
	if err != nil {
		return s, err
	}
	defer pair.Stop()
	var b load.BurstResult
	if err := pair.Ask("burst", &b, 3*echorun.Patience); err != nil {
		return s, err
	}
	if _, died := pair.Server.Usage(); died != nil {
		return s, died
	}
	return s.Add("ms", float64(b.Elapsed)/float64(time.Millisecond)).Add("unserved", float64(b.Unserved)), nil
}
