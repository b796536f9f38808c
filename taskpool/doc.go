// SPDX-License-Identifier: Apache-2.0

// Package taskpool runs functions on a bounded or elastic set of goroutines, in every ratio of
// queues to workers, and keeps the order of tasks that belong together without letting a slow one
// hold up the rest.
//
// Do not use it to run a handful of blocking calls: a go statement is simpler, and for tasks that
// start rarely or block for long it is as fast. Use golang.org/x/sync/errgroup to wait for a group
// of goroutines. A pool pays where goroutines must be limited, where order per key matters, or
// where many small tasks arrive.
//
//	pool := taskpool.NewOrdered(taskpool.Config{Workers: 8})
//	defer pool.Close()
//	err := pool.SubmitKey(ctx, taskpool.StringKey(user), func() { handle(msg) })
//
// Shared (one queue), Stealing, Sharded, Elastic and Func run tasks in any order; Keyed binds a key
// to a worker; Ordered keeps order per key and lets any worker serve any key. The zero Config is
// valid for all of them.
//
// All methods of all types may be called from any goroutine, also from tasks. Worker goroutines
// start when there is work, retire after Config.IdleTimeout, and end with Shutdown or Close, which
// wait for them; a pool owns no other goroutine and nothing starts at import. A pool that is
// dropped without Close is garbage once its workers have retired.
//
// A task that was accepted (nil error) runs exactly once, or comes back: from Shutdown when its
// context ends, from Close, or through Config.OnDrop. A task that panics or calls runtime.Goexit is
// reported through Config.OnPanic, or logged, and takes neither its worker's queue nor the process
// with it. Submitting allocates nothing beyond the caller's closure, once queues have grown.
package taskpool
