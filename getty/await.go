// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// A patience is how long a caller waits: for timeout if that is positive, and until ctx ends if
// there is one. With progress, timeout does not limit a package of which a part has left: there the
// clock ends the session when its peer takes nothing any more.
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

// writeAndWait queues what use encodes, where the queue is at the high mark after waiting in line
// (line.go), and returns when the kernel has taken it or p is over.
func (o *outbox) writeAndWait(
	p patience, use func(*sendq.Waiter) (int, error),
) (total, sent int, err error) {
	limit := p.timeout
	var begun time.Time
	as := newcomer
	defer func() {
		// After an error or a panic of the Writer too: while one writer is admitted no other is, so
		// that all in line would wait for ever.
		if as == admitted {
			o.admitNext()
		}
	}()
	for {
		w := o.s.ep.waiters.New()
		var waiting int
		total, waiting, err = o.encode(as, func() (int, error) { return use(w) })
		if err == nil {
			// The next in line may write now; it must not wait until the kernel has this package.
			if as == admitted {
				as = newcomer
				o.admitNext()
			}
			o.s.traceQueued(total)
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

// awaitPkg flushes and waits for a queued package of total bytes. waiting is how many bytes the
// queue holds.
func (o *outbox) awaitPkg(w *sendq.Waiter, p patience, total, waiting int) (int, int, error) {
	if !o.queues {
		w.Free()
		return total, total, nil
	}
	o.offer(waiting >= flushSize)
	sent, withdrawn, err := o.await(w, p)
	if withdrawn {
		o.s.count.rarely().Withdrawn.Add(1)
	}
	if err == nil {
		sent = total
	}
	return total, sent, err
}

// await waits for w. When p is over it withdraws w, if that can still be done; a package of which a
// part has left ends the session instead. Unless w was withdrawn its memory is given back.
func (o *outbox) await(w *sendq.Waiter, p patience) (sent int, withdrawn bool, err error) {
	// Mostly the flush of the caller itself has written the package already: then no timer is made.
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
			// Half a package cannot be taken back, and the peer could not make sense of what
			// follows it.
			o.s.life.fail(err)
		}
		// That is soon: the kernel has taken all of it, or the session ends. The flush uses w until
		// then.
		<-w.Done()
	}
	sent, err = w.Result()
	return sent, false, err
}

// flushAll is Flush of the session.
func (o *outbox) flushAll(ctx context.Context) error {
	if !o.queues {
		return nil
	}
	// An encoder that flushes would wait for its own package. The stack is looked at only where an
	// encoder is at work, since that is slow.
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

// enqueueMark queues a mark, for which w is told when all that was queued before has gone. It
// reports whether there is anything to wait for.
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

// forget takes w, which was withdrawn, out of the side queue. A flush may have taken a mark from
// there already.
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
