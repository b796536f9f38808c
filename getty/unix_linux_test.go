// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// unixFrames is how many frames the process "unix" writes.
const unixFrames = 100

// runStranger gives up its rights, and says why its client does not connect, or that it has.
func runStranger(t *testing.T, path string, say func(string, ...any)) {
	const nobody = 65534
	require.NoError(t, syscall.Setgid(nobody))
	require.NoError(t, syscall.Setuid(nobody))
	book := newLogbook()
	l := newTracer(t)
	client := getty.NewUnixClient(getty.WithServerAddress(path), func(o *getty.ClientOptions) {
		o.Logger = slog.New(book)
	})
	defer client.Close()
	require.NoError(t, client.RunEventLoop(prepare(l)))
	eventually(t, "a dial ends", func() bool {
		return client.Stats().DialErrs > 0 || client.Stats().Open > 0
	})
	if client.Stats().Open > 0 {
		say("connected")
		return
	}
	eventually(t, "it says why", func() bool { return book.find("dial failed") != nil })
	say("%v", book.find("dial failed")["error"])
}

// The mode of a socket file decides who connects: others get an error that says so.
//
// fault: 96
func TestUnixPermission(t *testing.T) {
	need(t, true)
	dir, err := os.MkdirTemp("", "getty")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755)) // so that only the file's mode decides
	for mode, want := range map[fs.FileMode]string{0o666: "connected", 0o600: "permission denied"} {
		t.Run(want, func(t *testing.T) {
			path := filepath.Join(dir, "s")
			srv := getty.NewUnixServer(getty.WithLocalAddress(path), func(o *getty.ServerOptions) { o.Unix.Mode = mode })
			run(t, srv, prepare(newTracer(t)))
			_, lines := helper(t, "stranger "+path)
			require.Contains(t, within(t, lines, "the stranger"), want)
		})
	}
}

// A peer that is killed has sent what it has sent: all of it is delivered, and then the session
// ends, with EOF, or with ECONNRESET (EPIPE while it writes) when the peer had not read its answers.
//
// fault: 96
func TestUnixKilledPeer(t *testing.T) {
	for name, answer := range map[string]bool{"all read": false, "answers unread": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l := newTracer(t)
			got := make(chan any, unixFrames)
			l.message = func(s getty.Session, pkg any) {
				if answer {
					echoPkg(s, pkg)
				}
				got <- pkg
			}
			run(t, getty.NewUnixServer(getty.WithLocalAddress(path)), prepare(l))
			cmd, lines := helper(t, "unix "+path)
			require.Equal(t, "sent", within(t, lines, "the writer"))
			if answer {
				eventually(t, "everything is answered", func() bool { return len(got) == unixFrames })
			}
			require.NoError(t, cmd.Process.Kill())
			s := within(t, l.closed, "OnClose")
			require.Len(t, got, unixFrames)
			if answer {
				reset := errors.Is(s.Err(), syscall.ECONNRESET) || errors.Is(s.Err(), syscall.EPIPE)
				require.True(t, reset, "%v", s.Err())
			} else {
				require.ErrorIs(t, s.Err(), io.EOF)
			}
		})
	}
}
