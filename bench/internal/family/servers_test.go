// SPDX-License-Identifier: Apache-2.0

package family

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gostkit/kit/bench/internal/echorun"
	"github.com/gostkit/kit/bench/internal/load"
	"github.com/gostkit/kit/bench/internal/proc"
	"github.com/gostkit/kit/bench/internal/streamecho"
	"github.com/gostkit/kit/bench/internal/tcpecho"
	"github.com/gostkit/kit/bench/internal/udpecho"
	"github.com/gostkit/kit/bench/internal/wsecho"
)

// TestMain makes this binary the servers and loads too.
func TestMain(m *testing.M) {
	servers := map[string]proc.Server{}
	for _, f := range All() {
		for name, s := range f.Servers {
			servers[name] = s
		}
	}
	proc.Main(servers)
	os.Exit(m.Run())
}

// TestServersAnswer runs every server once against the verifying load: a peer that is wrong must
// not be compared.
func TestServersAnswer(t *testing.T) {
	type one struct {
		server, load, command string
		e                     load.Echo
		messages              int64
	}
	var all []one
	for _, p := range tcpecho.Peers() {
		e := load.Echo{Conns: 4, InFlight: 16, Payload: 64, Unordered: p.Unordered, Pause: p.Pause}
		all = append(all, one{p.Server(), "tcp-load", "once 4", e, 64})
		if !p.Unordered {
			e.Conns = 1
			all = append(all, one{p.Server(), "tcp-load", "drip 5", e, 5})
		}
	}
	for _, p := range tcpecho.Writers() {
		all = append(all, one{p.WritersServer(), "tcp-load", "writers 50", load.Echo{Conns: 1, InFlight: 1, Payload: 64}, 50 * load.Writers})
	}
	for _, p := range wsecho.Peers() {
		all = append(all, one{p.Server(), "ws-load", "once 4", load.Echo{Conns: 4, InFlight: 16, Payload: 64, WebSocket: true}, 64})
	}
	for _, p := range streamecho.Echoes() {
		all = append(all, one{p.Server(), "stream-load", "once 4", p.Load(4, 16, 64), 64})
	}
	for _, p := range streamecho.Proxies() {
		all = append(all, one{p.Server(), "stream-load", "pass 2", load.Echo{Conns: 2, InFlight: 1, Payload: 64}, 2})
	}
	for _, p := range udpecho.Peers() {
		all = append(all, one{p.Server(), "udp-load", "run 1", load.Echo{Conns: 2, InFlight: 4, Payload: 64}, 8})
	}
	for _, o := range all {
		t.Run(o.server+"/"+o.command, func(t *testing.T) {
			pair, err := echorun.Start(o.server, o.load, o.e)
			require.NoError(t, err)
			defer pair.Stop()
			require.NoError(t, pair.Ask("dial", nil, echorun.Patience))
			var r load.UDPResult
			require.NoError(t, pair.Ask(o.command, &r, echorun.Patience))
			require.Equal(t, o.messages, r.Messages+r.Lost)
			require.Less(t, r.Elapsed, time.Minute)
		})
	}
}
