// SPDX-License-Identifier: Apache-2.0

package load

import (
	"compress/flate"
	"io"
	"net"
)

// A deflateConn is a stream of DEFLATE in each direction, with a window for all of it.
type deflateConn struct {
	net.Conn
	in  io.Reader
	out *flate.Writer
}

func newDeflateConn(conn net.Conn) *deflateConn {
	out, err := flate.NewWriter(conn, flate.BestSpeed)
	if err != nil {
		panic(err) // of a level that does not exist
	}
	return &deflateConn{Conn: conn, in: flate.NewReader(conn), out: out}
}

func (c *deflateConn) Read(p []byte) (int, error) { return c.in.Read(p) }

func (c *deflateConn) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	if err == nil {
		err = c.out.Flush()
	}
	return n, err
}
