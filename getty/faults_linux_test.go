// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// Faults that need a process of their own, a network of their own, or the kernel's help. The other process is
// this test's binary, started as TestHelper.

// need skips the test where it cannot run.
func need(t testing.TB, root bool, tools ...string) {
	t.Helper()
	if root && os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
}

// helper starts TestHelper in the given mode, behind a wrapping command if there is one, and returns the
// lines that it prints.
func helper(t testing.TB, mode string, wrap ...string) (*exec.Cmd, <-chan string) {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	args := append(wrap, exe, "-test.run=^TestHelper$", "-test.v")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "GETTY_TEST_HELPER="+mode, "GORACE=atexit_sleep_ms=0")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	in, err := cmd.StdinPipe() // its end tells the helper to end
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := make(chan string, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if line, ok := strings.CutPrefix(sc.Text(), "helper: "); ok {
				select {
				case lines <- line:
				default: // nobody wants to know
				}
			}
		}
	}()
	t.Cleanup(func() {
		_ = in.Close()
		timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		<-done
		_ = cmd.Wait()
		timer.Stop()
	})
	return cmd, lines
}

// TestHelper is the other process.
func TestHelper(t *testing.T) {
	mode, arg, _ := strings.Cut(os.Getenv("GETTY_TEST_HELPER"), " ")
	say := func(format string, args ...any) { fmt.Printf("helper: "+format+"\n", args...) }
	l := newTracer(t)
	l.message = echoPkg
	addr := "127.0.0.1:0"
	opts := []getty.ServerOption{func(o *getty.ServerOptions) { o.WaitTime = 100 * time.Millisecond }}
	switch mode {
	case "":
		t.Skip("runs only when other tests start it")
	case "echo": // an echo server
		if arg != "" {
			addr = arg
		}
	case "generation": // one that hands its listener on
		runGeneration(t, say)
		return
	case "few": // one with few descriptors
		require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 60, Max: 60}))
	case "stranger": // without permission
		runStranger(t, arg, say)
		return
	case "unix": // writes to a Unix socket, and reads nothing
		c, err := net.Dial("unix", arg)
		require.NoError(t, err)
		for i := range unixFrames {
			_, err = c.Write(numbered(i))
			require.NoError(t, err)
		}
		say("sent")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	case "two": // one that answers with two large packages
		l.message = func(s getty.Session, _ any) {
			for range 2 {
				_, _, _ = s.WritePkg(strings.Repeat("z", 6000), 0)
			}
		}
		l.onClose = func(s getty.Session) { say("%v", s.Err()) }
	case "beat", "neighbour": // one that lives by heartbeats, alone or beside something that allocates
		l.cron = func(s getty.Session) { _, _, _ = s.WritePkg("beat", 0) }
		l.onClose = func(s getty.Session) { say("closed: %v", s.Err()) }
		if mode == "neighbour" {
			stop := make(chan struct{})
			t.Cleanup(func() { close(stop) })
			go allocate(stop)
		}
		opts = append(opts, func(o *getty.ServerOptions) {
			o.CronPeriod, o.IdleTimeout = beatPeriod, beatLimit
		})
	case "limits": // one with short limits, over WebSocket with pings if it is asked
		l.onClose = func(s getty.Session) { say("closed: %v", s.Err()) }
		opts = append(opts, func(o *getty.ServerOptions) {
			o.IdleTimeout, o.ReadTimeout, o.WriteTimeout = frozenLimit, frozenLimit, frozenLimit
			if arg == "ws" {
				o.WebSocket.PingPeriod = frozenLimit / 4
			}
		})
		if arg == "ws" {
			srv := getty.NewWSServer(opts...)
			run(t, srv, prepare(l))
			say("%s", srv.Addr())
			_, _ = io.Copy(io.Discard, os.Stdin)
			return
		}
	case "ports": // dials in a net with few ports
		dialWithFewPorts(t, say)
		return
	case "load": // asks a server without pause
		runLoad(t, arg, say)
		return
	case "crowd": // connects to a server
		runCrowd(t, arg, say)
		return
	case "udp": // writes three datagrams
		srv := getty.NewUDPEndPoint()
		run(t, srv, prepare(l, rawCodec{}))
		s := within(t, l.opened, "OnOpen")
		runtime.LockOSThread() // strace counts the calls of each thread by itself
		for range 3 {
			_, sent, err := s.WritePkg(getty.UDPContext{Pkg: "x", PeerAddr: netip.MustParseAddrPort(arg)}, 0)
			say("%d %v %v", sent, err, s.IsClosed())
		}
		return
	}
	srv := getty.NewTCPServer(append(opts, getty.WithLocalAddress(addr))...)
	run(t, srv, prepare(l))
	say("%s", srv.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// A server without descriptors neither exits nor spins; the connections that wait are served when there are
// some again.
//
// acceptance: S07 fault: 98
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	cmd, lines := helper(t, "few")
	addr := within(t, lines, "the address")
	const n = 100
	var conns []net.Conn
	for range n {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err, "the kernel still accepts")
		defer c.Close()
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		_, err = c.Write(frame("hi"))
		require.NoError(t, err)
		conns = append(conns, c)
	}
	require.Equal(t, "hi", readFrame(t, conns[0]))
	// Once it has served those it could, it rests; one that spins never does.
	oneOf(t, 50, "a time in which it does not spin", func() bool {
		before := cpuTime(t, cmd.Process.Pid)
		time.Sleep(200 * time.Millisecond)
		return cpuTime(t, cmd.Process.Pid)-before <= 30*time.Millisecond
	})
	require.NoError(t, conns[0].Close())
	for i, c := range conns[1:] { // each that ends makes room for one that waits
		require.Equal(t, "hi", readFrame(t, c), "connection %d", i+1)
		require.NoError(t, c.Close())
	}
}

// cpuTime reads the processor time that a process has used.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(t, err)
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var user, system int64
	_, err = fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	require.NoError(t, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}

// The peer's process is killed under traffic: what came back is a prefix of what was sent, and the session
// ends at once.
//
// fault: 3
func TestPeerIsKilled(t *testing.T) {
	t.Parallel()
	cmd, lines := helper(t, "echo")
	l := newTracer(t)
	next := 0
	some := make(chan struct{})
	l.message = func(_ getty.Session, pkg any) {
		if got := fmt.Sprint(pkg); got != fmt.Sprintf("%08d", next) {
			t.Errorf("package %s came where %d was due", got, next)
		}
		if next++; next == 1000 {
			close(some)
		}
	}
	client := connect(t, l, within(t, lines, "the address"))
	s := ready(t, client)
	done := make(chan error)
	go func() {
		for i := 0; ; i++ {
			if _, _, err := s.WritePkg(fmt.Sprintf("%08d", i), -1); err != nil {
				done <- err
				return
			}
		}
	}()
	within(t, some, "a thousand answers")
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, within(t, done, "the writer's error"))
	within(t, l.closed, "OnClose")
	require.Error(t, s.Err())
}

// fault: 108
func TestConnectionIsDestroyed(t *testing.T) {
	need(t, true, "ss")
	l := newTracer(t)
	c := dial(t, serve(t, prepare(l)))
	s := within(t, l.opened, "OnOpen")
	here, there := c.RemoteAddr().(*net.TCPAddr).Port, c.LocalAddr().(*net.TCPAddr).Port
	out, err := exec.Command("ss", "-K", "state", "established", fmt.Sprintf("sport = :%d and dport = :%d", here, there)).CombinedOutput()
	require.NoError(t, err, "%s", out)
	select {
	case <-l.closed:
	case <-time.After(5 * time.Second):
		t.Skip("this kernel cannot destroy sockets (INET_DIAG_DESTROY)")
	}
	require.True(t, errors.Is(s.Err(), syscall.ECONNABORTED) || errors.Is(s.Err(), syscall.ECONNRESET), "%v", s.Err())
	require.Len(t, l.of(s).errs, 1)
}

// An interrupted system call is made again; one that fails for another reason ends the session with it.
//
// fault: 32
func TestWriteErrors(t *testing.T) {
	t.Parallel()
	need(t, true, "strace")
	for _, test := range []struct{ errno, want string }{{"EINTR", ""}, {"ENOBUFS", "no buffer space available"}} {
		t.Run(test.errno, func(t *testing.T) {
			trace := filepath.Join(t.TempDir(), "trace")
			_, lines := helper(t, "two", "strace", "-f", "-qq", "-o", trace, "-e", "trace=sendmsg", "-e", "inject=sendmsg:error="+test.errno+":when=1")
			var addr string
			select {
			case addr = <-lines:
			case <-time.After(20 * time.Second):
				t.Skip("strace cannot trace here")
			}
			// Two packages are one vectored write, unless the turn between them took long: then once more.
			oneOf(t, 50, "a vectored write that failed", func() bool {
				c, err := net.Dial("tcp", addr)
				require.NoError(t, err)
				defer c.Close()
				require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
				_, err = c.Write(frame("go"))
				require.NoError(t, err)
				var p string
				for range 2 {
					if p, err = tryReadFrame(c); err != nil {
						break
					}
					require.Len(t, p, 6000)
				}
				_ = c.Close()
				cause := within(t, lines, "the session's end")
				b, rerr := os.ReadFile(trace)
				require.NoError(t, rerr)
				if !bytes.Contains(b, []byte("INJECTED")) {
					return false
				}
				if test.want == "" {
					require.NoError(t, err)
				} else {
					require.Error(t, err)
					require.Contains(t, cause, test.want)
				}
				return true
			})
		})
	}
}

// What the kernel refuses to send is an error of that write; the session lives.
//
// fault: 89
func TestUDPSendErrors(t *testing.T) {
	t.Parallel()
	for errno, text := range map[string]string{"EPERM": "operation not permitted", "ENOBUFS": "no buffer space available"} {
		t.Run(errno, func(t *testing.T) {
			need(t, true, "strace")
			_, lines := helper(t, "udp 127.0.0.1:9", "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto,sendmsg", "-e", "inject=sendto,sendmsg:error="+errno+":when=2")
			require.Equal(t, "1 <nil> false", within(t, lines, "the first datagram"))
			second := within(t, lines, "the second datagram")
			require.True(t, strings.HasPrefix(second, "0 ") && strings.Contains(second, text) && strings.HasSuffix(second, " false"), second)
			require.Equal(t, "1 <nil> false", within(t, lines, "the third datagram"))
		})
	}
}

// sh runs a command that must succeed, or skips the test.
func sh(t testing.TB, command string) {
	t.Helper()
	args := strings.Fields(command)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Skipf("%s: %v %s", command, err, out)
	}
}

var networks atomic.Int32

// network makes a namespace with one link to here, runs an echo server in it, and returns its address, the
// namespace's name and the name of the link at this end.
func network(t testing.TB) (addr, ns, link string) {
	t.Helper()
	need(t, true, "ip", "tc")
	k := int(networks.Add(1))
	ns = fmt.Sprintf("getty%d-%d", os.Getpid(), k)
	link = fmt.Sprintf("gt%d-%d", os.Getpid(), k)
	// Processes that run these tests side by side must not share a net; 198.18.0.0/15 is for tests.
	id := (7*os.Getpid() + k) & 0x3fff
	net := fmt.Sprintf("198.18.%d.", id>>6)
	here, there := net+fmt.Sprint(id&63<<2+1), net+fmt.Sprint(id&63<<2+2)
	sh(t, "ip netns add "+ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	sh(t, "ip link add "+link+" type veth peer name eth0 netns "+ns)
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", link).Run() })
	sh(t, "ip addr add "+here+"/30 dev "+link)
	sh(t, "ip link set "+link+" up")
	sh(t, "ip -n "+ns+" addr add "+there+"/30 dev eth0")
	sh(t, "ip -n "+ns+" link set eth0 up")
	_, lines := helper(t, "echo "+there+":7000", "ip", "netns", "exec", ns)
	return within(t, lines, "the address"), ns, link
}

// The network falls silent under traffic: WriteTimeout ends the session, long before the kernel gives up.
//
// fault: 16
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	addr, ns, _ := network(t)
	l := newTracer(t)
	client := connect(t, l, addr, func(o *getty.ClientOptions) {
		o.WriteTimeout, o.HighWater, o.ReadWhileBlocked = 300*time.Millisecond, 64<<10, true
	})
	s := ready(t, client)
	_, _, err := s.WritePkg("hello", -1)
	require.NoError(t, err)
	sh(t, "ip -n "+ns+" link set eth0 down")
	p := strings.Repeat("p", 16<<10)
	begun := time.Now()
	for !s.IsClosed() {
		if _, _, err = s.WritePkg(p, time.Minute); err != nil {
			break
		}
	}
	within(t, l.closed, "OnClose")
	require.ErrorIs(t, s.Err(), getty.ErrWriteTimeout)
	require.Less(t, time.Since(begun), patience)
}

// A thin line: the queue stays below its mark, callers see it, and everything arrives in order.
//
// fault: 18
func TestThinLine(t *testing.T) {
	t.Parallel()
	addr, _, link := network(t)
	sh(t, "tc qdisc add dev "+link+" root tbf rate 4mbit burst 4kb limit 15kb")
	testLine(t, addr, 40, patience, true)
}

// Lost segments cost time, and neither order nor sessions.
//
// fault: 17
func TestLossyLine(t *testing.T) {
	t.Parallel()
	need(t, true, "nft")
	for _, percent := range []int{5, 30} {
		t.Run(fmt.Sprintf("%d%%", percent), func(t *testing.T) {
			limit := patience
			if percent == 30 {
				long(t)
				limit = 10 * time.Minute // the kernel backs off, up to minutes
			}
			addr, ns, _ := network(t)
			sh(t, "ip netns exec "+ns+" nft add table ip loss")
			sh(t, "ip netns exec "+ns+" nft add chain ip loss in { type filter hook input priority 0 ; }")
			// Large segments are few, so 5 of 100 at random may be none: one in twenty is counted out, but not
			// the first, whose loss would cost a second.
			which := "random mod 100 < 30"
			if percent == 5 {
				which = "inc mod 20 10"
			}
			sh(t, "ip netns exec "+ns+" nft add rule ip loss in numgen "+which+" counter drop")
			begun := time.Now()
			testLine(t, addr, 100, limit, false)
			out, err := exec.Command("ip", "netns", "exec", ns, "nft", "list", "table", "ip", "loss").Output()
			require.NoError(t, err)
			_, count, _ := strings.Cut(string(out), "packets ")
			count, _, _ = strings.Cut(count, " ")
			require.NotEqual(t, "0", count, "segments lost")
			t.Logf("100 packages of 10 kB and their echoes took %v, %s segments were lost", time.Since(begun), count)
		})
	}
}

// long skips a test that takes minutes, unless it is asked for.
func long(t testing.TB) {
	t.Helper()
	if os.Getenv("GOSTKIT_LONG") == "" {
		t.Skip("takes minutes: runs with GOSTKIT_LONG=1")
	}
}

// testLine sends packages of 10 kB through a small queue and awaits their echoes.
func testLine(t *testing.T, addr string, n int, limit time.Duration, thin bool) {
	const high = 64 << 10
	l := newTracer(t)
	next, done := 0, make(chan struct{})
	l.message = func(_ getty.Session, pkg any) {
		if got := fmt.Sprint(pkg); !strings.HasPrefix(got, fmt.Sprintf("%08d", next)) {
			t.Errorf("package %.8s came where %d was due", got, next)
		}
		if next++; next == n {
			close(done)
		}
	}
	client := connect(t, l, addr, func(o *getty.ClientOptions) {
		o.HighWater, o.ReadWhileBlocked = high, true
		if o.DialTimeout = limit; limit > patience {
			o.WriteTimeout = limit // else the default, which must not strike
		}
		o.Socket.WriteBuffer = 16 << 10
	})
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	s, err := client.Ready(ctx)
	require.NoError(t, err)
	blocked := 0
	for i := range n {
		p := fmt.Sprintf("%08d", i) + strings.Repeat("x", 10_000)
		_, _, err := s.WritePkg(p, 0)
		if errors.Is(err, getty.ErrSessionBlocked) {
			blocked++
			_, _, err = s.WritePkgContext(ctx, p)
		}
		require.NoError(t, err)
		require.LessOrEqual(t, s.Stats().Queued, uint64(high+len(p)+4))
	}
	if thin {
		require.Positive(t, blocked, "backpressure is visible")
	}
	select {
	case <-done:
	case <-ctx.Done():
		require.Fail(t, "the last echo never came", "of %d", n)
	}
	require.False(t, s.IsClosed())
}

// Connections that come and go leave nothing behind: no descriptor, no timer, no session.
//
// fault: 97
func TestChurn(t *testing.T) {
	const clients, rounds = 8, 100
	l := newTracer(t)
	l.message = echoPkg
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.IdleTimeout, o.CronPeriod, o.WaitTime = time.Hour, time.Hour, time.Hour
	})
	before := len(descriptors(t))
	done := make(chan error)
	for range clients {
		go func() {
			for range rounds {
				c, err := net.Dial("tcp", srv.Addr().String())
				if err == nil {
					_, _ = c.Write(frame("x"))
					_, err = tryReadFrame(c)
					_ = c.Close()
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range clients {
		require.NoError(t, within(t, done, "a client's end"))
	}
	for range clients * rounds {
		within(t, l.closed, "OnClose")
	}
	eventually(t, "all is as before", func() bool {
		return len(descriptors(t)) <= before && getty.PendingTimers() == 0 && srv.Stats().Open == 0
	})
}
