// SPDX-License-Identifier: Apache-2.0

// Package family lists the comparisons of all modules.
package family

import (
	"github.com/gostkit/kit/bench/internal/family/bytespool"
	"github.com/gostkit/kit/bench/internal/family/idle"
	"github.com/gostkit/kit/bench/internal/family/netx"
	"github.com/gostkit/kit/bench/internal/family/ringbuffer"
	"github.com/gostkit/kit/bench/internal/family/streams"
	"github.com/gostkit/kit/bench/internal/family/taskpool"
	"github.com/gostkit/kit/bench/internal/family/tcp"
	"github.com/gostkit/kit/bench/internal/family/timerwheel"
	"github.com/gostkit/kit/bench/internal/family/udp"
	"github.com/gostkit/kit/bench/internal/family/ws"
	"github.com/gostkit/kit/bench/internal/family/xorlist"
	"github.com/gostkit/kit/bench/internal/harness"
)

// All returns every family, in the order in which `-module all` runs them. A family is added by
// its import above and one line here.
func All() []harness.Family {
	return []harness.Family{
		bytespool.Family(),
		netx.Family(),
		ringbuffer.Family(),
		taskpool.Family(),
		tcp.Family(),
		udp.Family(),
		ws.Family(),
		streams.Family(),
		idle.Family(),
		timerwheel.Family(),
		xorlist.Family(),
	}
}
