// SPDX-License-Identifier: Apache-2.0

package getty

import "sync/atomic"

// A state is the word of flags of a session. It is one word although its parts have different
// owners, since a goroutine that gives up a token must see in the same step what others have left
// for its holder: the end of a turn sees that packages are queued or a callback is due, the end of
// a read that Shutdown waits for it.
type state struct{ bits atomic.Uint32 }

// Flags of life are set once and never cleared, but for flagReading.
const (
	flagOpen     uint32 = 1 << iota // OnOpen has succeeded
	flagRefuse                      // no package is accepted any more
	flagClosing                     // no package is delivered any more
	flagOwnClose                    // Close was called by the user or by Shutdown
	flagReading                     // the reader is between a read and the end of what it brought
	flagDrain                       // Shutdown: read nothing more, close when all that was read is handled
	flagDraining                    // a goroutine waits to close the session when all is handled
	flagReadEnd                     // OnReadEnd keeps the session open after the peer's end
	flagExpired                     // WaitTime is over: what is read is out of order
	flagHard                        // the descriptor is closed or about to be
	flagEnded                       // OnClose is the next callback, or has run
)

// Flags of the turn.
const (
	flagTurn     uint32 = 1 << (iota + 11) // a turn has the token
	flagAwaited                            // somebody waits for the token; set with the lock of turn held
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
	flagBlocked                           // the queue reached the high mark and not yet the low mark
	flagLine                              // writers wait in line (line.go); changed with mu held
	flagWant                              // somebody wanted to flush, and the token or the encoder lock was taken
	flagReview                            // somebody wanted to look whether the queue fell, and the encoder lock was taken
	flagWatched                           // on the endpoint's list of sessions with packages queued in a turn
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
