// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package netx

import (
	"net"
	"time"

	"github.com/gostkit/kit/bench/internal/harness"
)

// bareCalls has no form here: the targets that need one are short.
func bareCalls() []harness.Subject { return nil }

// unread gives the reader time instead of asking.
func unread(*net.TCPConn) int {
	time.Sleep(20 * time.Millisecond)
	return 0
}
