// SPDX-License-Identifier: Apache-2.0

//go:build race

package bytespool

// raceEnabled tells tests that sync.Pool drops a part of what is put, at random.
const raceEnabled = true
