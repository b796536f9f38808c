// SPDX-License-Identifier: Apache-2.0

package gettytest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/getty/gettytest"
	"github.com/stretchr/testify/require"
)

// TestMain fails if a goroutine is left over.
func TestMain(m *testing.M) {
	code := m.Run()
	for range 500 {
		if runtime.NumGoroutine() <= 2 {
			os.Exit(code)
		}
		time.Sleep(10 * time.Millisecond)
	}
	println("goroutines left over")
	os.Exit(1)
}

// complaints is a testing.TB that keeps what it is told.
type complaints struct {
	testing.TB
	n int
}

func (c *complaints) Errorf(string, ...any) { c.n++ }

// fakeSession is a Session to call a listener with.
type fakeSession struct{ getty.Session }

func TestRecorderFindsWrongOrders(t *testing.T) {
	for name, play := range map[string]func(r *gettytest.Recorder, s getty.Session){
		"message before open": func(r *gettytest.Recorder, s getty.Session) { r.OnMessage(s, 1) },
		"open twice":          func(r *gettytest.Recorder, s getty.Session) { _ = r.OnOpen(s); _ = r.OnOpen(s) },
		"cron after close": func(r *gettytest.Recorder, s getty.Session) {
			_ = r.OnOpen(s)
			r.OnClose(s)
			r.OnCron(s)
		},
		"message after error": func(r *gettytest.Recorder, s getty.Session) {
			_ = r.OnOpen(s)
			r.OnError(s, io.EOF)
			r.OnMessage(s, 1)
		},
		"overlap": func(r *gettytest.Recorder, s getty.Session) {
			r.Message = func(getty.Session, any) { r.OnWritable(s) }
			_ = r.OnOpen(s)
			r.OnMessage(s, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := &complaints{TB: t}
			play(gettytest.NewRecorder(c), &fakeSession{})
			require.Equal(t, 1, c.n)
		})
	}
}

func TestRecorderRecords(t *testing.T) {
	r := gettytest.NewRecorder(t)
	s := getty.Session(&fakeSession{})
	require.Zero(t, r.Of(s))
	require.NoError(t, r.OnOpen(s))
	require.Equal(t, s, <-r.Opened)
	r.OnMessage(s, "a")
	r.OnMessage(s, "b")
	r.OnCron(s)
	r.OnError(s, io.ErrUnexpectedEOF)
	r.OnClose(s)
	require.Equal(t, s, <-r.Closed)
	rec := r.Of(s)
	require.True(t, rec.Opened && rec.Closed)
	require.Equal(t, 2, rec.Messages)
	require.Equal(t, 1, rec.Crons)
	require.Equal(t, []error{io.ErrUnexpectedEOF}, rec.Errors)
}

// A session over a connection in memory, in a bubble: half a minute of silence takes no time.
func TestIdleTimeoutInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := gettytest.Listen()
		r := gettytest.NewRecorder(t)
		r.Message = func(s getty.Session, pkg any) { _, _, _ = s.WritePkg(pkg, 0) }
		server := getty.NewTCPServer(getty.WithListener(ln), func(o *getty.ServerOptions) {
			o.IdleTimeout = 30 * time.Second
		})
		require.NoError(t, server.RunEventLoop(func(s getty.Session) error {
			_ = s.SetEventListener(r)
			return s.SetPkgHandler(&codec.Line{})
		}))
		begun := time.Now()
		c, err := ln.Dial(t.Context())
		require.NoError(t, err)
		_, err = c.Write([]byte("hello\n"))
		require.NoError(t, err)
		buf := make([]byte, 6)
		_, err = io.ReadFull(c, buf)
		require.NoError(t, err)
		require.Equal(t, "hello\n", string(buf))
		s := <-r.Closed
		require.ErrorIs(t, s.Err(), getty.ErrIdleTimeout)
		require.GreaterOrEqual(t, time.Since(begun), 30*time.Second)
		require.Less(t, time.Since(begun), 32*time.Second)
		_, err = c.Read(buf)
		require.Error(t, err)
		_ = c.Close()
		_, err = server.Shutdown(context.Background())
		require.NoError(t, err)
	})
}

func TestConnCarriesBytes(t *testing.T) {
	a, b := gettytest.Pipe()
	sent := bytes.Repeat([]byte("0123456789"), 100_000)
	go func() {
		_, _ = a.Write(sent)
		_ = a.CloseWrite()
	}()
	got, err := io.ReadAll(b)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))
	_, err = b.Write([]byte("answer")) // the other direction is still open
	require.NoError(t, err)
	require.NoError(t, b.Close())
	got, err = io.ReadAll(a)
	require.NoError(t, err)
	require.Equal(t, "answer", string(got))
	_, err = a.Write([]byte("x"))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestConnEnds(t *testing.T) {
	a, b := gettytest.Pipe()
	require.NoError(t, b.Close())
	_, err := a.Write([]byte("x"))
	require.ErrorIs(t, err, io.ErrClosedPipe)
	_, err = b.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)

	a, b = gettytest.Pipe()
	lost := errors.New("lost")
	_, err = a.Write([]byte("x"))
	require.NoError(t, err)
	a.Reset(lost)
	_, err = b.Read(make([]byte, 1))
	require.Equal(t, lost, err)
	_, err = a.Write([]byte("x"))
	require.Equal(t, lost, err)
}

func TestConnDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := gettytest.Pipe()
		require.NoError(t, a.SetDeadline(time.Now().Add(time.Second)))
		_, err := a.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		n, err := a.Write(make([]byte, 1<<20))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Zero(t, n, "the deadline is over")
		require.NoError(t, a.SetDeadline(time.Time{}))
		go func() {
			time.Sleep(time.Hour)
			_, _ = b.Write([]byte("x"))
		}()
		n, err = a.Read(make([]byte, 1))
		require.NoError(t, err)
		require.Equal(t, 1, n)
	})
}

func TestListener(t *testing.T) {
	ln := gettytest.Listen()
	require.Equal(t, "memory", ln.Addr().Network())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := ln.Dial(ctx)
	require.ErrorIs(t, err, context.Canceled)
	go func() { _, _ = ln.Accept() }()
	_, err = ln.Dial(t.Context())
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	require.NoError(t, ln.Close())
	_, err = ln.Dial(t.Context())
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = ln.Accept()
	require.ErrorIs(t, err, net.ErrClosed)
}
