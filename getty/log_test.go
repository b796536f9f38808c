// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// A logbook is a handler that keeps its records as maps.
type logbook struct {
	*logged
	attrs []slog.Attr
}

type logged struct {
	mu      sync.Mutex
	records []map[string]string // guarded by mu
}

func newLogbook() logbook { return logbook{logged: new(logged)} }

func (b logbook) Enabled(context.Context, slog.Level) bool { return true }

func (b logbook) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logbook{b.logged, append(b.attrs[:len(b.attrs):len(b.attrs)], attrs...)}
}

func (b logbook) WithGroup(string) slog.Handler { return b }

func (b logbook) Handle(_ context.Context, r slog.Record) error {
	m := map[string]string{"msg": r.Message, "level": r.Level.String()}
	add := func(a slog.Attr) bool { m[a.Key] = a.Value.String(); return true }
	for _, a := range b.attrs {
		add(a)
	}
	r.Attrs(add)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(b.records, m)
	return nil
}

// find returns the first record whose message has a part.
func (b logbook) find(part string) map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.records {
		if strings.Contains(m["msg"], part) {
			return m
		}
	}
	return nil
}

// Without a Logger, what nobody else is told goes to slog's default: the forgotten codec or
// listener, a callback's error or panic, with the endpoint and the peer, and in a text that is
// bounded and quoted.
//
// acceptance: L17 case: 38
func TestLogByDefault(t *testing.T) {
	bad := errors.New("odd\n\x1b[31m" + strings.Repeat("x", 10_000))
	open := func(err error) getty.EventListener {
		l := newTracer(t)
		l.open = func(getty.Session) error { return err }
		return l
	}
	for name, c := range map[string]struct {
		newSession getty.NewSessionCallback
		msg, text  string
	}{
		"no listener": {
			func(s getty.Session) error { return s.SetPkgHandler(rawCodec{}) },
			"session refused", "no event listener",
		},
		"no codec": {
			func(s getty.Session) error { return s.SetEventListener(newTracer(t)) },
			"session refused", "no Reader",
		},
		"preparation":    {func(getty.Session) error { return bad }, "session refused", `"odd\n\x1b[31mxxx`},
		"OnOpen":         {prepare(open(bad)), "session refused", `"odd\n\x1b[31mxxx`},
		"panic":          {func(getty.Session) error { panic(bad) }, "panicked", `"odd\n\x1b[31mxxx`},
		"OnOpen without": {prepare(open(errors.New("not today"))), "session refused", "not today"},
	} {
		t.Run(name, func(t *testing.T) {
			eachCarrier(t, func(t *testing.T, carrier carrier) {
				book := newLogbook()
				defer slog.SetDefault(slog.Default())
				slog.SetDefault(slog.New(book))
				srv := carrier.server()
				err := srv.RunEventLoop(c.newSession)
				local := ""
				if carrier.name == "udp" {
					require.Error(t, err)
				} else {
					require.NoError(t, err)
					slog.SetDefault(slog.New(slog.DiscardHandler))
					client := carrier.client(srv.Addr().String(),
						func(o *getty.ClientOptions) { o.ReconnectInterval = time.Hour })
					l := newTracer(t)
					start(t, client, prepare(l))
					defer client.Close()
					local = within(t, l.opened, "the client's OnOpen").LocalAddr()
				}
				eventually(t, "a record", func() bool { return book.find(c.msg) != nil })
				m := book.find(c.msg)
				require.Contains(t, []string{"WARN", "ERROR"}, m["level"])
				require.Equal(t, fmt.Sprintf("server-%d", srv.ID()), m["endpoint"])
				require.Equal(t, local, m["peer"])
				text := m["error"] + m["panic"]
				require.Contains(t, text, c.text)
				require.LessOrEqual(t, len(text), 400)
				require.NotContains(t, text, "\n")
				srv.Close()
				within(t, srv.Done(), "Done")
			})
		})
	}
}

// A brokenListener fails once.
type brokenListener struct {
	net.Listener
	once sync.Once
}

func (l *brokenListener) Accept() (c net.Conn, err error) {
	l.once.Do(func() { err = errors.New("accept: out of luck\n") })
	if err != nil {
		return nil, err
	}
	return l.Listener.Accept()
}

// A refused connection, a failed accept, a failed dial, a write without a Writer and a datagram
// that nobody wants are told as well; a logger that discards silences all of it.
//
// case: 38
func TestLogOfWhatElseGoesWrong(t *testing.T) {
	for _, silent := range []bool{false, true} {
		book := newLogbook()
		logger := slog.New(book)
		restore := slog.Default()
		slog.SetDefault(logger)
		if silent {
			logger = slog.New(slog.DiscardHandler)
		}
		server := func(o *getty.ServerOptions) {
			if silent {
				o.Logger = logger
			}
		}

		ln, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		l := newTracer(t)
		srv := serve(t, func(s getty.Session) error {
			_ = s.SetEventListener(l)
			return s.SetReader(frames)
		}, server, getty.WithListener(&brokenListener{Listener: ln}), getty.WithMaxSessions(1))
		dial(t, srv)
		s := within(t, l.opened, "OnOpen")
		second := dial(t, srv)
		_, err = second.Read(make([]byte, 1))
		require.Error(t, err, "refused")
		_, _, err = s.WritePkg("x", 0)
		require.ErrorIs(t, err, getty.ErrBadReader)

		ul := newTracer(t) // which is no PacketErrorListener
		udp, us := endpoint(t, ul, ul.opened, server)
		socket := udpSocket(t, udp.Addr())
		_, err = socket.Write([]byte("bad\x1b[31m"))
		require.NoError(t, err)
		eventually(t, "it is dropped", func() bool { return us.Stats().Dropped == 1 })

		client := connect(t, newTracer(t), nobody(t), func(o *getty.ClientOptions) {
			if silent {
				o.Logger = logger
			}
		})
		eventually(t, "a dial fails", func() bool { return client.Stats().DialErrs > 0 })

		slog.SetDefault(restore)
		if silent {
			require.Empty(t, book.records)
			continue
		}
		for part, want := range map[string][2]string{
			"connection refused":     {second.LocalAddr().String(), "too many sessions"},
			"accept failed":          {"", `out of luck\n`},
			"write without a Writer": {s.RemoteAddr(), ""},
			"datagram dropped":       {socket.LocalAddr().String(), `bad\x1b`},
			"dial failed":            {"", "refused"},
		} {
			eventually(t, part, func() bool { return book.find(part) != nil })
			m := book.find(part)
			require.Equal(t, want[0], m["peer"], part)
			require.Contains(t, m["error"], want[1], part)
			require.NotContains(t, m["error"], "\n", part)
			require.NotEmpty(t, m["endpoint"], part)
			require.Contains(t, []string{"WARN", "ERROR"}, m["level"], part)
		}
	}
}

// A flood of one message becomes a few lines and a count; other messages are not held back by it,
// nothing below a warning is written, and a handler that panics harms nobody.
//
// case: 38
func TestLogIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := newLogbook()
		log := getty.NewLogger(slog.New(book), "test-1")
		for range 1000 {
			log.Warn("flood")
			log.Info("below")
		}
		require.Len(t, book.records, 10)
		log.With("key", "value").Error("other")
		require.Len(t, book.records, 11)
		require.Equal(t, map[string]string{
			"msg": "other", "level": "ERROR", "endpoint": "test-1", "key": "value",
		}, book.records[10])
		time.Sleep(time.Second)
		for range 5 {
			log.WithGroup("g").Warn("flood")
		}
		require.Len(t, book.records, 12)
		require.Equal(t, "990", book.records[11]["suppressed"])
		time.Sleep(time.Hour)
		for range 100 {
			log.Warn("flood")
		}
		require.Len(t, book.records, 22, "no more than at first")
		require.Equal(t, "4", book.records[12]["suppressed"])
		require.NotContains(t, book.records[13], "suppressed")
		getty.NewLogger(slog.New(panickingHandler{}), "test-2").Warn("boom")
	})
}

type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool { return true }

func (p panickingHandler) WithAttrs([]slog.Attr) slog.Handler { return p }

func (panickingHandler) Handle(context.Context, slog.Record) error { panic("boom") }
