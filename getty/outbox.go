// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// flushSize is how many bytes may be queued within a turn before they are offered to the kernel;
// fewer leave with the end of the turn.
const flushSize = 64 << 10

// An outbox holds what a session has encoded and not handed to the kernel, and hands it over. A
// session of datagrams uses only its encoder lock: a datagram is sent, or refused, in the call that
// writes it.
//
// It has two locks. encMu is held while a package is encoded and queued: it makes the order of
// encoding the order of the wire. User code, the Writer, runs under it. mu guards the flush token
// (flush.go) and what is queued without an encoder, for a few instructions at a time.
//
// A goroutine that needs both waits for encMu first. With mu held encMu may only be tried. Close
// takes mu only, and Stats and flushes only try encMu, so that a Writer that does not return holds
// up none of them.
type outbox struct {
	s      *session
	queues bool // packages are queued, for a flush to write; false for datagrams

	encMu    sync.Mutex
	out      *sendq.Batch  // guarded by encMu: accepted and not taken by a flush
	appended uint64        // guarded by encMu: bytes ever queued
	noted    atomic.Uint64 // appended, for the budget of the endpoint; 0 without one
	largest  int           // guarded by encMu: the largest package ever queued
	hint     int           // guarded by encMu: the expected size of the next package
	gone     atomic.Uint64 // bytes ever taken by the kernel, withdrawn or discarded

	writeTimeout atomic.Int64

	mu        sync.Mutex
	changed   sync.Cond     // on mu: see wake; also the token is free, or the queue has fallen
	side      *sideQueue    // guarded by mu: made when first needed
	detached  atomic.Uint64 // appended as of the last flush; changed with mu held
	lookAfter uint64        // guarded by mu: of BytesWritten, where the clock looks at the peer
	flushing  bool          // guarded by mu: the flush token; its holder owns the batch it took
	gathering bool          // guarded by mu: the token's holder lets others write first
	gain      int8          // guarded by mu: above 0 if gathering has joined packages lately
	tries     uint8         // guarded by mu: calls of offer, modulo 256
	finSent   bool          // guarded by mu: the end of our stream is sent, or about to be
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

// A sideQueue holds what is queued without an encoder. Most sessions never have one. It is guarded
// by the mu of its outbox.
type sideQueue struct {
	control  []byte          // control frames, and after them the farewell
	late     []byte          // the latest answer for which control had no room
	marks    []*sendq.Waiter // callers of Flush
	line     []*sendq.Waiter // writers in line, in the order in which they came (line.go)
	admitted bool            // one of them may write and has not done so yet
}

// sideLocked returns the side queue, which it makes if there is none.
func (o *outbox) sideLocked() *sideQueue {
	if o.side == nil {
		o.side = new(sideQueue)
	}
	return o.side
}

// maxControl bounds the bytes of control frames that wait for a flush: a peer that sends pings and
// never reads would make them grow without end.
const maxControl = 4 << 10

// queueControl queues a control frame. Where there is no room for more, only the latest answer (a
// pong) is kept, and a ping of our own is dropped.
func (o *outbox) queueControl(p []byte, answer bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused != nil {
		return
	}
	switch side := o.sideLocked(); {
	case len(side.control)+len(p) <= maxControl && len(side.late) == 0:
		side.control = append(side.control, p...)
	case answer:
		// RFC 6455, section 5.5.3: a pong for the latest ping is enough. A ping needs no place
		// here: a peer that takes nothing will not answer one more.
		side.late = append(side.late[:0], p...)
	}
}

// answer moves the latest answer behind the control frames that waited before it.
func (q *sideQueue) answer() {
	if q != nil && len(q.late) > 0 {
		q.control = append(q.control, q.late...)
		q.late = nil
	}
}

// writePkg is WritePkg of the session.
func (o *outbox) writePkg(pkg any, timeout time.Duration) (total, sent int, err error) {
	if timeout == 0 {
		total, waiting, err := o.encode(hasty, func() (int, error) {
			return o.s.proto.encode(pkg, nil)
		})
		if err != nil {
			o.slowConsumer(err)
			return total, 0, err
		}
		o.s.traceQueued(total)
		o.afterEncode(waiting)
		return total, total, nil
	}
	p := patience{timeout: timeout}
	if timeout < 0 {
		p = patience{timeout: time.Duration(o.writeTimeout.Load()), progress: true}
	}
	return o.writeAndWait(p, o.encoding(pkg))
}

// encoding returns the function that encodes pkg.
func (o *outbox) encoding(pkg any) func(*sendq.Waiter) (int, error) {
	return func(w *sendq.Waiter) (int, error) { return o.s.proto.encode(pkg, w) }
}

// writePkgContext is WritePkgContext of the session.
func (o *outbox) writePkgContext(ctx context.Context, pkg any) (total, sent int, err error) {
	if ctx.Err() != nil {
		return 0, 0, context.Cause(ctx)
	}
	p := patience{time.Duration(o.writeTimeout.Load()), ctx, true}
	return o.writeAndWait(p, o.encoding(pkg))
}

// writeBytesContext is WriteBytesContext of the session.
func (o *outbox) writeBytesContext(ctx context.Context, b []byte) (int, error) {
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case len(b) == 0: // on a stream there is nothing that a caller could wait for
		if n, err := o.writeRaw(b, nil); err != nil {
			return n, err
		}
		return 0, o.flushAll(ctx)
	}
	p := patience{time.Duration(o.writeTimeout.Load()), ctx, true}
	_, _, err := o.writeAndWait(p, func(w *sendq.Waiter) (int, error) {
		return o.s.proto.encodeRaw(b, nil, w)
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// writeRaw queues packages that are encoded already: one, or those of more.
func (o *outbox) writeRaw(one []byte, more [][]byte) (int, error) {
	n, waiting, err := o.encode(hasty, func() (int, error) {
		return o.s.proto.encodeRaw(one, more, nil)
	})
	if err != nil {
		o.slowConsumer(err)
		return n, err
	}
	o.s.traceQueued(n)
	o.afterEncode(waiting)
	return n, nil
}

// slowConsumer applies the SlowConsumer policy after a write with timeout 0 failed with err.
func (o *outbox) slowConsumer(err error) {
	if err == ErrSessionBlocked && o.s.opts.SlowConsumer == SlowClose {
		o.s.life.fail(err)
	}
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
	case o.s.has(flagRefuse):
		// Again, with the lock: the session's end sets the flag and then takes the queue under
		// encMu, so that a package which gets past this is sent, or counted as unsent.
		o.unlockEncoder()
		return o.refusal()
	case o.queuedBytes() >= uint64(o.s.opts.HighWater), o.behindLine(as):
		o.unlockEncoder()
		return ErrSessionBlocked
	}
	return nil
}

// lockEncoder takes a contended encoder lock. It fails below an encoder of this session, which
// would wait for itself.
func (o *outbox) lockEncoder() error {
	// Encoders mostly take microseconds, and to look at the own stack takes longer.
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

// tryEncoder takes the encoder lock without waiting. If it cannot, it sets leave, flagWant or
// flagReview, for the holder of the lock; see unlockEncoder.
func (o *outbox) tryEncoder(leave uint32) bool {
	if o.encMu.TryLock() {
		return true
	}
	o.s.setFlag(leave)
	// Once more: the holder may have unlocked and looked at the flags just before.
	return o.encMu.TryLock()
}

// unlockEncoder releases the encoder lock and does what others left to its holder, because they
// could not take the lock meanwhile: a flush, or a look at the low mark. Every holder has to, for
// whatever reason it took the lock.
func (o *outbox) unlockEncoder() {
	// The lock first: the other order would miss a flag that is set between the two.
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
// the goroutine, the queue is as it was. It must not be inlined: insideEncoder looks for it on the
// stack.
//
//go:noinline
func (o *outbox) encode(as entry, use func() (int, error)) (n, waiting int, err error) {
	if err = o.beginEncode(as); err != nil {
		return 0, 0, err
	}
	ok := false
	defer func() {
		if !ok { // a panic, or Goexit
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

// maxHint bounds the room that is reserved for a package because of the size of the one before:
// small packages after a huge one must not each reserve as much as the huge one.
const maxHint = 256 << 10

// sized notes the size of a package: the next one is expected to be about as large.
func (o *outbox) sized(n int) { o.hint = min(max(n+n/4, 64), maxHint) }

// oneByOne is encodeRaw of a protocol of messages: it calls use for each package, until one fails.
// total counts the caller's bytes, without what the transport puts around them.
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
	if b := o.s.ep.budget; b != nil {
		o.noted.Store(o.appended) // before the addition: it may begin a shortage
		b.add(n)
	}
	if !o.s.has(flagBlocked) && o.queuedBytes() >= uint64(o.s.opts.HighWater) {
		// A flush may have taken these bytes before the flag is set; the flush that follows every
		// package looks at the flag even if it finds nothing to write.
		o.stall()
	}
}

// stall notes that the queue has reached the high mark.
func (o *outbox) stall() {
	if o.s.setFlag(flagBlocked) {
		o.s.count.rarely().Stalls.Add(1)
	}
}

// queuedBytes returns how many bytes are queued or on their way to the kernel. encMu is held.
func (o *outbox) queuedBytes() uint64 { return o.appended - o.gone.Load() }

// held is queuedBytes for a budget. It needs no lock.
func (o *outbox) held() int64 {
	gone := o.gone.Load() // first: bytes are noted before they go
	return int64(o.noted.Load() - gone)
}

// tryQueuedBytes returns queuedBytes without holding encMu. While an encoder runs it may miss what
// was queued since the last flush.
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

// afterEncode decides when a package that was written with timeout 0 goes to the kernel. waiting is
// how many bytes the queue holds.
func (o *outbox) afterEncode(waiting int) {
	if o.s.ep.budget.exceeded() {
		runtime.Gosched() // memory must become free faster than handlers take it
	}
	switch {
	case !o.queues:
	case !o.s.turn.inProgress():
		o.offer(waiting >= flushSize)
	case waiting >= flushSize:
		o.flushLate()
	case !o.s.has(flagWatched):
		// The package leaves with the end of the turn, or with the watch if the turn is long.
		o.s.ep.watch.add(o.s)
	}
}

// reviewBlock ends the pause that began at the high mark if the queue has fallen to the low mark.
// It is called whenever bytes have gone.
func (o *outbox) reviewBlock() {
	if !o.queues {
		return // the flag says that a socket is full, and datagrams.full clears it
	}
	if !o.tryEncoder(flagReview) {
		return // the encoder looks when it has unlocked
	}
	low := o.queuedBytes() <= uint64(o.s.opts.LowWater)
	if low && !o.s.opts.ReadWhileBlocked {
		o.s.clock.resumed()
	}
	if low {
		low = o.s.clearFlag(flagBlocked)
	}
	o.unlockEncoder()
	if low {
		o.unblocked()
	}
}

// unblocked tells writers in line, the reader and the listener that the queue has fallen.
func (o *outbox) unblocked() {
	o.mu.Lock()
	if o.side != nil && !o.side.admitted {
		o.admitLocked()
	}
	o.changed.Broadcast()
	o.mu.Unlock()
	if o.s.started.Load() {
		// Before that listener and dispatch may still change, and the flag is served later.
		if _, ok := o.s.turn.listener.(WritableListener); !ok && o.s.dispatch != Ordered {
			return
		}
	}
	// In an ordered session also without a WritableListener: the strand has stood still, and post
	// wakes it.
	o.s.turn.post(flagWritable)
}

// refusal returns why nothing is accepted.
func (o *outbox) refusal() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refused == nil { // flagRefuse is set a moment before
		return ErrSessionClosed
	}
	return o.refused
}
