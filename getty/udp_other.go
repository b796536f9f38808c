// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package getty

import "net"

// rawPacket does nothing here: a client holds its buffer.
type rawPacket struct{}

func (r *rawPacket) init(*net.UDPConn) bool { return false }
func (r *rawPacket) read() ([]byte, error)  { return nil, net.ErrClosed }
func (r *rawPacket) done()                  {}
