// SPDX-License-Identifier: Apache-2.0

package gettytest

import (
	"slices"
	"sync"
	"testing"

	"github.com/gostkit/kit/getty"
)

// A Recorder is a listener that records the callbacks of any number of sessions, calls the
// functions that are set, and fails its test when the order of callbacks is not the one that
// [getty.EventListener] promises. Make one with [NewRecorder] and set the functions before it is
// used. A listener of your own is checked if the functions call it, or if a type of yours embeds
// the Recorder and calls the Recorder's method in each of its own.
type Recorder struct {
	// The functions run inside the callbacks of the same name; nil ones do nothing.
	Open     func(getty.Session) error
	Message  func(getty.Session, any)
	Cron     func(getty.Session)
	Writable func(getty.Session)
	Error    func(getty.Session, error)
	Close    func(getty.Session)

	ReadEnd     func(getty.Session)        // of the listener that AnswersAfterEnd returns
	PacketError func(getty.Session, error) // of the listener that HearsPacketErrors returns

	// Unordered says that the sessions have [getty.Unordered] dispatch: Message and Cron may
	// overlap.
	Unordered bool

	// Opened and Closed receive each session whose OnOpen succeeded, and whose OnClose has
	// returned. They hold 16 Ki sessions, so that a test need not receive them.
	Opened, Closed chan getty.Session

	t    testing.TB
	mu   sync.Mutex
	seen map[getty.Session]*Record // guarded by mu
}

var (
	_ getty.EventListener    = (*Recorder)(nil)
	_ getty.WritableListener = (*Recorder)(nil)
)

// A Record is what a Recorder has seen of one session. A callback counts from its beginning.
type Record struct {
	Opened          bool    // OnOpen was called
	Closed          bool    // OnClose has returned
	Messages, Crons int     // calls of OnMessage and OnCron
	ReadEnds        int     // calls of OnReadEnd: one at most
	Errors          []error // what OnError was called with: one at most
	PacketErrors    []error // what OnPacketError was called with

	busy bool
}

// NewRecorder returns a Recorder that reports to t.
func NewRecorder(t testing.TB) *Recorder {
	const many = 16 << 10
	return &Recorder{
		Opened: make(chan getty.Session, many), Closed: make(chan getty.Session, many),
		t: t, seen: make(map[getty.Session]*Record),
	}
}

// Of returns what was seen of s so far.
func (r *Recorder) Of(s getty.Session) Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.seen[s]; rec != nil {
		c := *rec
		c.Errors, c.PacketErrors = slices.Clone(rec.Errors), slices.Clone(rec.PacketErrors)
		return c
	}
	return Record{}
}

// during checks that a callback may begin now, notes what note changes, and runs f.
// Exclusive callbacks never overlap each other. The callback has ended when f has, also by a
// panic.
func (r *Recorder) during(
	s getty.Session, what string, exclusive bool, note func(*Record), f func(),
) {
	rec := r.begin(s, what, exclusive, note)
	if exclusive {
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			rec.busy = false
		}()
	}
	f()
}

func (r *Recorder) begin(
	s getty.Session, what string, exclusive bool, note func(*Record),
) *Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.seen[s]
	if rec == nil {
		rec = &Record{}
		r.seen[s] = rec
	}
	switch {
	case rec.Closed:
		r.t.Errorf("%s after OnClose", what)
	case what == "OnOpen" && rec.Opened:
		r.t.Errorf("OnOpen for the second time")
	case what != "OnOpen" && !rec.Opened:
		r.t.Errorf("%s before OnOpen", what)
	case exclusive && rec.busy:
		r.t.Errorf("%s overlaps another callback", what)
	case len(rec.Errors) > 0 && what != "OnClose":
		r.t.Errorf("%s after OnError", what)
	case rec.ReadEnds > 0 && (what == "OnMessage" || what == "OnReadEnd"):
		r.t.Errorf("%s after OnReadEnd", what)
	}
	rec.Opened = true
	rec.busy = rec.busy || exclusive
	if note != nil {
		note(rec)
	}
	return rec
}

// OnOpen implements [getty.EventListener].
func (r *Recorder) OnOpen(s getty.Session) (err error) {
	r.during(s, "OnOpen", true, nil, func() {
		if r.Open != nil {
			err = r.Open(s)
		}
		if err == nil {
			r.Opened <- s
		}
	})
	return err
}

// OnMessage implements [getty.EventListener].
func (r *Recorder) OnMessage(s getty.Session, pkg any) {
	r.during(s, "OnMessage", !r.Unordered, func(rec *Record) { rec.Messages++ }, func() {
		if r.Message != nil {
			r.Message(s, pkg)
		}
	})
}

// OnCron implements [getty.EventListener].
func (r *Recorder) OnCron(s getty.Session) {
	r.during(s, "OnCron", !r.Unordered, func(rec *Record) { rec.Crons++ }, func() {
		if r.Cron != nil {
			r.Cron(s)
		}
	})
}

// OnWritable implements [getty.WritableListener].
func (r *Recorder) OnWritable(s getty.Session) {
	r.during(s, "OnWritable", true, nil, func() {
		if r.Writable != nil {
			r.Writable(s)
		}
	})
}

// OnError implements [getty.EventListener].
func (r *Recorder) OnError(s getty.Session, err error) {
	note := func(rec *Record) { rec.Errors = append(rec.Errors, err) }
	r.during(s, "OnError", true, note, func() {
		if r.Error != nil {
			r.Error(s, err)
		}
	})
}

// OnClose implements [getty.EventListener].
func (r *Recorder) OnClose(s getty.Session) {
	defer func() {
		r.mu.Lock()
		r.seen[s].Closed = true
		r.mu.Unlock()
		r.Closed <- s
	}()
	r.during(s, "OnClose", true, nil, func() {
		if r.Close != nil {
			r.Close(s)
		}
	})
}

// AnswersAfterEnd returns a listener that records like r and is a [getty.ReadEndListener], so that
// its sessions go on writing after their peers have ended their streams.
func (r *Recorder) AnswersAfterEnd() interface {
	getty.EventListener
	getty.ReadEndListener
} {
	return afterEnd{r}
}

type afterEnd struct{ *Recorder }

func (r afterEnd) OnReadEnd(s getty.Session) {
	r.during(s, "OnReadEnd", true, func(rec *Record) { rec.ReadEnds++ }, func() {
		if r.ReadEnd != nil {
			r.ReadEnd(s)
		}
	})
}

// HearsPacketErrors returns a listener that records like r and is a [getty.PacketErrorListener].
func (r *Recorder) HearsPacketErrors() interface {
	getty.EventListener
	getty.PacketErrorListener
} {
	return packetErrors{r}
}

type packetErrors struct{ *Recorder }

func (r packetErrors) OnPacketError(s getty.Session, err error) {
	note := func(rec *Record) { rec.PacketErrors = append(rec.PacketErrors, err) }
	r.during(s, "OnPacketError", !r.Unordered, note, func() {
		if r.PacketError != nil {
			r.PacketError(s, err)
		}
	})
}
