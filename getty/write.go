// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/gostkit/kit/bytespool"
)

// Writing takes two locks. encMu is held while a package is encoded and queued: it is what makes the order
// of encoding the order of the wire, and user code runs under it. qMu guards the queue and the flush
// token for a few instructions at a time. The order is encMu, qMu; Close and Stats take qMu only, and a
// flush tries encMu but never waits for it.

// outbound is the part of a session that queues and flushes.
type outbound struct {
	encMu sync.Mutex
	hint  int // guarded by encMu: recent package size, to leave a chunk before it is outgrown

	qMu       sync.Mutex
	qCond     sync.Cond // on qMu: the queue fell, was emptied or failed, or the session is ending
	out       *batch    // accepted and not taken by a flush; changed with encMu and qMu held
	side      []segment // guarded by qMu: control frames and flush marks, which wait for no encoder
	flushing  bool      // guarded by qMu: the flush token; its holder owns the batch it took
	gathering bool      // guarded by qMu: the token's holder lets others write before it takes the queue
	gain      int8      // guarded by qMu: how much gathering has paid lately
	tries     uint8     // guarded by qMu
	finSent   bool      // guarded by qMu
	refused   error     // guarded by qMu: why nothing is accepted any more
	room      []*waiter // guarded by qMu: callers that wait for the queue to fall
}

// WritePkg implements [Session].
func (s *session) WritePkg(pkg any, timeout time.Duration) (total, sent int, err error) {
	if timeout == 0 {
		if total, err = s.enqueue(pkg, rawPkg{}, nil); err != nil {
			return total, 0, err
		}
		s.afterEnqueue()
		return total, total, nil
	}
	if timeout < 0 {
		timeout = time.Duration(s.writeTimeout.Load())
	}
	return s.writeAndWait(patience{timeout: timeout}, pkg)
}

// WritePkgContext implements [Session].
func (s *session) WritePkgContext(ctx context.Context, pkg any) (total, sent int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	return s.writeAndWait(patience{time.Duration(s.writeTimeout.Load()), ctx}, pkg)
}

// rawPkg is one package, or more, that are encoded already; the zero value is none.
type rawPkg struct {
	one  []byte
	more [][]byte
}

func (r rawPkg) given() bool { return r.one != nil || r.more != nil }

// WriteBytes implements [Session].
func (s *session) WriteBytes(b []byte) (int, error) {
	if b == nil {
		b = []byte{} // one package without bytes, which is refused, and not none
	}
	n, err := s.enqueue(nil, rawPkg{one: b}, nil)
	if err != nil {
		return 0, err
	}
	s.afterEnqueue()
	return n, nil
}

// WriteBytesArray implements [Session].
func (s *session) WriteBytesArray(pkgs ...[]byte) (int, error) {
	if len(pkgs) == 0 {
		return 0, nil
	}
	n, err := s.enqueue(nil, rawPkg{more: pkgs}, nil)
	if err != nil {
		return 0, err
	}
	s.afterEnqueue()
	return n, nil
}

// Flush implements [Session].
func (s *session) Flush(ctx context.Context) error {
	w := newWaiter()
	if !s.tr.queues() || !s.enqueueMark(w) {
		w.free()
		return nil
	}
	s.flush()
	_, _, err := s.await(w, patience{ctx: ctx})
	return err
}

// patience is how long a caller waits: for timeout if that is positive, and until ctx ends if there is one.
type patience struct {
	timeout time.Duration
	ctx     context.Context
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
	for {
		w := newWaiter()
		total, err = s.enqueue(pkg, rawPkg{}, w)
		if err == nil {
			return s.awaitPkg(w, p, total)
		}
		w.free()
		if err != ErrSessionBlocked || s.opts.SlowConsumer == SlowClose {
			return total, 0, err
		}
		if limit > 0 {
			if begun.IsZero() {
				begun = time.Now()
			} else if p.timeout = limit - time.Since(begun); p.timeout <= 0 {
				return total, 0, ErrWriteTimeout
			}
		}
		if err = s.awaitRoom(p); err != nil {
			return total, 0, err
		}
	}
}

// awaitPkg waits for a queued package of total bytes.
func (s *session) awaitPkg(w *waiter, p patience, total int) (int, int, error) {
	if !s.tr.queues() {
		w.free()
		return total, total, nil
	}
	s.offer()
	sent, withdrawn, err := s.await(w, p)
	if withdrawn {
		s.count.withdrawn.Add(1)
		s.unqueued(total)
	}
	if err == nil {
		sent = total
	}
	return total, sent, err
}

// awaitRoom waits until the queue has fallen from the high mark to the low mark.
func (s *session) awaitRoom(p patience) error {
	w := newWaiter()
	if !s.joinRoom(w) {
		w.free()
		return nil
	}
	s.flush()
	_, gone, err := s.await(w, p)
	if gone {
		s.leaveRoom(w)
	}
	return err
}

// await waits for w, whose memory it gives back. When p is over it withdraws w, if that can still be done;
// a package of which a part has left ends the session instead.
func (s *session) await(w *waiter, p patience) (sent int, withdrawn bool, err error) {
	select {
	case <-w.ch:
		sent, err = w.sent, w.err
		w.free()
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
	case <-w.ch:
	case <-expired:
		err = ErrWriteTimeout
	case <-p.done():
		err = context.Cause(p.ctx)
	}
	if err != nil {
		if w.withdraw() {
			return 0, true, err
		}
		if w.state.Load() == waiterPartial {
			s.fail(err)
		}
		// Soon: the kernel has taken it all, or the session ends. Only then is the package's memory free.
		<-w.ch
	}
	sent, err = w.sent, w.err
	w.free()
	return sent, false, err
}

// enqueue encodes pkg, or takes raw, and appends it to the queue; w, if not nil, waits for it. It returns
// the size on the wire.
func (s *session) enqueue(pkg any, raw rawPkg, w *waiter) (int, error) {
	if s.flags.Load()&flagRefuse != 0 {
		return 0, s.refusal()
	}
	if !s.encMu.TryLock() {
		if err := s.lockEncoder(); err != nil {
			return 0, err
		}
	}
	if s.queued.Load() >= int64(s.opts.HighWater) {
		s.unlockEncoder()
		return 0, s.overflow()
	}
	return s.encode(pkg, raw, w)
}

// overflow answers a package at the high mark.
func (s *session) overflow() error {
	if s.opts.SlowConsumer == SlowClose {
		s.fail(ErrSessionBlocked)
	}
	return ErrSessionBlocked
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

// unlockEncoder lets go of the encoder lock. A flush that found it taken has left the queue to its holder,
// whatever that held it for.
func (s *session) unlockEncoder() {
	s.encMu.Unlock()
	if s.has(flagWant) {
		s.flush()
	}
}

// insideEncoder reports whether the calling goroutine is running an encoder.
func insideEncoder() bool {
	pc := make([]uintptr, 64)
	frames := runtime.CallersFrames(pc[:runtime.Callers(3, pc)])
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

// encode is entered with encMu held and releases it, also when the encoder panics or ends the goroutine;
// the queue is then as it was.
func (s *session) encode(pkg any, raw rawPkg, w *waiter) (n int, err error) {
	ok := false
	defer func() {
		if b := s.out; b != nil && (!ok || err != nil) {
			s.dropEmpty(b)
		}
		s.unlockEncoder()
		if !ok {
			err = s.panicked("Writer", recover())
		}
	}()
	n, err = s.tr.encode(s, pkg, raw, w)
	ok = true
	return n, err
}

// encodeStream queues a package of a byte stream. It is called through the transport with encMu held.
func (s *session) encodeStream(pkg any, raw rawPkg, w *waiter) (int, error) {
	if raw.given() {
		return s.queueRaw(raw, w)
	}
	if s.appender == nil {
		if s.writer == nil {
			return 0, fmt.Errorf("%w: no Writer set", ErrBadReader)
		}
		p, err := s.writer.Write(s, pkg)
		if err != nil {
			return 0, err
		}
		return s.queueRaw(rawPkg{one: p}, w)
	}
	if s.hint > largeSize {
		return s.encodeLarge(pkg, w)
	}
	b := s.batch()
	tail := b.tail(s.hint)
	p, err := s.appender.AppendPkg(tail, s, pkg)
	if err != nil {
		return 0, err
	}
	n := len(p)
	if n == 0 {
		return 0, fmt.Errorf("%w: Writer returned no bytes", ErrBadReader)
	}
	s.hint = n + n/4
	b.claim(tail, p) // else it outgrew the chunk and has memory of its own
	return n, s.publish(p, nil, w, nil)
}

// batch returns the batch that is being filled. encMu is held.
func (s *session) batch() *batch {
	if s.out == nil {
		b := newBatch()
		s.qMu.Lock()
		s.out = b
		s.qMu.Unlock()
	}
	return s.out
}

// dropEmpty gives back a batch that was made for a package which then could not be encoded. encMu is held.
func (s *session) dropEmpty(b *batch) {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if len(b.segs) == 0 && s.out == b {
		s.out = nil
		b.free()
	}
}

// encodeLarge encodes into a pooled buffer of the size that recent packages had.
func (s *session) encodeLarge(pkg any, w *waiter) (int, error) {
	s.batch()
	whole := bytespool.Get(s.hint)
	p, err := s.appender.AppendPkg(whole[:0], s, pkg)
	n := len(p)
	switch {
	case err != nil:
	case n == 0:
		err = fmt.Errorf("%w: Writer returned no bytes", ErrBadReader)
	case n < largeSize:
		_, err = s.queueRaw(rawPkg{one: p}, w)
	case &p[0] != &whole[0]:
		err = s.publish(p, nil, w, nil)
	default:
		s.hint = n + n/4
		return n, s.publish(p, whole, w, nil)
	}
	if n > 0 {
		s.hint = n + n/4
	}
	bytespool.Put(whole)
	return n, err
}

// queueRaw copies encoded packages into the queue as one entry.
func (s *session) queueRaw(raw rawPkg, w *waiter) (int, error) {
	total := len(raw.one)
	for _, p := range raw.more {
		total += len(p)
	}
	if total == 0 {
		return 0, fmt.Errorf("%w: no bytes to write", ErrBadReader)
	}
	var tail, whole []byte
	b := s.batch()
	if total < largeSize {
		tail = b.tail(total)
	} else {
		whole = bytespool.Get(total)
		tail = whole[:0]
	}
	p := append(tail, raw.one...)
	for _, part := range raw.more {
		p = append(p, part...)
	}
	if whole == nil {
		b.claim(tail, p)
	}
	return total, s.publish(p, whole, w, raw.more)
}

// publish puts encoded bytes into the queue: one package, or those that parts are the pieces of. whole, if
// not nil, is their memory and goes back to bytespool. encMu is held.
func (s *session) publish(p, whole []byte, w *waiter, parts [][]byte) error {
	s.qMu.Lock()
	if err := s.refused; err != nil {
		s.qMu.Unlock()
		if whole != nil {
			bytespool.Put(whole)
		}
		return err
	}
	b := s.out
	end := b.size
	for _, q := range parts {
		if end += len(q); len(q) > 0 {
			b.ends = append(b.ends, end)
		}
	}
	b.append(p, whole, w)
	if parts == nil {
		b.ends = append(b.ends, b.size)
	}
	q := s.queued.Add(int64(len(p)))
	s.qMu.Unlock()
	if q >= int64(s.opts.HighWater) {
		s.setFlag(flagBlocked)
		if s.queued.Load() <= int64(s.opts.LowWater) {
			s.unblock() // it fell meanwhile
		}
	}
	return nil
}

// enqueueMark queues a flush mark, and reports whether there is anything to wait for.
func (s *session) enqueueMark(w *waiter) bool {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.refused != nil || s.emptyLocked() && !s.flushing {
		return false
	}
	s.side = append(s.side, segment{w: w})
	return true
}

// afterEnqueue decides when a package that nobody waits for goes to the kernel.
func (s *session) afterEnqueue() {
	if !s.tr.queues() {
		return
	}
	if s.turns.Load() == 0 {
		s.offer()
		return
	}
	if s.queued.Load() >= flushSize {
		s.flush()
		return
	}
	if s.flags.Load()&flagWatched == 0 {
		s.ep.watch(s)
	}
}

// unqueued counts n bytes that left the queue, one way or another.
func (s *session) unqueued(n int) {
	if q := s.queued.Add(-int64(n)); s.flags.Load()&flagBlocked != 0 && q <= int64(s.opts.LowWater) {
		s.unblock()
	}
}

// unblock ends the pause that began at the high mark.
func (s *session) unblock() {
	if !s.clearFlag(flagBlocked) {
		return
	}
	s.qMu.Lock()
	room := s.room
	s.room = nil
	s.qCond.Broadcast()
	s.qMu.Unlock()
	for _, w := range room {
		w.fail(nil)
	}
	if _, ok := s.listener.(WritableListener); ok {
		s.post(flagWritable)
	} else if s.dispatch == Ordered && s.mailbox() != nil {
		s.post(0) // the mailbox stood still
	}
}

// joinRoom makes w wait for the queue to fall, and reports false where it need not.
func (s *session) joinRoom(w *waiter) bool {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	if s.refused != nil || s.flags.Load()&flagBlocked == 0 {
		return false
	}
	s.room = append(s.room, w)
	return true
}

// leaveRoom forgets w, which does not wait any more.
func (s *session) leaveRoom(w *waiter) {
	s.qMu.Lock()
	defer s.qMu.Unlock()
	for i, r := range s.room {
		if r == w {
			s.room = append(s.room[:i], s.room[i+1:]...)
			return
		}
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
