// SPDX-License-Identifier: Apache-2.0

//go:build linux && !amd64

package netx

func pollNow(fd uintptr) (int16, error) { return pollPortable(fd) }
