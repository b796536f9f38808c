// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gostkit/kit/getty/internal/wire"
)

// What users ask of the end of a session beside Close: a reason, the end of one direction, and to
// be told.

// closeWith is CloseWith of the session.
func (l *life) closeWith(err error) {
	s := l.s
	if err == nil {
		l.close()
		return
	}
	if !s.setFlag(flagOwnClose) {
		return
	}
	l.setCause(err)
	if t, ok := s.proto.(reasoner); ok {
		t.reason(err)
	}
	l.shut()
}

// closeWrite is CloseWrite of the session.
func (l *life) closeWrite() error {
	s := l.s
	if t, ok := s.proto.(halfCloser); !ok || !t.halfCloses() {
		return errors.ErrUnsupported
	}
	if s.has(flagRefuse) {
		return s.outbox.refusal()
	}
	// The flush that finds the queue empty ends the stream, as it does for a Close; but neither
	// flagClosing is set nor WaitTime begun, so that reading goes on.
	s.outbox.refuse(ErrWriteClosed)
	s.outbox.flush(wire.Try)
	return nil
}

// extras are what most sessions are never asked for.
type extras struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	endings []*ending
}

// extrasLocked returns the extras, which it makes if there are none.
func (l *life) extrasLocked() *extras {
	if l.extras == nil {
		l.extras = new(extras)
	}
	return l.extras
}

// context is Context of the session.
func (l *life) context() context.Context {
	l.mu.Lock()
	x := l.extrasLocked()
	if x.ctx == nil {
		x.ctx, x.cancel = context.WithCancelCause(context.Background())
	}
	l.mu.Unlock()
	// A session that ends sets the flag first and then looks for a context.
	if l.s.has(flagRefuse) {
		x.cancel(l.failure())
	}
	return x.ctx
}

// endContext ends the session's context, if it was ever asked for. flagRefuse is set.
func (l *life) endContext() {
	l.mu.Lock()
	var cancel context.CancelCauseFunc
	if l.extras != nil {
		cancel = l.extras.cancel
	}
	l.mu.Unlock()
	if cancel != nil {
		cancel(l.failure())
	}
}

// An ending is a function that runs when a session is over.
type ending struct{ f func(Session) }

// onEnd is OnEnd of the session.
func (l *life) onEnd(f func(Session)) (remove func() bool) {
	e := &ending{f}
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		l.s.spawn(func() { l.runEndings([]*ending{e}) })
		return func() bool { return false }
	}
	x := l.extrasLocked()
	x.endings = append(x.endings, e)
	l.mu.Unlock()
	return func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.Index(x.endings, e)
		if i < 0 {
			return false
		}
		x.endings = slices.Delete(x.endings, i, i+1)
		return true
	}
}

// runEndings runs all of list, whatever they do.
func (l *life) runEndings(list []*ending) {
	if len(list) == 0 {
		return
	}
	defer l.runEndings(list[1:]) // also after a Goexit
	where := "OnEnd"
	_ = l.s.turn.guard(&where, func() error { list[0].f(l.s); return nil })
}

// takeEndings returns what is to run now. If nothing is left the session is over: its end is
// announced, and what is added later runs at once.
func (l *life) takeEndings() (list []*ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x := l.extras; x != nil && len(x.endings) > 0 {
		list, x.endings = x.endings, nil
		return list
	}
	// Both under the lock: a first Done that came between would close the channel too.
	l.over = true
	if l.done != nil {
		close(l.done)
	}
	return nil
}

// A reasoner is a protocol that can tell its peer the reason of a graceful end.
type reasoner interface{ reason(err error) }

// A halfCloser is a protocol whose outgoing stream can end alone.
type halfCloser interface{ halfCloses() bool }

// A goodbyer is a protocol, or a link, whose peer tells the end of the stream from a cut by what
// was sent last.
type goodbyer interface {
	// SaidGoodbye reports whether that was sent.
	SaidGoodbye() bool
}

// saidGoodbye reports whether the peer can tell the end of this session from a cut.
func (s *session) saidGoodbye() bool {
	t, ok := s.proto.(goodbyer)
	return !ok || t.SaidGoodbye()
}

// SaidGoodbye implements goodbyer: TLS has a close_notify, others just end.
func (t *stream) SaidGoodbye() bool {
	l, ok := t.link.(goodbyer)
	return !ok || l.SaidGoodbye()
}

// SaidGoodbye implements goodbyer, for the close frame.
func (t *webSocket) SaidGoodbye() bool { return t.s.outbox.hasSentEnd() }

// halfCloses implements halfCloser.
func (t *stream) halfCloses() bool {
	_, ok := original(t.conn).(interface{ CloseWrite() error })
	return ok
}

// halfCloses implements halfCloser: RFC 6455 knows no such state.
func (t *webSocket) halfCloses() bool { return false }

// Context implements [Session].
func (s *session) Context() context.Context { return s.life.context() }

// CloseWith implements [Session].
func (s *session) CloseWith(reason error) { s.life.closeWith(reason) }

// CloseWrite implements [Session].
func (s *session) CloseWrite() error { return s.life.closeWrite() }

// OnEnd implements [Session].
func (s *session) OnEnd(f func(Session)) (remove func() bool) { return s.life.onEnd(f) }

// LastRead implements [Session].
func (s *session) LastRead() time.Time {
	at := s.clock.readAt.Load()
	if at == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(at))
}
