// SPDX-License-Identifier: Apache-2.0

// Package streams compares echo servers and proxies over TLS, Unix sockets and compression with loops
// written by hand and with the predecessor, and weighs idle sessions: the server is a process of its
// own on one CPU, the load another on the next.
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
		Doc:     "echo of frames of 64 bytes over TLS and Unix sockets, and of 915 bytes of JSON over compression, 100 connections; 64 KiB chunks through a proxy; server CPU (user and system); memory of idle sessions",
		Servers: servers,
		Cases: []harness.Case{
			echoCase("tls", 1, 64, streamecho.TLS()),
			echoCase("tls", 16, 64, streamecho.TLS()),
			echoCase("unix", 1, 64, streamecho.Unix()),
			echoCase("unix", 16, 64, streamecho.Unix()),
			echoCase("compressed", 16, 915, streamecho.Compressed()),
			proxyCase(),
			idleCase("tls", 5000, streamecho.IdleTLS()),
			idleCase("snappy", 9000, streamecho.IdleSnappy()),
		},
	}
}

// echoCase is the closed loop: every connection sends inFlight frames in one write, waits for all
// answers, and begins again.
func echoCase(name string, inFlight, payload int, peers []streamecho.Peer) harness.Case {
	return harness.Case{Name: fmt.Sprintf("%s/inflight=%d", name, inFlight), Unit: "us/msg", Sample: time.Second,
		Subjects: subjects(peers, func(p streamecho.Peer, r *harness.Run) (harness.Sample, error) {
			return echorun.Measure(p.Server(), loadServer, p.Load(100, inFlight, payload), fmt.Sprintf("run %d", r.Budget/5), fmt.Sprintf("run %d", r.Budget))
		})}
}

// proxyCase sends chunks of 64 KiB through a proxy, in both directions at once.
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
			return echorun.Resident(p.Server(), loadServer, p.Load(sessions, 1, 64))
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
