// SPDX-License-Identifier: Apache-2.0

package taskpool

// Func is a [Shared] pool without closures: every item is given to one function, so that submitting
// allocates nothing. Methods that mention tasks deal in items of type T; OnDrop gets a Task that
// would process the item. Create it with [NewFunc]; all methods may be called from any goroutine.
type Func[T any] struct{ engine[T] }

// NewFunc returns a pool of cfg.Workers workers on one queue that call fn with each item. It
// panics if fn is nil.
func NewFunc[T any](cfg Config, fn func(T)) *Func[T] {
	if fn == nil {
		panic("taskpool: NewFunc without a function")
	}
	p := new(Func[T])
	p.init(cfg.filled(procs()), 1, pickFirst, fn, func(v T) Task { return func() { fn(v) } })
	return p
}
