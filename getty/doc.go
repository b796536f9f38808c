// SPDX-License-Identifier: Apache-2.0

// Package getty runs sessions over TCP, TLS, Unix sockets, UDP and WebSocket behind one interface: a codec cuts the
// bytes into packages, a listener gets them in order, and writing is safe from any goroutine,
// coalesced and bounded. It is built on Go's own net package and works on every platform that has
// one.
//
// Do not use it for HTTP or gRPC, which have servers of their own; for a single connection, where a
// loop over Read is simpler; or to hold a million idle connections on a small machine, since each
// session has a goroutine.
//
//	server := getty.NewTCPServer(getty.WithLocalAddress(":7000"))
//	err := server.RunEventLoop(func(s getty.Session) error {
//		s.SetEventListener(getty.Funcs{
//			Message: func(s getty.Session, pkg any) { s.WritePkg(pkg, 0) },
//		})
//		return s.SetPkgHandler(&codec.LengthField{})
//	})
//
// # Parts
//
// A [Server] ([NewTCPServer], [NewUnixServer], [NewUDPEndPoint], [NewWSServer], [WSHandler],
// [NewConnServer]) or a [Client] ([NewTCPClient], [NewUnixClient], [NewUDPClient], [NewWSClient])
// makes a [Session] for each connection. The [NewSessionCallback] gives the session a [Reader], a
// [Writer] and an [EventListener]. Options are functions over [ServerOptions] and [ClientOptions],
// whose fields are the documentation; nothing panics on bad options, RunEventLoop reports them.
// [TLSOptions] turn TLS on.
//
// # Concurrency and order
//
// All methods of sessions and endpoints may be called from any goroutine and from callbacks;
// Shutdown waits for callbacks and so may not be called from one. The callbacks of a session are
// serial and in order, see [EventListener]; where they run is its [Dispatch].
//
// # Ownership
//
// A session owns one goroutine, its reader. While bytes wait for a slow peer there is a second one,
// which flushes. Close and Shutdown of the endpoint stop all of them, and Done waits for them. An
// idle session holds no buffer. [Reader] and [Writer] say who owns the bytes of a package; the
// bytes that a call writes are copied before it returns.
//
// # Limits
//
// Everything is bounded by default: the size of a package, the queue to the peer, the mailbox from
// it, the number of sessions. At each limit the sender is slowed down or gets an error. Nothing is
// dropped in silence: [SessionStats] counts the packages that a session could not send or deliver.
//
// In steady state a message costs no allocation with [Inline] dispatch and the length-field codec,
// and at most one through an ordered pool; tests assert both. docs/architecture.md of the project
// describes the inner workings.
package getty
