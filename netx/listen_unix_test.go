// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// deadSocket leaves a socket file behind, as a killed process does.
func deadSocket(t *testing.T, path string) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	l.Close()
	require.FileExists(t, path)
}

// talks checks that somebody accepts on path.
func talks(t *testing.T, l net.Listener, path string) {
	t.Helper()
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	defer c.Close()
	a, err := l.Accept()
	require.NoError(t, err)
	a.Close()
}

// fault: 93
func TestListenUnixStale(t *testing.T) {
	if _, err := sys.sameFile("/"); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no stale files are removed here")
	}
	path := shortDir(t) + "/s"
	ctx := testContext(t)
	deadSocket(t, path)
	_, err := ListenUnix(ctx, path, UnixOptions{Stale: KeepStale})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.FileExists(t, path, "KeepStale")

	l, err := ListenUnix(ctx, path, UnixOptions{})
	require.NoError(t, err, "a stale file is replaced")
	talks(t, l, path)

	_, err = ListenUnix(ctx, path, UnixOptions{})
	require.ErrorIs(t, err, syscall.EADDRINUSE, "a live one never is")
	c, err := l.Accept() // the probe's connection
	require.NoError(t, err)
	c.Close()
	talks(t, l, path)
	require.NoError(t, l.Close())
	require.NoError(t, l.Close(), "again")
	require.NoFileExists(t, path)

	l, err = ListenUnix(ctx, path, UnixOptions{Network: "unixpacket"})
	if runtime.GOOS == "linux" {
		require.NoError(t, err)
		_, err = ListenUnix(ctx, path, UnixOptions{})
		require.ErrorIs(t, err, syscall.EADDRINUSE, "another type of socket is alive too")
		l.Close()
	}
}

// A listener whose queue is full refuses nobody: it is alive.
// fault: 93
func TestListenUnixFullBacklogIsAlive(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a full backlog refuses connections here")
	}
	path := shortDir(t) + "/s"
	l, err := ListenUnix(testContext(t), path, UnixOptions{})
	require.NoError(t, err)
	defer l.Close()
	rc, err := l.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, control(rc, noBacklog))
	c, err := net.Dial("unix", path)
	require.NoError(t, err)
	defer c.Close()
	_, err = net.Dial("unix", path)
	require.ErrorIs(t, err, syscall.EAGAIN, "the queue is full")
	_, err = ListenUnix(testContext(t), path, UnixOptions{})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.FileExists(t, path)
}

// A live datagram socket has the path too.
// fault: 93
func TestListenUnixDatagramIsAlive(t *testing.T) {
	path := shortDir(t) + "/s"
	c, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Skip("no datagram sockets here:", err)
	}
	defer c.Close()
	_, err = ListenUnix(testContext(t), path, UnixOptions{})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.FileExists(t, path)
}

func TestListenUnixOtherFiles(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, []byte("precious"), 0o600))
	_, err := ListenUnix(testContext(t), file, UnixOptions{})
	require.ErrorIs(t, err, ErrNotSocket)
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "precious", string(b))

	_, err = ListenUnix(testContext(t), dir, UnixOptions{})
	require.ErrorIs(t, err, ErrNotSocket, "a directory")
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(filepath.Join(dir, "nowhere"), link))
	_, err = ListenUnix(testContext(t), link, UnixOptions{})
	require.ErrorIs(t, err, ErrNotSocket, "a symbolic link")
	_, err = ListenUnix(testContext(t), filepath.Join(dir, "no", "such"), UnixOptions{})
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// fault: 94
func TestListenUnixPath(t *testing.T) {
	if sys.maxUnixPath == 0 {
		t.Skip("the longest path is not known here")
	}
	dir := shortDir(t)
	longest := dir + "/" + strings.Repeat("x", sys.maxUnixPath-len(dir)-1)
	l, err := ListenUnix(testContext(t), longest, UnixOptions{})
	require.NoError(t, err, "%d bytes", len(longest))
	talks(t, l, longest)
	l.Close()
	_, err = ListenUnix(testContext(t), longest+"x", UnixOptions{})
	require.ErrorIs(t, err, ErrPathTooLong, "%d bytes", len(longest)+1)
	_, err = ListenUnix(testContext(t), "", UnixOptions{})
	require.ErrorIs(t, err, syscall.EINVAL)
	for _, path := range []string{dir + "/a\x00b", "\x00b", "@a\x00b"} { // the kernel would see another name
		_, err = ListenUnix(testContext(t), path, UnixOptions{})
		require.ErrorIs(t, err, syscall.EINVAL, "%q", path)
		_, err = (&Dialer{}).DialContext(testContext(t), "unix", path)
		require.ErrorIs(t, err, syscall.EINVAL, "%q", path)
	}
	require.NoFileExists(t, dir+"/a")
	_, err = ListenUnix(testContext(t), dir+"/s", UnixOptions{Network: "unixgram"})
	require.Error(t, err)
	var oe *OptionError
	_, err = ListenUnix(testContext(t), dir+"/s", UnixOptions{Options: SocketOptions{TOS: 8}})
	require.ErrorAs(t, err, &oe)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = ListenUnix(ctx, dir+"/s", UnixOptions{})
	require.ErrorIs(t, err, context.Canceled)
}

func TestListenUnixAbstract(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("abstract addresses are Linux's")
	}
	name := "@netx-test-" + filepath.Base(shortDir(t))
	l, err := ListenUnix(testContext(t), name, UnixOptions{})
	require.NoError(t, err)
	talks(t, l, name)
	_, err = ListenUnix(testContext(t), name, UnixOptions{})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.NoError(t, l.Close())
}

func TestListenUnixMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no such permissions here")
	}
	bothSystems(t, func(t *testing.T, stub bool) {
		path := shortDir(t) + "/s"
		for _, mode := range []fs.FileMode{0o600, 0o666, 0o640} {
			l, err := ListenUnix(testContext(t), path, UnixOptions{Mode: mode})
			require.NoError(t, err)
			fi, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, mode, fi.Mode().Perm())
			l.Close()
		}
	})
}

// On Linux the socket is never more open than asked for, not even between bind and chmod.
func TestListenUnixModeBeforeBind(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the mode is set after bind here")
	}
	path := shortDir(t) + "/s"
	l, err := bindUnix(testContext(t), "unix", path, UnixOptions{Mode: 0o600})
	require.NoError(t, err)
	defer l.Close()
	fi, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), fi.Mode().Perm())
}

// A listener that is closed late does not take its successor's file away.
// fault: 93
func TestListenUnixCloseKeepsSuccessor(t *testing.T) {
	if _, err := sys.sameFile("/"); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("files cannot be told apart here")
	}
	path := shortDir(t) + "/s"
	old, err := ListenUnix(testContext(t), path, UnixOptions{})
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	l, err := ListenUnix(testContext(t), path, UnixOptions{})
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, old.Close())
	talks(t, l, path)
}

// The setting that package net's listener has works on this one too.
func TestListenUnixSetUnlinkOnClose(t *testing.T) {
	bothSystems(t, func(t *testing.T, stub bool) {
		path := shortDir(t) + "/s"
		l, err := ListenUnix(testContext(t), path, UnixOptions{})
		require.NoError(t, err)
		f, err := l.File() // somebody else goes on with the socket
		require.NoError(t, err)
		defer f.Close()
		l.SetUnlinkOnClose(false)
		require.NoError(t, l.Close())
		require.FileExists(t, path)
		c, err := net.Dial("unix", path)
		require.NoError(t, err)
		c.Close()
	})
	if _, err := sys.sameFile("/"); errors.Is(err, errors.ErrUnsupported) {
		return // files cannot be told apart here
	}
	path := shortDir(t) + "/s"
	old, err := ListenUnix(testContext(t), path, UnixOptions{})
	require.NoError(t, err)
	old.SetUnlinkOnClose(false)
	old.SetUnlinkOnClose(true)
	require.NoError(t, os.Remove(path))
	l, err := ListenUnix(testContext(t), path, UnixOptions{})
	require.NoError(t, err)
	require.NoError(t, old.Close())
	talks(t, l, path) // true does not mean a successor's file
	require.NoError(t, l.Close())
	require.NoFileExists(t, path)
}

// Many that start at once on a stale file: one gets it, no other removes the winner's socket.
// fault: 93
func TestListenUnixRace(t *testing.T) {
	if _, err := sys.sameFile("/"); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no stale files are removed here")
	}
	path := shortDir(t) + "/s"
	for range 5 {
		deadSocket(t, path)
		var won atomic.Pointer[UnixListener]
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				l, err := ListenUnix(testContext(t), path, UnixOptions{})
				if err != nil {
					if !errors.Is(err, syscall.EADDRINUSE) {
						t.Errorf("a loser's error: %v", err)
					}
					return
				}
				if !won.CompareAndSwap(nil, l) {
					t.Errorf("two winners")
				}
			})
		}
		wg.Wait()
		l := won.Load()
		require.NotNil(t, l, "one wins")
		c, err := net.Dial("unix", path)
		require.NoError(t, err, "the winner is reachable")
		c.Close()
		l.Close()
	}
}

// Where the directory cannot be locked, nothing is removed.
func TestListenUnixStub(t *testing.T) {
	useStub(t)
	path := shortDir(t) + "/s"
	deadSocket(t, path)
	_, err := ListenUnix(testContext(t), path, UnixOptions{})
	require.ErrorIs(t, err, errInUse)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.FileExists(t, path)
	require.NoError(t, os.Remove(path))
	l, err := ListenUnix(testContext(t), path, UnixOptions{})
	require.NoError(t, err)
	talks(t, l, path)
	l.Close()
	require.NoFileExists(t, path, "package net removes it")
}

// Somebody else's lock on the directory delays a server for a bounded time and removes its right to
// clean up, no more.
func TestListenUnixDirectoryLocked(t *testing.T) {
	dir := shortDir(t)
	unlock, err := sys.lockDir(testContext(t), dir)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no locks here")
	}
	require.NoError(t, err)
	defer unlock()
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	_, err = sys.lockDir(ctx, dir)
	require.ErrorIs(t, err, context.Canceled)
	l, err := ListenUnix(testContext(t), dir+"/s", UnixOptions{})
	require.NoError(t, err)
	l.Close()
}
