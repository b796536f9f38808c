// SPDX-License-Identifier: Apache-2.0

// Package decisions holds the measurements that docs/decisions cites: what getty could have been built on,
// beside what it is built on.
package decisions

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/gostkit/kit/ringbuffer"
	"github.com/gostkit/kit/xorlist"
)

type mail struct {
	pkg  any
	size int
}

// slices is the shape of getty's mailbox: two slices that change places under a lock.
type slices struct {
	mu      sync.Mutex
	in, cur []mail
	head    int
}

func (m *slices) put(mails []mail) {
	m.mu.Lock()
	m.in = append(m.in, mails...)
	m.mu.Unlock()
}

func (m *slices) take() (mail, bool) {
	if m.head == len(m.cur) {
		m.cur, m.head = m.cur[:0], 0
		m.mu.Lock()
		m.cur, m.in = m.in, m.cur
		m.mu.Unlock()
		if len(m.cur) == 0 {
			return mail{}, false
		}
	}
	v := m.cur[m.head]
	m.cur[m.head] = mail{}
	m.head++
	return v, true
}

// BenchmarkMailbox: one op is one package that is put and taken, batch of them at a time, as one read of a
// session brings them.
func BenchmarkMailbox(b *testing.B) {
	for _, n := range []int{1, 16} {
		batch := make([]mail, n)
		for i := range batch {
			batch[i] = mail{&batch, 64}
		}
		b.Run(fmt.Sprintf("batch=%d/slices", n), func(b *testing.B) {
			var m slices
			b.ReportAllocs()
			for left := 0; b.Loop(); left-- {
				if left == 0 {
					m.put(batch)
					left = n
				}
				if _, ok := m.take(); !ok {
					b.Fatal("empty")
				}
			}
		})
		b.Run(fmt.Sprintf("batch=%d/ringbuffer.MPSC", n), func(b *testing.B) {
			q := ringbuffer.NewMPSC[mail](ringbuffer.Unbounded)
			b.ReportAllocs()
			out := make([]mail, 1)
			for left := 0; b.Loop(); left-- {
				if left == 0 {
					if k, err := q.PushN(batch); k != n || err != nil {
						b.Fatal(k, err)
					}
					left = n
				}
				if k, err := q.PopN(out); k != 1 || err != nil {
					b.Fatal(k, err)
				}
			}
		})
	}
}

// BenchmarkSessionTable: one op is one session that enters a table of a thousand while another, at a random
// place, leaves, as accepting and closing does.
func BenchmarkSessionTable(b *testing.B) {
	const open = 1000
	rnd := rand.New(rand.NewPCG(1, 2))
	b.Run("map", func(b *testing.B) {
		m := make(map[uint64]*mail)
		ids := make([]uint64, open)
		next := uint64(0)
		for i := range ids {
			ids[i] = next
			m[next] = nil
			next++
		}
		for b.Loop() {
			i := rnd.IntN(open)
			delete(m, ids[i])
			ids[i] = next
			m[next] = nil
			next++
		}
	})
	b.Run("xorlist", func(b *testing.B) {
		var l xorlist.List[*mail]
		handles := make([]xorlist.Handle, 0, open)
		for range open {
			handles = append(handles, l.PushBack(nil))
		}
		for b.Loop() {
			i := rnd.IntN(open)
			l.Remove(handles[i])
			handles[i] = l.PushBack(nil)
		}
	})
}
