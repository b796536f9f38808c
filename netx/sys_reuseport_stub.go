// SPDX-License-Identifier: Apache-2.0

//go:build netbsd || openbsd || dragonfly

package netx

import "errors"

// reusePort is refused: SO_REUSEPORT of these systems shares an address but does not spread
// connections over the listeners in any documented way.
func reusePort(uintptr) error { return errors.ErrUnsupported }
