// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// Faults of many connections and of scarce machines, with the peers in another process (TestHelper).

// runCrowd is the other process of a server under test. arg is the address, how many connections, and what
// they do: they "churn" for so long, or "read" packages, all but so many, which are stuck.
func runCrowd(t testing.TB, arg string, say func(string, ...any)) {
	var addr, what string
	var n, more int
	_, err := fmt.Sscan(arg, &addr, &n, &what, &more)
	require.NoError(t, err)
	conns := make([]*net.TCPConn, n)
	for i := range conns {
		conns[i] = crowdDial(t, addr)
	}
	say("connected")
	switch what {
	case "churn":
		end := time.Now().Add(time.Duration(more) * time.Second)
		var came atomic.Int64
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := w; time.Now().Before(end); i = (i + 16) % n {
					if rand.IntN(2) == 0 {
						_ = conns[i].SetLinger(0)
					}
					_ = conns[i].Close()
					conns[i] = crowdDial(t, addr)
					came.Add(1)
				}
			})
		}
		wg.Wait()
		for _, c := range conns {
			_ = c.Close()
		}
		say("%d", came.Load())
	case "read":
		var mu sync.Mutex
		rounds := make(map[int]int) // guarded by mu: how many have got so many packages
		for _, c := range conns[more:] {
			go func() {
				for k := 1; ; k++ {
					if _, err := tryReadFrame(c); err != nil {
						return
					}
					mu.Lock()
					if rounds[k]++; rounds[k] == n-more {
						say("round %d", k)
					}
					mu.Unlock()
				}
			}()
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		for _, c := range conns {
			_ = c.Close()
		}
	}
}

// crowdDial connects and exchanges a package; ports may be short for a moment.
func crowdDial(t testing.TB, addr string) *net.TCPConn {
	for tries := 0; ; tries++ {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			if _, err = c.Write(frame("x")); err == nil {
				if _, err = tryReadFrame(c); err == nil {
					return c.(*net.TCPConn)
				}
			}
			_ = c.Close()
		}
		if tries == 100 {
			panic(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// resources are what a process may leak.
type resources struct {
	descriptors, goroutines, timers int
	heap                            int64
}

func measure(t testing.TB) resources {
	t.Helper()
	return resources{len(descriptors(t)), runtime.NumGoroutine(), getty.PendingTimers(), heap()}
}

func descriptors(t testing.TB) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	return list
}

// Ten thousand connections come and go for a minute; then all is as before.
//
// fault: 97
func TestChurnOfTenThousand(t *testing.T) {
	long(t)
	churn(t, 10_000, 1) // the runtime keeps the descriptors of goroutines that ended
	before := measure(t)
	churn(t, 10_000, 60)
	var after resources
	eventually(t, "all is as before", func() bool {
		after = measure(t)
		return after.descriptors <= before.descriptors+3 && after.goroutines <= before.goroutines+3 && after.timers == 0 // the helper's pipes
	})
	t.Logf("before %+v, after %+v", before, after)
	require.Less(t, after.heap, before.heap+1<<20)
}

// churn serves connections that come and go for so many seconds.
func churn(t *testing.T, peers, seconds int) {
	l := echoCounter{ended: new(atomic.Int64)}
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.IdleTimeout, o.CronPeriod, o.WaitTime = time.Hour, time.Hour, time.Hour
	})
	_, lines := helper(t, fmt.Sprintf("crowd %s %d churn %d", srv.Addr(), peers, seconds))
	require.Equal(t, "connected", waitLine(t, lines, time.Minute))
	require.InDelta(t, peers, srv.Stats().Open, float64(peers/100)) // the first are going already
	came := waitLine(t, lines, time.Duration(seconds+60)*time.Second)
	eventually(t, "all sessions end", func() bool { return srv.Stats().Open == 0 })
	st := srv.Stats()
	require.EqualValues(t, st.Opened, l.ended.Load(), "one OnClose each")
	require.Equal(t, fmt.Sprint(st.Opened-uint64(peers)), came)
	t.Logf("%d sessions in %d s", st.Opened, seconds)
	srv.Close()
	within(t, srv.Done(), "Done")
}

// echoCounter echoes and counts ends.
type echoCounter struct{ ended *atomic.Int64 }

func (l echoCounter) OnOpen(getty.Session) error         { return nil }
func (l echoCounter) OnMessage(s getty.Session, pkg any) { echoPkg(s, pkg) }
func (l echoCounter) OnCron(getty.Session)               {}
func (l echoCounter) OnError(_ getty.Session, _ error)   {}
func (l echoCounter) OnClose(getty.Session)              { l.ended.Add(1) }

func waitLine(t testing.TB, lines <-chan string, limit time.Duration) string {
	t.Helper()
	select {
	case line := <-lines:
		return line
	case <-time.After(limit):
		require.FailNow(t, "the other process says nothing")
		return ""
	}
}

// Of ten thousand peers a hundred are stuck: a broadcast reaches the others and the policy cuts the stuck ones.
//
// fault: 34
func TestBroadcastToTenThousand(t *testing.T) {
	long(t)
	const peers, stuck = 10_000, 100
	l := echoCounter{ended: new(atomic.Int64)}
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.HighWater, o.SlowConsumer = 64<<10, getty.SlowClose
		o.Socket.WriteBuffer = 16 << 10
	})
	_, lines := helper(t, fmt.Sprintf("crowd %s %d read %d", srv.Addr(), peers, stuck))
	require.Equal(t, "connected", waitLine(t, lines, time.Minute))
	p, err := frames.AppendPkg(nil, nil, strings.Repeat("n", 10_000))
	require.NoError(t, err)
	var slowest time.Duration
	round := 0
	for l.ended.Load() < stuck {
		require.Less(t, round, 1000, "the stuck peers are never cut")
		round++
		begun := time.Now()
		r := getty.Broadcast(srv.Sessions(), p)
		require.Zero(t, r.Failed)
		require.GreaterOrEqual(t, r.Accepted, peers-stuck)
		require.Equal(t, fmt.Sprintf("round %d", round), waitLine(t, lines, patience))
		slowest = max(slowest, time.Since(begun))
	}
	t.Logf("%d rounds, the slowest took %v", round, slowest)
	eventually(t, "the others stay", func() bool { return srv.Stats().Open == peers-stuck })
	require.Less(t, slowest, 10*time.Second)
}

// Sessions that live by heartbeats cost a goroutine each, and little memory, however often they beat.
//
// fault: 103
func TestHeartbeatsOfManySessions(t *testing.T) {
	peers, beats, period := 500, 10, 50*time.Millisecond
	if os.Getenv("GOSTKIT_LONG") != "" {
		peers, beats, period = 10_000, 120, 250*time.Millisecond // an hour of one every thirty seconds
	}
	before := measure(t)
	var beaten atomic.Int64
	l := beater{echoCounter{ended: new(atomic.Int64)}, &beaten}
	srv := serve(t, prepare(l), func(o *getty.ServerOptions) {
		o.CronPeriod, o.IdleTimeout = period, time.Hour
		o.WaitTime = 100 * time.Millisecond
	})
	_, lines := helper(t, fmt.Sprintf("crowd %s %d read 0", srv.Addr(), peers))
	require.Equal(t, "connected", waitLine(t, lines, time.Minute))
	for round := range beats {
		require.Equal(t, fmt.Sprintf("round %d", round+1), waitLine(t, lines, time.Minute))
	}
	require.Equal(t, peers, srv.Stats().Open)
	require.Zero(t, l.ended.Load(), "sessions that ended")
	for s := range srv.Sessions() {
		s.SetCronPeriod(time.Hour)
	}
	fewest := 1 << 30 // ticks have a goroutine of their own for a moment
	eventually(t, "they cost no more goroutines than one each", func() bool {
		fewest = min(fewest, runtime.NumGoroutine()-before.goroutines)
		return fewest <= peers+peers/100+10
	})
	inUse := heap()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	each := float64(inUse-before.heap+int64(m.StackInuse)) / float64(peers)
	t.Logf("%d sessions, %d heartbeats, %d goroutines, %.0f bytes of heap and stack each", peers, beaten.Load(), fewest, each)
	if peers == 10_000 && !instrumented {
		require.LessOrEqual(t, each, 8192.0)
	}
}

// A beater writes a package with each tick.
type beater struct {
	echoCounter
	beaten *atomic.Int64
}

func (l beater) OnCron(s getty.Session) {
	l.beaten.Add(1)
	_, _, _ = s.WritePkg("beat", 0)
}

const (
	beatPeriod = 50 * time.Millisecond
	beatLimit  = 2 * time.Second
)

// allocate is a neighbour that keeps the collector busy.
func allocate(stop <-chan struct{}) {
	var keep [64][]byte
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
			keep[i%len(keep)] = make([]byte, 256<<10)
		}
	}
}

// testBeats runs sessions that hear only heartbeats, for a while, with a server that has it hard. None may be
// taken for dead.
func testBeats(t *testing.T, addr string, lines <-chan string) {
	const sessions = 20
	d := beatLimit + beatLimit/4
	if os.Getenv("GOSTKIT_LONG") != "" {
		d = 30 * time.Second
	}
	l := newTracer(t)
	got := make(map[getty.Session]int)
	var mu sync.Mutex
	l.message = func(s getty.Session, _ any) {
		mu.Lock()
		defer mu.Unlock()
		got[s]++
	}
	l.cron = func(s getty.Session) { _, _, _ = s.WritePkg("beat", 0) }
	connect(t, l, addr, getty.WithConnectionNumber(sessions), func(o *getty.ClientOptions) {
		o.CronPeriod, o.IdleTimeout = beatPeriod, beatLimit
	})
	var all []getty.Session
	for range sessions {
		all = append(all, within(t, l.opened, "OnOpen"))
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case s := <-l.closed:
			require.Fail(t, "a session was closed", "%v", s.Err())
		case line := <-lines:
			require.Fail(t, "a session was closed at the server", line)
		case <-time.After(beatPeriod):
			for _, s := range all[:sessions/2] { // traffic, too; the others live by the heartbeats alone
				_, _, _ = s.WritePkg(strings.Repeat("t", 1000), 0)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, s := range all {
		require.GreaterOrEqual(t, got[s], int(d/beatLimit), "heartbeats, and echoes")
	}
}

// A collector that never rests ends no session for want of heartbeats.
//
// fault: 105
func TestHeartbeatsBesideAnAllocatingNeighbour(t *testing.T) {
	t.Parallel()
	_, lines := helper(t, "neighbour", "env", "GOGC=10", "GOMEMLIMIT=32MiB")
	testBeats(t, within(t, lines, "the address"), lines)
}

// Nor does a tenth of a processor.
//
// fault: 106
func TestHeartbeatsWithATenthOfAProcessor(t *testing.T) {
	need(t, true)
	t.Parallel()
	group := fmt.Sprintf("/sys/fs/cgroup/cpu/getty%d", os.Getpid())
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("no cgroup v1 for cpu: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(group) })
	for file, value := range map[string]string{"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "10000"} {
		if err := os.WriteFile(filepath.Join(group, file), []byte(value), 0); err != nil {
			t.Skipf("no quota: %v", err)
		}
	}
	_, lines := helper(t, "beat", "sh", "-c", "echo $$ > "+group+"/cgroup.procs && exec \"$@\"", "sh")
	testBeats(t, within(t, lines, "the address"), lines)
}

// dialWithFewPorts runs in a net of its own whose ports are few: dials to one of them, where nobody listens, may
// connect to themselves; dials to a server run out of ports.
func dialWithFewPorts(t *testing.T, say func(string, ...any)) {
	const first, last = 40000, 40003
	require.NoError(t, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", fmt.Appendf(nil, "%d %d", first, last), 0))
	l := newTracer(t)
	client := getty.NewTCPClient(getty.WithServerAddress(fmt.Sprintf("127.0.0.1:%d", first)), getty.WithReconnectInterval(1),
		func(o *getty.ClientOptions) { o.ReconnectMax = 100 * time.Microsecond })
	start(t, client, prepare(l))
	for client.Stats().Dials < 500 {
		time.Sleep(time.Millisecond)
	}
	client.Close()
	within(t, client.Done(), "Done")
	say("%d", client.Stats().Opened)

	srv := getty.NewTCPServer(getty.WithLocalAddress("127.0.0.1:7000"))
	run(t, srv, prepare(newTracer(t)))
	client = getty.NewTCPClient(getty.WithServerAddress("127.0.0.1:7000"), getty.WithConnectionNumber(10), getty.WithReconnectInterval(100*time.Millisecond))
	l = newTracer(t)
	run(t, client, prepare(l))
	for range last - first + 1 {
		within(t, l.opened, "OnOpen while there are ports")
	}
	time.Sleep(300 * time.Millisecond)
	open, st := client.Stats().Open, client.Stats()
	for s := range client.Sessions() {
		s.CloseNow()
	}
	srv.Close() // now the latest dial's error is that of a closed port, or still that there is no port
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, _ = client.Ready(ctx)
	say("%d %v", open, st.Dials < 100)
}

// A dial to a dead port never connects to itself, and one that finds no free port has failed; both are tried
// again after a back-off.
//
// fault: 20, 118
func TestDialsWithFewPorts(t *testing.T) {
	need(t, true, "ip")
	t.Parallel()
	ns := fmt.Sprintf("gettyp%d", os.Getpid())
	sh(t, "ip netns add "+ns)
	t.Cleanup(func() { _ = syscall.Unlink("/run/netns/" + ns); sh(t, "ip netns del "+ns) })
	sh(t, "ip -n "+ns+" link set lo up")
	_, lines := helper(t, "ports", "ip", "netns", "exec", ns)
	require.Equal(t, "0", within(t, lines, "sessions with oneself"))
	require.Equal(t, "4 true", within(t, lines, "what there are ports for"))
}

// A server that is frozen while its backlog fills loses no connection that the kernel took, and serves new ones
// when it runs again.
//
// fault: 101
func TestFullBacklog(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	require.NoError(t, err)
	var backlog int
	_, err = fmt.Sscan(string(b), &backlog)
	require.NoError(t, err)
	if backlog > 5000 {
		t.Skipf("a backlog of %d", backlog)
	}
	cmd, lines := helper(t, "echo")
	addr := within(t, lines, "the address")
	freeze(t, cmd)
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range backlog + 1 { // the kernel allows one more
		c, err := net.DialTimeout("tcp", addr, patience)
		require.NoError(t, err)
		conns = append(conns, c)
	}
	_, err = net.DialTimeout("tcp", addr, 100*time.Millisecond)
	require.ErrorContains(t, err, "timeout", "the backlog is full")
	begun := time.Now()
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	echoOnce(t, conns[0])
	c, err := net.DialTimeout("tcp", addr, patience)
	require.NoError(t, err)
	conns = append(conns, c)
	echoOnce(t, c)
	t.Logf("a new session %v after the server ran again", time.Since(begun))
	for i := 0; i < len(conns); i += 100 {
		echoOnce(t, conns[i])
	}
}

// freeze stops a process, which takes a moment.
func freeze(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	eventually(t, "the process is stopped", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		require.NoError(t, err)
		_, state, _ := strings.Cut(string(b), ") ")
		return strings.HasPrefix(state, "T")
	})
}

// A dial whose SYN is dropped ends with DialTimeout, and with Close.
//
// fault: 111
func TestDialIsDropped(t *testing.T) {
	t.Parallel()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer syscall.Close(fd)
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0)) // and nobody accepts: the kernel drops the SYN after the first
	sa, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	addr := fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
	first, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer first.Close()
	for _, limit := range []time.Duration{50 * time.Millisecond, time.Hour} {
		client := getty.NewTCPClient(getty.WithServerAddress(addr), func(o *getty.ClientOptions) {
			o.DialTimeout, o.ReconnectInterval, o.ReconnectMax = limit, time.Hour, time.Hour
		})
		l := newTracer(t)
		start(t, client, prepare(l))
		if limit < time.Hour {
			eventually(t, "the dial fails", func() bool { return client.Stats().DialErrs == 1 })
			eventually(t, "the cause", func() bool { // it is kept a moment later
				ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
				defer cancel()
				_, err := client.Ready(ctx)
				var dial *net.OpError // whose cause is the socket's time or the context's, as they race
				return errors.As(err, &dial) && dial.Timeout()
			})
		} else {
			eventually(t, "the dial has begun", func() bool { return client.Stats().Dials == 1 })
		}
		client.Close()
		within(t, client.Done(), "Done")
		require.Empty(t, l.opened)
	}
}

// When a server is gone for a while, its clients' attempts to come back are spread out, and all come back.
//
// fault: 112
func TestClientsOfARestartedServer(t *testing.T) {
	t.Parallel()
	n := 100
	if os.Getenv("GOSTKIT_LONG") != "" {
		n = 1000
	}
	const first, bucket = 600 * time.Millisecond, 60 * time.Millisecond
	cmd, lines := helper(t, "echo")
	addr := within(t, lines, "the address")
	var clients []*getty.Client
	l := newTracer(t)
	for range n {
		c := connect(t, l, addr, func(o *getty.ClientOptions) { o.ReconnectInterval, o.ReconnectMax = first, time.Second })
		clients = append(clients, c)
	}
	for range n {
		within(t, l.opened, "OnOpen")
	}
	dials := func() (sum uint64) {
		for _, c := range clients {
			sum += c.Stats().Dials
		}
		return sum
	}
	// A machine that is busy with something else may hold up the clients and not the one who counts:
	// then once more. What is not spread out never is.
	oneOf(t, 5, "an outage whose attempts were spread out", func() bool {
		start := dials()
		require.NoError(t, cmd.Process.Kill())
		killed := time.Now()
		// The peak is that of two buckets, by their own length: what a machine that stands still holds up, it lets
		// go of in the next.
		type look struct {
			at    time.Time
			dials uint64
		}
		looks := []look{{killed, start}}
		peak := 0.0
		for range int(3 * first / bucket) {
			time.Sleep(bucket)
			looks = append(looks, look{time.Now(), dials()})
			if k := len(looks) - 1; k >= 2 {
				took := looks[k].at.Sub(looks[k-2].at)
				peak = max(peak, float64(looks[k].dials-looks[k-2].dials)*float64(bucket)/float64(took))
			}
		}
		cmd, _ = helper(t, "echo "+addr)
		begun := time.Now()
		for range n {
			within(t, l.closed, "OnClose")
			within(t, l.opened, "a client comes back")
		}
		back, away := time.Since(begun), time.Since(killed)
		attempts := dials() - start
		t.Logf("%d clients: %d attempts, at most %.0f in %v, all back %v after the restart", n, attempts, peak, bucket, back)
		require.Less(t, float64(attempts), float64(n)*(6+3*away.Seconds()), "two a second, in the mean")
		return peak < float64(n)/3
	})
	for _, c := range clients {
		eventually(t, "one session each", func() bool { return c.Stats().Open == 1 })
	}
}

// A server that is frozen is found out by its missing heartbeats; what it left unanswered is asked elsewhere,
// and when it thaws no answer comes twice.
//
// fault: 116
func TestFrozenServer(t *testing.T) {
	t.Parallel()
	cmd, lines := helper(t, "beat")
	_, others := helper(t, "beat")
	answers := make(chan string, 1000)
	l := newTracer(t)
	l.message = func(_ getty.Session, pkg any) {
		if p := pkg.(*codec.Frame).String(); p != "beat" {
			answers <- p
		}
	}
	l.cron = func(s getty.Session) { _, _, _ = s.WritePkg("beat", 0) }
	beats := func(o *getty.ClientOptions) { o.CronPeriod = beatPeriod }
	client := connect(t, l, within(t, lines, "the address"), beats, func(o *getty.ClientOptions) { o.IdleTimeout = beatLimit })
	other := connect(t, newTracerLike(l), within(t, others, "the other address"), beats)
	s, elsewhere := ready(t, client), ready(t, other)
	ask := func(s getty.Session, n int) {
		_, _, err := s.WritePkg(fmt.Sprint("question ", n), 0)
		require.NoError(t, err)
	}
	seen := make(map[string]int)
	ask(s, 0)
	seen[within(t, answers, "the answer")]++
	freeze(t, cmd)
	ask(s, 1)
	require.Same(t, s, within(t, l.closed, "the end of the frozen session"))
	require.ErrorIs(t, s.Err(), getty.ErrIdleTimeout)
	ask(elsewhere, 1)
	seen[within(t, answers, "the answer from elsewhere")]++
	if os.Getenv("GOSTKIT_LONG") != "" {
		time.Sleep(30 * time.Second) // the client dials again and again meanwhile
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
	eventually(t, "the server is back", func() bool {
		s, err := client.Session()
		return err == nil && s.Stats().PkgsRead > 0
	})
	s, err := client.Session()
	require.NoError(t, err)
	ask(s, 2)
	seen[within(t, answers, "the answer after the thaw")]++
	require.Equal(t, map[string]int{"question 0": 1, "question 1": 1, "question 2": 1}, seen)
	require.Empty(t, answers, "an answer came twice")
	require.False(t, elsewhere.IsClosed())
}

// frozenLimit is each limit of a server that is frozen for longer.
const frozenLimit = time.Second

// A server that was frozen for longer than its limits cuts nobody for that: neither peers whose bytes wait in the
// kernel, whole packages and parts, nor those that read what was sent, nor those that wait to be pinged.
//
// case: 23
func TestAFrozenServerCutsNobody(t *testing.T) {
	t.Parallel()
	const peers = 20
	for _, kind := range []string{"", "ws"} {
		t.Run("limits "+kind, func(t *testing.T) {
			t.Parallel()
			cmd, lines := helper(t, "limits "+kind)
			addr := within(t, lines, "the address")
			var conns []net.Conn
			for range peers {
				conns = append(conns, frozenPeer(t, addr, kind))
			}
			freeze(t, cmd)
			if kind == "" {
				for i, c := range conns {
					p := frame("while it was away")
					if i%2 == 0 {
						p = p[:10]
					}
					_, err := c.Write(p)
					require.NoError(t, err)
				}
			}
			time.Sleep(5 * frozenLimit / 2)
			require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
			if kind == "" {
				for i, c := range conns {
					if i%2 == 0 {
						_, err := c.Write(frame("while it was away")[10:])
						require.NoError(t, err)
					}
				}
				for _, c := range conns {
					require.Equal(t, "while it was away", readFrame(t, c))
				}
			} else {
				time.Sleep(2 * frozenLimit) // they answer pings, which is enough
			}
			select {
			case line := <-lines:
				require.Fail(t, "a session was cut", line)
			default:
			}
		})
	}
}

// frozenPeer connects to a server that will be frozen; over WebSocket it answers pings.
func frozenPeer(t *testing.T, addr, kind string) net.Conn {
	if kind == "ws" {
		ws, _, err := websocket.DefaultDialer.Dial("ws://"+addr+"/", nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = ws.Close() })
		go func() {
			for {
				if _, _, err := ws.ReadMessage(); err != nil {
					return
				}
			}
		}()
		return ws.NetConn()
	}
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	echoOnce(t, c)
	return c
}

// newTracerLike is another tracer with the same OnMessage.
func newTracerLike(l *tracer) *tracer {
	other := newTracer(l.t)
	other.message, other.cron = l.message, l.cron
	return other
}

// runLoad is the other process of a shutdown: it asks on a few connections as fast as it can, and says how many answers
// each of them got, in order, until its end, and what that was.
func runLoad(t testing.TB, addr string, say func(string, ...any)) {
	var all sync.WaitGroup
	for range loadConns {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		all.Go(func() {
			var asking sync.WaitGroup
			asking.Go(func() {
				for i := 0; err == nil; i++ {
					_, err = c.Write(numbered(i))
				}
			})
			for n := 0; ; n++ {
				p, err := tryReadFrame(c)
				if err == nil && p == fmt.Sprintf("%08d", n) {
					continue
				}
				_ = c.Close()
				asking.Wait()
				say("%d %v", n, err)
				return
			}
		})
	}
	all.Wait()
}

const loadConns = 8

// A shutdown under load, seen by another process: every answer that was accepted is read there, in order, and then the
// end of the stream; no reset destroys the last ones, though the peer never stops asking.
//
// fault: 133
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		var mu sync.Mutex
		answers := make(map[getty.Session]int) // guarded by mu
		var refused error                      // guarded by mu
		l := newTracer(t)
		l.unordered = d == getty.Unordered
		l.message = func(s getty.Session, pkg any) {
			mu.Lock()
			defer mu.Unlock()
			p := pkg.(*codec.Frame).String()
			if l.unordered { // the order of the calls is the order of the answers
				p = fmt.Sprintf("%08d", answers[s])
			}
			if _, _, err := s.WritePkg(p, 0); err == nil {
				answers[s]++
			} else {
				refused = err
			}
		}
		srv := getty.NewTCPServer(getty.WithServerDispatch(d), func(o *getty.ServerOptions) {
			o.WaitTime, o.HighWater = longClose, 1<<30
		})
		start(t, srv, prepare(l))
		_, lines := helper(t, "load "+srv.Addr().String())
		eventually(t, "traffic on all connections", func() bool {
			mu.Lock()
			defer mu.Unlock()
			for _, n := range answers {
				if n < 500 {
					return false
				}
			}
			return len(answers) == loadConns
		})
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		report, err := srv.Shutdown(ctx)
		require.NoError(t, err)
		require.Equal(t, getty.Report{Drained: loadConns}, counts(report))
		var got, accepted []int
		for range loadConns {
			var n int
			var end string
			_, err := fmt.Sscan(within(t, lines, "the end of a connection"), &n, &end)
			require.NoError(t, err)
			require.Equal(t, "EOF", end, "after %d answers", n)
			got = append(got, n)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, n := range answers {
			accepted = append(accepted, n)
		}
		require.NoError(t, refused, "an answer to what was read")
		require.ElementsMatch(t, accepted, got, "answers accepted, answers read")
	})
}

// A flood of connections that are never completed fills the kernel's queue of half-open ones. The session that is open
// goes on, and new ones open while the queue is full.
//
// fault: 101
func TestSYNFlood(t *testing.T) {
	t.Parallel()
	need(t, true, "nft", "ss")
	addr, ns, _ := network(t)
	open, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer open.Close()
	echoOnce(t, open)
	// The answers to the flood get lost: else our own kernel, which knows nothing of it, would reset the half-open.
	const first, last = 1024, 20_000
	sh(t, "ip netns exec "+ns+" nft add table ip flood")
	sh(t, "ip netns exec "+ns+" nft add chain ip flood out { type filter hook output priority 0 ; }")
	sh(t, fmt.Sprintf("ip netns exec %s nft add rule ip flood out tcp dport %d-%d drop", ns, first, last))
	raw, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_RAW)
	if err != nil {
		t.Skipf("no raw sockets: %v", err)
	}
	defer syscall.Close(raw)
	from, to := open.LocalAddr().(*net.TCPAddr).AddrPort(), open.RemoteAddr().(*net.TCPAddr).AddrPort()
	for port := uint16(first); port <= last; port++ {
		err := syscall.Sendto(raw, synPacket(netip.AddrPortFrom(from.Addr(), port), to), 0, &syscall.SockaddrInet4{Addr: to.Addr().As4()})
		require.NoError(t, err)
	}
	out, err := exec.Command("ip", "netns", "exec", ns, "ss", "-Hnt", "state", "syn-recv").Output()
	require.NoError(t, err)
	half := strings.Count(string(out), "\n")
	require.Greater(t, half, 1000, "half-open connections")
	begun := time.Now()
	c, err := net.DialTimeout("tcp", addr, patience)
	require.NoError(t, err)
	defer c.Close()
	echoOnce(t, c)
	t.Logf("%d half-open connections of %d, and a new session after %v", half, last-first+1, time.Since(begun))
	echoOnce(t, open)
}

// synPacket is an IPv4 packet that begins a TCP connection.
func synPacket(from, to netip.AddrPort) []byte {
	src, dst := from.Addr().Unmap().As4(), to.Addr().Unmap().As4()
	tcp := binary.BigEndian.AppendUint16(nil, from.Port())
	tcp = binary.BigEndian.AppendUint16(tcp, to.Port())
	tcp = binary.BigEndian.AppendUint32(tcp, rand.Uint32())
	tcp = append(tcp, 0, 0, 0, 0, 5<<4, 2, 0xff, 0xff, 0, 0, 0, 0) // no data, 20 bytes, SYN, a window; checksum to come
	sum := uint32(syscall.IPPROTO_TCP + len(tcp))
	for _, part := range [][]byte{src[:], dst[:], tcp} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	// The kernel fills in the length, the identification and the header's checksum.
	ip := []byte{4<<4 | 5, 0, 0, 0, 0, 0, 0, 0, 64, syscall.IPPROTO_TCP, 0, 0}
	return slices.Concat(ip, src[:], dst[:], tcp)
}
