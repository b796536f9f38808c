// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/gostkit/kit/netx"
)

// UnixServerOptions are the part of [ServerOptions] that only servers of Unix sockets use.
type UnixServerOptions struct {
	// Mode is the permission of the socket file: who may connect, on Linux. On Linux the file never
	// has more than Mode, elsewhere it does for a moment. 0: what the umask leaves.
	Mode fs.FileMode

	// KeepStale makes a socket file that a dead process has left an error. Without it such a file
	// is replaced; see [netx.ListenUnix], which also tells when a file counts as left.
	KeepStale bool
}

// NewUnixServer returns a server of stream sessions over a Unix socket. Addr is the path of its
// file, which the end of the server removes; a path that begins with @ has no file (Linux). A path
// that is too long is [netx.ErrPathTooLong], one that another server listens on is EADDRINUSE, one
// that is no socket [netx.ErrNotSocket]: all from RunEventLoop.
func NewUnixServer(opts ...ServerOption) *Server {
	return newServer(opts, &streamService{shakes: newHandshakes()}, unixServer)
}

// NewUnixClient returns a client of stream sessions over a Unix socket. Addr is the path. With TLS
// it needs a ServerName.
func NewUnixClient(opts ...ClientOption) *Client { return newClient(opts, dialUnix, unixClient) }

func dialUnix(ctx context.Context, o *ClientOptions) (protocol, error) {
	d := netx.Dialer{Options: withoutLinger(o.Socket)}
	conn, err := d.DialContext(ctx, "unix", o.Addr)
	if err == nil {
		conn, err = o.TLSOptions.secured(ctx, conn, "")
	}
	if err != nil {
		return nil, err
	}
	return newStream(conn, o.Compress), nil
}

// listen opens the socket path.
func (o *UnixServerOptions) listen(path string) (net.Listener, error) {
	u := netx.UnixOptions{Mode: o.Mode}
	if o.KeepStale {
		u.Stale = netx.KeepStale
	}
	return netx.ListenUnix(context.Background(), path, u)
}

// checkUnix checks the options of a server.
func checkUnix(path string, o *UnixServerOptions) error {
	switch {
	case path == "":
		return errors.New("getty: Addr is empty: a Unix socket needs a path")
	case o.Mode&^fs.ModePerm != 0:
		return fmt.Errorf("getty: Unix.Mode is %v, and has more than permissions", o.Mode)
	}
	if err := netx.CheckUnixPath(path); err != nil {
		return fmt.Errorf("getty: Addr: %w", err)
	}
	return nil
}
