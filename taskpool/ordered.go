// SPDX-License-Identifier: Apache-2.0

package taskpool

import (
	"context"
	"sync"
	"sync/atomic"
)

var _ Pool = (*Ordered)(nil)

// Ordered runs tasks of the same key one at a time and in order, and lets any idle worker serve any
// key: workers take from each other whole mailboxes (see [Mailbox]), never single tasks. A slow key
// delays only itself while a worker is free or may be started, whatever the load: workers go round
// all lists of mailboxes that wait, so that the one that has waited longest runs after at most one
// turn of each that waited when it came, and of those that came meanwhile in another list. A turn
// is a bounded batch of tasks; then the mailbox goes to the end again. A key costs memory while it
// has tasks and for up to one and a half idle timeouts after.
//
// Tasks have keys (SubmitKey), or an owner that holds a mailbox (NewMailbox), or neither (Submit,
// TrySubmit, SubmitN and Go are as for [Shared]: any order, beside any other). It is also the home
// of every [Strand]. Create it with [NewOrdered]; all methods may be called from any goroutine.
type Ordered struct {
	intake[Task] // of tasks without key
	lists        []runList
	width        atomic.Uint32 // lists in use; fewer than all only in Keyed
	homes        atomic.Uint32 // handed out so far, see nextHome
	keys         keyMap
	limit        int

	admin sync.Mutex // moving strands between lists against the end of the pool

	// left has the tasks of mailboxes that were running when the pool was told to stop, and that
	// still had tasks after their turn.
	leftMu sync.Mutex
	left   []Task
}

// strandRunner is the part of a worker that belongs to Ordered.
type strandRunner struct {
	w   *worker
	run *Strand // in progress; only its worker looks
	// cur is the last strand it took, set under the lock of the list that it came from.
	cur   atomic.Pointer[Strand]
	batch *batch[Task]
	mid   bool  // the mailbox in progress has had its batch
	home  int   // the list that it began with
	visit visit // the list that it takes from; behind the last one, the tasks without key
	quota int   // how many of those it takes before it goes on
}

// NewOrdered returns a pool with at most cfg.Workers workers; zero means no limit. It panics if
// cfg.Policy is CallerRuns or Spawn, which cannot keep order.
func NewOrdered(cfg Config) *Ordered {
	cfg = cfg.filled(noLimit)
	o := new(Ordered)
	o.c.unlimited = true
	// More lists than processors spread the producers; more than needed would only lengthen the
	// look before a worker parks.
	o.init(cfg, min(cfg.Workers, max(8, 4*procs()), maxLists))
	return o
}

// maxLists bounds the lists that a worker looks through before it parks.
const maxLists = 256

func (o *Ordered) init(cfg Config, lists int) {
	if cfg.Policy == CallerRuns || cfg.Policy == Spawn {
		panic("taskpool: a pool that keeps order cannot have policy CallerRuns or Spawn")
	}
	o.lists = make([]runList, lists)
	o.width.Store(uint32(lists))
	o.limit = cfg.QueueLen
	o.open(1, cfg.QueueLen, pickFirst)
	o.exec = func(t Task) { t() }
	o.task = func(t Task) Task { return t }
	o.keys.init()
	// Measured in getty: two yields save a message 8 %, because the waker often runs on the same
	// processor. With the other kinds they only cost time at the queue's lock.
	o.c.spins = 2
	o.c.tracked = true
	o.c.init(cfg, o)
}

// nextHome returns the list of a new strand or owner's mailbox.
func (o *Ordered) nextHome() uint32 { return o.homes.Add(1) % uint32(len(o.lists)) }

// entry says where a strand was pushed to. The goroutine that pushed calls tell, without a lock.
// The zero entry is for a strand that was not pushed, because it will run anyway.
type entry struct {
	o     *Ordered
	list  int
	width uint32
}

// push adds s, which the caller owns, to its list; false if the pool is closing.
func (o *Ordered) push(s *Strand) (e entry, ok bool) {
	// width is read before the push and again in tell: that is how a Resize in between is noticed
	// without a lock.
	e = entry{o: o, width: o.width.Load()}
	e.list = s.place(e.width)
	return e, o.lists[e.list].push(s)
}

// tell tells a worker.
func (e entry) tell() {
	switch {
	case e.o == nil:
	case e.o.width.Load() != e.width:
		// Keyed.Resize, which changes width first, may have looked at the list before the push.
		e.o.move(e.list)
	default:
		e.o.notify(e.list)
	}
}

// move brings the strands of list i, which is out of use or was for a moment, to where they belong.
func (o *Ordered) move(i int) {
	o.admin.Lock()
	defer o.admin.Unlock()
	o.moveLocked(i)
}

func (o *Ordered) moveLocked(i int) {
	for s := o.lists[i].drain(false); s != nil; {
		// Read first: requeue links s into another list.
		next := s.next
		o.requeue(s) // cannot fail: the end of the pool needs admin too
		s = next
	}
}

// requeue puts s, which the caller owns, at the end of its list; false if the pool has been told to
// stop.
func (o *Ordered) requeue(s *Strand) bool {
	e, ok := o.push(s)
	if ok {
		e.tell()
		return true
	}
	// The list is shut, for strands that were idle. One that goes on is added under the lock.
	for {
		width := o.width.Load()
		i := s.place(width)
		l := &o.lists[i]
		l.mu.Lock()
		// Tasks that were accepted run during a Shutdown. Only when it has given up does a strand
		// end here, and its caller hands its tasks back.
		if l.aborted {
			l.mu.Unlock()
			return false
		}
		if o.width.Load() == width {
			// To the end: others have waited for longer.
			s.next = nil
			l.addLocked(s, s)
			l.mu.Unlock()
			o.notify(i)
			return true
		}
		l.mu.Unlock() // Keyed.Resize moves the strands of all lists after it has changed width
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

func (o *Ordered) attach(w *worker) {
	r := &strandRunner{w: w, batch: newBatch[Task](batchLen), home: w.slot % len(o.lists)}
	// Workers begin at different lists, so that they do not meet at one lock.
	r.visit = visit{at: r.home, arrived: true}
	w.local = r
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
	// Lists first: strands and keyed tasks are the common case.
	return o.some()
}

func (o *Ordered) work(w *worker) {
	r := w.local.(*strandRunner)
	if r.run != nil {
		o.resume(r) // its last task panicked; the rest of the batch is here
	}
	for !o.surplus(w) && o.step(w, r) {
	}
	// Looked at first, because a store is a locked instruction and most workers that come here had
	// nothing to do.
	if r.cur.Load() != nil {
		r.cur.Store(nil) // an idle worker must not keep a session alive
	}
}

// surplus reports whether w is to leave because of Resize. Where workers are pinned, one that
// leaves may take long to finish its task, and those that stay are the only ones for their keys:
// they go on meanwhile.
func (o *Ordered) surplus(w *worker) bool {
	return o.c.over.Load() && (!o.c.pinned || w.slot >= int(o.width.Load()))
}

// step runs the next strand or task in the round of w; false if there is nothing.
func (o *Ordered) step(w *worker, r *strandRunner) bool {
	if o.c.pinned {
		r.visit.arrived = true // there is no other list to go on to
		if s, _ := o.lists[w.slot].pop(&r.visit, &r.cur); s != nil {
			r.run = s
			o.resume(r)
			return true
		}
		return false
	}
	// One place more than there are. The round may begin in the middle of a visit, in which only
	// one generation may be taken: that list is looked at again as one that was just entered.
	for range len(o.lists) + 2 {
		if o.runAt(w, r) {
			return true
		}
		if r.visit.at++; r.visit.at > len(o.lists) {
			r.visit.at = 0
		}
		r.visit.arrived = true
	}
	return false
}

// runAt runs one thing of the place that w is at.
func (o *Ordered) runAt(w *worker, r *strandRunner) bool {
	if r.visit.at == len(o.lists) {
		return o.runUnkeyed(w, r)
	}
	s, more := o.lists[r.visit.at].pop(&r.visit, &r.cur)
	if s == nil {
		return false
	}
	// A list has no owner. Stats counts as stolen a strand that is taken from any list but the one
	// it began with.
	if r.visit.at != r.home {
		w.steals.Add(1)
	}
	// Before the run, which may take long: the next strand must not wait for it if another worker
	// is idle.
	o.c.found(w, more)
	r.run = s
	o.resume(r)
	return true
}

// runUnkeyed runs one of the tasks without key that were there when the worker came to them.
func (o *Ordered) runUnkeyed(w *worker, r *strandRunner) bool {
	q := &o.queues[0]
	if !q.some.Load() {
		return false
	}
	q.lock()
	// As many as wait now. Without a quota a producer that never stops would keep all workers here,
	// and keys would not get their turn.
	if r.visit.arrived {
		r.visit.arrived, r.quota = false, q.lenLocked()
	}
	if r.quota == 0 {
		q.mu.Unlock()
		return false
	}
	t, ok := q.popOneLocked()
	if !ok {
		q.mu.Unlock()
		return false
	}
	r.quota--
	// No batch: the keyed tasks would wait for all of it.
	w.claim()
	more := q.lenLocked() > 0
	q.unlock()
	o.c.found(w, more)
	w.begin()
	t()
	o.c.resetLabels()
	return true
}

// resume runs the strand that r has taken, and puts it back in line if it wants to go on.
func (o *Ordered) resume(r *strandRunner) {
	s := r.run
	if s.mail != nil {
		// r.run stays set while a task runs. If it panics, work comes back here through crashed and
		// goes on with the batch.
		more := s.mail.runBatch(r)
		r.run = nil
		if more {
			o.relist(s)
		}
		return
	}
	if !s.begin() {
		r.run = nil // the pool has been stopped, and s was told
		return
	}
	// begin moved the state from queued to running, so a Wake from here on asks for another run.
	more := s.run()
	o.c.resetLabels()
	// Before settle, whose drop function may call Goexit: the run has ended.
	r.run = nil
	o.settle(r, s, more)
}

// settle ends a run of s, which is not that of a mailbox.
func (o *Ordered) settle(r *strandRunner, s *Strand, more bool) {
	if more || !s.end() {
		// First, so that the end of the pool does not take it for a strand that has yet to begin:
		// if it may not go on, this worker tells it.
		r.cur.Store(nil)
		// Before relist: as soon as s is in a list another worker may take it, and expects this
		// state.
		s.set(strandQueued)
		o.relist(s)
	}
}

// relist puts s back in line. If the pool has been told to stop, the tasks of s go to left.
func (o *Ordered) relist(s *Strand) {
	if o.requeue(s) {
		return
	}
	if s.mail == nil {
		// cancel decides between this worker and the end of the pool, so that the drop function is
		// called once.
		if s.cancel(nil) {
			o.tellDropped(s)
		}
		return
	}
	// abandon empties the mailboxes of workers before it takes left; it must find the
	// tasks in one of the two.
	o.leftMu.Lock()
	o.left = append(o.left, s.mail.drain()...)
	o.leftMu.Unlock()
}

// tellDropped tells a strand that it will not run.
func (o *Ordered) tellDropped(s *Strand) {
	if s.drop != nil {
		o.c.guarded(s.drop)
	}
}

// crashed is called when a run of a strand, a task of a mailbox or a task without key did not
// return. A mailbox goes on with the next task of its batch, see work.
func (o *Ordered) crashed(w *worker) {
	r := w.local.(*strandRunner)
	// A run that panicked cannot have asked for more. If it was woken meanwhile settle sees that.
	if s := r.run; s != nil && s.mail == nil {
		r.run = nil
		o.settle(r, s, false)
	}
}

func (o *Ordered) trim() bool {
	o.intake.trim()
	return o.keys.sweep()
}

// SubmitKey adds t to the mailbox of key: it runs after every task of that key that was accepted
// before, and never beside one. It waits for room in that mailbox if there is none, and returns
// nil, the cause of ctx, or [ErrClosed]. A task that submits to its own pool is not made to wait.
func (o *Ordered) SubmitKey(ctx context.Context, key Key, t Task) error {
	if t == nil {
		return ErrNilTask
	}
	return o.submitKey(ctx, key, t, nil)
}

func (o *Ordered) submitKey(ctx context.Context, key Key, t Task, place *ticket) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// The mailbox comes back locked. If it did not, the sweep could remove it before the task is
	// in, and a second mailbox of the key would run beside it.
	return o.keys.lock(o, key).submitAndUnlock(ctx, t, place)
}

// TrySubmitKey is SubmitKey that never blocks: it returns nil, [ErrFull] or [ErrClosed].
func (o *Ordered) TrySubmitKey(key Key, t Task) error {
	if t == nil {
		return ErrNilTask
	}
	return o.keys.lock(o, key).trySubmitAndUnlock(t)
}

// GoKey adds t to the mailbox of key; without room Config.Policy decides. It returns nil,
// [ErrClosed], or with policy Reject [ErrFull].
func (o *Ordered) GoKey(key Key, t Task) error {
	if t == nil {
		return ErrNilTask
	}
	if o.c.cfg.Policy == Block {
		return o.SubmitKey(context.Background(), key, t)
	}
	return o.goAndUnlock(o.keys.lock(o, key), t)
}

// SubmitKeyN adds tasks of one key in order, as many as fit under one lock, and waits for room as
// SubmitKey does. It returns how many were accepted, and the error that kept it from accepting the
// rest.
func (o *Ordered) SubmitKeyN(ctx context.Context, key Key, ts ...Task) (int, error) {
	if err := checkAll(ts); err != nil {
		return 0, err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if len(ts) == 0 {
		return 0, nil
	}
	return o.keys.lock(o, key).submitNAndUnlock(ctx, ts)
}

// goTo adds t to m as Config.Policy demands.
func (o *Ordered) goTo(m *Mailbox, t Task) error {
	if o.c.cfg.Policy == Block {
		return m.Submit(context.Background(), t)
	}
	if t == nil {
		return ErrNilTask
	}
	m.q.mu.Lock()
	return o.goAndUnlock(m, t)
}

// goAndUnlock is goTo without the policy Block; the caller holds m.q.mu.
func (o *Ordered) goAndUnlock(m *Mailbox, t Task) error {
	if o.c.cfg.Policy == Reject {
		return m.trySubmitAndUnlock(t)
	}
	old, err := m.displaceAndUnlock(t)
	// OnDrop is the user's: never under the lock.
	if old != nil {
		o.drops.Add(1)
		o.drop([]Task{old})
	}
	return err
}

// Do runs t, without key, and waits for its end, as Do of [Shared] does.
func (o *Ordered) Do(ctx context.Context, t Task) error {
	return o.do(ctx, t, o.task, o.submit)
}

// DoKey runs t in the order of key and waits for its end. Errors are those of Do. A task that calls
// DoKey with its own key waits for itself until ctx ends; called from a task of this pool with a
// ctx that cannot end, DoKey returns [ErrInTask] and t does not run.
func (o *Ordered) DoKey(ctx context.Context, key Key, t Task) error {
	return o.c.doInOrder(ctx, t, func(ctx context.Context, t Task, place *ticket) error {
		return o.submitKey(ctx, key, t, place)
	})
}

// Resize changes the largest number of workers, as Config.Workers sets it.
func (o *Ordered) Resize(n int) { o.c.resize(o.c.limitFor(n)) }

// Stats returns a snapshot.
func (o *Ordered) Stats() Stats {
	s := o.c.stats()
	s.Queues = make([]int, len(o.lists))
	var boxes []*Mailbox // a mailbox's lock comes before the list's
	for i := range o.lists {
		o.lists[i].each(func(x *Strand) {
			s.Queues[i]++
			if x.mail != nil {
				boxes = append(boxes, x.mail)
			} else {
				s.Queued++
			}
		})
	}
	// A mailbox that a worker runs is in no list. Between the two looks it may move, so Queued is
	// approximate.
	all, _ := o.c.every()
	for _, w := range all {
		r := w.local.(*strandRunner)
		s.Queued += r.batch.len()
		if x := r.cur.Load(); x != nil && x.mail != nil {
			boxes = append(boxes, x.mail)
		}
	}
	seen := make(map[*Mailbox]bool, len(boxes)) // a worker may have given back the last one it took
	for _, m := range boxes {
		if !seen[m] {
			seen[m] = true
			s.Queued += m.Len()
		}
	}
	o.count(&s)
	s.Accepted += o.keys.accepted()
	return s
}

// Stopped returns a channel that is closed when no further task will start.
func (o *Ordered) Stopped() <-chan struct{} { return o.c.ended }

// Shutdown refuses further tasks, lets the workers run those that were accepted, also in owners'
// mailboxes, and waits for the workers to end. If ctx ends before, it takes back the tasks that
// have not started and returns them with the cause of ctx: those of one mailbox in their order.
// Called from a task of this pool it only begins the shutdown and returns [ErrInTask]. Of several
// calls, one gets the tasks.
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

// Close is Shutdown without drain: tasks that have not started never will. They go to
// Config.OnDrop, if set, and are returned in a *[LeftError]. It waits for those that are running,
// except when called from a task, as Shutdown. Further calls wait too and return nil.
func (o *Ordered) Close() error {
	o.begin()
	left := o.abandon()
	if !o.c.inside() {
		_ = o.c.wait(context.Background()) // cannot fail
	}
	o.drop(left)
	if len(left) > 0 {
		return &LeftError[Task]{Left: left}
	}
	return nil
}

func (o *Ordered) begin() {
	for i := range o.lists {
		// Lists refuse before the pool is closing: a strand whose Wake saw an open pool and pushed
		// is in a list then, and runs.
		o.lists[i].close()
	}
	o.refuse()
	// Before close: a producer may have pushed and not yet woken a worker. Without workers the pool
	// would count as ended, with the strand in its list.
	for i := range o.lists {
		if o.lists[i].any() {
			o.notify(i)
		}
	}
	if o.some() {
		o.c.notify()
	}
	o.c.close()
}

// abandon takes back the tasks that have not started. Each of them is in a mailbox whose strand is
// in a list or with a worker, in a worker's batch, in the intake, or in left.
func (o *Ordered) abandon() []Task {
	left, dropped := o.drainAll()
	// The users' functions are called without lock: they may stop the pool themselves.
	o.c.guardedEach(len(dropped), func(i int) { o.tellDropped(dropped[i]) })
	return left
}

// drainAll is abandon up to the drop functions.
func (o *Ordered) drainAll() (left []Task, dropped []*Strand) {
	o.admin.Lock()
	defer o.admin.Unlock()
	var waiting []*Strand // told once all lists refuse
	// Lists first. A strand leaves a list only for the cur of a worker, under the lock of the list,
	// and cannot come back to one that was drained.
	for i := range o.lists {
		for s := o.lists[i].drain(true); s != nil; {
			next := s.next
			s.next = nil
			waiting = append(waiting, s)
			s = next
		}
	}
	// Mailboxes are emptied after the loop over the lists, because the lock of a mailbox comes
	// before that of a list.
	for _, s := range waiting {
		switch {
		case s.mail != nil:
			left = append(left, s.mail.drain()...)
		case s.cancel(nil):
			dropped = append(dropped, s)
		}
	}
	left = append(left, o.drain()...)
	all, _ := o.c.every()
	// Batches before mailboxes: the tasks in a batch are older, and the tasks of a mailbox are
	// returned in their order.
	for _, w := range all {
		left = append(left, w.local.(*strandRunner).batch.close()...)
	}
	for _, w := range all {
		r := w.local.(*strandRunner)
		s := r.cur.Load()
		switch {
		case s == nil:
		case s.mail != nil:
			left = append(left, s.mail.drain()...)
		case s.cancel(&r.cur): // taken from its list, and not begun
			dropped = append(dropped, s)
		}
	}
	// No worker finds anything more. left comes last: a worker moves the tasks of its mailbox
	// there, and they must be found in one of the two.
	awaitBegun(all)
	o.c.end()
	return append(left, o.drainLeft()...), dropped
}

func (o *Ordered) drainLeft() []Task {
	o.leftMu.Lock()
	defer o.leftMu.Unlock()
	left := o.left
	o.left = nil
	return left
}
