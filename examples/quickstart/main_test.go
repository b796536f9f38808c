// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// atStart is how many goroutines there are before the first test.
var atStart int

func TestMain(m *testing.M) {
	atStart = countGoroutines()
	status := m.Run()
	if stacks := leftOver(atStart); stacks != "" {
		fmt.Fprintf(os.Stderr, "goroutines left over:\n%s\n", stacks)
		status = 1
	}
	os.Exit(status)
}

// quick runs the program with args and returns its status and what it printed.
func quick(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	status = run(context.Background(), args, &out, &errs)
	return status, out.String(), errs.String()
}

var rows = regexp.MustCompile(`(?m)^ *(tcp|udp|ws) +(\S+) +3 +300 +\d+ +\d+ +\S+ +\S+ +0 *$`)

func TestQuickstart(t *testing.T) {
	for _, pool := range []string{"none", "ordered", "unordered"} {
		t.Run(pool, func(t *testing.T) {
			status, stdout, stderr := quick(t, "-messages", "300", "-sessions", "3", "-size", "100", "-pool", pool)
			require.Zero(t, status, "%s%s", stdout, stderr)
			var got []string
			for _, m := range rows.FindAllStringSubmatch(stdout, -1) {
				got = append(got, m[1]+" "+m[2])
			}
			require.Equal(t, []string{"tcp getty", "tcp net.Conn", "udp getty", "udp net.UDPConn", "ws getty", "ws gorilla"}, got, stdout)
			require.Contains(t, stderr, "tcp getty: 300 of 300 messages", "plain lines where there is no terminal")
		})
	}
}

func TestQuickstartSizes(t *testing.T) {
	for _, size := range []string{"12", "1500", "60000"} {
		status, stdout, stderr := quick(t, "-messages", "20", "-sessions", "2", "-size", size)
		require.Zero(t, status, "%s bytes: %s%s", size, stdout, stderr)
	}
}

// Bad flags get one clear line that names the flag, and exit status 2.
func TestBadFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-messages", "0"},
		{"-messages", "x"},
		{"-size", "3"},
		{"-size", "70000"},
		{"-sessions", "0"},
		{"-sessions", "2000"},
		{"-sessions", "3", "-messages", "2"},
		{"-pool", "some"},
		{"-tcp", "nowhere"},
		{"-udp", "127.0.0.1"},
		{"-ws", ""},
		{"-tcp", "127.0.0.1:99999"},
		{"-unknown"},
	} {
		status, stdout, stderr := quick(t, args...)
		require.Equal(t, 2, status, "%q", args)
		require.Empty(t, stdout, "%q", args)
		require.Equal(t, 1, strings.Count(stderr, "\n"), "%q: want one line, have %s", args, stderr)
		require.Contains(t, stderr, args[0], "%q", args)
	}
	status, _, stderr := quick(t, "extra")
	require.Equal(t, 2, status)
	require.Contains(t, stderr, `"extra"`)

	status, stdout, _ := quick(t, "-h")
	require.Zero(t, status, "help was asked for")
	require.Contains(t, stdout, "-sessions")
}

// A busy port gets one clear line and exit status 2, whichever it is, and the
// servers that had started are gone.
func TestBusyPorts(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer pc.Close()
	before := countGoroutines()
	for name, addr := range map[string]string{
		"-tcp": ln.Addr().String(), "-udp": pc.LocalAddr().String(), "-ws": ln.Addr().String(),
	} {
		status, stdout, stderr := quick(t, name, addr)
		require.Equal(t, 2, status, name)
		require.Empty(t, stdout, name)
		require.Equal(t, 1, strings.Count(stderr, "\n"), "%s: want one line, have %s", name, stderr)
		require.Contains(t, stderr, name+" "+addr)
		require.Contains(t, stderr, "address already in use")
		require.Empty(t, leftOver(before), name)
	}
}

// A watch is a writer that tells when a text has been written to it.
type watch struct {
	mu   sync.Mutex
	text strings.Builder
	want string
	seen chan struct{}
}

func (w *watch) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.text.String(), w.want)
	w.text.Write(b)
	if !before && strings.Contains(w.text.String(), w.want) {
		close(w.seen)
	}
	return len(b), nil
}

// With -serve the servers answer anybody until they are interrupted.
func TestServe(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	out := &watch{want: "interrupt to stop", seen: make(chan struct{})}
	var errs strings.Builder
	status := make(chan int, 1)
	go func() { status <- run(ctx, []string{"-serve"}, out, &errs) }()

	<-out.seen
	text := out.text.String()
	addrs := regexp.MustCompile(`(?m)^(tcp|udp|ws) +(\S+)$`).FindAllStringSubmatch(text, -1)
	require.Len(t, addrs, 3, text)
	c := config{messages: 50, size: 64, sessions: 2}
	for i, f := range foreigners {
		require.Equal(t, f.name, addrs[i][1])
		r := &row{transport: f.name, client: "test", lanes: c.lanes(f.stream)}
		r.run(context.Background(), each(addrs[i][2], f.client), newProgress(io.Discard))
		require.NoError(t, r.result().err, f.name)
	}
	require.Contains(t, text, "nc -q 1 127.0.0.1 "+addrs[0][2][strings.LastIndex(addrs[0][2], ":")+1:])
	interrupt()
	require.Zero(t, <-status, errs.String())
}

// messagesOnly keeps a server from answering what is no message: the dial probe.
// A UDP dial takes silence for a connection.
func messagesOnly(change tamper) tamper {
	messages := 0 // only one goroutine serves UDP
	return func(_ int, b []byte) []byte {
		if len(b) != 64 {
			return nil
		}
		messages++
		return change(messages-1, b)
	}
}

// getty's own clients find a changed byte and a loss as well.
func TestOursFindsFaults(t *testing.T) {
	c := config{messages: 200, size: 64, sessions: 3}
	for _, f := range foreigners {
		for name, change := range map[string]tamper{
			"changed": func(n int, b []byte) []byte {
				if n == 20 {
					b[40] ^= 1
				}
				return b
			},
			"lost": func(n int, b []byte) []byte {
				if n == 20 {
					return nil
				}
				return b
			},
		} {
			if f.name == "udp" && name == "lost" {
				continue // sent again: TestOursSendsAgain
			}
			if f.name == "udp" {
				change = messagesOnly(change)
			}
			addr := f.server(t, change)
			drives := ourDrives(&c, addr, addr, addr)
			r := &row{transport: f.name, client: "getty", lanes: c.lanes(f.stream)}
			r.run(context.Background(), drives[f.name], newProgress(io.Discard))
			res := r.result()
			require.ErrorContains(t, res.err, map[string]string{"changed": "changed", "lost": "came back where"}[name], "%s %s", f.name, name)
			require.Equal(t, 200, res.messages+res.errors, "%s %s", f.name, name)
		}
	}
}

func TestOursSendsAgain(t *testing.T) {
	c := config{messages: 200, size: 64, sessions: 3}
	addr := plainUDP(t, messagesOnly(func(n int, b []byte) []byte {
		if n%40 == 27 {
			return nil
		}
		return b
	}))
	r := &row{transport: "udp", client: "getty", lanes: c.lanes(false)}
	r.run(context.Background(), ourDrives(&c, "", addr, "")["udp"], newProgress(io.Discard))
	res := r.result()
	require.NoError(t, res.err)
	require.Equal(t, 200, res.messages)
	require.NotZero(t, res.resent)
}

// A goroutine that is left over is found, with its stack.
func TestLeftOver(t *testing.T) {
	before := atStart + 1 // the test's own
	require.Empty(t, leftOver(before), "earlier tests have ended")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { <-stop })
	require.Contains(t, leftOver(before), "TestLeftOver")
	time.AfterFunc(10*time.Millisecond, func() { close(stop) })
	require.Empty(t, leftOver(before), "one that ends soon is none")
	wg.Wait()
}

func TestProgress(t *testing.T) {
	c := config{messages: 10, size: 64, sessions: 2}
	r := &row{transport: "tcp", client: "test", lanes: c.lanes(true)}
	var w strings.Builder
	p := newProgress(&w)
	p.show(r, false)
	require.Empty(t, w.String(), "a line a second is enough")
	p.printed = time.Now().Add(-2 * time.Second)
	p.show(r, false)
	p.show(r, true)
	require.Equal(t, "tcp test: 0 of 10 messages\ntcp test: 0 of 10 messages\n", w.String())

	w.Reset()
	p.terminal = true
	r.lanes[0].echoes.Store(5)
	p.show(r, false)
	require.Contains(t, w.String(), "[###############...............] 5 of 10")
	w.Reset()
	p.show(r, true)
	require.Equal(t, "\r\x1b[K", w.String(), "the bar makes room for the table")
}
