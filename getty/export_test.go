// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"maps"
	"slices"
	"time"

	"github.com/gostkit/kit/bytespool"
)

// PendingTimers returns how many timers the wheel of the process holds.
func PendingTimers() int {
	wheelUse.Lock()
	defer wheelUse.Unlock()
	if wheelUse.wheel == nil {
		return 0
	}
	return wheelUse.wheel.Stats().Pending
}

// Held tells which memory a session of a byte stream holds. It races with a session that is not idle.
func Held(ss Session) (readBuffer, batch, mailQueues bool) {
	s := ss.(*session)
	if s.box != nil {
		s.box.mu.Lock()
		mailQueues = s.box.in != nil || s.box.cur != nil
		s.box.mu.Unlock()
	}
	return s.tr.(*stream).buf != nil, HoldsBatch(ss), mailQueues
}

// HoldsBatch tells whether a session holds memory for packages to be sent.
func HoldsBatch(ss Session) bool {
	s := ss.(*session)
	s.encMu.Lock()
	defer s.encMu.Unlock()
	return s.out != nil
}

// AwaitsReview reports whether it was left to the holder of the encoder lock to look whether the queue has fallen.
func AwaitsReview(ss Session) bool { return ss.(*session).has(flagReview) }

// KeptBuffer returns the size of the buffer that holds an incomplete package.
func KeptBuffer(ss Session) int { return len(ss.(*session).tr.(*stream).buf) }

// ControlHeld returns how many bytes of control frames wait for a flush.
func ControlHeld(ss Session) int {
	s := ss.(*session)
	s.qMu.Lock()
	defer s.qMu.Unlock()
	return len(s.sideLocked().control)
}

// BackOff returns the longest wait of a client that has failed so often.
func BackOff(interval, most time.Duration, failures int) time.Duration {
	return backOff(&ClientOptions{ReconnectInterval: interval, ReconnectMax: most}, failures)
}

// MarksHeld returns how many callers of Flush a session knows of.
func MarksHeld(ss Session) int {
	s := ss.(*session)
	s.qMu.Lock()
	defer s.qMu.Unlock()
	return len(s.sideLocked().marks)
}

// OptionNames returns the options that optionuse.go lists.
func OptionNames() []string { return slices.Collect(maps.Keys(optionUse)) }

// BatchKeeps returns how many references a batch keeps that has sent n packages in memory of their own,
// offered to the kernel in larger and smaller runs, when it is given back.
func BatchKeeps(n int) (kept int) {
	b := newBatch()
	for range n {
		whole := bytespool.Get(1)
		b.append(whole, whole, nil)
		b.ends = append(b.ends, b.size)
	}
	for len(b.offer()) > 0 {
		b.took(1)
		b.iov = iovecs{}
	}
	b.free()
	for _, s := range b.segs[:cap(b.segs)] {
		if s.b != nil || s.whole != nil || s.w != nil {
			kept++
		}
	}
	for _, r := range b.runs[:cap(b.runs)] {
		if r != nil {
			kept++
		}
	}
	for _, c := range b.chunks[:cap(b.chunks)] {
		if c != nil {
			kept++
		}
	}
	if b.buf != nil {
		kept++
	}
	return kept
}
