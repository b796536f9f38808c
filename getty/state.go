// SPDX-License-Identifier: Apache-2.0

package getty

import "sync/atomic"

// A state is the word of flags of a session. Its parts have different owners and yet lie in one
// word, since a goroutine that gives up a token must see in the same atomic operation what others
// have left for its holder. The end of a turn sees that packages are queued or a callback is due;
// the end of a read sees that Shutdown waits for it.
type state struct{ bits atomic.Uint32 }

// Flags of life are set once and never cleared, but for flagReading.
const (
	flagOpen     uint32 = 1 << iota // OnOpen has succeeded
	flagRefuse                      // no package is accepted any more
	flagClosing                     // no package is delivered any more
	flagOwnClose                    // Close was called by the user or by Shutdown
	flagReading                     // a read, or the decoding of its bytes, is in progress
	flagDrain                       // Shutdown: read nothing more, close when all is handled
	flagDraining                    // a goroutine waits until all is handled, and closes then
	flagReadEnd                     // OnReadEnd keeps the session open after the peer's end
	flagExpired                     // WaitTime is over: input is missing, see life.expire
	flagHard                        // the descriptor is closed or about to be
	flagEnded                       // OnClose is the next callback, or has run
)

// Flags of the turn.
const (
	flagTurn     uint32 = 1 << (iota + 11) // a turn has the token
	flagAwaited                            // a goroutine waits for it; set with turn.mu held
	flagMessage                            // the turn has packages
	flagTick                               // the turn runs OnCron or OnWritable
	flagCron                               // an OnCron is due
	flagWritable                           // an OnWritable is due

	flagsDue      = flagCron | flagWritable
	flagsAttended = flagsDue | flagClosing
)

// Flags of the outbox.
const (
	flagQueued  uint32 = 1 << (iota + 17) // packages are queued; changed with encMu held
	flagBlocked                           // the queue reached the high mark, not yet the low one
	flagLine                              // writers wait in line (line.go); changed with mu held
	flagWant                              // left for the holder of the token or of encMu: flush
	flagReview                            // left for the holder of encMu: has the queue fallen?
	flagWatched                           // on the list of the endpoint's flushWatch

	flagPaced // reading pauses for ReadRate; see pace.go
	flagGrown // the reader has run a turn since it was started; see renew.go
)

// setFlag sets f and reports whether none of it was set before.
func (s *state) setFlag(f uint32) bool { return s.bits.Or(f)&f == 0 }

// clearFlag clears f and reports whether any of it was set.
func (s *state) clearFlag(f uint32) bool { return s.bits.And(^f)&f != 0 }

// has reports whether any of f is set.
func (s *state) has(f uint32) bool { return s.bits.Load()&f != 0 }

// swapIn sets f and returns the flags from before.
func (s *state) swapIn(f uint32) uint32 { return s.bits.Or(f) }

// swapOut clears f and returns the flags from before.
func (s *state) swapOut(f uint32) uint32 { return s.bits.And(^f) }
