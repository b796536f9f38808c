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

	admin sync.Mutex // moving strands between lists against the end of the pool

	// left has tasks of mailboxes that were running when the pool was told to stop, and wanted to go on.
	leftMu sync.Mutex
	left   []Task
}

// runList is an intrusive list of strands that wait for a worker, in two parts: whoever wakes a strand pushes it to in,
// a stack, with one compare-and-swap; workers take from out, under a lock, and a worker that finds out empty turns over
// what is in. So the two sides meet in one word, once for many strands.
type runList struct {
	// in is the strand pushed last, linked by next to those before, or shut once the pool is closing. Without mu it
	// only grows.
	in atomic.Pointer[Strand]
	_  [64]byte

	some    atomic.Bool // out has a strand, for looking without the lock
	mu      sync.Mutex
	first   *Strand // of out
	last    *Strand
	aborted bool // the pool has been told to stop: out takes no more
	_       [64]byte
}

// shut stands in runList.in of a list that takes no strand that was idle. Those that go on running, or waited already, are
// added to out.
var shut Strand

// runner is what a worker of Ordered carries.
type runner struct {
	run   *Strand                // in progress; only its worker looks
	cur   atomic.Pointer[Strand] // the last one it took, set under the lock of the list that it came from
	batch batch[Task]
	mid   bool // the mailbox in progress has had its batch
	turn  uint
}

// NewOrdered returns a pool with at most cfg.Workers workers; zero means no limit. It panics if cfg.Policy is
// CallerRuns or Spawn, which cannot keep order.
func NewOrdered(cfg Config) *Ordered {
	cfg = cfg.filled(noLimit)
	o := new(Ordered)
	o.c.boundless = true
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
	o.c.looks = 2
	o.c.tracked = true
	o.c.init(cfg, o)
}

// seat returns the list of a new strand or owner's mailbox.
func (o *Ordered) seat() uint32 { return o.seats.Add(1) % uint32(len(o.lists)) }

// entry says where a strand was pushed to. Whoever pushed calls tell, without a lock. The zero entry is for a strand that
// was not pushed, because it will run anyway.
type entry struct {
	o     *Ordered
	list  int
	width uint32
}

// push adds s, which the caller owns, to its list; false if the pool is closing.
func (o *Ordered) push(s *Strand) (e entry, ok bool) {
	e = entry{o: o, width: o.width.Load()}
	e.list = s.place(e.width)
	return e, o.lists[e.list].push(s)
}

// tell tells a worker.
func (e entry) tell() {
	switch {
	case e.o == nil:
	case e.o.width.Load() != e.width:
		e.o.move(e.list) // Keyed.Resize, which changes width first, may have looked at the list before the push
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
	for s := o.lists[i].clear(false); s != nil; {
		next := s.next
		o.requeue(s) // cannot fail: whoever stops the pool holds admin too
		s = next
	}
}

// requeue puts s, which the caller owns, at the end of the line; false if the pool has been told to stop.
func (o *Ordered) requeue(s *Strand) bool {
	e, ok := o.push(s)
	if ok {
		e.tell()
		return true
	}
	for {
		width := o.width.Load()
		i := s.place(width)
		l := &o.lists[i]
		l.mu.Lock()
		if l.aborted {
			l.mu.Unlock()
			return false
		}
		if o.width.Load() == width {
			s.next = nil
			l.addLocked(s, s)
			l.mu.Unlock()
			o.notify(i)
			return true
		}
		l.mu.Unlock() // Keyed.Resize moves what it finds in the lists after changing width
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

func (l *runList) push(s *Strand) bool {
	for {
		head := l.in.Load()
		if head == &shut {
			return false
		}
		s.next = head
		if l.in.CompareAndSwap(head, s) {
			return true
		}
	}
}

// turnLocked empties in, and returns what it had, oldest first. What is then there is nil, or shut.
func (l *runList) turnLocked(then *Strand) (first, last *Strand) {
	if l.in.Load() == &shut {
		return nil, nil
	}
	last = l.in.Swap(then)
	for s := last; s != nil; {
		next := s.next
		s.next = first
		first, s = s, next
	}
	return first, last
}

// addLocked adds the strands from first to last, linked, to out.
func (l *runList) addLocked(first, last *Strand) {
	if first == nil {
		return
	}
	if l.last != nil {
		l.last.next = first
	} else {
		l.first = first
		l.some.Store(true)
	}
	l.last = last
}

// any reports whether the list has a strand, without a lock. It may overlook those that a worker is turning over, which
// will tell another worker of them as if they were new.
func (l *runList) any() bool {
	head := l.in.Load()
	return head != nil && head != &shut || l.some.Load()
}

// pop takes the first strand for r.
func (l *runList) pop(r *runner) (s *Strand, more bool) {
	if !l.any() {
		return nil, false
	}
	l.mu.Lock()
	if s = l.first; s != nil {
		if l.first = s.next; l.first == nil {
			l.last = nil
			l.some.Store(false)
		}
	} else {
		var last *Strand
		if s, last = l.turnLocked(nil); s != nil {
			if s != last {
				l.addLocked(s.next, last)
			}
		}
	}
	if s != nil {
		s.next = nil
		r.cur.Store(s) // before the lock is given up: whoever stops the pool finds it in the list or here
	}
	l.mu.Unlock()
	return s, l.any()
}

// close refuses strands that were idle; those that wait stay.
func (l *runList) close() {
	l.mu.Lock()
	l.addLocked(l.turnLocked(&shut))
	l.mu.Unlock()
}

// clear empties the list and returns its strands, linked. With abort it takes no more.
func (l *runList) clear(abort bool) *Strand {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aborted = l.aborted || abort
	l.addLocked(l.turnLocked(nil))
	first := l.first
	l.first, l.last = nil, nil
	l.some.Store(false)
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
	if r.run != nil {
		o.resume(r) // its last task panicked; the rest of the batch is here
	}
	for !o.surplus(w) {
		r.turn++
		// Tasks without key come first now and then, so that neither kind starves the other.
		if r.turn%8 == 0 && o.runLoose(w) {
			continue
		}
		if r.run = o.find(w, r); r.run != nil {
			o.resume(r)
			continue
		}
		if !o.runLoose(w) {
			break
		}
	}
	if r.cur.Load() != nil {
		r.cur.Store(nil) // may be the last that keeps it alive
	}
}

// surplus reports whether w is to leave because of Resize. Where workers are pinned, one that leaves may take long to
// finish its task, and those that stay are the only ones for their keys: they go on meanwhile.
func (o *Ordered) surplus(w *worker) bool {
	return o.c.over.Load() && (!o.c.pinned || w.slot >= int(o.width.Load()))
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

// resume runs the strand that r has taken, and puts it back in line if it wants to go on.
func (o *Ordered) resume(r *runner) {
	s := r.run
	if s.mail != nil {
		more := s.mail.drain(r)
		r.run = nil
		if more {
			o.relist(s)
		}
		return
	}
	s.set(strandRunning)
	more := s.run()
	r.run = nil // before settle, whose drop function may call Goexit: the run has ended
	o.settle(s, more)
}

// settle ends a run of s, which is not that of a mailbox.
func (o *Ordered) settle(s *Strand, more bool) {
	if more || !s.end() {
		s.set(strandQueued)
		o.relist(s)
	}
}

// relist puts s back in line. If the pool has been told to stop, what s has is left.
func (o *Ordered) relist(s *Strand) {
	if o.requeue(s) {
		return
	}
	if s.mail == nil {
		s.set(strandIdle)
		o.discard(s)
		return
	}
	// abandon takes what is in the mailboxes of workers before it takes left; it must find the tasks in one of the two.
	o.leftMu.Lock()
	o.left = append(o.left, o.discard(s)...)
	o.leftMu.Unlock()
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
	if s := r.run; s != nil && s.mail == nil {
		r.run = nil
		o.settle(s, false)
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
		l.mu.Lock()
		for _, x := range []*Strand{l.first, l.in.Load()} {
			for ; x != nil && x != &shut; x = x.next {
				s.Queues[i]++
				if x.mail != nil {
					boxes = append(boxes, x.mail)
				} else {
					s.Queued++
				}
			}
		}
		l.mu.Unlock()
	}
	for _, w := range o.c.enrolled() {
		r := w.local.(*runner)
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

// Shutdown refuses further tasks, lets the workers run those that were accepted, also in owners' mailboxes, and waits
// for the workers to end. If ctx ends before, it takes back the tasks that have not started and returns them with the
// cause of ctx: those of one mailbox in their order. Called from a task of this pool it only begins the shutdown and
// returns [ErrInTask]. Of several calls, one gets the tasks.
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
		o.lists[i].close()
	}
	o.refuse()
	// Before the crew may end: whoever added something may not have told a worker yet.
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

// abandon takes back what has not started. Every such task is in a mailbox whose strand is in a list or with a worker,
// in a worker's batch, in the intake, or in left. Lists come first: a strand leaves a list only for a worker's cur, under the
// list's lock, and cannot come back; then what a worker holds, batches before mailboxes since their tasks are older; then
// left, where workers put what they may not put back.
func (o *Ordered) abandon() []Task {
	left, dropped := o.takeAll()
	o.dropAll(dropped)
	return left
}

// takeAll is abandon up to the drop functions, which are the users': they are called without lock.
func (o *Ordered) takeAll() (left []Task, dropped []*Strand) {
	o.admin.Lock()
	defer o.admin.Unlock()
	var waiting []*Strand // told once all lists refuse
	for i := range o.lists {
		for s := o.lists[i].clear(true); s != nil; {
			next := s.next
			s.next = nil
			waiting = append(waiting, s)
			s = next
		}
	}
	for _, s := range waiting {
		if s.mail != nil {
			left = append(left, s.mail.take()...)
			continue
		}
		s.set(strandIdle)
		dropped = append(dropped, s)
	}
	left = append(left, o.drain()...)
	staff := o.c.enrolled()
	for _, w := range staff {
		left = append(left, w.local.(*runner).batch.close()...)
	}
	for _, w := range staff {
		if s := w.local.(*runner).cur.Load(); s != nil && s.mail != nil {
			left = append(left, s.mail.take()...)
		}
	}
	o.c.end()
	return append(left, o.takeLeft()...), dropped
}

// dropAll tells strands that they will not run, all of them even if a drop function calls Goexit.
func (o *Ordered) dropAll(dropped []*Strand) {
	defer func() {
		if len(dropped) > 0 {
			o.dropAll(dropped)
		}
	}()
	for len(dropped) > 0 {
		s := dropped[0]
		dropped = dropped[1:]
		o.discard(s)
	}
}

func (o *Ordered) takeLeft() []Task {
	o.leftMu.Lock()
	defer o.leftMu.Unlock()
	left := o.left
	o.left = nil
	return left
}
