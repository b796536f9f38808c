// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"sync"

	"github.com/gostkit/kit/getty/internal/wire"
	"github.com/gostkit/kit/taskpool"
)

// maxBatch is how many packages of one session a worker handles before it turns to other sessions.
const maxBatch = 64

// An inbox holds what a session has decoded and a pool has not handled. It is bounded in packages
// and in bytes of the wire; the goroutine that reads waits while it is full. Inline sessions have
// none.
type inbox struct {
	s                 *session
	maxPkgs, maxBytes int

	pool   taskpool.Pool   // runs the handlers
	strand taskpool.Strand // the handler of an ordered session, one at a time
	hard   chan struct{}   // closed with the session's descriptor

	mu      sync.Mutex
	changed sync.Cond  // on mu: a package was handled, or the session is closing
	in      *itemQueue // guarded by mu
	count   int        // guarded by mu: packages put and not handled, those being handled included
	bytes   int        // guarded by mu: their size
	closed  bool       // guarded by mu: nobody need wait any more

	cur *itemQueue // guarded by the session's token: what an ordered handler took
}

// An item is a decoded package and its size on the wire.
type item struct {
	pkg  any
	size int
}

func newInbox(s *session, pool taskpool.Pool) *inbox {
	m := &inbox{s: s, maxPkgs: s.opts.MailboxLen, maxBytes: s.opts.MailboxBytes, pool: pool, hard: make(chan struct{})}
	m.changed.L = &m.mu
	m.strand.Init(pool, m.runBatch)
	m.strand.OnDrop(func() { s.life.fail(fmt.Errorf("getty: task pool: %w", taskpool.ErrClosed)) })
	return m
}

// fill decodes the packages that b holds and posts them in as few steps as the limits allow. It
// waits while the inbox is full: that stops reading. It returns how many bytes the packages took
// and how many the next one needs in all, 0 if that is unknown.
func (m *inbox) fill(b []byte, seen int) (used, need int, err error) {
	s, where := m.s, "Reader"
	stage := itemQueues.Get().(*itemQueue)
	defer m.forgo(stage) // what is left in it after a panic or Goexit in the Reader
	err = s.turn.guard(&where, func() (err error) {
		for whole := true; whole && used < len(b) && err == nil && !s.has(flagClosing); {
			pkgs, bytes := m.room()
			size := 0
			for len(stage.items) < pkgs && size < bytes && used < len(b) {
				var pkg any
				var n int
				if pkg, n, err = s.codec.decode(b[used:], seen); pkg == nil {
					need, whole = n, false
					break
				}
				seen = 0
				used += n
				n = s.codec.weigh(n)
				size += n
				stage.items = append(stage.items, item{pkg, n})
			}
			if len(stage.items) > 0 {
				s.count.PkgsRead.Add(uint64(len(stage.items)))
				m.put(stage.items)
				posted := len(stage.items)
				clear(stage.items)
				stage.items = stage.items[:0]
				m.wake(posted)
			}
		}
		return err
	})
	if s.has(flagClosing) {
		if err == nil {
			s.codec.countRest(b[used:])
		}
		if _, panicked := err.(*PanicError); !panicked {
			err = nil // the session has ended already, and for another reason
		}
	}
	return used, need, err
}

// forgo counts and releases packages that were decoded and, because the Reader panicked, not
// posted.
func (m *inbox) forgo(stage *itemQueue) {
	m.s.count.PkgsRead.Add(uint64(len(stage.items)))
	m.s.count.undelivered(len(stage.items))
	stage.release()
	stage.free()
}

// wake makes a pool handle pkgs packages that were put. A pool that takes none ends the session.
func (m *inbox) wake(pkgs int) {
	s := m.s
	var err error
	if s.dispatch == Ordered {
		err = m.strand.Wake(untilHard{s})
	} else {
		for i := 0; i < pkgs && err == nil; i++ {
			err = m.pool.Submit(untilHard{s}, m.runOne)
		}
	}
	if err != nil && !s.has(flagHard) {
		s.life.fail(fmt.Errorf("getty: task pool: %w", err))
	}
}

// postDatagram puts one datagram, or drops one: there is no way to slow a sender down. Where a pool
// has no room, it drops the datagram that has waited longest instead of waiting, so that reading
// goes on, whatever handlers wait for.
func (m *inbox) postDatagram(pkg any, size int) {
	s := m.s
	s.count.PkgsRead.Add(1)
	if !m.hasRoom() {
		s.count.Dropped.Add(1)
		releaseGuarded(pkg)
		return
	}
	m.put([]item{{pkg, size}})
	var err error
	if s.dispatch == Ordered {
		err = m.strand.TryWake()
	} else {
		err = m.pool.TrySubmit(m.runOne)
	}
	switch {
	case err == nil:
		return
	case !errors.Is(err, taskpool.ErrFull):
		s.life.fail(fmt.Errorf("getty: task pool: %w", err)) // nobody will handle what waits
		return
	}
	if old, ok := m.withdraw(); ok { // else a handler has come for it after all
		s.count.Dropped.Add(1)
		releaseGuarded(old.pkg)
	}
}

// runBatch is the strand of an ordered session: one turn for a batch. It reports whether there is
// more.
func (m *inbox) runBatch() (more bool) {
	s := m.s
	handled, bytes := 0, 0
	_ = s.turn.run(wire.Try, func() (any, bool) {
		if handled == maxBatch || s.paused() { // unblocked wakes the strand again
			return nil, false
		}
		it, ok := m.takeOrdered()
		if !ok {
			return nil, false
		}
		handled++
		bytes += it.size
		return it.pkg, true
	}, func(string, bool) {
		if handled > 0 {
			s.clock.touch()
		}
		more = m.handled(handled, bytes) && !s.paused()
	})
	return more
}

// runOne is the task of an unordered session: one package.
func (m *inbox) runOne() {
	it, ok := m.take()
	if !ok {
		return // the session ended and the package was counted as undelivered
	}
	m.s.turn.runTask(it.pkg, func() {
		m.s.clock.touch()
		m.handled(1, it.size)
	})
}

// handleRest returns when everything that was decoded is handled, or the session is closed
// meanwhile.
func (m *inbox) handleRest() {
	if m.s.dispatch == Unordered {
		for m.waits() { // the pool may be one that drops tasks
			m.runOne()
		}
	}
	m.awaitHandled()
}

// room waits until the inbox is not full and returns how much it may take. After interrupt it
// returns 0.
func (m *inbox) room() (pkgs, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.closed && (m.count >= m.maxPkgs || m.bytes >= m.maxBytes) {
		m.changed.Wait()
	}
	if m.closed {
		return 0, 0
	}
	return m.maxPkgs - m.count, m.maxBytes - m.bytes
}

// hasRoom reports whether the inbox is not full, without waiting.
func (m *inbox) hasRoom() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count < m.maxPkgs && m.bytes < m.maxBytes
}

// put adds items, with one lock for all of them.
func (m *inbox) put(items []item) {
	m.mu.Lock()
	q := m.in
	if q == nil {
		q = itemQueues.Get().(*itemQueue)
		m.in = q
	}
	if q.head > 0 && len(q.items)+len(items) > cap(q.items) {
		n := copy(q.items, q.items[q.head:]) // the limits bound n, so the queue stays as large as they need
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, items...)
	m.count += len(items)
	for i := range items {
		m.bytes += items[i].size
	}
	m.mu.Unlock()
}

// take removes the next item.
func (m *inbox) take() (item, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in.empty() {
		return item{}, false
	}
	return m.in.pop(), true
}

// takeOrdered is take for the holder of the token; it locks once for all that has come.
func (m *inbox) takeOrdered() (item, bool) {
	if m.cur.empty() {
		if m.cur != nil { // emptied, it serves as the next queue
			m.cur.items, m.cur.head = m.cur.items[:0], 0
		}
		m.mu.Lock()
		m.cur, m.in = m.in, m.cur
		m.mu.Unlock()
		if m.cur.empty() {
			return item{}, false
		}
	}
	return m.cur.pop(), true
}

// waits reports whether an item was put and not taken.
func (m *inbox) waits() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.in.empty()
}

// withdraw removes the next item, which nobody will handle.
func (m *inbox) withdraw() (item, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in.empty() {
		return item{}, false
	}
	old := m.in.pop()
	if m.in.empty() {
		m.in.free()
		m.in = nil
	}
	m.count--
	m.bytes -= old.size
	m.changed.Broadcast()
	return old, true
}

// handled counts pkgs taken items as done and reports whether there are more.
func (m *inbox) handled(pkgs, bytes int) (more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count -= pkgs
	m.bytes -= bytes
	if m.count == 0 {
		m.in.free()
		m.cur.free() // in an ordered session the caller holds the token; in others there is none
		m.in, m.cur = nil, nil
	}
	m.changed.Broadcast()
	return m.count > 0
}

// waiting reports whether anything is put and not handled.
func (m *inbox) waiting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count > 0
}

// interrupt ends all waiting.
func (m *inbox) interrupt() {
	m.mu.Lock()
	m.closed = true
	m.changed.Broadcast()
	m.mu.Unlock()
}

// awaitHandled waits until everything is handled, or for an interrupt.
func (m *inbox) awaitHandled() {
	m.mu.Lock()
	for m.count > 0 && !m.closed {
		m.changed.Wait()
	}
	m.mu.Unlock()
}

// clear drops what was not taken, waits for the handlers that are at work, and returns how many
// packages were dropped. The caller holds the token.
func (m *inbox) clear() (dropped int) {
	m.mu.Lock()
	queues := [2]*itemQueue{m.cur, m.in}
	m.cur, m.in = nil, nil // tasks that come now find nothing
	for _, q := range queues {
		if q != nil {
			dropped += len(q.items) - q.head
		}
	}
	m.count -= dropped
	m.mu.Unlock()
	for _, q := range queues {
		q.release()
		q.free()
	}
	m.mu.Lock()
	for m.count > 0 {
		m.changed.Wait()
	}
	m.mu.Unlock()
	return dropped
}

// An itemQueue is a run of items; head is the next to take. Queues are pooled: an idle inbox has
// none.
type itemQueue struct {
	items []item
	head  int
}

var itemQueues = sync.Pool{New: func() any { return new(itemQueue) }}

func (q *itemQueue) empty() bool { return q == nil || q.head == len(q.items) }

func (q *itemQueue) pop() item {
	it := q.items[q.head]
	q.items[q.head] = item{}
	q.head++
	return it
}

// release empties a queue whose packages are dropped. It does so on a goroutine of its own and
// waits, since a Release may end the goroutine that calls it, and the session's still has to call
// OnClose.
func (q *itemQueue) release() {
	for !q.empty() {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for !q.empty() {
				releaseGuarded(q.pop().pkg)
			}
		}()
		<-done
	}
}

func (q *itemQueue) free() {
	if q == nil || cap(q.items) > 4096 { // nothing, or grown by an unusual burst
		return
	}
	clear(q.items)
	q.items, q.head = q.items[:0], 0
	itemQueues.Put(q)
}
