// SPDX-License-Identifier: Apache-2.0

package taskpool

import "context"

var _ Pool = (*Mailbox)(nil)

// Mailbox is a queue of tasks that run one at a time and in order on the workers of an [Ordered] pool. An owner that
// has one per session or connection needs no key and no map; a Mailbox without tasks costs its memory and nothing else.
// It needs no Close: it ends with its pool, or is collected as garbage. Create it with [Ordered.NewMailbox]; all methods
// may be called from any goroutine, and by its own tasks.
type Mailbox struct {
	strand Strand
	pool   *Ordered

	q   queue[Task]
	few [4]Task // what q begins with: it needs no other memory until more are waiting
	// scheduled, guarded by q.mu, is true while the strand is in a list or with a worker. A worker that is done with
	// the mailbox makes it false under the lock under which it finds the queue empty.
	scheduled bool
	touched   uint64 // by a key: the key map's tick when it was last used; guarded by q.mu
}

// NewMailbox returns a mailbox in which limit tasks may wait; zero means Config.QueueLen, negative no limit.
func (o *Ordered) NewMailbox(limit int) *Mailbox {
	if limit == 0 {
		limit = o.limit
	}
	return o.newMailbox(limit, o.seat())
}

func (o *Ordered) newMailbox(limit int, home uint32) *Mailbox {
	m := &Mailbox{pool: o}
	m.strand.pool, m.strand.mail, m.strand.home = o, m, home
	m.q.limit, m.q.buf = limit, m.few[:]
	return m
}

// scheduleLocked makes sure that a worker will come, and find the tasks that the caller adds before it gives up q.mu;
// then the caller calls tell.
func (m *Mailbox) scheduleLocked() (e entry, err error) {
	if m.pool.c.closing.Load() {
		return e, ErrClosed
	}
	if !m.scheduled {
		var ok bool
		if e, ok = m.pool.push(&m.strand); !ok {
			return entry{}, ErrClosed
		}
		m.scheduled = true
	}
	return e, nil
}

// addLocked adds t, whether there is room or not; it unlocks q.mu.
func (m *Mailbox) addLocked(t Task) error {
	e, err := m.scheduleLocked()
	if err == nil {
		m.q.putLocked(t)
	}
	m.q.mu.Unlock()
	e.tell()
	return err
}

func (m *Mailbox) addAllLocked(ts []Task) error {
	e, err := m.scheduleLocked()
	if err == nil {
		m.q.putAllLocked(ts)
	}
	m.q.mu.Unlock()
	e.tell()
	return err
}

// Post adds all tasks, in order and with nothing between them, or none: it returns nil, [ErrFull] or [ErrClosed], and
// never blocks. A batch costs one lock and at most one wakeup. An empty mailbox takes a batch of any size.
func (m *Mailbox) Post(ts ...Task) error {
	if len(ts) == 0 {
		return nil
	}
	q := &m.q
	q.mu.Lock()
	closed := m.pool.c.closing.Load()
	if !closed && q.n > 0 && q.roomLocked() < len(ts) {
		q.mu.Unlock()
		return ErrFull
	}
	return m.addAllLocked(ts)
}

// Submit adds t and waits for room if there is none. It returns nil, the cause of ctx, or [ErrClosed]. A task of this
// pool is not made to wait.
func (m *Mailbox) Submit(ctx context.Context, t Task) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.q.mu.Lock()
	return m.submitLocked(ctx, t)
}

// TrySubmit adds t if there is room. It never blocks and returns nil, [ErrFull] or [ErrClosed].
func (m *Mailbox) TrySubmit(t Task) error {
	m.q.mu.Lock()
	return m.trySubmitLocked(t)
}

// Len returns how many tasks wait, without those that a worker has taken along.
func (m *Mailbox) Len() int {
	m.q.mu.Lock()
	defer m.q.mu.Unlock()
	return m.q.n
}

// submitLocked is Submit; it unlocks q.mu.
func (m *Mailbox) submitLocked(ctx context.Context, t Task) error {
	q, o := &m.q, m.pool
	if !q.fullLocked() || o.c.closing.Load() {
		return m.addLocked(t)
	}
	w := q.lineUpLocked(&o.lines, t)
	q.mu.Unlock()
	if o.c.inside() {
		q.mu.Lock()
		if q.leaveLocked(w) {
			w.release(&o.lines)
			return m.addLocked(t)
		}
		q.mu.Unlock()
	}
	return q.await(ctx, o.c.stop, &o.lines, w)
}

// SubmitN adds tasks in order, as many as fit under one lock, and waits for room as Submit does. It returns how many were
// accepted, and the error that kept it from accepting the rest.
func (m *Mailbox) SubmitN(ctx context.Context, ts ...Task) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if len(ts) == 0 {
		return 0, nil
	}
	m.q.mu.Lock()
	return m.submitNLocked(ctx, ts)
}

// submitNLocked is SubmitN of at least one task; it unlocks q.mu.
func (m *Mailbox) submitNLocked(ctx context.Context, ts []Task) (n int, err error) {
	for n < len(ts) {
		if n > 0 {
			m.q.mu.Lock()
		}
		k := 1
		if room := m.q.roomLocked(); room > 0 {
			k = min(room, len(ts)-n)
			err = m.addAllLocked(ts[n : n+k])
		} else {
			err = m.submitLocked(ctx, ts[n])
		}
		if err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// trySubmitLocked is TrySubmit; it unlocks q.mu.
func (m *Mailbox) trySubmitLocked(t Task) error {
	if m.q.fullLocked() && !m.pool.c.closing.Load() {
		m.q.mu.Unlock()
		return ErrFull
	}
	return m.addLocked(t)
}

// displaceLocked adds t; if there is no room, it takes the oldest waiting task out. It unlocks q.mu.
func (m *Mailbox) displaceLocked(t Task) (old Task, err error) {
	q := &m.q
	if !q.fullLocked() || m.pool.c.closing.Load() {
		return nil, m.addLocked(t)
	}
	old = q.replaceLocked(t) // there is something in it, so it is scheduled
	q.mu.Unlock()
	return old, nil
}

// drain runs a batch of tasks on the worker that owns r, and reports whether there are more. The first is claimed by
// taking it out of the queue, so that a lone task never touches r.batch. If one panics, drain is called again and goes
// on behind it.
func (m *Mailbox) drain(r *runner) (more bool) {
	b, q := &r.batch, &m.q
	if !r.mid {
		q.mu.Lock()
		first, ok := q.popOneLocked()
		if q.n > 0 {
			b.fill(q, batchLen-1)
		}
		q.unlock()
		r.mid = true
		if ok {
			first()
		}
	}
	for t, ok := b.take(); ok; t, ok = b.take() {
		t()
	}
	r.mid = false
	q.mu.Lock()
	m.scheduled = q.n > 0
	more = m.scheduled
	q.mu.Unlock()
	return more
}

// take removes all tasks; the pool has been told to stop.
func (m *Mailbox) take() []Task { return m.q.drain() }
