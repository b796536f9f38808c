// SPDX-License-Identifier: Apache-2.0

package getty

import "iter"

// A BroadcastReport tells how many sessions accepted a package.
type BroadcastReport struct {
	Accepted int // queued
	Blocked  int // refused at the high mark; with SlowClose such sessions are closed
	Closed   int // closing or closed
	Failed   int // refused for another reason
}

// Broadcast queues b, one package in its encoded form, in every session. It waits for none: a slow
// peer does not delay the others, and is treated as the SlowConsumer policy of its endpoint says.
// Encode once, with the codec's AppendPkg for example; on WebSocket sessions b is the payload of
// one message. b may be reused when Broadcast has returned. Unconnected UDP endpoints cannot take
// part, since they need an address.
func Broadcast(sessions iter.Seq[Session], b []byte) (r BroadcastReport) {
	for s := range sessions {
		switch _, err := s.WriteBytes(b); {
		case err == nil:
			r.Accepted++
		case err == ErrSessionBlocked:
			r.Blocked++
		case err == ErrSessionClosed:
			r.Closed++
		default:
			r.Failed++
		}
	}
	return r
}
