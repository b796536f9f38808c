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

// Lines that a logger lets through at once for one message, and how long it takes until one more is
// let through.
const (
	logBurst = 10
	logEvery = time.Second
)

// newLogger returns the logger of an endpoint over the user's, which is slog.Default without one.
// It names the endpoint, and writes warnings and errors only, a limited number of each message,
// since peers can cause them.
func newLogger(l *slog.Logger, name string) *slog.Logger {
	if l == nil {
		l = slog.Default()
	}
	return slog.New(&limitHandler{next: l.Handler(), limits: new(logLimits)}).With("endpoint", name)
}

// A limitHandler passes warnings and errors on, some of each message. What it held back is told
// with the next record of that message that it passes on.
type limitHandler struct {
	next   slog.Handler
	limits *logLimits // shared by all that were derived from one
}

// Enabled implements [slog.Handler].
func (h *limitHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.next.Enabled(ctx, level)
}

// Handle implements [slog.Handler]. A handler of the user's that panics loses its record and
// nothing else.
func (h *limitHandler) Handle(ctx context.Context, r slog.Record) error {
	suppressed, ok := h.limits.allow(r.Message)
	if !ok {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Uint64("suppressed", suppressed))
	}
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

// logLimits counts records by their message. Messages are constants of this module, so that they
// are few.
type logLimits struct {
	mu    sync.Mutex
	limit map[string]*logLimit // guarded by mu
}

type logLimit struct {
	lines      int // that may still be written at once
	at         time.Time
	suppressed uint64
}

// allow reports whether a record may be written, and how many were not since the last one.
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

// limitText keeps an error, whose text may carry a peer's bytes, short and printable.
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

// peerText is an address for a log line. The connection may be the user's, and its methods may
// panic.
func peerText(addr func() net.Addr) (text string) {
	defer func() {
		if recover() != nil {
			text = "unknown"
		}
	}()
	return addrText(addr())
}
