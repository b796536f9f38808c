// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

type message struct {
	body []byte
	user *int
}

func TestObjects(t *testing.T) {
	var zero Objects[message]
	require.Equal(t, message{}, *zero.Get())
	zero.Put(nil)

	made := 0
	o := Objects[message]{
		New:     func() *message { made++; return &message{body: make([]byte, 0, 10)} },
		Reset:   func(m *message) { m.body, m.user = m.body[:0], nil },
		Size:    func(m *message) int { return cap(m.body) },
		MaxSize: 100,
	}
	m := o.Get()
	require.Equal(t, 1, made)
	m.body, m.user = append(m.body, "text"...), new(int)
	o.Put(m)
	require.Empty(t, m.body, "Reset happens in Put")
	require.Nil(t, m.user)

	// One object in flight at a time, all of them too large: nothing comes back.
	made = 0
	for range 10 {
		m := &message{body: make([]byte, 0, 101), user: new(int)}
		o.Put(m)
		require.Nil(t, m.user, "a dropped object is reset too: it may hold what must be given back")
	}
	for range 12 {
		require.LessOrEqual(t, cap(o.Get().body), 100)
	}
	require.GreaterOrEqual(t, made, 11)
	// At the limit is within it.
	for range 100 {
		o.Put(&message{body: make([]byte, 0, 100)})
	}
	require.Equal(t, 100, cap(o.Get().body))
}

func TestObjectsAllocs(t *testing.T) {
	if raceEnabled || debug {
		t.Skip("sync.Pool drops at random under -race, debug builds allocate")
	}
	o := Objects[message]{
		Reset:   func(m *message) { m.user = nil },
		Size:    func(m *message) int { return cap(m.body) },
		MaxSize: 1 << 10,
	}
	require.Zero(t, int(testing.AllocsPerRun(200, func() { o.Put(o.Get()) })))
}

// There is no counter that could refuse objects after the garbage collector took the idle ones.
//
// acceptance: B01
func TestObjectsReuseAfterGC(t *testing.T) {
	made := 0
	o := Objects[message]{New: func() *message { made++; return new(message) }}
	var lent []*message
	for range 4000 {
		lent = append(lent, o.Get())
	}
	for _, m := range lent {
		o.Put(m)
	}
	clear(lent)
	runtime.GC()
	runtime.GC()
	made = 0
	for range 1000 {
		o.Put(o.Get())
	}
	if raceEnabled {
		require.Less(t, made, 600)
	} else {
		require.Less(t, made, 50)
	}
}

func TestObjectsConcurrent(t *testing.T) {
	o := Objects[message]{Reset: func(m *message) { m.body = m.body[:0] }}
	var wg sync.WaitGroup
	belt := make(chan *message, 16)
	for w := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				m := o.Get()
				if len(m.body) != 0 {
					t.Error("object in use by somebody else")
				}
				m.body = append(m.body, byte(w), byte(i))
				select {
				case belt <- m:
				case other := <-belt:
					o.Put(other)
					o.Put(m)
				}
			}
		})
	}
	wg.Wait()
}
