// SPDX-License-Identifier: Apache-2.0

// Package ws compares WebSocket echo servers: binary messages of 64 bytes, the server a process of
// its own on one CPU, the load another on the next.
package ws

import (
	"fmt"
	"time"

	"github.com/gostkit/kit/bench/internal/echorun"
	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/wsecho"
)

const (
	loadServer = "ws-load"
	sessions   = 5000 // that are weighed
)

// Family returns the comparison.
func Family() harness.Family {
	servers := wsecho.Servers()
	servers[loadServer] = load.Serve
	return harness.Family{
		Name:    "ws",
		Doc:     "WebSocket echo of 64-byte messages, 100 connections; server CPU (user and system) per message",
		Servers: servers,
		Cases:   []harness.Case{echoCase(16), echoCase(1), idleCase()},
	}
}

// echoCase is the closed loop: every connection sends inFlight messages in one write, waits for all
// answers, and begins again.
func echoCase(inFlight int) harness.Case {
	return harness.Case{Name: fmt.Sprintf("echo/inflight=%d", inFlight), Unit: "us/msg", Sample: time.Second,
		Subjects: subjects(func(p wsecho.Peer, r *harness.Run) (harness.Sample, error) {
			e := load.Echo{Conns: 100, InFlight: inFlight, Payload: 64, WebSocket: true}
			return echorun.Measure(p.Server(), loadServer, e, fmt.Sprintf("run %d", r.Budget/5), fmt.Sprintf("run %d", r.Budget))
		})}
}

// idleCase weighs sessions that have exchanged one message.
func idleCase() harness.Case {
	return harness.Case{Name: fmt.Sprintf("sessions=%d", sessions), Unit: "KiB/session", Sample: time.Second, Brief: true,
		Subjects: subjects(func(p wsecho.Peer, r *harness.Run) (harness.Sample, error) {
			e := load.Echo{Conns: sessions, InFlight: 1, Payload: 64, WebSocket: true}
			return echorun.Resident(p.Server(), loadServer, e)
		})}
}

func subjects(measure func(wsecho.Peer, *harness.Run) (harness.Sample, error)) []harness.Subject {
	var list []harness.Subject
	for _, p := range wsecho.Peers() {
		list = append(list, harness.Subject{Name: p.Name, Module: p.Module, Measure: func(r *harness.Run) (harness.Sample, error) {
			return measure(p, r)
		}})
	}
	return list
}
