// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"sync"

	"github.com/gostkit/kit/taskpool"
)

// A mail is a decoded package and its size on the wire.
type mail struct {
	pkg  any
	size int
}

// A mailQueue is a run of mails; head is the next to take. Queues are pooled: an idle mailbox has none.
type mailQueue struct {
	items []mail
	head  int
}

var mailQueues = sync.Pool{New: func() any { return new(mailQueue) }}

func (q *mailQueue) empty() bool { return q == nil || q.head == len(q.items) }

func (q *mailQueue) pop() mail {
	m := q.items[q.head]
	q.items[q.head] = mail{}
	q.head++
	return m
}

func (q *mailQueue) free() {
	if q == nil || cap(q.items) > 4096 { // nothing, or grown by an unusual burst
		return
	}
	clear(q.items)
	q.items, q.head = q.items[:0], 0
	mailQueues.Put(q)
}

// A mailbox holds what a session has decoded and not handled. It is bounded in packages and in bytes of
// the wire; the goroutine that reads waits while it is full.
type mailbox struct {
	maxPkgs, maxBytes int

	pool   taskpool.Pool   // runs the handlers
	strand taskpool.Strand // the handler of an ordered session, one at a time
	hard   chan struct{}   // closed with the session's descriptor

	mu     sync.Mutex
	cond   sync.Cond  // on mu: a package was handled, or the session is closing
	in     *mailQueue // guarded by mu
	count  int        // guarded by mu: packages put and not handled, the one being handled included
	bytes  int        // guarded by mu: their size
	closed bool       // guarded by mu: nobody need wait any more

	cur *mailQueue // guarded by the session's token: what an ordered handler took
}

func newMailbox(maxPkgs, maxBytes int) *mailbox {
	m := &mailbox{maxPkgs: maxPkgs, maxBytes: maxBytes}
	m.cond.L = &m.mu
	return m
}

// room waits until the mailbox is not full and returns how much it may take. After interrupt it returns 0.
func (m *mailbox) room() (pkgs, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for !m.closed && (m.count >= m.maxPkgs || m.bytes >= m.maxBytes) {
		m.cond.Wait()
	}
	if m.closed {
		return 0, 0
	}
	return m.maxPkgs - m.count, m.maxBytes - m.bytes
}

// hasRoom reports whether the mailbox is not full, without waiting.
func (m *mailbox) hasRoom() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count < m.maxPkgs && m.bytes < m.maxBytes
}

// fits reports whether there is room for so many packages, and any for bytes.
func (m *mailbox) fits(pkgs, bytes int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count+pkgs <= m.maxPkgs && m.bytes+bytes < m.maxBytes
}

// put adds mails, with one lock for all of them.
func (m *mailbox) put(mails []mail) {
	m.mu.Lock()
	q := m.in
	if q == nil {
		q = mailQueues.Get().(*mailQueue)
		m.in = q
	}
	if q.head > 0 && len(q.items)+len(mails) > cap(q.items) {
		n := copy(q.items, q.items[q.head:]) // the limits bound n, so the queue stays as large as they need
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, mails...)
	m.count += len(mails)
	for i := range mails {
		m.bytes += mails[i].size
	}
	m.mu.Unlock()
}

// take removes the next mail.
func (m *mailbox) take() (mail, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in.empty() {
		return mail{}, false
	}
	return m.in.pop(), true
}

// takeOrdered is take for the holder of the token; it locks once for all that has come.
func (m *mailbox) takeOrdered() (mail, bool) {
	if m.cur.empty() {
		if m.cur != nil { // emptied, it serves as the next queue
			m.cur.items, m.cur.head = m.cur.items[:0], 0
		}
		m.mu.Lock()
		m.cur, m.in = m.in, m.cur
		m.mu.Unlock()
		if m.cur.empty() {
			return mail{}, false
		}
	}
	return m.cur.pop(), true
}

// waits reports whether a mail was put and not taken.
func (m *mailbox) waits() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.in.empty()
}

// withdraw removes the next mail, which nobody will handle.
func (m *mailbox) withdraw() (mail, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.in.empty() {
		return mail{}, false
	}
	old := m.in.pop()
	if m.in.empty() {
		m.in.free()
		m.in = nil
	}
	m.count--
	m.bytes -= old.size
	m.cond.Broadcast()
	return old, true
}

// handled counts pkgs taken mails as done and reports whether there are more.
func (m *mailbox) handled(pkgs, bytes int) (more bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count -= pkgs
	m.bytes -= bytes
	if m.count == 0 {
		m.in.free()
		m.cur.free() // in an ordered session the caller holds the token; in others there is none
		m.in, m.cur = nil, nil
	}
	m.cond.Broadcast()
	return m.count > 0
}

// waiting reports whether anything is put and not handled.
func (m *mailbox) waiting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count > 0
}

// interrupt ends all waiting.
func (m *mailbox) interrupt() {
	m.mu.Lock()
	m.closed = true
	m.cond.Broadcast()
	m.mu.Unlock()
}

// awaitHandled waits until everything is handled, or for an interrupt.
func (m *mailbox) awaitHandled() {
	m.mu.Lock()
	for m.count > 0 && !m.closed {
		m.cond.Wait()
	}
	m.mu.Unlock()
}

// clear drops what was not taken, waits for the handlers that are at work, and returns how many packages
// were dropped. The caller holds the token.
func (m *mailbox) clear() (dropped int) {
	m.mu.Lock()
	queues := [2]*mailQueue{m.cur, m.in}
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
		m.cond.Wait()
	}
	m.mu.Unlock()
	return dropped
}

// release empties a queue whose packages are dropped. It does so on a goroutine of its own and waits,
// since a Release may end the goroutine that calls it, and the session's still has to call OnClose.
func (q *mailQueue) release() {
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

// releaseGuarded releases a package that is dropped; a panic in its Release has nobody to reach.
func releaseGuarded(pkg any) {
	defer func() { _ = recover() }()
	release(pkg)
}
