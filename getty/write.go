// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gostkit/kit/getty/internal/sendq"
)

// Writing takes two locks. encMu is held while a package is encoded and queued: it is what makes the order
// of encoding the order of the wire, and user code runs under it. qMu guards the flush token, what needs no
// encoder, and the counters, for a few instructions at a time. Close takes qMu only; Stats and a flush try
// encMu but never wait for it.

// flushSize is how many queued bytes are offered to the kernel before the turn ends.
const flushSize = 64 << 10

// outbound is the part of a session that queues and flushes.
type outbound struct {
	encMu    sync.Mutex
	out      *sendq.Batch  // guarded by encMu: accepted and not taken by a flush
	appended uint64        // guarded by encMu: bytes ever queued
	largest  int           // guarded by encMu: the largest package ever queued
	hint     int           // guarded by encMu: recent package size, to leave a chunk before it is outgrown
	gone     atomic.Uint64 // bytes ever taken by the kernel, withdrawn or discarded

	qMu       sync.Mutex
	qCond     sync.Cond    // on qMu: the queue fell, was emptied or failed, a turn or the session is ending
	count     SessionStats // guarded by qMu, but for Queued, which is worked out
	side      *sideQueue   // guarded by qMu: made when first needed
	detached  uint64       // guarded by qMu: appended, when a flush last took the queue
	lookAfter uint64       // guarded by qMu: after so many bytes written the clock looks what the peer took
	flushing  bool         // guarded by qMu: the flush token; its holder owns the batch it took
	gathering bool         // guarded by qMu: the token's holder lets others write before it takes the queue
	gain      int8         // guarded by qMu: how much gathering has paid lately
	tries     uint8        // guarded by qMu
	finSent   bool         // guarded by qMu
	controls  uint64       // guarded by qMu: bytes of control frames ever taken by a flush
	refused   error        // guarded by qMu: why nothing is accepted any more
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
func (s *session) sideLocked() *sideQueue {
	if s.side == nil {
		s.side = new(sideQueue)
	}
	return s.side
}

// WritePkg implements [Session].
func (s *session) WritePkg(pkg any, timeout time.Duration) (total, sent int, err error) {
	if timeout == 0 {
		total, waiting, err := s.encode(hasty, func() (int, error) { return s.tr.encode(s, pkg, nil) })
		if err != nil {
			s.slowConsumer(err)
			return total, 0, err
		}
		s.afterEncode(waiting)
		return total, total, nil
	}
	if timeout < 0 {
		return s.writeAndWait(patience{timeout: time.Duration(s.writeTimeout.Load()), progress: true}, pkg)
	}
	return s.writeAndWait(patience{timeout: timeout}, pkg)
}

// WritePkgContext implements [Session].
func (s *session) WritePkgContext(ctx context.Context, pkg any) (total, sent int, err error) {
	if ctx.Err() != nil {
		return 0, 0, context.Cause(ctx)
	}
	return s.writeAndWait(patience{time.Duration(s.writeTimeout.Load()), ctx, true}, pkg)
}

// WriteBytes implements [Session].
func (s *session) WriteBytes(b []byte) (int, error) { return s.writeRaw(b, nil) }

// WriteBytesArray implements [Session].
func (s *session) WriteBytesArray(pkgs ...[]byte) (int, error) {
	if len(pkgs) == 0 {
		return 0, nil
	}
	return s.writeRaw(nil, pkgs)
}

// writeRaw queues what is encoded already: one package, or more.
func (s *session) writeRaw(one []byte, more [][]byte) (int, error) {
	n, waiting, err := s.encode(hasty, func() (int, error) { return s.tr.encodeRaw(s, one, more) })
	if err != nil {
		s.slowConsumer(err)
		return n, err
	}
	s.afterEncode(waiting)
	return n, nil
}

// slowConsumer applies the policy to a package that was not to wait and could not be queued for err.
func (s *session) slowConsumer(err error) {
	if err == ErrSessionBlocked && s.opts.SlowConsumer == SlowClose {
		s.fail(err)
	}
}

// Flush implements [Session].
func (s *session) Flush(ctx context.Context) error {
	if !s.queues {
		return nil
	}
	if s.encMu.TryLock() {
		s.unlockEncoder()
	} else if insideEncoder() {
		return fmt.Errorf("%w: an encoder flushes a session", ErrBadReader)
	}
	w := sendq.NewWaiter()
	if wait, err := s.enqueueMark(w); !wait {
		w.Free()
		return err
	}
	s.flush()
	_, withdrawn, err := s.await(w, patience{ctx: ctx})
	if withdrawn {
		s.forget(w)
	}
	return err
}

// patience is how long a caller waits: for timeout if that is positive, and until ctx ends if there is one. With
// progress, timeout does not limit a package of which a part has left: the clock ends the session when its peer
// takes nothing any more.
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
func (s *session) writeAndWait(p patience, pkg any) (total, sent int, err error) {
	limit := p.timeout
	var begun time.Time
	as := newcomer
	defer func() {
		if as == admitted { // also after a panic, or the session's end
			s.admitNext()
		}
	}()
	for {
		w := sendq.NewWaiter()
		var waiting int
		total, waiting, err = s.encode(as, func() (int, error) { return s.tr.encode(s, pkg, w) })
		if err == nil {
			if as == admitted {
				as = newcomer
				s.admitNext()
			}
			return s.awaitPkg(w, p, total, waiting)
		}
		w.Free()
		if err != ErrSessionBlocked {
			return total, 0, err
		}
		if begun.IsZero() {
			begun = time.Now()
		}
		if as, err = s.awaitRoom(as, p); err != nil {
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
func (s *session) awaitPkg(w *sendq.Waiter, p patience, total, waiting int) (int, int, error) {
	if !s.queues {
		w.Free()
		return total, total, nil
	}
	s.offer(waiting >= flushSize)
	sent, withdrawn, err := s.await(w, p)
	if withdrawn {
		s.tally(&s.count.Withdrawn, 1)
	}
	if err == nil {
		sent = total
	}
	return total, sent, err
}

// await waits for w, whose memory it gives back. When p is over it withdraws w, if that can still be done;
// a package of which a part has left ends the session instead.
func (s *session) await(w *sendq.Waiter, p patience) (sent int, withdrawn bool, err error) {
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
			return s.await(w, p)
		}
		if w.Partial() {
			s.fail(err)
		}
		// Soon: the kernel has taken it all, or the session ends. Only then is the package's memory free.
		<-w.Done()
	}
	sent, err = w.Result()
	return sent, false, err
}

// beginEncode takes the encoder lock, unless the session accepts no package of this writer now.
func (s *session) beginEncode(as entry) error {
	if s.has(flagRefuse) {
		return s.refusal()
	}
	if !s.encMu.TryLock() {
		if err := s.lockEncoder(); err != nil {
			return err
		}
	}
	switch {
	case s.has(flagRefuse): // the last moment: what gets past this is sent, or counted as unsent
		s.unlockEncoder()
		return s.refusal()
	case s.queuedBytes() >= uint64(s.opts.HighWater), s.behindLine(as):
		s.unlockEncoder()
		return ErrSessionBlocked
	}
	return nil
}

// lockEncoder takes a contended encoder lock, but not for an encoder that would wait for itself.
func (s *session) lockEncoder() error {
	for range 16 {
		runtime.Gosched()
		if s.encMu.TryLock() {
			return nil
		}
	}
	if insideEncoder() {
		return fmt.Errorf("%w: an encoder writes to a session", ErrBadReader)
	}
	s.encMu.Lock()
	return nil
}

// tryEncoder takes the encoder lock without waiting. If it cannot, it leaves flagWant or flagReview for the
// holder, and tries once more, since the holder may have looked just before.
func (s *session) tryEncoder(leave uint32) bool {
	if s.encMu.TryLock() {
		return true
	}
	s.setFlag(leave)
	return s.encMu.TryLock()
}

// unlockEncoder lets go of the encoder lock. Who tried it meanwhile has left what it wanted to its holder,
// whatever that held it for.
func (s *session) unlockEncoder() {
	s.encMu.Unlock()
	if f := s.flags.Load(); f&(flagWant|flagReview) != 0 {
		if f&flagWant != 0 {
			s.flush()
		}
		if f&flagReview != 0 && s.clearFlag(flagReview) {
			s.reviewBlock()
		}
	}
}

// insideEncoder reports whether the calling goroutine is running an encoder.
func insideEncoder() bool {
	const above = 5 // the encode that wants the lock
	pc := make([]uintptr, 64)
	n := runtime.Callers(above, pc)
	for n == len(pc) { // a recursive encoder
		pc = make([]uintptr, 2*len(pc))
		n = runtime.Callers(above, pc)
	}
	frames := runtime.CallersFrames(pc[:n])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "getty.(*session).encode") {
			return true
		}
		if !more {
			return false
		}
	}
}

// encode runs use, which encodes a package and queues or sends it, under the encoder lock. It returns the
// size on the wire and how many bytes the queue holds. When use fails, panics or ends the goroutine, the queue is
// as it was.
func (s *session) encode(as entry, use func() (int, error)) (n, waiting int, err error) {
	if err = s.beginEncode(as); err != nil {
		return 0, 0, err
	}
	ok := false
	defer func() {
		if !ok {
			if s.out != nil {
				s.out.Cancel()
			}
			s.endEncode()
			err = s.panicked("Writer", recover())
		}
	}()
	n, err = use()
	ok = true
	return n, s.endEncode(), err
}

// endEncode releases the encoder lock and returns how many bytes the queue holds. A batch that was made for a
// package which then could not be encoded is given back.
func (s *session) endEncode() (waiting int) {
	if b := s.out; b != nil {
		waiting = b.Size()
		if b.Empty() {
			s.out = nil
			b.Free()
		}
	}
	s.unlockEncoder()
	return waiting
}

// marshal encodes pkg behind dst, or into memory of the Writer's own: then appended is false, and the
// result has to be copied.
func (s *session) marshal(dst []byte, pkg any) (p []byte, appended bool, err error) {
	switch {
	case s.appender != nil:
		p, err = s.appender.AppendPkg(dst, s, pkg)
		return p, true, err
	case s.writer != nil:
		p, err = s.writer.Write(s, pkg)
		return p, false, err
	}
	// Whoever does not look at the result of a write would wonder for long.
	s.ep.log.Warn("getty: write without a Writer", "session", s.id, "peer", peerText(s.tr.remoteAddr))
	return nil, false, fmt.Errorf("%w: no Writer set", ErrBadReader)
}

var errNoBytes = fmt.Errorf("%w: a package of no bytes", ErrBadReader)

// encodeStream queues a package of a byte stream. encMu is held.
func (s *session) encodeStream(pkg any, w *sendq.Waiter) (int, error) {
	b := s.batch()
	p, appended, err := s.marshal(b.Reserve(s.hint), pkg)
	switch {
	case err != nil:
		b.Cancel()
		return 0, err
	case len(p) == 0:
		b.Cancel()
		return 0, errNoBytes
	case appended:
		b.Add(p, w)
	default: // memory of the Writer's own
		b.Cancel()
		b.AddCopy(p, w)
	}
	s.sized(len(p))
	s.added(len(p))
	return len(p), nil
}

// maxHint bounds the room that is made for a package because of its predecessor's size: a small one behind a
// huge one must not cost what the huge one did.
const maxHint = 256 << 10

// sized notes the size of a package, for the room to encode the next one into.
func (s *session) sized(n int) { s.hint = min(max(n+n/4, 64), maxHint) }

// queueRaw copies encoded packages into the queue as one entry.
func (s *session) queueRaw(one []byte, more [][]byte, w *sendq.Waiter) (int, error) {
	n := len(one)
	switch {
	case n > 0:
		s.batch().AddCopy(one, w)
	case more != nil:
		n = s.batch().AddCopies(more)
	}
	if n == 0 {
		return 0, errNoBytes
	}
	s.added(n)
	return n, nil
}

// oneByOne is encodeRaw of a transport of messages: use takes each package by itself. An error ends it. It counts
// the caller's bytes, not what the transport makes of them.
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
func (s *session) batch() *sendq.Batch {
	if s.out == nil {
		s.out = sendq.New()
	}
	return s.out
}

// queue adds p, which was appended to what the batch reserved, and returns its size. encMu is held.
func (s *session) queue(p []byte, w *sendq.Waiter) int {
	s.out.Add(p, w)
	s.added(len(p))
	return len(p)
}

// added notes that n bytes were added to the batch. encMu is held.
func (s *session) added(n int) {
	s.largest = max(s.largest, n)
	if !s.has(flagQueued) {
		s.setFlag(flagQueued)
	}
	s.appended += uint64(n)
	if !s.has(flagBlocked) && s.queuedBytes() >= uint64(s.opts.HighWater) {
		s.setFlag(flagBlocked) // the flush that must follow looks whether it is over
	}
}

// queuedBytes returns how many bytes are queued or on their way to the kernel. encMu is held.
func (s *session) queuedBytes() uint64 { return s.appended - s.gone.Load() }

// tryQueuedBytes is queuedBytes for who does not hold encMu. While an encoder is at work it does not see what
// was queued since the last flush.
func (s *session) tryQueuedBytes() uint64 {
	for range 4 {
		if s.encMu.TryLock() {
			n := s.queuedBytes()
			s.unlockEncoder()
			return n
		}
		runtime.Gosched()
	}
	s.qMu.Lock()
	defer s.qMu.Unlock()
	return s.detached - s.gone.Load()
}

// enqueueMark queues a flush mark, and reports whether there is anything to wait for.
func (s *session) enqueueMark(w *sendq.Waiter) (wait bool, err error) {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.refused != nil || s.emptyLocked() && !s.flushing {
		return false, s.refused
	}
	side := s.sideLocked()
	side.marks = append(side.marks, w)
	return true, nil
}

// afterEncode decides when a package that nobody waits for goes to the kernel; waiting is what the queue holds.
func (s *session) afterEncode(waiting int) {
	switch {
	case !s.queues:
	case !s.inTurn():
		s.offer(waiting >= flushSize)
	case waiting >= flushSize:
		s.flushLate()
	case !s.has(flagWatched):
		s.ep.watch(s)
	}
}

// reviewBlock ends the pause that began at the high mark if the queue has fallen to the low mark. It is called
// whenever bytes have gone; who holds the encoder lock meanwhile looks again.
func (s *session) reviewBlock() {
	if !s.queues {
		return // a socket was full, which says nothing about a queue: see datagrams.full
	}
	if !s.tryEncoder(flagReview) {
		return
	}
	low := s.queuedBytes() <= uint64(s.opts.LowWater)
	if low {
		low = s.clearFlag(flagBlocked)
	}
	s.unlockEncoder()
	if low {
		s.unblocked()
	}
}

// unblocked tells everybody that the queue has fallen.
func (s *session) unblocked() {
	s.qMu.Lock()
	if s.side != nil && !s.side.admitted {
		s.admitLocked()
	}
	s.qCond.Broadcast()
	s.qMu.Unlock()
	if s.started.Load() { // else listener and dispatch may still change
		if _, ok := s.listener.(WritableListener); !ok && s.dispatch != Ordered {
			return
		}
	}
	s.post(flagWritable) // also without a listener for it: the mailbox stood still
}

// forget takes w, which does not wait any more, from the side queue. A mark may have left it with a flush.
func (s *session) forget(w *sendq.Waiter) {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	side := s.sideLocked()
	for _, list := range []*[]*sendq.Waiter{&side.marks, &side.line} {
		if i := slices.Index(*list, w); i >= 0 {
			*list = slices.Delete(*list, i, i+1)
		}
	}
	if len(side.line) == 0 && !side.admitted {
		s.clearFlag(flagLine)
	}
}

// refusal returns why nothing is accepted.
func (s *session) refusal() error {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.refused == nil {
		return ErrSessionClosed
	}
	return s.refused
}
