// SPDX-License-Identifier: Apache-2.0

package taskpool

import "context"

// Keyed sends each key to one worker: tasks of a key run in order, and so do all tasks of all keys
// that share the worker. A slow task therefore delays every key of its worker, also while other
// workers are idle; [Ordered] does not have that weakness. In return the same key
// always meets the same worker, and its caches.
//
// Keys are hashed to a fixed number of queues (Config.Queues), queues to workers. With [StringKey]
// and [BytesKey] the queue is the same in every process. Create it with [NewKeyed]; all methods may
// be called from any goroutine.
type Keyed struct {
	o     Ordered
	boxes []*Mailbox
}

// maxKeyed bounds the memory of a pool whose number of workers was meant as no limit.
const maxKeyed = 1 << 14

// NewKeyed returns a pool of cfg.Workers workers with queues of their own. It panics if cfg.Policy
// is CallerRuns or Spawn, which cannot keep order.
func NewKeyed(cfg Config) *Keyed {
	cfg = cfg.filled(procs())
	if cfg.Queues <= 0 {
		// More queues than workers, so that Resize can spread keys over more workers later without
		// moving a key to another queue.
		cfg.Queues = 4 * min(cfg.Workers, maxKeyed)
	}
	// A worker without a queue would never have work.
	cfg.Workers = min(cfg.Workers, cfg.Queues)
	p := &Keyed{boxes: make([]*Mailbox, cfg.Queues)}
	p.o.init(cfg, cfg.Queues)
	// List i belongs to worker i, and lists beyond the number of workers are unused: a queue with a
	// larger number goes to the list of that number modulo width.
	p.o.width.Store(uint32(cfg.Workers))
	p.o.c.pinned = true
	p.o.c.bySlot = make([]place, cfg.Queues)
	for i := range p.boxes {
		p.boxes[i] = p.o.newMailbox(cfg.QueueLen, uint32(i))
	}
	return p
}

// Queue returns the number of the queue that key belongs to, from 0 to Config.Queues-1. It depends
// on nothing else, and Resize does not change it; the worker is that number modulo the number of
// workers.
func (p *Keyed) Queue(key Key) int { return int(key.mix() >> 32 % uint64(len(p.boxes))) }

func (p *Keyed) box(key Key) *Mailbox { return p.boxes[p.Queue(key)] }

// Submit adds t behind the tasks of key and waits for room in its queue if there is none. It
// returns nil, the cause of ctx, or [ErrClosed]. A task that submits to its own pool is not made to
// wait.
func (p *Keyed) Submit(ctx context.Context, key Key, t Task) error {
	return p.box(key).Submit(ctx, t)
}

// TrySubmit is Submit that never blocks: it returns nil, [ErrFull] or [ErrClosed].
func (p *Keyed) TrySubmit(key Key, t Task) error { return p.box(key).TrySubmit(t) }

// SubmitN adds tasks of one key in order, and waits for room as Submit does. It returns how many
// were accepted, and the error that kept it from accepting the rest. As many as fit are added under
// one lock.
func (p *Keyed) SubmitN(ctx context.Context, key Key, ts ...Task) (int, error) {
	return p.box(key).SubmitN(ctx, ts...)
}

// Go adds t; without room Config.Policy decides. It returns nil, [ErrClosed], or with
// policy Reject [ErrFull].
func (p *Keyed) Go(key Key, t Task) error { return p.o.goTo(p.box(key), t) }

// Do runs t in the order of key and waits for its end, as [Ordered.DoKey] does.
func (p *Keyed) Do(ctx context.Context, key Key, t Task) error {
	return p.o.c.doInOrder(ctx, t, p.box(key).submit)
}

// Resize changes the number of workers, up to Config.Queues. Queues move to other workers whole,
// and none is ever run by two workers at a time: order stays as it was.
func (p *Keyed) Resize(n int) {
	o := &p.o
	// Against the end of the pool: a queue that is between two lists would be found in neither.
	o.admin.Lock()
	defer o.admin.Unlock()
	n = min(o.c.limitFor(n), len(p.boxes))
	// Before the lists are looked at: a goroutine that pushes after reading the old width sees the
	// change in entry.tell, and moves the queue.
	o.width.Store(uint32(n))
	o.c.resize(n)
	// All lists and not only those out of use: modulo another number nearly every queue has another
	// worker.
	for i := range o.lists {
		o.moveLocked(i)
	}
}

// Stats returns a snapshot; Queues has one entry for each queue, the number of its tasks.
func (p *Keyed) Stats() Stats {
	s := p.o.Stats()
	// Those of the lists would count runnable queues, and say nothing of how long they are.
	s.Queues = make([]int, len(p.boxes))
	for i, m := range p.boxes {
		m.q.mu.Lock()
		s.Queues[i] = m.q.lenLocked()
		s.Accepted += m.q.accepted
		m.q.mu.Unlock()
	}
	return s
}

// Stopped returns a channel that is closed when no further task will start.
func (p *Keyed) Stopped() <-chan struct{} { return p.o.Stopped() }

// Shutdown drains the pool as [Ordered.Shutdown] does.
func (p *Keyed) Shutdown(ctx context.Context) ([]Task, error) { return p.o.Shutdown(ctx) }

// Close ends the pool without drain as [Ordered.Close] does.
func (p *Keyed) Close() error { return p.o.Close() }
