// SPDX-License-Identifier: Apache-2.0

package bytespool

import "sync"

// Objects lends values of one type that would otherwise be allocated for each use, such as packages
// read from a connection. The zero Objects is ready and hands out new(T). Set the fields before
// first use. Get and Put may be called concurrently; an Objects must not be copied.
//
// The number of idle objects is not limited: the garbage collector empties the pool in two
// cycles.
type Objects[T any] struct {
	// New makes an object when none is idle. Nil means new(T).
	New func() *T

	// Reset is called by Put, on each object. It must drop content that the next user may not see,
	// and references that would keep memory alive. Nil means that objects are handed out again as
	// they were put back.
	Reset func(*T)

	// Size returns how many bytes an object holds on to, after Reset. Objects of more than
	// MaxSize are left to the garbage collector, so that one large use does not stay for ever.
	// There is no limit if Size is nil or MaxSize is zero or negative.
	Size func(*T) int

	// MaxSize is the limit in bytes that belongs to Size.
	MaxSize int

	idle  sync.Pool
	guard objectGuard[T]
}

// Get returns an object that the caller owns until Put.
func (o *Objects[T]) Get() *T {
	// New is not given to the sync.Pool: guard.got must not see an object that was never put back.
	x, ok := o.idle.Get().(*T)
	switch {
	case ok:
		o.guard.got(x)
		return x
	case o.New != nil:
		return o.New()
	}
	return new(T)
}

// Put gives x back after Reset. The caller must not use it afterwards. Put(nil) does nothing. In
// builds with the tag bytespooldebug a second Put panics with a [*Misuse].
func (o *Objects[T]) Put(x *T) {
	if x == nil {
		return
	}
	o.guard.check(x) // before Reset: x may have another user by now
	if o.Reset != nil {
		o.Reset(x)
	}
	// After Reset, which may have dropped what made it large.
	if o.MaxSize > 0 && o.Size != nil && o.Size(x) > o.MaxSize {
		return
	}
	o.guard.put(x) // after Reset: if that panics x is not idle
	o.idle.Put(x)
}
