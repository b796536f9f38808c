// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"hash/maphash"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// Key names the order that a task belongs to: tasks with the same Key run one after the other. It
// is a 64-bit hash. Two values that hash alike would share an order, which costs them time, never
// their own order. A number that is unique already, such as a session's id, may be converted to Key
// as it is.
type Key uint64

// StringKey returns the XXH64 of s. It is the same in every process, so that placement can be
// planned or repeated.
func StringKey(s string) Key { return Key(xxhash.Sum64String(s)) }

// BytesKey returns the XXH64 of b, equal to that of a string with the same bytes. It does not keep
// b.
func BytesKey(b []byte) Key { return Key(xxhash.Sum64(b)) }

// KeyOf returns a hash of any comparable value, by hash/maphash: it is different in every process,
// and a client that chooses the values cannot predict it. It panics if v holds an interface with a
// value that is not comparable.
func KeyOf[K comparable](v K) Key { return Key(maphash.Comparable(keySeed, v)) }

var keySeed = maphash.MakeSeed()

// mix spreads keys that are small numbers over all bits (Fibonacci hashing; the multiplier is 2^64
// / golden ratio).
func (k Key) mix() uint64 { return uint64(k) * 0x9e3779b97f4a7c15 }

// keyMap finds the mailbox of a key. A mailbox that was not used for two sweeps is removed.
type keyMap struct {
	shards [keyShards]keyShard
}

const (
	keyShardBits = 6
	keyShards    = 1 << keyShardBits
	keepSweeps   = 2
)

type keyShard struct {
	mu     sync.Mutex
	boxes  map[Key]*Mailbox
	sweeps uint64
	gone   uint64 // tasks accepted by mailboxes that were removed
	_      [64]byte
}

func (k *keyMap) init() {
	for i := range k.shards {
		k.shards[i].boxes = make(map[Key]*Mailbox)
	}
}

// lock returns the mailbox of key with q.mu locked. The lock is taken before the shard's is given
// up, so that sweep cannot remove the mailbox in between.
func (k *keyMap) lock(o *Ordered, key Key) *Mailbox {
	// Mixed again, although a key is a hash as a rule: a session's number may be used as it is.
	h := key.mix()
	// The top bits choose the shard; the list is a remainder of lower ones, so that keys of one
	// shard are spread over all lists.
	s := &k.shards[h>>(64-keyShardBits)]
	s.mu.Lock()
	m := s.boxes[key]
	if m == nil {
		m = o.newMailbox(o.limit, uint32(h>>32)%uint32(len(o.lists)))
		s.boxes[key] = m
		if len(s.boxes) == 1 {
			// The timer sweeps the map. It is started by idle workers, and there may be none.
			o.c.arm()
		}
	}
	// Two locks are held for a moment. The alternative, a reference count in each mailbox, costs
	// two atomic additions on a line that the worker writes too.
	m.q.mu.Lock()
	m.touched = s.sweeps
	s.mu.Unlock()
	return m
}

// sweep removes mailboxes that were not used for long; true if there are any left.
func (k *keyMap) sweep() (again bool) {
	for i := range k.shards {
		s := &k.shards[i]
		s.mu.Lock()
		s.sweeps++
		// In the map's own order. A list by age would cost each submission a write to two
		// neighbours.
		for key, m := range s.boxes {
			m.q.mu.Lock()
			// scheduled is looked at as well, because a worker that still holds the mailbox may
			// find tasks in it later: a second mailbox of the same key would then run beside it.
			if s.sweeps-m.touched > keepSweeps && !m.scheduled {
				delete(s.boxes, key)
				// Stats must not lose accepted tasks when a mailbox goes.
				s.gone += m.q.accepted
			}
			m.q.mu.Unlock()
		}
		if len(s.boxes) == 0 {
			s.boxes = make(map[Key]*Mailbox) // a Go map never shrinks
		} else {
			again = true
		}
		s.mu.Unlock()
	}
	return again
}

func (k *keyMap) accepted() (n uint64) {
	for i := range k.shards {
		s := &k.shards[i]
		// A shard at a time: a total over all at one moment would stop every producer.
		s.mu.Lock()
		n += s.gone
		for _, m := range s.boxes {
			m.q.mu.Lock()
			n += m.q.accepted
			m.q.mu.Unlock()
		}
		s.mu.Unlock()
	}
	return n
}
