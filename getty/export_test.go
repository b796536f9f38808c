// SPDX-License-Identifier: Apache-2.0

package getty

import "time"

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
	return streamOf(s).buf != nil, HoldsBatch(ss), mailQueues
}

func streamOf(s *session) *stream {
	if ws, ok := s.tr.(*webSocket); ok {
		return ws.stream
	}
	return s.tr.(*stream)
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
