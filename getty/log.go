// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A logger writes logBurst records of one message at once, and then one more in each logEvery.
const (
	logBurst = 10
	logEvery = time.Second
)

// newLogger returns the logger of an endpoint. It passes records on to l, or to slog.Default if l
// is nil, with the endpoint's name. Only warnings and errors are logged, and of each message a
// limited number, since peers can cause them.
func newLogger(l *slog.Logger, name string) *slog.Logger {
	if l == nil {
		l = slog.Default()
	}
	return slog.New(&limitHandler{next: l.Handler(), limits: new(logLimits)}).With("endpoint", name)
}

// A limitHandler passes on warnings and errors, of each message a limited number. The next record
// of that message that it passes on tells how many it suppressed.
type limitHandler struct {
	next   slog.Handler
	limits *logLimits // shared by all handlers that WithAttrs and WithGroup derive
}

// Enabled implements [slog.Handler].
func (h *limitHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.next.Enabled(ctx, level)
}

// Handle implements [slog.Handler]. If the user's handler panics, its record is lost.
func (h *limitHandler) Handle(ctx context.Context, r slog.Record) error {
	suppressed, ok := h.limits.allow(r.Message)
	if !ok {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Uint64("suppressed", suppressed))
	}
	// The goroutine may be one of getty's own, where a panic would end the process.
	defer func() { _ = recover() }()
	return h.next.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h *limitHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limitHandler{h.next.WithAttrs(attrs), h.limits}
}

// WithGroup implements [slog.Handler].
func (h *limitHandler) WithGroup(name string) slog.Handler {
	return &limitHandler{h.next.WithGroup(name), h.limits}
}

// logLimits counts records by their message. All messages are constants of this module, so the map
// stays small.
type logLimits struct {
	mu    sync.Mutex
	limit map[string]*logLimit // guarded by mu
}

type logLimit struct {
	lines      int       // records that may still be written at once
	at         time.Time // up to when lines was refilled
	suppressed uint64    // since the last record that was written
}

// allow reports whether a record may be written, and how many of its message were suppressed before
// it.
func (l *logLimits) allow(message string) (suppressed uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := time.Now()
	m := l.limit[message]
	if m == nil {
		if l.limit == nil {
			l.limit = make(map[string]*logLimit)
		}
		m = &logLimit{lines: logBurst, at: t}
		l.limit[message] = m
	}
	if more := t.Sub(m.at) / logEvery; more > 0 {
		// at moves by whole intervals, so that the begun one is not lost.
		m.lines = int(min(logBurst, time.Duration(m.lines)+more))
		m.at = m.at.Add(more * logEvery)
	}
	if m.lines == 0 {
		m.suppressed++
		return 0, false
	}
	m.lines--
	suppressed, m.suppressed = m.suppressed, 0
	return suppressed, true
}

// limitText returns the text of err, short and printable: it may contain bytes of the peer.
func limitText(err error) string { return limitString(err.Error()) }

func limitString(s string) string {
	const most = 300
	cut := len(s) > most
	if cut {
		s = s[:most]
	}
	t := fmt.Sprintf("%q", s)
	if len(t) > most {
		t, cut = t[:most], true
	}
	if cut {
		t += "..."
	}
	return t
}

// peerText returns an address for a log line. It survives a panic in addr, which may be a method of
// a user's connection.
func peerText(addr func() net.Addr) (text string) {
	defer func() {
		if recover() != nil {
			text = "unknown"
		}
	}()
	return addrText(addr())
}
