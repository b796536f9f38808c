// SPDX-License-Identifier: Apache-2.0

// Package gettytest helps to test code that runs on getty: a [Recorder] is a listener that records
// its callbacks and checks the order that every session promises, and a [Listener] serves
// connections that live in memory, so that a test needs no port and may run in a bubble of
// testing/synctest, where thirty seconds of silence take microseconds.
//
// Do not measure with it: a connection in memory is not a socket, and getty reads sockets in
// another way.
package gettytest
