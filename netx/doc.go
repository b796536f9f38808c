// SPDX-License-Identifier: Apache-2.0

// Package netx holds the small network helpers that every server rewrites: is this connection
// still alive, dial UDP and notice a dead peer, listen on what was asked for, find the local
// address, set socket options.
//
// Do not use it for what package net already does: keep-alive alone is [net.Dialer]'s
// KeepAliveConfig, a kernel-chosen port is ":0". Liveness of the application at the other end
// needs a heartbeat of the application; [Alive] only tells what the local kernel knows.
//
//	state, err := netx.Alive(conn) // even while another goroutine blocks in conn.Read
//	if err == nil && state != netx.Open {
//		conn.Close() // unread bytes, end of stream or an error: not fit for the next request
//	}
//
// The zero values of [Dialer], [ListenConfig], [SocketOptions], [Probe], [PortRange], [UnixOptions]
// and [LocalIPOptions] are ready to use and mean "as package net does". All functions are safe for
// concurrent use; values are not written to and may be shared once filled in. Patterns and lists of
// addresses are in the package ipacl below this one.
//
// The package starts no goroutine that outlives a call, keeps no global state, and owns nothing
// but what its types say they close. [Checker.State], [ReadUDP] and [WriteUDP] do not allocate.
//
// What an operating system cannot do is reported as an error matching [errors.ErrUnsupported]; it
// is never silently skipped. Linux is complete, the BSDs and macOS lack the TCP user timeout and,
// in part, port sharding, Windows also the unlinking of stale socket files.
package netx
