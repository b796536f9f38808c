// SPDX-License-Identifier: Apache-2.0

//go:build !race

package taskpool_test

const raceEnabled = false
