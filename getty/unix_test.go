// SPDX-License-Identifier: Apache-2.0

//go:build unix

package getty_test

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/netx"
	"github.com/stretchr/testify/require"
)

// A socket file that a dead process has left is replaced, or an error for those who want to know;
// one that a server listens on is never touched, and no other file. The server's end removes its
// own.
//
// fault: 93
func TestUnixSocketFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	at := getty.WithLocalAddress(path)
	start := func(opts ...getty.ServerOption) (*getty.Server, error) {
		srv := getty.NewUnixServer(append(opts, at)...)
		return srv, srv.RunEventLoop(prepare(newTracer(t)))
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	_, err = start()
	require.ErrorIs(t, err, syscall.EADDRINUSE, "somebody listens")
	ln.SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
	_, err = start(func(o *getty.ServerOptions) { o.Unix.KeepStale = true })
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	srv, err := start(func(o *getty.ServerOptions) { o.Unix.Mode = 0o640 })
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	if runtime.GOOS == "linux" {
		require.Equal(t, fs.FileMode(0o640), info.Mode().Perm())
	}
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	srv.Close()
	within(t, srv.Done(), "Done")
	require.NoFileExists(t, path)
	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	_, err = start()
	require.ErrorIs(t, err, netx.ErrNotSocket)
	require.FileExists(t, path)
}

// A path that cannot be is an error with a name, at the start.
//
// fault: 94
func TestUnixPaths(t *testing.T) {
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 200))
	for _, e := range []getty.EndPoint{
		getty.NewUnixServer(getty.WithLocalAddress(long)),
		getty.NewUnixClient(getty.WithServerAddress(long)),
	} {
		err := e.RunEventLoop(prepare(newTracer(t)))
		require.ErrorIs(t, err, netx.ErrPathTooLong)
		require.ErrorContains(t, err, "Addr")
		e.Close()
	}
	for _, e := range []getty.EndPoint{getty.NewUnixServer(), getty.NewUnixClient(),
		getty.NewUnixServer(getty.WithLocalAddress("a\x00b"))} {
		require.ErrorContains(t, e.RunEventLoop(prepare(newTracer(t))), "Addr")
		e.Close()
	}
	srv := getty.NewUnixServer(getty.WithLocalAddress("x"), func(o *getty.ServerOptions) { o.Unix.Mode = fs.ModeDir })
	require.ErrorContains(t, srv.RunEventLoop(prepare(newTracer(t))), "Unix.Mode")
	srv = getty.NewUnixServer(getty.WithLocalAddress(filepath.Join(t.TempDir(), "no", "dir")))
	require.ErrorIs(t, srv.RunEventLoop(prepare(newTracer(t))), fs.ErrNotExist)
}
