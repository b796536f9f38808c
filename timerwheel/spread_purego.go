// SPDX-License-Identifier: Apache-2.0

//go:build purego

package timerwheel

import "math/rand/v2"

// spread returns the shard number for a new timer, by chance.
func spread(_ *Timer, shift uint8) uint64 { return rand.Uint64() >> shift }
