// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// minSize is the smallest message: the number of its lane and its own.
const minSize = 12

// A lane is the conversation of one session: it makes the messages, checks every
// byte that comes back, and keeps the time. It does no input or output itself, so
// that every client, ours and foreign, is judged by the same code.
//
// A client sends a window of messages first and then one for each echo.
type lane struct {
	id      uint32
	size    int  // bytes of a message
	total   int  // messages to send
	window  int  // messages on their way at a time
	inOrder bool // echoes must come in the order of the messages
	lossy   bool // the transport may lose messages: resend them

	echoes atomic.Int64 // verified so far
	done   chan struct{}

	mu        sync.Mutex // guards what follows
	next      int        // number of the next message
	expected  int        // number of the oldest message without an echo
	pending   map[int]sending
	buf, want []byte
	latencies []time.Duration
	resent    int
	errors    int
	err       error // the first one
	begin     time.Time
	end       time.Time // zero while the lane runs
}

// A sending is a message on its way.
type sending struct {
	first, last time.Time
	again       bool // it was sent more than once, so its echo may come twice
}

func newLane(id, size, total, window int) *lane {
	return &lane{
		id: uint32(id), size: size, total: total, window: window,
		done:      make(chan struct{}),
		pending:   make(map[int]sending, window),
		buf:       make([]byte, size),
		want:      make([]byte, size),
		latencies: make([]time.Duration, 0, total),
	}
}

// start sends the first messages. write must not keep the slice that it gets.
func (l *lane) start(write func([]byte) error) {
	for range l.window {
		l.send(write)
	}
}

// send sends the next message, if there is one left.
func (l *lane) send(write func([]byte) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next == l.total || !l.end.IsZero() {
		return
	}
	now := time.Now()
	if l.next == 0 {
		l.begin = now
	}
	l.message(l.buf, l.next)
	l.pending[l.next] = sending{first: now, last: now}
	l.next++
	if err := write(l.buf); err != nil {
		l.finishLocked(fmt.Errorf("write: %w", err))
	}
}

// resend sends again what had no echo for age, if the transport is lossy. On any
// other a message without an echo is lost for good.
func (l *lane) resend(age time.Duration, write func([]byte) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for n := l.expected; l.lossy && n < l.next && l.end.IsZero(); n++ {
		s, waiting := l.pending[n]
		if !waiting || now.Sub(s.last) < age {
			continue
		}
		l.resent++
		l.pending[n] = sending{first: s.first, last: now, again: true}
		l.message(l.buf, n)
		if err := write(l.buf); err != nil {
			l.finishLocked(fmt.Errorf("write: %w", err))
		}
	}
}

// echo checks one message that came back. It reports whether it was new, so that
// the next may be sent.
func (l *lane) echo(b []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.end.IsZero() {
		return false
	}
	n, err := l.number(b)
	if err != nil {
		l.finishLocked(err)
		return false
	}
	s, waiting := l.pending[n]
	switch {
	case !waiting && l.resent > 0 && n < l.next:
		return false // the echo of the first copy came after all
	case !waiting:
		l.finishLocked(fmt.Errorf("message %d came back twice, or before it was sent", n))
		return false
	case l.inOrder && n != l.expected:
		l.finishLocked(fmt.Errorf("message %d came back where %d was next", n, l.expected))
		return false
	}
	delete(l.pending, n)
	now := time.Now()
	l.latencies = append(l.latencies, now.Sub(s.first))
	for l.expected < l.next {
		if _, waiting := l.pending[l.expected]; waiting {
			break
		}
		l.expected++
	}
	l.echoes.Add(1)
	if len(l.latencies) == l.total {
		l.finishLocked(nil)
	}
	return true
}

// fail ends the lane with an error, unless it has ended.
func (l *lane) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finishLocked(err)
}

func (l *lane) finishLocked(err error) {
	if !l.end.IsZero() {
		return
	}
	l.end = time.Now()
	if l.begin.IsZero() {
		l.begin = l.end
	}
	if err != nil {
		// What was not verified is lost, whatever the reason.
		l.errors = max(l.total-len(l.latencies), 1)
		l.err = fmt.Errorf("session %d: %w", l.id, err)
	}
	close(l.done)
}

// number verifies b as one of the lane's messages and returns which one it is.
func (l *lane) number(b []byte) (int, error) {
	if len(b) != l.size {
		return 0, fmt.Errorf("%d bytes came back, want %d", len(b), l.size)
	}
	if id := binary.BigEndian.Uint32(b); id != l.id {
		return 0, fmt.Errorf("a message of session %d came back", id)
	}
	n := binary.BigEndian.Uint64(b[4:])
	if n >= uint64(l.total) {
		return 0, fmt.Errorf("message %d of %d came back", n, l.total)
	}
	l.message(l.want, int(n))
	if !bytes.Equal(b, l.want) {
		return 0, errMismatch
	}
	return int(n), nil
}

var errMismatch = errors.New("bytes came back changed")

// message fills b with message n: lane, number, then bytes that differ for each
// lane, message and position (splitmix64).
func (l *lane) message(b []byte, n int) {
	binary.BigEndian.PutUint32(b, l.id)
	binary.BigEndian.PutUint64(b[4:], uint64(n))
	state := uint64(l.id)<<40 + uint64(n)
	var word [8]byte
	for rest := b[minSize:]; len(rest) > 0; {
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(word[:], z^z>>31)
		rest = rest[copy(rest, word[:]):]
	}
}

// ended reports whether the lane has finished, well or not.
func (l *lane) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}
