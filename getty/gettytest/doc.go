// SPDX-License-Identifier: Apache-2.0

// Package gettytest helps to test code that runs on getty: a [Recorder] is a listener that records
// its callbacks and checks the order that every session promises, and a [Listener] serves
// connections that live in memory, so that a test needs no port and may run in a bubble of
// testing/synctest, where thirty seconds of silence take microseconds.
//
// A test in a bubble looks like this:
//
//	synctest.Test(t, func(t *testing.T) {
//		ln, r := gettytest.Listen(), gettytest.NewRecorder(t)
//		server := getty.NewTCPServer(getty.WithListener(ln))
//		_ = server.RunEventLoop(func(s getty.Session) error {
//			_ = s.SetEventListener(r)
//			return s.SetPkgHandler(&codec.Line{})
//		})
//		conn, _ := ln.Dial(t.Context())
//		_, _ = conn.Write([]byte("hello\n"))
//		synctest.Wait() // everything that follows from that has happened
//		// look at r.Of(<-r.Opened), read what was answered from conn
//		_ = conn.Close()
//		_, _ = server.Shutdown(t.Context())
//	})
//
// All endpoints of a process share one timer wheel, which lives while any of them runs. So when a
// bubble begins, no endpoint from outside may run, and inside every endpoint must be shut down
// before the end: such tests are not parallel, and the tests before them shut their endpoints down.
//
// Do not measure with it: a connection in memory is not a socket, and getty reads sockets in
// another way.
package gettytest
