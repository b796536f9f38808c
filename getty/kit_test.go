// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/getty/gettytest"
	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for what must happen. It is no measure of speed.
const patience = time.Minute

// longClose is a WaitTime that no graceful end of a test needs, and that a test outlasts. An end may have to
// wait it out: a peer that closed with its receive window shut, and with nothing unread, neither takes the rest
// nor resets.
const longClose = patience / 3

// A tracer is a Recorder whose functions and names are those of these tests.
type tracer struct {
	*gettytest.Recorder
	t         testing.TB
	unordered bool
	open      func(getty.Session) error
	message   func(getty.Session, any)
	cron      func(getty.Session)
	writable  func(getty.Session)
	onError   func(getty.Session, error)
	onClose   func(getty.Session)

	opened, closed chan getty.Session

	begin sync.Once
}

type traced struct {
	errs            []error
	messages, crons int
}

func newTracer(t testing.TB) *tracer {
	r := gettytest.NewRecorder(t)
	l := &tracer{Recorder: r, t: t, opened: r.Opened, closed: r.Closed}
	// A test may change a function while no session is open.
	r.Open = func(s getty.Session) error {
		if l.open == nil {
			return nil
		}
		return l.open(s)
	}
	r.Message = func(s getty.Session, pkg any) {
		if l.message != nil {
			l.message(s, pkg)
		}
	}
	r.Cron = func(s getty.Session) { call(l.cron, s) }
	r.Writable = func(s getty.Session) { call(l.writable, s) }
	r.Close = func(s getty.Session) { call(l.onClose, s) }
	r.Error = func(s getty.Session, err error) {
		if l.onError != nil {
			l.onError(s, err)
		}
	}
	return l
}

func call(f func(getty.Session), s getty.Session) {
	if f != nil {
		f(s)
	}
}

func (l *tracer) OnOpen(s getty.Session) error {
	l.begin.Do(func() { l.Unordered = l.unordered })
	return l.Recorder.OnOpen(s)
}

// of returns a copy of what is recorded for s.
func (l *tracer) of(s getty.Session) traced {
	r := l.Of(s)
	return traced{r.Errors, r.Messages, r.Crons}
}

func echoPkg(s getty.Session, pkg any) { _, _, _ = s.WritePkg(pkg, 0) }

var frames = &codec.LengthField{}

// prepare returns a new-session callback with l and a codec, the length field unless another is given.
func prepare(l getty.EventListener, rw ...getty.ReadWriter) getty.NewSessionCallback {
	return func(s getty.Session) error {
		if err := s.SetEventListener(l); err != nil {
			return err
		}
		if len(rw) > 0 {
			return s.SetPkgHandler(rw[0])
		}
		return s.SetPkgHandler(frames)
	}
}

// serve runs a TCP server until the test ends; it must end completely.
func serve(t testing.TB, newSession getty.NewSessionCallback, opts ...getty.ServerOption) *getty.Server {
	t.Helper()
	srv := getty.NewTCPServer(opts...)
	run(t, srv, newSession)
	return srv
}

// discardThenClose is a peer that ends when the other side does.
func discardThenClose(c net.Conn) {
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
}

// dial returns a plain connection to srv that the test's end closes.
func dial(t testing.TB, srv *getty.Server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", srv.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c.(*net.TCPConn)
}

// noise returns n bytes that no compression makes fewer.
func noise(n int) string {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return string(b)
}

// frame returns the wire form of a package for the length-field codec.
func frame(payload string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

func numbered(n int) []byte { return frame(fmt.Sprintf("%08d", n)) }

// readFrame reads one package from a plain connection.
func readFrame(t testing.TB, c net.Conn) string {
	t.Helper()
	p, err := tryReadFrame(c)
	require.NoError(t, err)
	return p
}

func tryReadFrame(c io.Reader) (string, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return "", err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return "", err
	}
	return string(b), nil
}

// echoOnce exchanges one package with a server that echoes.
func echoOnce(t testing.TB, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err := c.Write(frame("hello"))
	require.NoError(t, err)
	require.Equal(t, "hello", readFrame(t, c))
}

// within receives from ch or fails the test.
func within[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "never happened: "+what)
		panic("unreachable")
	}
}

// eventually waits for a condition that nothing announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			require.FailNow(t, "never became true: "+what)
		}
	}
}

// own is an address of loopback that only these tests use, so that a port which was free, or just closed, is
// taken by nobody else meanwhile.
func own() string {
	if runtime.GOOS == "linux" {
		return "127.9.8.6"
	}
	return "127.0.0.1"
}

// counts returns a report without what it tells of the slowest session.
func counts(r getty.Report) getty.Report {
	r.Slowest, r.Took = "", 0
	return r
}

// eachDispatch runs a test for every way of dispatching.
func eachDispatch(t *testing.T, f func(t *testing.T, d getty.Dispatch)) {
	for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered, getty.Unordered} {
		t.Run(d.String(), func(t *testing.T) { f(t, d) })
	}
}
