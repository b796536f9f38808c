// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/netx"
	"github.com/stretchr/testify/require"
)

// runGeneration is a server that hands its listener to a next generation of itself when it gets
// SIGUSR1, and drains when that is ready.
func runGeneration(t *testing.T, say func(string, ...any)) {
	var ln net.Listener
	if os.Getenv("GETTY_TEST_HANDED") == "" {
		var err error
		ln, err = net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
	} else {
		in, err := netx.FromFile(os.NewFile(3, "listener"))
		require.NoError(t, err)
		ln = in.Listener
	}
	handOver := make(chan os.Signal, 1)
	signal.Notify(handOver, syscall.SIGUSR1)
	l := newTracer(t)
	l.message = func(s getty.Session, pkg any) {
		time.Sleep(200 * time.Microsecond) // so that a drain meets some of them at work
		echoPkg(s, pkg)
	}
	srv := getty.NewTCPServer(getty.WithListener(ln), func(o *getty.ServerOptions) { o.WaitTime = patience })
	require.NoError(t, srv.RunEventLoop(prepare(l)))
	say("ready %d %v", os.Getpid(), srv.Addr())
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the test has ended
		close(over)
	}()
	select {
	case <-over:
		srv.Close()
		return
	case <-handOver:
	}
	file, err := netx.File(ln)
	require.NoError(t, err)
	next := exec.Command(os.Args[0], os.Args[1:]...)
	next.Env = append(os.Environ(), "GETTY_TEST_HANDED=1")
	next.Stdin, next.Stdout, next.ExtraFiles = os.Stdin, os.Stdout, []*os.File{file}
	require.NoError(t, next.Start())
	// Ready is when the next one accepts: until then this one does.
	for {
		served := srv.Stats().Accepts
		c, err := net.DialTimeout("tcp", ln.Addr().String(), patience)
		require.NoError(t, err)
		echoOnce(t, c)
		_ = c.Close()
		if srv.Stats().Accepts == served { // so it was the next one
			break
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	report, err := srv.Shutdown(ctx)
	total := srv.Stats().Total
	say("drained %d forced %d unsent %d undelivered %d unanswered %d: %v", os.Getpid(), report.Forced,
		report.Unsent, total.Undelivered, total.PkgsRead-total.PkgsWritten, err)
	_ = next.Wait()
}

// A server is replaced by a new process while clients connect and ask without pause: no connection
// is refused, none is cut inside an answer, and what a server had read it has answered.
func TestHotRestart(t *testing.T) {
	cmd, lines := helper(t, "generation")
	var pid int
	ready := func() (addr string) {
		for {
			if n, _ := fmt.Sscanf(within(t, lines, "a generation is ready"), "ready %d %s", &pid, &addr); n == 2 {
				return addr
			}
		}
	}
	addr := ready()
	require.Equal(t, cmd.Process.Pid, pid)
	var stop atomic.Bool
	var asked, again, brief atomic.Int64
	var wg sync.WaitGroup
	fail := make(chan error, 100)
	connect := func() net.Conn {
		c, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			fail <- fmt.Errorf("refused: %w", err)
			stop.Store(true)
			return nil
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		return c
	}
	for i := range 8 {
		wg.Go(func() { // one connection for long, another when that has ended
			c := connect()
			for k := 0; !stop.Load() && c != nil; k++ {
				asked.Add(1)
				want := fmt.Sprintf("%d %d", i, k)
				_, err := c.Write(frame(want))
				got := ""
				if err == nil {
					got, err = tryReadFrame(c)
				}
				switch {
				case err == nil && got == want:
				case err == nil:
					fail <- fmt.Errorf("asked %q, got %q", want, got)
				case err == io.ErrUnexpectedEOF:
					fail <- err // cut inside an answer
				default: // it has drained, and did not read the question
					again.Add(1)
					_ = c.Close()
					c = connect()
				}
			}
			if c != nil {
				_ = c.Close()
			}
		})
		wg.Go(func() { // a connection for each question
			for !stop.Load() {
				c := connect()
				if c == nil {
					return
				}
				_, err := c.Write(frame("brief"))
				if err == nil {
					_, err = tryReadFrame(c)
				}
				_ = c.Close()
				if err == nil {
					brief.Add(1)
				} else {
					again.Add(1)
				}
			}
		})
	}
	for range 3 {
		was := pid
		require.NoError(t, syscall.Kill(was, syscall.SIGUSR1))
		require.Equal(t, addr, ready())
		require.NotEqual(t, was, pid)
		for {
			line := within(t, lines, "the old one has drained")
			if strings.HasPrefix(line, fmt.Sprintf("drained %d ", was)) {
				require.Contains(t, line, "forced 0 unsent 0 undelivered 0 unanswered 0: <nil>")
				break
			}
		}
		n := brief.Load()
		eventually(t, "the new one serves", func() bool { return brief.Load() > n+10 || len(fail) > 0 })
	}
	stop.Store(true)
	wg.Wait()
	select {
	case err := <-fail:
		require.NoError(t, err)
	default:
	}
	t.Logf("%d questions on long connections, %d brief ones, %d asked again", asked.Load(), brief.Load(), again.Load())
	require.Less(t, again.Load(), (asked.Load()+brief.Load())/10)
}
