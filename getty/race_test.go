// SPDX-License-Identifier: Apache-2.0

//go:build race

package getty_test

const raceEnabled = true
