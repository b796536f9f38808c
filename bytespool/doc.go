// SPDX-License-Identifier: Apache-2.0

// Package bytespool lends byte buffers that are used again and finds the ones that are misused.
//
// Use it where buffers of changing size are taken and returned at a high rate, on the same or on
// different goroutines. Do not use it for buffers that live long, for one fixed size (a plain
// [sync.Pool] does), or where no single owner can return the buffer. A buffer that is never
// returned costs one allocation; one that is returned too early is overwritten by its next user
// while the first one still reads it.
//
//	b := bytespool.Get(1500) // len 1500, content undefined
//	n, err := conn.Read(b)
//	handle(b[:n], err)
//	bytespool.Put(b) // from here on b belongs to its next user
//
// The zero [Pool], [Objects] and [Buffer] are ready to use; [New] makes a Pool with limits,
// statistics or cleaning. Package functions use one Pool with default settings.
//
// A Pool and an Objects may be used by any number of goroutines at once, a Buffer by one at a time.
// No goroutine is started. The caller of Get owns the buffer until Put and may hand that ownership
// on. Idle buffers belong to the garbage collector, which frees them in two cycles, unless
// Config.MaxIdle says otherwise.
//
// Get and Put allocate nothing when the Pool has a buffer of the class. A buffer of n bytes,
// 64 or more and up to the maximum, wastes at most a quarter of its capacity; see [ClassSize].
//
// Built with the tag bytespooldebug the package behaves the same and checks more: it overwrites
// what is put back, panics with the stacks of both parties on a second Put, on a Put of the
// inside of a buffer and on a write after Put, and lists buffers that were not returned; see
// [Leaks] and [VerifyTestMain].
package bytespool
