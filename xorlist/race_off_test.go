// SPDX-License-Identifier: Apache-2.0

//go:build !race

package xorlist

// raceEnabled skips tests that count allocations.
const raceEnabled = false
