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
// used.
type Recorder struct {
	// The functions run inside the callbacks of the same name; nil ones do nothing.
	Open     func(getty.Session) error
	Message  func(getty.Session, any)
	Cron     func(getty.Session)
	Writable func(getty.Session)
	Error    func(getty.Session, error)
	Close    func(getty.Session)

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

// A Record is what a Recorder has seen of one session.
type Record struct {
	// Opened is whether OnOpen has been called, Closed whether OnClose has returned.
	Opened, Closed bool

	// Messages and Crons count the calls of OnMessage and OnCron.
	Messages, Crons int

	// Errors is what OnError was called with: one at most.
	Errors []error

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
		c.Errors = slices.Clone(rec.Errors)
		return c
	}
	return Record{}
}

// begin checks and records that a callback begins. exclusive callbacks may not overlap each other.
func (r *Recorder) begin(s getty.Session, what string, exclusive bool) *Record {
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
	}
	rec.Opened = true
	rec.busy = rec.busy || exclusive
	return rec
}

// end records that a callback has returned, also by a panic; change updates the record.
func (r *Recorder) end(rec *Record, exclusive bool, change func(*Record)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if exclusive {
		rec.busy = false
	}
	if change != nil {
		change(rec)
	}
}

// OnOpen implements [getty.EventListener].
func (r *Recorder) OnOpen(s getty.Session) error {
	rec := r.begin(s, "OnOpen", true)
	defer r.end(rec, true, nil)
	if r.Open != nil {
		if err := r.Open(s); err != nil {
			return err
		}
	}
	r.Opened <- s
	return nil
}

// OnMessage implements [getty.EventListener].
func (r *Recorder) OnMessage(s getty.Session, pkg any) {
	rec := r.begin(s, "OnMessage", !r.Unordered)
	defer r.end(rec, !r.Unordered, func(rec *Record) { rec.Messages++ })
	if r.Message != nil {
		r.Message(s, pkg)
	}
}

// OnCron implements [getty.EventListener].
func (r *Recorder) OnCron(s getty.Session) {
	rec := r.begin(s, "OnCron", !r.Unordered)
	defer r.end(rec, !r.Unordered, func(rec *Record) { rec.Crons++ })
	if r.Cron != nil {
		r.Cron(s)
	}
}

// OnWritable implements [getty.WritableListener].
func (r *Recorder) OnWritable(s getty.Session) {
	rec := r.begin(s, "OnWritable", true)
	defer r.end(rec, true, nil)
	if r.Writable != nil {
		r.Writable(s)
	}
}

// OnError implements [getty.EventListener].
func (r *Recorder) OnError(s getty.Session, err error) {
	rec := r.begin(s, "OnError", true)
	defer r.end(rec, true, func(rec *Record) { rec.Errors = append(rec.Errors, err) })
	if r.Error != nil {
		r.Error(s, err)
	}
}

// OnClose implements [getty.EventListener].
func (r *Recorder) OnClose(s getty.Session) {
	rec := r.begin(s, "OnClose", true)
	defer func() {
		r.end(rec, true, func(rec *Record) { rec.Closed = true })
		r.Closed <- s
	}()
	if r.Close != nil {
		r.Close(s)
	}
}
