// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// flushSize is how many queued bytes are offered to the kernel before the turn ends.
const flushSize = 64 << 10

// An outbox is what a session has encoded and not handed to the kernel, and the ways to get it
// there. Sessions of datagrams use its encoder lock only: what is written there is sent, or
// refused, at once.
//
// It has two locks. encMu is held while a package is encoded and queued: it makes the order of
// encoding the order of the wire, and user code runs under it. mu guards the flush token and what
// needs no encoder, for a few instructions at a time. encMu comes before mu. Close takes mu only;
// Stats and a flush try encMu but never wait for it.
type outbox struct {
	s      *session
	queues bool // what is encoded is queued, for a flush to write

	encMu    sync.Mutex
	out      *sendq.Batch  // guarded by encMu: accepted and not taken by a flush
	appended uint64        // guarded by encMu: bytes ever queued
	largest  int           // guarded by encMu: the largest package ever queued
	hint     int           // guarded by encMu: the size that the next package is expected to have
	gone     atomic.Uint64 // bytes ever taken by the kernel, withdrawn or discarded

	writeTimeout atomic.Int64

	mu        sync.Mutex
	changed   sync.Cond     // on mu: the queue fell, was emptied or failed, or the session is ending
	side      *sideQueue    // guarded by mu: made when first needed
	detached  atomic.Uint64 // appended, when a flush last took the queue; changed with mu held
	lookAfter uint64        // guarded by mu: after so many bytes written the clock looks what the peer took
	flushing  bool          // guarded by mu: the flush token; its holder owns the batch it took
	gathering bool          // guarded by mu: the token's holder lets others write before it takes the queue
	gain      int8          // guarded by mu: how much gathering has paid lately
	tries     uint8         // guarded by mu
	finSent   bool          // guarded by mu
	controls  uint64        // guarded by mu: bytes of control frames ever taken by a flush
	refused   error         // guarded by mu: why nothing is accepted any more
}

func (o *outbox) init(s *session, queues bool) {
	o.s, o.queues = s, queues
	o.changed.L = &o.mu
	o.hint = 256
	o.lookAfter = smallBacklog
	o.writeTimeout.Store(nanos(s.opts.WriteTimeout))
}

// A sideQueue is what needs no encoder to be queued. Most sessions never have one.
type sideQueue struct {
	control  []byte          // control frames, and after them the farewell
	late     []byte          // the latest answer for which control had no room
	marks    []*sendq.Waiter // callers of Flush
	line     []*sendq.Waiter // callers that wait for the queue to fall, the first come first
	admitted bool            // one of them may write and has not done so yet
}

// sideLocked returns the side queue.
func (o *outbox) sideLocked() *sideQueue {
	if o.side == nil {
		o.side = new(sideQueue)
	}
	return o.side
}

// writePkg is WritePkg of the session.
func (o *outbox) writePkg(pkg any, timeout time.Duration) (total, sent int, err error) {
	if timeout == 0 {
		total, waiting, err := o.encode(hasty, func() (int, error) { return o.s.proto.encode(pkg, nil) })
		if err != nil {
			o.slowConsumer(err)
			return total, 0, err
		}
		o.afterEncode(waiting)
		return total, total, nil
	}
	if timeout < 0 {
		return o.writeAndWait(patience{timeout: time.Duration(o.writeTimeout.Load()), progress: true}, pkg)
	}
	return o.writeAndWait(patience{timeout: timeout}, pkg)
}

// writePkgContext is WritePkgContext of the session.
func (o *outbox) writePkgContext(ctx context.Context, pkg any) (total, sent int, err error) {
	if ctx.Err() != nil {
		return 0, 0, context.Cause(ctx)
	}
	return o.writeAndWait(patience{time.Duration(o.writeTimeout.Load()), ctx, true}, pkg)
}

// writeRaw queues what is encoded already: one package, or more.
func (o *outbox) writeRaw(one []byte, more [][]byte) (int, error) {
	n, waiting, err := o.encode(hasty, func() (int, error) { return o.s.proto.encodeRaw(one, more) })
	if err != nil {
		o.slowConsumer(err)
		return n, err
	}
	o.afterEncode(waiting)
	return n, nil
}

// slowConsumer applies the policy to a package that was not to wait and could not be queued for
// err.
func (o *outbox) slowConsumer(err error) {
	if err == ErrSessionBlocked && o.s.opts.SlowConsumer == SlowClose {
		o.s.life.fail(err)
	}
}

// flushAll is Flush of the session.
func (o *outbox) flushAll(ctx context.Context) error {
	if !o.queues {
		return nil
	}
	if o.encMu.TryLock() {
		o.unlockEncoder()
	} else if insideEncoder(0) {
		return fmt.Errorf("%w: an encoder flushes a session", ErrBadReader)
	}
	w := o.s.ep.waiters.New()
	if wait, err := o.enqueueMark(w); !wait {
		w.Free()
		return err
	}
	o.flush(wire.Try)
	_, withdrawn, err := o.await(w, patience{ctx: ctx})
	if withdrawn {
		o.forget(w)
	}
	return err
}

// patience is how long a caller waits: for timeout if that is positive, and until ctx ends if there
// is one. With progress, timeout does not limit a package of which a part has left: the clock ends
// the session when its peer takes nothing any more.
type patience struct {
	timeout  time.Duration
	ctx      context.Context
	progress bool
}

func (p patience) done() <-chan struct{} {
	if p.ctx == nil {
		return nil
	}
	return p.ctx.Done()
}

// writeAndWait queues pkg and returns when the kernel has taken it or p is over.
func (o *outbox) writeAndWait(p patience, pkg any) (total, sent int, err error) {
	limit := p.timeout
	var begun time.Time
	as := newcomer
	defer func() {
		if as == admitted { // also after a panic, or the session's end
			o.admitNext()
		}
	}()
	for {
		w := o.s.ep.waiters.New()
		var waiting int
		total, waiting, err = o.encode(as, func() (int, error) { return o.s.proto.encode(pkg, w) })
		if err == nil {
			if as == admitted {
				as = newcomer
				o.admitNext()
			}
			return o.awaitPkg(w, p, total, waiting)
		}
		w.Free()
		if err != ErrSessionBlocked {
			return total, 0, err
		}
		if begun.IsZero() {
			begun = time.Now()
		}
		if as, err = o.awaitRoom(as, p); err != nil {
			return total, 0, err
		}
		if limit > 0 {
			if p.timeout = limit - time.Since(begun); p.timeout <= 0 {
				return total, 0, ErrWriteTimeout
			}
		}
	}
}

// awaitPkg waits for a queued package of total bytes, one of waiting in the queue.
func (o *outbox) awaitPkg(w *sendq.Waiter, p patience, total, waiting int) (int, int, error) {
	if !o.queues {
		w.Free()
		return total, total, nil
	}
	o.offer(waiting >= flushSize)
	sent, withdrawn, err := o.await(w, p)
	if withdrawn {
		o.s.count.Withdrawn.Add(1)
	}
	if err == nil {
		sent = total
	}
	return total, sent, err
}

// await waits for w, whose memory it gives back. When p is over it withdraws w, if that can still
// be done; a package of which a part has left ends the session instead.
func (o *outbox) await(w *sendq.Waiter, p patience) (sent int, withdrawn bool, err error) {
	select {
	case <-w.Done():
		sent, err = w.Result()
		return sent, false, err
	default:
	}
	var expired <-chan time.Time
	if p.timeout > 0 {
		t := time.NewTimer(p.timeout)
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-w.Done():
	case <-expired:
		err = ErrWriteTimeout
	case <-p.done():
		err = context.Cause(p.ctx)
	}
	if err != nil {
		if w.Withdraw() {
			return 0, true, err
		}
		if err == ErrWriteTimeout && p.progress {
			p.timeout = 0
			return o.await(w, p)
		}
		if w.Partial() {
			o.s.life.fail(err)
		}
		// Soon: the kernel has taken it all, or the session ends. Only then is the package's memory
		// free.
		<-w.Done()
	}
	sent, err = w.Result()
	return sent, false, err
}

// beginEncode takes the encoder lock, unless the session accepts no package of this writer now.
func (o *outbox) beginEncode(as entry) error {
	if o.s.has(flagRefuse) {
		return o.refusal()
	}
	if !o.encMu.TryLock() {
		if err := o.lockEncoder(); err != nil {
			return err
		}
	}
	switch {
	case o.s.has(flagRefuse): // the last moment: what gets past this is sent, or counted as unsent
		o.unlockEncoder()
		return o.refusal()
	case o.queuedBytes() >= uint64(o.s.opts.HighWater), o.behindLine(as):
		o.unlockEncoder()
		return ErrSessionBlocked
	}
	return nil
}

// lockEncoder takes a contended encoder lock, but not for an encoder that would wait for itself.
func (o *outbox) lockEncoder() error {
	for range 16 {
		runtime.Gosched()
		if o.encMu.TryLock() {
			return nil
		}
	}
	if insideEncoder(1) {
		return fmt.Errorf("%w: an encoder writes to a session", ErrBadReader)
	}
	o.encMu.Lock()
	return nil
}

// tryEncoder takes the encoder lock without waiting. If it cannot, it leaves flagWant or flagReview
// for the holder, and tries once more, since the holder may have looked just before.
func (o *outbox) tryEncoder(leave uint32) bool {
	if o.encMu.TryLock() {
		return true
	}
	o.s.setFlag(leave)
	return o.encMu.TryLock()
}

// unlockEncoder lets go of the encoder lock. Who tried it meanwhile has left what it wanted to its
// holder, whatever that held it for.
func (o *outbox) unlockEncoder() {
	o.encMu.Unlock()
	if f := o.s.bits.Load(); f&(flagWant|flagReview) != 0 {
		if f&flagWant != 0 {
			o.flush(wire.Try)
		}
		if f&flagReview != 0 && o.s.clearFlag(flagReview) {
			o.reviewBlock()
		}
	}
}

// encode runs use, which encodes a package and queues or sends it, under the encoder lock. It
// returns the size on the wire and how many bytes the queue holds. When use fails, panics or ends
// the goroutine, the queue is as it was.
//
//go:noinline
func (o *outbox) encode(as entry, use func() (int, error)) (n, waiting int, err error) {
	if err = o.beginEncode(as); err != nil {
		return 0, 0, err
	}
	ok := false
	defer func() {
		if !ok {
			if o.out != nil {
				o.out.Cancel()
			}
			o.endEncode()
			err = o.s.turn.panicked("Writer", recover())
		}
	}()
	n, err = use()
	ok = true
	return n, o.endEncode(), err
}

// endEncode releases the encoder lock and returns how many bytes the queue holds. A batch that was
// made for a package which then could not be encoded is given back.
func (o *outbox) endEncode() (waiting int) {
	if b := o.out; b != nil {
		waiting = b.Size()
		if b.Empty() {
			o.out = nil
			b.Free()
		}
	}
	o.unlockEncoder()
	return waiting
}

var errNoBytes = fmt.Errorf("%w: a package of no bytes", ErrBadReader)

// maxHint bounds the room that is made for a package because of its predecessor's size: a small one
// behind a huge one must not cost what the huge one did.
const maxHint = 256 << 10

// sized notes the size of a package, for the room to encode the next one into.
func (o *outbox) sized(n int) { o.hint = min(max(n+n/4, 64), maxHint) }

// oneByOne is encodeRaw of a protocol of messages: use takes each package by itself. An error ends
// it. It counts the caller's bytes, not what the transport makes of them.
func oneByOne(one []byte, more [][]byte, use func([]byte) (int, error)) (total int, err error) {
	if more == nil {
		if _, err = use(one); err == nil {
			total = len(one)
		}
		return total, err
	}
	for _, p := range more {
		if _, err = use(p); err != nil {
			return total, err
		}
		total += len(p)
	}
	return total, nil
}

// batch returns the batch that is being filled. encMu is held.
func (o *outbox) batch() *sendq.Batch {
	if o.out == nil {
		o.out = sendq.New()
	}
	return o.out
}

// queue adds p, which was appended to what the batch reserved, and returns its size. encMu is held.
func (o *outbox) queue(p []byte, w *sendq.Waiter) int {
	o.out.Add(p, w)
	o.added(len(p))
	return len(p)
}

// added notes that n bytes were added to the batch. encMu is held.
func (o *outbox) added(n int) {
	o.largest = max(o.largest, n)
	if !o.s.has(flagQueued) {
		o.s.setFlag(flagQueued)
	}
	o.appended += uint64(n)
	if !o.s.has(flagBlocked) && o.queuedBytes() >= uint64(o.s.opts.HighWater) {
		o.s.setFlag(flagBlocked) // the flush that must follow looks whether it is over
	}
}

// queuedBytes returns how many bytes are queued or on their way to the kernel. encMu is held.
func (o *outbox) queuedBytes() uint64 { return o.appended - o.gone.Load() }

// tryQueuedBytes is queuedBytes for who does not hold encMu. While an encoder is at work it does
// not see what was queued since the last flush.
func (o *outbox) tryQueuedBytes() uint64 {
	for range 4 {
		if o.encMu.TryLock() {
			n := o.queuedBytes()
			o.unlockEncoder()
			return n
		}
		runtime.Gosched()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.onTheWay()
}

// enqueueMark queues a flush mark, and reports whether there is anything to wait for.
func (o *outbox) enqueueMark(w *sendq.Waiter) (wait bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused != nil || o.emptyLocked() && !o.flushing {
		return false, o.refused
	}
	side := o.sideLocked()
	side.marks = append(side.marks, w)
	return true, nil
}

// afterEncode decides when a package that nobody waits for goes to the kernel; waiting is what the
// queue holds.
func (o *outbox) afterEncode(waiting int) {
	switch {
	case !o.queues:
	case !o.s.turn.inProgress():
		o.offer(waiting >= flushSize)
	case waiting >= flushSize:
		o.flushLate()
	case !o.s.has(flagWatched):
		o.s.ep.watch(o.s)
	}
}

// reviewBlock ends the pause that began at the high mark if the queue has fallen to the low mark.
// It is called whenever bytes have gone; who holds the encoder lock meanwhile looks again.
func (o *outbox) reviewBlock() {
	if !o.queues {
		return // a socket was full, which says nothing about a queue: see datagrams.full
	}
	if !o.tryEncoder(flagReview) {
		return
	}
	low := o.queuedBytes() <= uint64(o.s.opts.LowWater)
	if low {
		low = o.s.clearFlag(flagBlocked)
	}
	o.unlockEncoder()
	if low {
		o.unblocked()
	}
}

// unblocked tells everybody that the queue has fallen.
func (o *outbox) unblocked() {
	o.mu.Lock()
	if o.side != nil && !o.side.admitted {
		o.admitLocked()
	}
	o.changed.Broadcast()
	o.mu.Unlock()
	if o.s.started.Load() { // else listener and dispatch may still change
		if _, ok := o.s.turn.listener.(WritableListener); !ok && o.s.dispatch != Ordered {
			return
		}
	}
	o.s.turn.post(flagWritable) // also without a listener for it: the mailbox stood still
}

// forget takes w, which does not wait any more, from the side queue. A mark may have left it with a
// flush.
func (o *outbox) forget(w *sendq.Waiter) {
	o.mu.Lock()
	defer o.mu.Unlock()
	side := o.sideLocked()
	for _, list := range []*[]*sendq.Waiter{&side.marks, &side.line} {
		if i := slices.Index(*list, w); i >= 0 {
			*list = slices.Delete(*list, i, i+1)
		}
	}
	if len(side.line) == 0 && !side.admitted {
		o.s.clearFlag(flagLine)
	}
}

// refusal returns why nothing is accepted.
func (o *outbox) refusal() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused == nil {
		return ErrSessionClosed
	}
	return o.refused
}
