// SPDX-License-Identifier: Apache-2.0

// Package tcp compares TCP echo servers: frames of 64 bytes, the server a process of its own on
// one CPU, the load another on the next.
package tcp

import (
	"fmt"
	"slices"
	"time"

	"github.com/gostkit/kit/bench/internal/echorun"
	"github.com/gostkit/kit/bench/internal/harness"
	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/tcpecho"
	"github.com/gostkit/kit/bench/internal/wire"
)

// loadServer is the name of the load's process.
const loadServer = "tcp-load"

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
			echoCase(1, 1200*time.Millisecond),
			openCase(),
			writersCase(),
			dripCase(),
			slowCase(),
		},
	}
}

// echoCase is the closed loop: every connection sends inFlight frames in one write, waits for
// all answers, and begins again.
func echoCase(inFlight int, sample time.Duration) harness.Case {
	return harness.Case{Name: fmt.Sprintf("echo/inflight=%d", inFlight), Unit: "us/msg", Sample: sample,
		Subjects: subjects(tcpecho.Peers(), func(p tcpecho.Peer, r *harness.Run) (harness.Sample, error) {
			e := load.Echo{Conns: 100, InFlight: inFlight, Payload: 64, Unordered: p.Unordered, Pause: p.Pause}
			return echorun.Measure(p.Server(), loadServer, e, fmt.Sprintf("run %d", r.Budget/5), fmt.Sprintf("run %d", r.Budget))
		})}
}

// openCase sends at a rate that all can serve; its latencies count from when a frame was due.
func openCase() harness.Case {
	const rate = 20000
	return harness.Case{Name: fmt.Sprintf("open/rate=%d", rate), Unit: "us/msg", Sample: 500 * time.Millisecond, Brief: true,
		Subjects: subjects(some("ours-inline", "ours-ordered", "net", "gnet", "netpoll", "nbio", "dubbo-getty"), func(p tcpecho.Peer, r *harness.Run) (harness.Sample, error) {
			e := load.Echo{Conns: 100, InFlight: 1, Payload: 64, Pause: p.Pause}
			return echorun.Measure(p.Server(), loadServer, e, fmt.Sprintf("open %d,%d", rate, r.Budget/5), fmt.Sprintf("open %d,%d", rate, r.Budget))
		})}
}

// writersCase lets the server write 64-byte frames on one connection from 64 goroutines.
func writersCase() harness.Case {
	const perWriter = 1000
	return harness.Case{Name: fmt.Sprintf("writers=%d", load.Writers), Unit: "us/msg", Sample: 500 * time.Millisecond, Brief: true,
		Subjects: subjects(tcpecho.Writers(), func(p tcpecho.Peer, _ *harness.Run) (harness.Sample, error) {
			e := load.Echo{Conns: 1, InFlight: 1, Payload: 64, Pause: p.Pause}
			return echorun.Measure(p.WritersServer(), loadServer, e, fmt.Sprintf("writers %d", perWriter/10), fmt.Sprintf("writers %d", perWriter))
		})}
}

// dripCase sends frames one byte per write: what a byte costs must not depend on how many came
// before.
func dripCase() harness.Case {
	c := harness.Case{Name: "drip", Unit: "us/byte", Sample: time.Second, Brief: true}
	for _, who := range []struct{ subject, peer string }{{"ours", "ours-inline"}, {"net", "net"}} {
		for _, frames := range []struct {
			name string
			n    int
		}{{"1e3", 1e3}, {"1e4", 1e4}} {
			if who.peer == "net" && frames.n > 1e3 {
				continue // the loop by hand is here for scale only
			}
			p := some(who.peer)[0]
			p.Name = who.subject + "-" + frames.name
			c.Subjects = append(c.Subjects, subjects([]tcpecho.Peer{p}, func(tcpecho.Peer, *harness.Run) (harness.Sample, error) {
				e := load.Echo{Conns: 1, InFlight: 1, Payload: 64}
				s, err := echorun.Measure("tcp/"+who.peer, loadServer, e, "drip 20", fmt.Sprintf("drip %d", frames.n))
				if err != nil {
					return s, err
				}
				const frame = 68
				perByte := harness.Sample{}
				for _, m := range s.Metrics() {
					switch m.Name {
					case "us/msg":
						perByte = perByte.Add("us/byte", m.Value/frame)
					case "reads/msg":
						perByte = perByte.Add("reads/byte", m.Value/frame)
					}
				}
				return perByte, nil
			})...)
		}
	}
	return c
}

// slowCase lets peers send and never read: what the server holds for each.
func slowCase() harness.Case {
	return harness.Case{Name: "slow-readers", Unit: "KiB/peer", Sample: time.Second, Brief: true,
		Subjects: subjects(some("ours-inline", "ours-ordered", "net", "gnet", "netpoll", "nbio", "gev", "evio", "dubbo-getty"), slow)}
}

// slow measures with 1 000 peers, 100 in a quick run. Everyone who does not stop reading ends with
// the 2 MiB that a peer sends.
func slow(p tcpecho.Peer, r *harness.Run) (harness.Sample, error) {
	var s harness.Sample
	conns := 1000
	if r.Quick {
		conns = 100
	}
	pair, err := echorun.Start(p.Server(), loadServer, load.Echo{Conns: conns, InFlight: 1, Payload: 1024, Pause: p.Pause, Narrow: true})
	if err != nil {
		return s, err
	}
	defer pair.Stop()
	if err := pair.Ask("dial", nil, echorun.Patience); err != nil {
		return s, err
	}
	before, err := pair.Server.Settle()
	if err != nil {
		return s, err
	}
	var result load.SlowResult
	if err := pair.Ask("slow", &result, 3*echorun.Patience); err != nil {
		return s, err
	}
	var held int64
	ours := pair.Server.Ask("held", &held, echorun.Patience) == nil // others do not know the command
	after, err := pair.Server.Settle()
	if err != nil {
		return s, err
	}
	n := float64(conns)
	s = s.Add("KiB/peer", float64(after.Resident-before.Resident)/1024/n).
		Add("sent-KiB/peer", float64(result.Bytes)/1024/n).
		Add("stopped-%", 100*float64(result.Stopped)/n).
		Add("closed-%", 100*float64(result.Closed)/n)
	if ours {
		s = s.Add("marks/peer", float64(held)/n/(tcpecho.HighWater+wire.Header+1024))
	}
	return s, nil
}

// some picks servers by name.
func some(names ...string) []tcpecho.Peer {
	var list []tcpecho.Peer
	for _, p := range tcpecho.Peers() {
		if slices.Contains(names, p.Name) {
			list = append(list, p)
		}
	}
	return list
}

func subjects(peers []tcpecho.Peer, measure func(tcpecho.Peer, *harness.Run) (harness.Sample, error)) []harness.Subject {
	var list []harness.Subject
	for _, p := range peers {
		list = append(list, harness.Subject{Name: p.Name, Module: p.Module, Measure: func(r *harness.Run) (harness.Sample, error) {
			return measure(p, r)
		}})
	}
	return list
}
