// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progressEvery is how often a terminal is redrawn; elsewhere a line a second is
// enough.
const progressEvery = 100 * time.Millisecond

// progress shows how far a row has come: a bar on a terminal, plain lines
// elsewhere.
type progress struct {
	w        io.Writer
	terminal bool
	printed  time.Time // when the last plain line was
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, printed: time.Now()}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			p.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return p
}

func (p *progress) show(r *row, last bool) {
	total := int64(0)
	for _, l := range r.lanes {
		total += int64(l.total)
	}
	n := r.echoes()
	switch {
	case p.terminal && last:
		fmt.Fprint(p.w, "\r\x1b[K")
	case p.terminal:
		const width = 30
		full := int(n * width / max(total, 1))
		fmt.Fprintf(p.w, "\r\x1b[K%-4s %-12s [%s%s] %d of %d", r.transport, r.client,
			strings.Repeat("#", full), strings.Repeat(".", width-full), n, total)
	case last || time.Since(p.printed) >= time.Second:
		p.printed = time.Now()
		fmt.Fprintf(p.w, "%s %s: %d of %d messages\n", r.transport, r.client, n, total)
	}
}
