// SPDX-License-Identifier: Apache-2.0

//go:build bytespooldebug

package bytespool

import (
	"sync"
	"unsafe"
	"weak"
)

// objectGuard knows the idle objects of one Objects.
type objectGuard[T any] struct {
	mu    sync.Mutex
	idle  map[uintptr]idleObject[T]
	prune int // size of idle at which the entries of collected objects are removed
}

// idleObject says where the object at an address was put back, while its memory lives.
type idleObject[T any] struct {
	object weak.Pointer[T]
	put    []uintptr
}

func (g *objectGuard[T]) got(x *T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.idle, uintptr(unsafe.Pointer(x)))
}

// check panics if x is idle.
func (g *objectGuard[T]) check(x *T) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.checkLocked(x)
}

func (g *objectGuard[T]) checkLocked(x *T) {
	// The address may be that of an object that was collected: only the weak pointer tells.
	if was, ok := g.idle[uintptr(unsafe.Pointer(x))]; ok && was.object.Value() == x {
		size := int(unsafe.Sizeof(*x))
		panic(&Misuse{What: "second Put of an object", Size: size, Put: formatStack(was.put)})
	}
}

// put notes that x is idle. It panics if x became so since check.
func (g *objectGuard[T]) put(x *T) {
	if unsafe.Sizeof(*x) == 0 {
		return // all of them have one address
	}
	stack := callers()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.checkLocked(x)
	// Objects that are collected while idle are never taken out by got.
	if len(g.idle) >= g.prune {
		for addr, was := range g.idle {
			if was.object.Value() == nil {
				delete(g.idle, addr)
			}
		}
		g.prune = 2*len(g.idle) + 64
	}
	if g.idle == nil {
		g.idle = make(map[uintptr]idleObject[T])
	}
	g.idle[uintptr(unsafe.Pointer(x))] = idleObject[T]{weak.Make(x), stack}
}
