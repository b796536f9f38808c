// SPDX-License-Identifier: Apache-2.0

// Package streams compares echo servers over TLS and Unix sockets with loops written by hand: frames
// of 64 bytes, the server a process of its own on one CPU, the load another on the next.
package streams

import (
	"fmt"
	"time"

	"github.com/gostkit/kit/bench/internal/echorun"
	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/streamecho"
)

const loadServer = "stream-load"

// Family returns the comparison.
func Family() harness.Family {
	servers := streamecho.Servers()
	servers[loadServer] = load.Serve
	return harness.Family{
		Name:    "streams",
		Doc:     "echo of 64-byte frames over TLS and Unix sockets, 100 connections; server CPU (user and system) per message",
		Servers: servers,
		Cases: []harness.Case{
			echoCase("tls", 1, streamecho.TLS()),
			echoCase("tls", 16, streamecho.TLS()),
			echoCase("unix", 1, streamecho.Unix()),
			echoCase("unix", 16, streamecho.Unix()),
			proxyCase(),
			idleCase("tls", 5000, streamecho.IdleTLS()),
			idleCase("snappy", 9000, streamecho.IdleSnappy()),
		},
	}
}

// echoCase is the closed loop: every connection sends inFlight frames in one write, waits for all
// answers, and begins again.
func echoCase(name string, inFlight int, peers []streamecho.Peer) harness.Case {
	return harness.Case{Name: fmt.Sprintf("%s/inflight=%d", name, inFlight), Unit: "us/msg", Sample: time.Second,
		Subjects: subjects(peers, func(p streamecho.Peer, r *harness.Run) (harness.Sample, error) {
			e := load.Echo{Conns: 100, InFlight: inFlight, Payload: 64, Network: p.Network, TLS: p.TLS}
			return echorun.Measure(p.Server(), loadServer, e, fmt.Sprintf("run %d", r.Budget/5), fmt.Sprintf("run %d", r.Budget))
		})}
}

// proxyCase sends chunks of 64 KiB through a proxy.
func proxyCase() harness.Case {
	return harness.Case{Name: "proxy", Unit: "us/MiB", Sample: time.Second,
		Subjects: subjects(streamecho.Proxies(), func(p streamecho.Peer, r *harness.Run) (harness.Sample, error) {
			var s harness.Sample
			mib := 1000
			if r.Quick {
				mib = 300
			}
			all, err := echorun.Measure(p.Server(), loadServer, load.Echo{Conns: 2, InFlight: 1, Payload: 64},
				fmt.Sprintf("pass %d", mib/10), fmt.Sprintf("pass %d", mib))
			for _, m := range all.Metrics() {
				switch m.Name {
				case "us/msg":
					s = s.Add("us/MiB", m.Value)
				case "user-us/msg":
					s = s.Add("user-us/MiB", m.Value)
				case "msg/s":
					s = s.Add("MiB/s", m.Value)
				}
			}
			return s, err
		})}
}

// idleCase weighs sessions that have exchanged one message.
func idleCase(name string, sessions int, peers []streamecho.Peer) harness.Case {
	return harness.Case{Name: fmt.Sprintf("%s/sessions=%d", name, sessions), Unit: "KiB/session", Sample: time.Second, Brief: true,
		Subjects: subjects(peers, func(p streamecho.Peer, _ *harness.Run) (harness.Sample, error) {
			e := load.Echo{Conns: sessions, InFlight: 1, Payload: 64, Network: p.Network, TLS: p.TLS, Snappy: p.Snappy}
			return echorun.Resident(p.Server(), loadServer, e)
		})}
}

func subjects(peers []streamecho.Peer, measure func(streamecho.Peer, *harness.Run) (harness.Sample, error)) []harness.Subject {
	var list []harness.Subject
	for _, p := range peers {
		list = append(list, harness.Subject{Name: p.Name, Measure: func(r *harness.Run) (harness.Sample, error) {
			return measure(p, r)
		}})
	}
	return list
}
