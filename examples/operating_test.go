// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/netx"
	"github.com/stretchr/testify/require"
)

// docs/operating.md shows what follows up to TestSuccessor; see TestSnippetsOfDocs.

func publicServer(ln net.Listener, banned netip.Prefix) *getty.Server {
	return getty.NewTCPServer(getty.WithListener(ln), func(o *getty.ServerOptions) {
		o.MaxSessions, o.MaxSessionsPerAddr = 50_000, 500
		o.Admit = func(addr net.Addr) error {
			peer, err := netip.ParseAddrPort(addr.String())
			if err != nil || banned.Contains(peer.Addr().Unmap()) {
				return errors.New("banned")
			}
			return nil
		}
		o.Dispatch = getty.Ordered
		o.MaxMsgLen = 256 << 10
		o.IdleTimeout = 3 * time.Minute // three heartbeats of the clients
		o.ReadRate = getty.ReadRate{Packages: 2000, Bytes: 4 << 20}
		o.MemoryBudget = 1 << 30
		o.MaxLifetime = 12 * time.Hour
	})
}

func run(ctx context.Context, srv *getty.Server, l getty.EventListener) (getty.Report, error) {
	err := srv.RunEventLoop(func(s getty.Session) error {
		if err := s.SetEventListener(l); err != nil {
			return err
		}
		return s.SetPkgHandler(&codec.Line{})
	})
	if err != nil {
		return getty.Report{}, err
	}
	serving()
	<-ctx.Done() // of signal.NotifyContext, for example
	drain, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return srv.Shutdown(drain)
}

// listener returns that of the process before, if there is one.
func listener(addr string) (net.Listener, error) {
	if os.Getenv("INHERITED") == "" {
		return net.Listen("tcp", addr)
	}
	in, err := netx.FromFile(os.NewFile(3, "listener"))
	return in.Listener, err
}

// serving tells the process before that this one serves.
func serving() {
	if os.Getenv("INHERITED") != "" {
		w := os.NewFile(4, "serving")
		_, _ = w.Write([]byte{1})
		_ = w.Close()
	}
}

// succeed starts the program anew with the same listener, and returns when the new process serves.
// Then the old one has to end the context of its run, which drains it.
func succeed(ln net.Listener, args ...string) error {
	file, err := netx.File(ln) // not the method of ln, which would make the socket block
	if err != nil {
		return err
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	next := exec.Command(os.Args[0], args...)
	next.Env = append(os.Environ(), "INHERITED=1")
	next.Stdin, next.Stdout, next.Stderr = os.Stdin, os.Stdout, os.Stderr
	next.ExtraFiles = []*os.File{file, w} // descriptors 3 and 4
	err = next.Start()
	_ = w.Close()
	if err != nil {
		return err
	}
	if _, err = r.Read(make([]byte, 1)); err != nil {
		_ = next.Process.Kill()
		return fmt.Errorf("the new process does not serve: %w", errors.Join(err, next.Wait()))
	}
	return nil
}

// TestSuccessor is the program of the new process; it ends after its first question.
func TestSuccessor(t *testing.T) {
	if os.Getenv("INHERITED") == "" {
		t.Skip("is run by TestOperating")
	}
	ln, err := listener("")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	report, err := run(ctx, publicServer(ln, netip.Prefix{}), pidListener(cancel))
	require.NoError(t, err)
	require.Zero(t, report.Forced)
}

// pidListener answers with the number of its process and calls answered.
func pidListener(answered func()) getty.EventListener {
	return getty.Funcs{Message: func(s getty.Session, _ any) {
		_, _, _ = s.WritePkg(fmt.Sprint(os.Getpid()), 0)
		answered()
	}}
}

// A server with the limits of docs/operating.md serves, refuses who is banned, and hands over.
func TestOperating(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows hands no descriptors over")
	}
	ln, err := listener("127.0.0.1:0")
	require.NoError(t, err)
	srv := publicServer(ln, netip.MustParsePrefix("127.0.0.9/32"))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() {
		report, err := run(ctx, srv, pidListener(func() {}))
		ended <- errors.Join(err, unclean(report))
	}()
	ask := func(from string) (string, error) {
		d := net.Dialer{Timeout: time.Minute, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", ln.Addr().String())
		if err != nil {
			return "", err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = c.Write([]byte("who are you?\n"))
		return bufio.NewReader(c).ReadString('\n')
	}
	me := fmt.Sprintln(os.Getpid())
	answer, err := ask("127.0.0.1")
	require.NoError(t, err)
	require.Equal(t, me, answer)
	if runtime.GOOS == "linux" { // others have one address of loopback
		_, err = ask("127.0.0.9")
		require.Error(t, err)
		require.EqualValues(t, 1, srv.Stats().Refusals.Admit)
	}
	require.NoError(t, succeed(ln, "-test.run=^TestSuccessor$"))
	stop()
	require.NoError(t, <-ended)
	answer, err = ask("127.0.0.1")
	require.NoError(t, err)
	require.NotEqual(t, me, answer)
}

func unclean(r getty.Report) error {
	if r.Forced > 0 || r.Unsent > 0 {
		return fmt.Errorf("%+v", r)
	}
	return nil
}
