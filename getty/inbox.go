// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"sync"

	"github.com/gostkit/kit/getty/internal/wire"
	"github.com/gostkit/kit/taskpool"
)

// maxBatch is how many packages of one session a worker of the pool handles before it goes on with
// another session.
const maxBatch = 64

// An inbox holds the packages that a session has decoded and a pool has not handled. It is bounded
// in packages and in bytes of the wire; the goroutine that reads waits while it is full. Inline
// sessions have none.
type inbox struct {
	s                 *session
	maxPkgs, maxBytes int

	pool   taskpool.Pool   // runs the handlers
	strand taskpool.Strand // the handler of an ordered session, one at a time
	hard   chan struct{}   // closed with the session's descriptor

	mu      sync.Mutex
	changed sync.Cond  // on mu: packages were handled, or the session is closing
	in      *itemQueue // guarded by mu
	count   int        // guarded by mu: packages put and not handled, those being handled included
	bytes   int        // guarded by mu: their size
	closed  bool       // guarded by mu: see interrupt

	cur *itemQueue // guarded by the session's token: what an ordered handler took
}

// An item is a decoded package and its size on the wire.
type item struct {
	pkg  any
	size int
}

func newInbox(s *session, pool taskpool.Pool) *inbox {
	m := &inbox{
		s: s, maxPkgs: s.opts.MailboxLen, maxBytes: s.opts.MailboxBytes,
		pool: pool, hard: make(chan struct{}),
	}
	m.changed.L = &m.mu
	batch := m.runBatch
	if s.opts.ProfileLabels {
		batch = m.batchLabelled
	}
	m.strand.Init(pool, batch)
	m.strand.OnDrop(func() { m.poolFailed(taskpool.ErrClosed) })
	return m
}

// fill decodes the packages that b holds and posts them in as few steps as the limits allow. It
// waits while the inbox is full, and so stops reading. It returns how many bytes the packages took
// and how many the next one needs in all, 0 if that is unknown.
func (m *inbox) fill(b []byte, seen int) (used, need int, err error) {
	s, where := m.s, "Reader"
	// Packages are staged and put together: one lock and one wake-up for all that a read brought.
	stage := itemQueues.Get().(*itemQueue)
	defer m.forgo(stage) // after a panic or Goexit in the Reader some are left
	err = s.turn.guard(&where, func() (err error) {
		for whole := true; whole && used < len(b) && err == nil && !s.has(flagClosing); {
			// This goroutine alone puts packages, so the room can only grow meanwhile.
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
				posted := len(stage.items)
				s.count.PkgsRead.Add(uint64(posted))
				s.traceDecoded(posted)
				m.put(stage.items)
				clear(stage.items)
				stage.items = stage.items[:0]
				m.wake(posted)
			}
		}
		return err
	})
	if s.has(flagClosing) {
		if err == nil {
			s.codec.countRest(b[used:]) // these were read too: Stats must not lose them
		}
		if _, panicked := err.(*PanicError); !panicked {
			err = nil // the session has another cause already
		}
	}
	return used, need, err
}

// forgo counts and releases the packages of stage, which were decoded and not posted because the
// Reader panicked.
func (m *inbox) forgo(stage *itemQueue) {
	m.s.count.PkgsRead.Add(uint64(len(stage.items)))
	m.s.count.undelivered(len(stage.items))
	stage.release()
	stage.free()
}

// wake makes the pool handle pkgs packages that were put. If the pool refuses, the session ends.
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
		m.poolFailed(err)
	}
}

// poolFailed ends the session, whose pool does not run its handlers any more.
func (m *inbox) poolFailed(err error) { m.s.life.fail(fmt.Errorf("getty: task pool: %w", err)) }

// postDatagram puts one datagram. It never waits; where the inbox or the pool has no room it drops
// one datagram and counts it.
func (m *inbox) postDatagram(pkg any, size int) {
	s := m.s
	s.count.PkgsRead.Add(1)
	s.traceDecoded(1)
	// No wait would slow the sender down: the kernel would only drop the datagrams instead, without
	// a count.
	if !m.hasRoom() {
		s.count.rarely().Dropped.Add(1)
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
		// The pool runs no task any more, and what waits would never be handled.
		m.poolFailed(err)
		return
	}
	// A datagram without a task would never be handled. The oldest one goes, since a late answer to
	// it is of the least use. If there is none, a handler has just come for it.
	if old, ok := m.withdraw(); ok {
		s.count.rarely().Dropped.Add(1)
		releaseGuarded(old.pkg)
	}
}

// runBatch is the task of an ordered session: it handles a batch of packages in one turn, and
// reports whether there are more.
func (m *inbox) runBatch() (more bool) {
	s := m.s
	handled, bytes := 0, 0
	_ = s.turn.run(wire.Try, func() (any, bool) {
		// Above the high mark every answer would be refused. The strand stands still then, and
		// outbox.unblocked wakes it again.
		if handled == maxBatch || s.paused() {
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
			s.clock.touch() // packages that had to wait here are a sign of life all the same
		}
		more = m.handled(handled, bytes) && !s.paused()
	})
	return more
}

// runOne is the task of an unordered session: one package.
func (m *inbox) runOne() {
	it, ok := m.take()
	if !ok {
		return // the session has ended, and settle counted the package as undelivered
	}
	if m.s.opts.ProfileLabels {
		m.s.labelled(func() { m.runItem(it) })
	} else {
		m.runItem(it)
	}
}

func (m *inbox) runItem(it item) {
	m.s.turn.runTask(it.pkg, func() {
		m.s.clock.touch()
		m.handled(1, it.size)
	})
}

// handleRest returns when everything that was decoded is handled, or when the session is closed.
func (m *inbox) handleRest() {
	if m.s.dispatch == Unordered {
		// A pool may drop tasks. Without this the packages of those would be waited for for ever.
		for m.waits() {
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
		// Move up instead of growing: a queue that never becomes empty would grow for ever, though
		// the limits bound what is in it.
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, items...)
	m.count += len(items)
	before := m.bytes
	for i := range items {
		m.bytes += items[i].size
	}
	more := m.bytes - before
	m.mu.Unlock()
	m.s.ep.budget.add(more)
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

// takeOrdered is take for the holder of the session's token. It locks once for all that has come.
func (m *inbox) takeOrdered() (item, bool) {
	if m.cur.empty() {
		if m.cur != nil { // it becomes the queue that the reader fills
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

// withdraw removes the next item, which will not be handled.
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
	m.s.ep.budget.add(-old.size)
	return old, true
}

// handled counts pkgs taken items as done and reports whether there are more.
func (m *inbox) handled(pkgs, bytes int) (more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count -= pkgs
	m.bytes -= bytes
	m.s.ep.budget.add(-bytes)
	if m.count == 0 {
		m.in.free()
		m.cur.free() // an ordered session's caller holds the token; other sessions have no cur
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

// size returns how many packages are put and not handled, and their bytes.
func (m *inbox) size() (pkgs, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count, m.bytes
}

// interrupt ends all waits for room or for handlers, now and later: the session is closing.
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

// clear drops the packages that were not taken, waits for the handlers that are at work, and
// returns how many packages were dropped. The caller holds the token.
func (m *inbox) clear() (dropped int) {
	m.mu.Lock()
	queues := [2]*itemQueue{m.cur, m.in}
	m.cur, m.in = nil, nil // tasks that run from here on find nothing
	for _, q := range queues {
		if q != nil {
			dropped += len(q.items) - q.head
		}
	}
	m.count -= dropped
	m.mu.Unlock()
	// Without the lock, since Release is user code.
	for _, q := range queues {
		q.release()
		q.free()
	}
	m.mu.Lock()
	for m.count > 0 {
		m.changed.Wait()
	}
	m.s.ep.budget.add(-m.bytes) // those of the dropped ones are left
	m.bytes = 0
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

// release empties a queue whose packages are dropped.
func (q *itemQueue) release() {
	// On goroutines of its own: a Release may end its goroutine with Goexit, and the session's
	// goroutine still has to call OnClose.
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
	if q == nil || cap(q.items) > 4096 { // a queue of an unusual burst is not worth keeping
		return
	}
	clear(q.items)
	q.items, q.head = q.items[:0], 0
	itemQueues.Put(q)
}
