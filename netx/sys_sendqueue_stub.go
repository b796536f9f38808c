// SPDX-License-Identifier: Apache-2.0

//go:build freebsd || netbsd || openbsd || dragonfly

package netx

import "errors"

func sendQueue(uintptr) (int, error) { return 0, errors.ErrUnsupported }
