// SPDX-License-Identifier: Apache-2.0

package taskpool

import "context"

var _ Pool = (*Mailbox)(nil)

// Mailbox is a queue of tasks that run one at a time and in order on the workers of an [Ordered]
// pool. An owner that has one per session or connection needs no key and no map; a Mailbox without
// tasks costs its memory and nothing else. It needs no Close: it ends with its pool, or is
// collected as garbage. Create it with [Ordered.NewMailbox]; all methods may be called from any
// goroutine, and by its own tasks.
type Mailbox struct {
	strand Strand
	pool   *Ordered

	q    queue[Task]
	line line[Task]    // of producers that wait for room
	few  [4]cell[Task] // the first ring of q: a short queue needs no other memory
	// scheduled, guarded by q.mu, is true while the strand is in a list or with a worker. A worker
	// that is done with the mailbox makes it false under the lock under which it finds the queue
	// empty.
	scheduled bool
	touched   uint64 // by a key: the key map's tick when it was last used; guarded by q.mu
}

// NewMailbox returns a mailbox in which limit tasks may wait; zero means Config.QueueLen, negative
// no limit.
func (o *Ordered) NewMailbox(limit int) *Mailbox {
	if limit == 0 {
		limit = o.limit
	}
	return o.newMailbox(limit, o.nextHome())
}

func (o *Ordered) newMailbox(limit int, home uint32) *Mailbox {
	m := &Mailbox{pool: o}
	m.strand.pool, m.strand.mail, m.strand.home = o, m, home
	// q.watched stays false: workers find a mailbox through its list, and would never read the
	// flag.
	m.q.limit, m.q.line, m.q.ring = limit, &m.line, m.few[:]
	return m
}

// scheduleLocked makes sure that a worker will come, and find the tasks that the caller adds before
// it gives up q.mu; then the caller calls tell.
func (m *Mailbox) scheduleLocked() (e entry, err error) {
	if m.pool.c.closing.Load() {
		return e, ErrClosed
	}
	// Pushed before the task is added. The worker cannot miss it, because it needs q.mu to look;
	// and if the list refuses, no task has to be taken out again.
	if !m.scheduled {
		var ok bool
		if e, ok = m.pool.push(&m.strand); !ok {
			return entry{}, ErrClosed
		}
		m.scheduled = true
	}
	return e, nil
}

// addAndUnlock adds t, whether there is room or not; the caller holds q.mu.
func (m *Mailbox) addAndUnlock(t Task, place *ticket) error {
	e, err := m.scheduleLocked()
	if err == nil {
		m.q.putLocked(t, place)
	}
	m.q.mu.Unlock()
	// A worker is woken after the unlock, as it would wait for this lock first of all.
	e.tell()
	return err
}

func (m *Mailbox) addAllAndUnlock(ts []Task) error {
	e, err := m.scheduleLocked()
	if err == nil {
		m.q.putAllLocked(ts)
	}
	m.q.mu.Unlock()
	e.tell()
	return err
}

// Post adds all tasks, in order and with nothing between them, or none: it returns nil, [ErrFull],
// [ErrNilTask] or [ErrClosed], and never blocks. A batch costs one lock and at most one wakeup. An
// empty mailbox takes a batch of any size.
func (m *Mailbox) Post(ts ...Task) error {
	if err := checkAll(ts); err != nil {
		return err
	}
	if len(ts) == 0 {
		return nil
	}
	q := &m.q
	q.mu.Lock()
	closed := m.pool.c.closing.Load()
	// An empty mailbox takes any number: a batch larger than the limit could otherwise never be
	// posted.
	if !closed && q.lenLocked() > 0 && q.roomLocked() < len(ts) {
		q.mu.Unlock()
		return ErrFull
	}
	// Also if closed: it finds that out again, and has the one place that returns ErrClosed.
	return m.addAllAndUnlock(ts)
}

// checkAll refuses nil tasks.
func checkAll(ts []Task) error {
	for _, t := range ts {
		if t == nil {
			return ErrNilTask
		}
	}
	return nil
}

// Submit adds t and waits for room if there is none; producers that wait are let in one by one,
// first come, first served. It returns nil, the cause of ctx, or [ErrClosed]. A task of this pool
// is not made to wait.
func (m *Mailbox) Submit(ctx context.Context, t Task) error {
	if t == nil {
		return ErrNilTask
	}
	return m.submit(ctx, t, nil)
}

func (m *Mailbox) submit(ctx context.Context, t Task, place *ticket) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.q.mu.Lock()
	return m.submitAndUnlock(ctx, t, place)
}

// TrySubmit adds t if there is room. It never blocks and returns nil, [ErrFull] or [ErrClosed].
func (m *Mailbox) TrySubmit(t Task) error {
	if t == nil {
		return ErrNilTask
	}
	m.q.mu.Lock()
	return m.trySubmitAndUnlock(t)
}

// Len returns how many tasks wait, without those that a worker has taken along.
func (m *Mailbox) Len() int {
	m.q.mu.Lock()
	defer m.q.mu.Unlock()
	return m.q.lenLocked()
}

// submitAndUnlock is submit by a caller that holds q.mu.
func (m *Mailbox) submitAndUnlock(ctx context.Context, t Task, place *ticket) error {
	q, o := &m.q, m.pool
	if !q.fullLocked() || o.c.closing.Load() {
		return m.addAndUnlock(t, place)
	}
	w := m.line.add(&o.spare, t, place)
	q.mu.Unlock()
	// Asked while in line: the usual answer is no, and finding it out takes longer than many waits.
	if o.c.inside() {
		q.mu.Lock()
		// Under q.mu, so that the sweep of unused keys cannot remove the mailbox between leaving
		// the line and adding the task.
		if m.line.leave(w) {
			w.release(&o.spare)
			return m.addAndUnlock(t, place)
		}
		q.mu.Unlock()
	}
	return m.line.await(ctx, o.c.stop, &o.spare, w)
}

// SubmitN adds tasks in order, as many as fit under one lock, and waits for room as Submit does. It
// returns how many were accepted, and the error that kept it from accepting the rest. If one of
// them is nil it accepts none.
func (m *Mailbox) SubmitN(ctx context.Context, ts ...Task) (int, error) {
	if err := checkAll(ts); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if len(ts) == 0 {
		return 0, nil
	}
	m.q.mu.Lock()
	return m.submitNAndUnlock(ctx, ts)
}

// submitNAndUnlock is SubmitN of at least one task by a caller that holds q.mu.
func (m *Mailbox) submitNAndUnlock(ctx context.Context, ts []Task) (n int, err error) {
	for n < len(ts) {
		if n > 0 {
			m.q.mu.Lock()
		}
		// At least one per turn, so that the loop ends: where there is no room that one waits in
		// line.
		k := 1
		if room := m.q.roomLocked(); room > 0 {
			k = min(room, len(ts)-n)
			err = m.addAllAndUnlock(ts[n : n+k])
		} else {
			err = m.submitAndUnlock(ctx, ts[n], nil)
		}
		if err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// trySubmitAndUnlock is TrySubmit by a caller that holds q.mu.
func (m *Mailbox) trySubmitAndUnlock(t Task) error {
	if m.q.fullLocked() && !m.pool.c.closing.Load() {
		m.q.mu.Unlock()
		return ErrFull
	}
	return m.addAndUnlock(t, nil)
}

// displaceAndUnlock adds t; if there is no room, it takes the oldest waiting task out. The caller
// holds q.mu.
func (m *Mailbox) displaceAndUnlock(t Task) (old Task, err error) {
	q := &m.q
	if !q.fullLocked() || m.pool.c.closing.Load() {
		return nil, m.addAndUnlock(t, nil)
	}
	old, _ = q.replaceLocked(t) // there is something in it, so it is scheduled
	q.mu.Unlock()
	return old, nil
}

// runBatch runs a batch of tasks on the worker that owns r, and reports whether there are more. If
// one panics, runBatch is called again and goes on behind it.
func (m *Mailbox) runBatch(r *strandRunner) (more bool) {
	b, q, c := r.batch, &m.q, &m.pool.c
	// mid is set when the tasks are in the batch. After a panic the worker comes back here, and
	// must go on with that batch before it takes more.
	if !r.mid {
		q.mu.Lock()
		// The first is claimed by taking it out of the queue, so that a lone task never touches
		// the batch.
		first, ok := q.popOneLocked()
		if ok {
			r.w.claim()
		}
		// The rest goes through the batch under this one lock. A mailbox that went on as long as it
		// has tasks would never give way to other keys.
		if q.lenLocked() > 0 {
			b.fill(q, batchLen-1)
		}
		q.unlock()
		r.mid = true
		if ok {
			r.w.begin()
			first()
			c.resetLabels()
		}
	}
	// One claim each and not one for all: if a task blocks, the end of the pool can still take back
	// those behind it.
	for t, ok := b.take(); ok; t, ok = b.take() {
		t()
		c.resetLabels()
	}
	r.mid = false
	q.mu.Lock()
	// Under the lock under which the queue was found empty. With an atomic flag a producer could
	// add a task between the look and the store, see scheduled, and wake no worker.
	m.scheduled = q.lenLocked() > 0
	more = m.scheduled
	q.mu.Unlock()
	return more
}

// drain removes and returns all tasks; the pool has been told to stop.
func (m *Mailbox) drain() []Task { return m.q.drain() }
