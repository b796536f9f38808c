// SPDX-License-Identifier: Apache-2.0

// Package udp compares UDP echo servers on one unconnected socket: datagrams of 64 bytes, the server
// a process of its own on one CPU, the load another on the next.
package udp

import (
	"fmt"
	"time"

	"github.com/gostkit/kit/bench/internal/echorun"
	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/udpecho"
)

const loadServer = "udp-load"

// Family returns the comparison.
func Family() harness.Family {
	servers := udpecho.Servers()
	servers[loadServer] = load.ServeUDP
	c := harness.Case{Name: "echo/inflight=32", Unit: "us/msg", Sample: time.Second}
	for _, p := range udpecho.Peers() {
		c.Subjects = append(c.Subjects, harness.Subject{Name: p.Name, Module: p.Module, Measure: func(r *harness.Run) (harness.Sample, error) {
			e := load.Echo{Conns: 8, InFlight: 32, Payload: 64}
			return echorun.Measure(p.Server(), loadServer, e, fmt.Sprintf("run %d", r.Budget/5), fmt.Sprintf("run %d", r.Budget))
		}})
	}
	return harness.Family{
		Name:    "udp",
		Doc:     "UDP echo of 64-byte datagrams, 8 sockets with 32 in flight each; server CPU (user and system) per datagram",
		Servers: servers,
		Cases:   []harness.Case{c},
	}
}
