// SPDX-License-Identifier: Apache-2.0

//go:build bytespooldebug

package bytespool

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unsafe"
	"weak"
)

const debug = true

// poison is the byte that idle buffers are filled with, so that a write after Put shows. Unlike
// zero, it is unlikely to work as a length, an index or a text for those who read after Put.
const poison = 0xDB

// A record says what is known of one buffer from its allocation until its memory is collected.
type record struct {
	addr uintptr            // of the first byte; that of another buffer once base has no value
	base weak.Pointer[byte] // does not keep the buffer alive
	size int
	seq  uint64 // rises with each Get

	idle      bool
	collected bool // the memory is gone; only a leak stays on record then
	got, put  []uintptr
}

// alive reports whether the memory of the buffer has not been collected: after that its address
// may be that of something else.
func (r *record) alive() bool { return r.base.Value() != nil }

// guard knows all buffers of all Pools.
var guard struct {
	mu   sync.Mutex
	seq  uint64
	at   map[uintptr]*record  // by address; at most one buffer lives there
	lost map[*record]struct{} // lent, never put back, and collected
}

// debugGot notes that b, which is either fresh or was idle, is lent.
func debugGot(b []byte, hit bool) {
	stack := callers()
	guard.mu.Lock()
	defer guard.mu.Unlock()
	p := unsafe.SliceData(b)
	r := guard.at[uintptr(unsafe.Pointer(p))]
	// A fresh buffer may lie where one that was collected did, whose record is still there.
	if !hit || r == nil {
		r = newRecordLocked(p, len(b))
		fill(b)
	} else if m := r.scribbledLocked(b); m != nil {
		fill(b) // or a program that recovers would get the same panic again
		panic(m)
	}
	guard.seq++
	r.idle, r.seq, r.got = false, guard.seq, stack
}

// debugPut notes that b, at full capacity, is put back. It reports whether it may be kept. It
// panics if b is idle already or lies inside of another buffer.
func debugPut(b []byte) bool {
	stack := callers()
	guard.mu.Lock()
	defer guard.mu.Unlock()
	addr := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	r := guard.at[addr]
	// A slice that starts like a buffer but is shorter is an inside of it too.
	if r == nil || !r.alive() || r.size != len(b) {
		if owner := ownerLocked(addr, len(b)); owner != nil {
			panic(owner.misuse("Put of the inside of a buffer"))
		}
		// A foreign slice. Nothing says that its memory is Go's, so it cannot be watched.
		return false
	}
	if r.idle {
		panic(r.misuse("second Put of a buffer"))
	}
	r.idle, r.put = true, stack
	fill(b)
	return true
}

// newRecordLocked starts a record for the buffer at p.
func newRecordLocked(p *byte, size int) *record {
	r := &record{addr: uintptr(unsafe.Pointer(p)), base: weak.Make(p), size: size}
	if guard.at == nil {
		guard.at = make(map[uintptr]*record)
		guard.lost = make(map[*record]struct{})
	}
	guard.at[r.addr] = r // perhaps instead of one whose cleanup has yet to run and then finds r here
	// A cleanup and not a finalizer: it does not keep the buffer alive for one more cycle.
	runtime.AddCleanup(p, func(r *record) {
		guard.mu.Lock()
		defer guard.mu.Unlock()
		forgetLocked(r)
	}, r)
	return r
}

// forgetLocked ends the record of a buffer whose memory was collected, unless it is a leak.
func forgetLocked(r *record) {
	if guard.at[r.addr] == r { // else a new buffer lives there
		delete(guard.at, r.addr)
	}
	if !r.idle && !r.collected {
		guard.lost[r] = struct{}{}
	}
	r.collected = true
}

// ownerLocked returns the record of the buffer that [addr, addr+size) overlaps, or nil.
func ownerLocked(addr uintptr, size int) *record {
	// All of them, in no order: only slices that are no buffers get here, and they are rare.
	for _, r := range guard.at {
		if addr < r.addr+uintptr(r.size) && r.addr < addr+uintptr(size) && r.alive() {
			return r
		}
	}
	return nil
}

// scribbledLocked returns a Misuse if the idle buffer b was written to since it was put back.
func (r *record) scribbledLocked(b []byte) *Misuse {
	for _, c := range b {
		if c != poison {
			return r.misuse("write to a buffer after Put")
		}
	}
	return nil
}

func (r *record) misuse(what string) *Misuse {
	m := &Misuse{What: what, Size: r.size, Got: formatStack(r.got)}
	if r.idle { // else put is the stack of an earlier use
		m.Put = formatStack(r.put)
	}
	return m
}

// debugIdle looks for writes after Put in all idle buffers that are still there.
func debugIdle() []*Misuse {
	guard.mu.Lock()
	defer guard.mu.Unlock()
	var found []*Misuse
	for _, r := range guard.at {
		// p keeps the buffer alive while it is looked at. Without p it is collected, and then nobody
		// holds a slice of it to write to.
		if p := r.base.Value(); p != nil && r.idle {
			if m := r.scribbledLocked(unsafe.Slice(p, r.size)); m != nil {
				found = append(found, m)
			}
		}
	}
	return found
}

func leaks() []Leak {
	guard.mu.Lock()
	defer guard.mu.Unlock()
	var records []*record
	for _, r := range guard.at {
		if !r.idle {
			records = append(records, r)
		}
	}
	for r := range guard.lost {
		records = append(records, r)
	}
	// In the order of the Gets, which a map has not: the first leak often explains the others.
	slices.SortFunc(records, func(a, b *record) int { return cmp.Compare(a.seq, b.seq) })
	var found []Leak
	for _, r := range records {
		found = append(found, Leak{Size: r.size, Stack: formatStack(r.got), Collected: !r.alive()})
	}
	return found
}

func fill(b []byte) {
	for i := range b {
		b[i] = poison
	}
}

// callers returns the stack from the caller of its caller on.
func callers() []uintptr {
	pcs := make([]uintptr, 32)
	return pcs[:runtime.Callers(3, pcs)] // 3: Callers, callers, and the function of the debug build
}

// formatStack renders a call stack as a panic would, without arguments.
func formatStack(pcs []uintptr) string {
	if len(pcs) == 0 {
		return ""
	}
	var s strings.Builder
	frames := runtime.CallersFrames(pcs) // knows inlined calls, which FuncForPC does not
	for {
		f, more := frames.Next()
		fmt.Fprintf(&s, "\t%s\n\t\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			return s.String()
		}
	}
}
