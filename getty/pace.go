// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"time"

	"github.com/gostkit/kit/timerwheel"
)

// DefaultBurst is the default of Burst in [ReadRate].
const DefaultBurst = 100 * time.Millisecond

// A ReadRate limits what a session reads. Above it reading pauses, which on a stream stops the peer
// and loses nothing; over UDP the kernel drops what its buffer does not hold. While it pauses,
// ReadTimeout and IdleTimeout stand still. The zero value is no limit.
type ReadRate struct {
	// Packages and Bytes are how many may be read in a second, in the mean. 0: no limit.
	Packages, Bytes int

	// Burst is for how long they may be saved up: so much may come at once after a silence. One read
	// may exceed it, and is made up for by a longer pause. 0: DefaultBurst.
	Burst time.Duration
}

func (r ReadRate) on() bool { return r.Packages > 0 || r.Bytes > 0 }

func (r ReadRate) check() error {
	switch {
	case r.Packages < 0 || r.Bytes < 0:
		return errors.New("getty: ReadRate: Packages and Bytes must not be negative")
	case r.Burst < 0:
		return errors.New("getty: ReadRate: Burst is negative")
	case r.Burst > 0 && !r.on():
		return fmt.Errorf("getty: ReadRate: a Burst of %v of nothing", r.Burst)
	}
	return nil
}

// A pacer keeps the ReadRate of one session. It works like a bucket that leaks (the generic cell
// rate algorithm, ITU-T I.371): each limit has a time that moves on by what was read, and reading
// pauses while that time lies in the future.
type pacer struct {
	free  [2]int64 // when what was read so far would be allowed, for packages and for bytes
	pkgs  uint64   // packages counted so far
	timer *timerwheel.Timer
}

// pace counts a read of n bytes and pauses reading if it was too much. It is called by the goroutine
// that reads.
func (s *session) pace(n int) {
	rate := &s.opts.ReadRate
	if !rate.on() {
		return
	}
	if s.pacer == nil {
		s.pacer = new(pacer)
	}
	p, t := s.pacer, now()
	pkgs := s.count.PkgsRead.Load()
	until := max(p.take(0, t, rate, int(pkgs-p.pkgs), rate.Packages), p.take(1, t, rate, n, rate.Bytes))
	p.pkgs = pkgs
	if until <= t {
		return
	}
	s.setFlag(flagPaced)
	d := time.Duration(until - t)
	if p.timer == nil {
		p.timer = s.ep.wheel.AfterFunc(d, s.unpaced)
	} else {
		p.timer.Reset(d)
	}
}

// take moves one of the times on by n, of perSecond, and returns until when to pause.
func (p *pacer) take(which int, t int64, rate *ReadRate, n, perSecond int) int64 {
	if perSecond <= 0 {
		return 0
	}
	at := max(p.free[which], t-nanos(rate.Burst))
	at += int64(float64(n) * float64(time.Second) / float64(perSecond))
	p.free[which] = at
	return at
}

// unpaced ends a pause. It runs on the wheel.
func (s *session) unpaced() {
	s.clock.resumed()
	s.clearFlag(flagPaced)
	s.outbox.wake()
}

// paced reports whether reading pauses for ReadRate. A session that closes reads on.
func (s *session) paced() bool { return s.bits.Load()&(flagPaced|flagClosing) == flagPaced }

// stopPacing ends the timer of a session that is over.
func (s *session) stopPacing() {
	if s.pacer != nil && s.pacer.timer != nil {
		s.pacer.timer.Stop()
	}
}
