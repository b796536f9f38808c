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

	q queue[Task]
	// scheduled, guarded by q.mu, is true from the moment the strand is woken until a worker has taken the last
	// task. The strand is woken under q.mu, before the task is added: either both happen or neither.
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
	m.q.limit = limit
	return m
}

// scheduleLocked makes sure that a worker will come.
func (m *Mailbox) scheduleLocked() error {
	if m.pool.c.closing.Load() {
		return ErrClosed
	}
	if !m.scheduled {
		if err := m.strand.TryWake(); err != nil {
			return err
		}
		m.scheduled = true
	}
	return nil
}

// Post adds all tasks, in order and with nothing between them, or none: it returns nil, [ErrFull] or [ErrClosed], and
// never blocks. A batch costs one lock and at most one wakeup. An empty mailbox takes a batch of any size.
func (m *Mailbox) Post(ts ...Task) error {
	if len(ts) == 0 {
		return nil
	}
	q := &m.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.limit > 0 && q.n > 0 && (q.first != nil || q.n+len(ts) > q.limit) {
		if m.pool.c.closing.Load() {
			return ErrClosed
		}
		return ErrFull
	}
	if err := m.scheduleLocked(); err != nil {
		return err
	}
	q.putAllLocked(ts)
	return nil
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
	q := &m.q
	if q.fullLocked() {
		q.mu.Unlock()
		inside := m.pool.c.inside()
		q.mu.Lock()
		if !inside && q.fullLocked() {
			if m.pool.c.closing.Load() {
				q.mu.Unlock()
				return ErrClosed
			}
			return q.await(ctx, m.pool.c.stop, &m.pool.lines, t)
		}
	}
	err := m.scheduleLocked()
	if err == nil {
		q.putLocked(t)
	}
	q.mu.Unlock()
	return err
}

// SubmitN adds tasks in order, as many as fit under one lock, and waits for room as Submit does. It returns how many were
// accepted, and the error that kept it from accepting the rest.
func (m *Mailbox) SubmitN(ctx context.Context, ts ...Task) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	m.q.mu.Lock()
	return m.submitNLocked(ctx, ts)
}

// submitNLocked is SubmitN; it unlocks q.mu.
func (m *Mailbox) submitNLocked(ctx context.Context, ts []Task) (n int, err error) {
	q := &m.q
	for {
		for n < len(ts) && !q.fullLocked() {
			if err := m.scheduleLocked(); err != nil {
				q.mu.Unlock()
				return n, err
			}
			q.putLocked(ts[n])
			n++
		}
		if n == len(ts) {
			q.mu.Unlock()
			return n, nil
		}
		if err := m.submitLocked(ctx, ts[n]); err != nil {
			return n, err
		}
		n++
		q.mu.Lock()
	}
}

// trySubmitLocked is TrySubmit; it unlocks q.mu.
func (m *Mailbox) trySubmitLocked(t Task) error {
	q := &m.q
	defer q.mu.Unlock()
	if q.fullLocked() && !m.pool.c.closing.Load() {
		return ErrFull
	}
	if err := m.scheduleLocked(); err != nil {
		return err
	}
	q.putLocked(t)
	return nil
}

// displaceLocked adds t; if there is no room, it takes the oldest waiting task out. It unlocks q.mu.
func (m *Mailbox) displaceLocked(t Task) (old Task, err error) {
	q := &m.q
	defer q.unlock()
	if err := m.scheduleLocked(); err != nil {
		return nil, err
	}
	if q.fullLocked() {
		old, _ = q.popOneLocked()
	}
	q.putLocked(t)
	return old, nil
}

// drain runs a batch of tasks on the worker that owns r, and reports whether there are more. The first is claimed by
// taking it out of the queue, so that a lone task never touches the batch. If one panics, drain is called again and goes
// on behind it.
func (m *Mailbox) drain(r *runner) (more bool) {
	b := &r.batch
	if !r.mid {
		q := &m.q
		q.mu.Lock()
		first, ok := q.popOneLocked()
		if q.n > 0 {
			b.fill(q, batchLen-1)
		}
		// A post from here on wakes the strand, which is running and so goes back in line afterwards.
		m.scheduled = q.n > 0
		r.mid, r.more = true, m.scheduled
		q.unlock()
		if ok {
			first()
		}
	}
	for t, ok := b.take(); ok; t, ok = b.take() {
		t()
	}
	r.mid = false
	return r.more
}

// take removes all tasks; the pool has been told to stop.
func (m *Mailbox) take() []Task { return m.q.drain() }
