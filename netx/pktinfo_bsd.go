// SPDX-License-Identifier: Apache-2.0

//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package netx

import (
	"errors"
	"fmt"
	"net/netip"
)

// newPacketSender sends without waiting, and from no address in particular.
func newPacketSender(fd uintptr) (packetSender, error) {
	return newUnixSender(fd, func(netip.Addr) ([]byte, error) {
		return nil, fmt.Errorf("local address of a datagram: %w", errors.ErrUnsupported)
	})
}
