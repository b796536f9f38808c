// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"sync"
	"sync/atomic"
)

var _ Pool = (*Ordered)(nil)

// Ordered runs tasks of the same key one at a time and in order, and lets any idle worker serve any key: what workers
// steal from each other is not a task but a key's [Mailbox]. A slow key delays only itself while a worker is free or may
// be started. A mailbox runs a bounded batch and goes to the end of the line again. A key costs memory while it has
// tasks and for up to one and a half idle timeouts after.
//
// Tasks have keys (SubmitKey), or an owner that holds a mailbox (NewMailbox), or neither (Submit, TrySubmit, SubmitN and
// Go are as for [Shared]: any order, beside any other). It is also the home of every [Strand]. Create it with
// [NewOrdered]; all methods may be called from any goroutine.
type Ordered struct {
	intake[Task] // of tasks without key
	lists        []runList
	width        atomic.Uint32 // lists in use; fewer than all only in Keyed
	seats        atomic.Uint32 // handed out so far, see seat
	keys         keyMap
	limit        int

	admin sync.Mutex // Keyed.Resize against the end of the pool

	// left has tasks of mailboxes that were running when the pool was told to stop, and wanted to go on.
	leftMu sync.Mutex
	left   []Task
}

// runList is an intrusive list of strands that wait for a worker, in two parts with a lock each: whoever wakes a strand
// adds it to in, and a worker that finds out empty moves there all that is in. So the two sides meet at one lock once
// for many strands. Where both locks are needed, out's comes first.
type runList struct {
	in      chain
	closed  bool // refuses strands that were idle; guarded by in.mu
	aborted bool // refuses all; guarded by in.mu
	_       [64]byte
	out     chain
	_       [64]byte
}

// chain is a list of strands linked by Strand.next.
type chain struct {
	some atomic.Bool // n > 0, for looking without the lock

	mu    sync.Mutex
	first *Strand
	last  *Strand
	n     int
}

// runner is what a worker of Ordered carries.
type runner struct {
	cur   atomic.Pointer[Strand] // set under the lock of the list it came from
	batch batch[Task]
	mid   bool // the mailbox in progress has handed out its batch
	more  bool // what it will answer
	turn  uint
}

// NewOrdered returns a pool with at most cfg.Workers workers; zero means no limit. It panics if cfg.Policy is
// CallerRuns or Spawn, which cannot keep order.
func NewOrdered(cfg Config) *Ordered {
	cfg = cfg.filled(noLimit)
	o := new(Ordered)
	o.init(cfg, min(cfg.Workers, max(8, 4*procs()), maxBatchers))
	return o
}

func (o *Ordered) init(cfg Config, lists int) {
	if cfg.Policy == CallerRuns || cfg.Policy == Spawn {
		panic("taskpool: a pool that keeps order cannot have policy CallerRuns or Spawn")
	}
	o.lists = make([]runList, lists)
	o.width.Store(uint32(lists))
	o.limit = cfg.QueueLen
	o.open(1, cfg.QueueLen, pickFirst)
	o.task = func(t Task) Task { return t }
	o.keys.init()
	o.c.init(cfg, o)
}

// seat returns the list of a new strand or owner's mailbox.
func (o *Ordered) seat() uint32 { return o.seats.Add(1) % uint32(len(o.lists)) }

// entry is a place that is kept for a strand at the end of a list, whose producers' lock is held until enter. The zero
// entry is for a strand that needs none, because it will run anyway.
type entry struct {
	list *runList
	i    int
	s    *Strand
}

// reserve keeps a place for an idle strand. done is false if it was not idle any more.
func (o *Ordered) reserve(s *Strand) (e entry, done bool, err error) {
	l, i := o.lockList(s)
	if l.closed {
		l.in.mu.Unlock()
		return e, true, ErrClosed
	}
	if !s.state.CompareAndSwap(strandIdle, strandQueued) {
		l.in.mu.Unlock()
		return e, false, nil
	}
	return entry{l, i, s}, true, nil
}

// enter puts the strand into its place and tells a worker.
func (e entry) enter() {
	if e.list == nil {
		return
	}
	e.list.in.addLocked(e.s)
	e.list.in.mu.Unlock()
	e.s.pool.notify(e.i)
}

// lockList locks the producers' end of the list that s belongs to, and returns the list.
func (o *Ordered) lockList(s *Strand) (*runList, int) {
	for {
		width := o.width.Load()
		i := int(s.home)
		if i >= int(width) {
			i %= int(width)
		}
		l := &o.lists[i]
		l.in.mu.Lock()
		if o.width.Load() == width {
			return l, i
		}
		l.in.mu.Unlock() // Keyed.Resize moves what it finds in the lists after changing width
	}
}

// notify tells a worker that list i has something.
func (o *Ordered) notify(i int) {
	if o.c.pinned {
		o.c.notifySlot(i)
		return
	}
	o.c.notify()
}

func (c *chain) addLocked(s *Strand) {
	s.next = nil
	if c.last != nil {
		c.last.next = s
	} else {
		c.first = s
	}
	c.last = s
	c.n++
	if c.n == 1 {
		c.some.Store(true)
	}
}

// takeLocked empties the chain and returns its first strand.
func (c *chain) takeLocked() *Strand {
	s := c.first
	c.first, c.last, c.n = nil, nil, 0
	c.some.Store(false)
	return s
}

// any reports whether the list has a strand, without a lock. In this order, because a strand that moves is in both for a
// moment, and never in neither.
func (l *runList) any() bool { return l.in.some.Load() || l.out.some.Load() }

// pop takes the first strand for r.
func (l *runList) pop(r *runner) (s *Strand, more bool) {
	if !l.any() {
		return nil, false
	}
	l.out.mu.Lock()
	if l.out.first == nil {
		l.in.mu.Lock()
		if l.in.first != nil {
			l.out.first, l.out.last, l.out.n = l.in.first, l.in.last, l.in.n
			l.out.some.Store(true)
			l.in.takeLocked()
		}
		l.in.mu.Unlock()
	}
	if s = l.out.first; s != nil {
		l.out.first = s.next
		s.next = nil
		if l.out.n--; l.out.n == 0 {
			l.out.last = nil
			l.out.some.Store(false)
		}
		r.cur.Store(s)
		// Before the lock is given up, so that nobody takes a strand that has left the list for one in it.
		// Swap rather than Store: the run sees what each Wake saw.
		s.state.Swap(strandRunning)
	}
	more = l.out.n > 0 || l.in.some.Load()
	l.out.mu.Unlock()
	return s, more
}

// clear empties the list and returns its strands, linked. With abort it refuses strands from now on.
func (l *runList) clear(abort bool) *Strand {
	l.out.mu.Lock()
	defer l.out.mu.Unlock()
	l.in.mu.Lock()
	defer l.in.mu.Unlock()
	l.aborted = l.aborted || abort
	last := l.out.last
	first := l.out.takeLocked()
	if rest := l.in.takeLocked(); first == nil {
		first = rest
	} else {
		last.next = rest
	}
	return first
}

func (o *Ordered) attach(w *worker) {
	w.local = new(runner)
	o.c.enrollLocked(w)
}

func (o *Ordered) pending(w *worker) bool {
	if o.c.pinned {
		return o.lists[w.slot].any()
	}
	for i := range o.lists {
		if o.lists[i].any() {
			return true
		}
	}
	return o.some()
}

func (o *Ordered) work(w *worker) {
	r := w.local.(*runner)
	if s := r.cur.Load(); s != nil {
		o.resume(r, s) // its last task panicked; the rest of its batch is here
	}
	for !o.c.over.Load() {
		r.turn++
		// Tasks without key come first now and then, so that neither kind starves the other.
		if r.turn%8 == 0 && o.runLoose(w) {
			continue
		}
		if s := o.find(w, r); s != nil {
			o.resume(r, s)
			continue
		}
		if !o.runLoose(w) {
			return
		}
	}
}

// find takes a strand, from the worker's own list first.
func (o *Ordered) find(w *worker, r *runner) *Strand {
	if o.c.pinned {
		s, _ := o.lists[w.slot].pop(r)
		return s
	}
	home := w.slot % len(o.lists)
	for i := range o.lists {
		j := home + i
		if j >= len(o.lists) {
			j -= len(o.lists)
		}
		if s, more := o.lists[j].pop(r); s != nil {
			if i > 0 {
				w.steals.Add(1)
			}
			o.c.found(w, more)
			return s
		}
	}
	return nil
}

func (o *Ordered) runLoose(w *worker) bool {
	q := &o.queues[0]
	if !q.some.Load() {
		return false
	}
	q.mu.Lock()
	t, ok := q.popOneLocked()
	more := q.n > 0
	q.unlock()
	if !ok {
		return false
	}
	o.c.found(w, more)
	t()
	return true
}

// resume runs s, which r has taken, and puts it back in line if it wants to go on.
func (o *Ordered) resume(r *runner, s *Strand) {
	var more bool
	if s.mail != nil {
		more = s.mail.drain(r)
	} else {
		more = s.run()
	}
	o.settle(r, s, more)
}

// settle ends a run of s.
func (o *Ordered) settle(r *runner, s *Strand, more bool) {
	if !more && s.state.CompareAndSwap(strandRunning, strandIdle) {
		r.cur.Store(nil)
		return
	}
	l, i := o.lockList(s)
	if l.aborted {
		s.state.Store(strandIdle)
		l.in.mu.Unlock()
		// abandon may have looked at this worker before or after; what it did not take goes to left first.
		if left := o.discard(s); len(left) > 0 {
			o.leftMu.Lock()
			o.left = append(o.left, left...)
			o.leftMu.Unlock()
		}
		r.cur.Store(nil)
		return
	}
	s.state.Swap(strandQueued)
	entry{l, i, s}.enter()
	r.cur.Store(nil)
}

// discard tells a strand that it will not run, and returns the tasks of a mailbox.
func (o *Ordered) discard(s *Strand) []Task {
	if s.mail != nil {
		return s.mail.take()
	}
	if s.drop != nil {
		o.c.guarded(s.drop)
	}
	return nil
}

// crashed is called when a run of a strand, a task of a mailbox or a task without key did not return. A mailbox goes on
// with the next task of its batch, see work.
func (o *Ordered) crashed(w *worker) {
	r := w.local.(*runner)
	if s := r.cur.Load(); s != nil && s.mail == nil {
		o.settle(r, s, false)
	}
}

func (o *Ordered) trim() bool {
	o.intake.trim()
	return o.keys.sweep()
}

// SubmitKey adds t to the mailbox of key: it runs after every task of that key that was accepted before, and never
// beside one. It waits for room in that mailbox if there is none, and returns nil, the cause of ctx, or [ErrClosed]. A
// task that submits to its own pool is not made to wait.
func (o *Ordered) SubmitKey(ctx context.Context, key Key, t Task) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return o.keys.lock(o, key).submitLocked(ctx, t)
}

// TrySubmitKey is SubmitKey that never blocks: it returns nil, [ErrFull] or [ErrClosed].
func (o *Ordered) TrySubmitKey(key Key, t Task) error {
	return o.keys.lock(o, key).trySubmitLocked(t)
}

// GoKey adds t to the mailbox of key; without room it does what Config.Policy says. It returns nil, [ErrClosed], or
// with policy Reject [ErrFull].
func (o *Ordered) GoKey(key Key, t Task) error {
	if o.c.cfg.Policy == Block {
		return o.SubmitKey(context.Background(), key, t)
	}
	return o.goLocked(o.keys.lock(o, key), t)
}

// SubmitKeyN adds tasks of one key in order, as many as fit under one lock, and waits for room as SubmitKey does. It
// returns how many were accepted, and the error that kept it from accepting the rest.
func (o *Ordered) SubmitKeyN(ctx context.Context, key Key, ts ...Task) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if len(ts) == 0 {
		return 0, nil
	}
	return o.keys.lock(o, key).submitNLocked(ctx, ts)
}

// goTo does for m what Config.Policy says.
func (o *Ordered) goTo(m *Mailbox, t Task) error {
	if o.c.cfg.Policy == Block {
		return m.Submit(context.Background(), t)
	}
	m.q.mu.Lock()
	return o.goLocked(m, t)
}

// goLocked is goTo without the policy Block; it unlocks m.q.mu.
func (o *Ordered) goLocked(m *Mailbox, t Task) error {
	if o.c.cfg.Policy == Reject {
		return m.trySubmitLocked(t)
	}
	old, err := m.displaceLocked(t)
	if old != nil {
		o.drops.Add(1)
		o.c.cfg.OnDrop(old)
	}
	return err
}

// Do runs t, without key, and waits for its end, as Do of [Shared] does.
func (o *Ordered) Do(ctx context.Context, t Task) error {
	return o.c.do(ctx, t, o.Submit)
}

// DoKey runs t in the order of key and waits for its end. Errors are those of Do. A task that calls DoKey with its own
// key waits for itself until ctx ends; called from a task of this pool with a ctx that cannot end, DoKey returns
// [ErrInTask] and t does not run.
func (o *Ordered) DoKey(ctx context.Context, key Key, t Task) error {
	return o.c.doInOrder(ctx, t, func(ctx context.Context, t Task) error { return o.SubmitKey(ctx, key, t) })
}

// Resize changes the largest number of workers, as Config.Workers sets it.
func (o *Ordered) Resize(n int) { o.c.resize(o.c.workers(n)) }

// Stats returns a snapshot.
func (o *Ordered) Stats() Stats {
	s := o.c.stats()
	s.Queues = make([]int, len(o.lists))
	var boxes []*Mailbox // a mailbox's lock comes before the list's
	for i := range o.lists {
		l := &o.lists[i]
		l.out.mu.Lock()
		l.in.mu.Lock()
		s.Queues[i] = l.out.n + l.in.n
		for _, x := range []*Strand{l.out.first, l.in.first} {
			for ; x != nil; x = x.next {
				if x.mail != nil {
					boxes = append(boxes, x.mail)
				} else {
					s.Queued++
				}
			}
		}
		l.in.mu.Unlock()
		l.out.mu.Unlock()
	}
	for _, w := range *o.c.roster.Load() {
		r := w.local.(*runner)
		s.Queued += r.batch.len()
		if x := r.cur.Load(); x != nil && x.mail != nil {
			boxes = append(boxes, x.mail)
		}
	}
	for _, m := range boxes {
		s.Queued += m.Len()
	}
	o.count(&s)
	s.Accepted += o.keys.accepted()
	return s
}

// Stopped returns a channel that is closed when no further task will start.
func (o *Ordered) Stopped() <-chan struct{} { return o.c.ended }

// Shutdown refuses further tasks, lets the workers run those that were accepted, also in owners' mailboxes, and waits
// for the workers to end. If ctx ends before, it takes back the tasks that have not started and returns them with the
// cause of ctx: those of one mailbox in their order. Called from a task of this pool (without limit of workers: of any
// pool of this package) it only begins the shutdown and returns [ErrInTask]. Of several calls, one gets the tasks.
func (o *Ordered) Shutdown(ctx context.Context) ([]Task, error) {
	o.begin()
	if o.c.inside() {
		return nil, ErrInTask
	}
	err := o.c.wait(ctx)
	if err == nil {
		return nil, nil
	}
	return o.abandon(), err
}

// Close is Shutdown without drain: tasks that have not started never will. They go to Config.OnDrop, if set, and are
// returned in a *[LeftError]. It waits for those that are running, except when called from a task, as Shutdown.
// Further calls wait too and return nil.
func (o *Ordered) Close() error {
	o.begin()
	left := o.abandon()
	if !o.c.inside() {
		_ = o.c.wait(context.Background()) // cannot fail
		left = append(left, o.takeLeft()...)
	}
	if o.c.cfg.OnDrop != nil {
		for _, t := range left {
			o.c.cfg.OnDrop(t)
		}
	}
	if len(left) > 0 {
		return &LeftError[Task]{Left: left}
	}
	return nil
}

func (o *Ordered) begin() {
	for i := range o.lists {
		l := &o.lists[i]
		l.in.mu.Lock()
		l.closed = true
		l.in.mu.Unlock()
	}
	o.refuse()
	o.c.close()
}

// abandon takes back what has not started. Every such task is in a mailbox whose strand is in a list or with a worker,
// in a worker's batch, in the intake, or in left. Lists come first: a strand leaves a list only for a worker's cur, under the
// list's lock, and cannot come back; then what workers hold; then left, where workers put what they may not put back.
// All batches come before all mailboxes: a worker that has put a strand back in line forgets it a moment later, when
// another may already have a batch of its tasks, which are the older ones.
func (o *Ordered) abandon() []Task {
	o.admin.Lock()
	defer o.admin.Unlock()
	var left []Task
	var dropped []*Strand // told once all lists refuse
	for i := range o.lists {
		for s := o.lists[i].clear(true); s != nil; {
			next := s.next
			s.next = nil
			dropped = append(dropped, s)
			s = next
		}
	}
	for _, s := range dropped {
		s.state.Store(strandIdle)
		left = append(left, o.discard(s)...)
	}
	left = append(left, o.drain()...)
	var current []*Strand
	for _, w := range *o.c.roster.Load() {
		r := w.local.(*runner)
		if s := r.cur.Load(); s != nil && s.mail != nil {
			current = append(current, s)
		}
		left = append(left, r.batch.close()...)
	}
	for _, s := range current {
		left = append(left, s.mail.take()...)
	}
	o.c.end()
	return append(left, o.takeLeft()...)
}

func (o *Ordered) takeLeft() []Task {
	o.leftMu.Lock()
	defer o.leftMu.Unlock()
	left := o.left
	o.left = nil
	return left
}
