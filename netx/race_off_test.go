// SPDX-License-Identifier: Apache-2.0

//go:build !race

package netx

const raceEnabled = false
