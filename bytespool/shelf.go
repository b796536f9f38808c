// SPDX-License-Identifier: Apache-2.0

package bytespool

import "sync"

// A shelf keeps the idle buffers of one class of a Pool with MaxIdle, up to a limit. A sync.Pool
// cannot be limited: it does not tell how much it holds nor what the garbage collector took, and a
// counter beside it is wrong after the first collection.
type shelf struct {
	limit int // the number of buffers

	mu   sync.Mutex
	idle [][]byte // guarded by mu; last in, first out, for warm caches
}

func makeShelves(classes, maxIdle int) []shelf {
	shelves := make([]shelf, classes)
	for c := range shelves {
		shelves[c].limit = maxIdle / classSizes[c]
	}
	return shelves
}

func (s *shelf) take() ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.idle) - 1
	if last < 0 {
		return nil, false
	}
	b := s.idle[last]
	s.idle[last] = nil // or the array would keep alive what its user no longer needs
	s.idle = s.idle[:last]
	return b, true
}

func (s *shelf) keep(b []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) >= s.limit { // always, where one buffer is larger than MaxIdle
		return false
	}
	s.idle = append(s.idle, b)
	return true
}

// Trim drops what is idle in a Pool with Config.MaxIdle and returns the number of bytes. Without
// MaxIdle it does nothing: the garbage collector does that.
func (p *Pool) Trim() int {
	dropped := 0
	for c := range p.shelves {
		s := &p.shelves[c]
		s.mu.Lock()
		dropped += len(s.idle) * classSizes[c]
		s.idle = nil // with its array, which may be long after a burst
		s.mu.Unlock()
	}
	return dropped
}
