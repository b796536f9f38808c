// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/taskpool"
	"github.com/stretchr/testify/require"
)

// echoListener is a listener without the tracer's bookkeeping.
type echoListener struct{ opened chan getty.Session }

func (l echoListener) OnOpen(s getty.Session) error       { l.opened <- s; return nil }
func (l echoListener) OnMessage(s getty.Session, pkg any) { _, _, _ = s.WritePkg(pkg, 0) }
func (l echoListener) OnCron(getty.Session)               {}
func (l echoListener) OnError(_ getty.Session, _ error)   {}
func (l echoListener) OnClose(getty.Session)              {}
func newEchoListener() echoListener                       { return echoListener{make(chan getty.Session, 10)} }
func discard(c io.Reader)                                 { _, _ = io.Copy(io.Discard, c) }

// newCrowdEcho is newEchoListener for any number of sessions, which the test does not ask for. It is called
// before the server is made.
func newCrowdEcho(t testing.TB) echoListener {
	l := newEchoListener()
	go func() {
		for range l.opened {
		}
	}()
	t.Cleanup(func() { close(l.opened) })
	return l
}

// A message costs no allocation inline and at most one through an ordered pool: read, decoded as a pooled
// frame, handled, encoded and written. The logger is off.
//
// acceptance: W17
func TestAllocationsPerMessage(t *testing.T) {
	if instrumented {
		t.Skip("the race detector allocates")
	}
	pool := taskpool.NewOrdered(taskpool.Config{})
	t.Cleanup(func() { _ = pool.Close() })
	for _, test := range []struct {
		name string
		most float64
		opts []getty.ServerOption
	}{
		{"inline", 0, nil},
		{"ordered", 1, []getty.ServerOption{getty.WithServerTaskPool(pool)}},
	} {
		for _, size := range []int{64, 1000, 20_000} {
			t.Run(test.name, func(t *testing.T) {
				c := dial(t, serve(t, prepare(newEchoListener()), test.opts...))
				out := frame(string(bytes.Repeat([]byte("x"), size)))
				in := make([]byte, len(out))
				require.LessOrEqual(t, fewestAllocs(300, func() {
					if _, err := c.Write(out); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(c, in); err != nil {
						t.Fatal(err)
					}
				}), test.most)
				require.Equal(t, out, in)
			})
		}
	}
}

// A write outside of a turn costs no allocation either.
//
// acceptance: W17
func TestAllocationsPerWrite(t *testing.T) {
	if instrumented {
		t.Skip("the race detector allocates")
	}
	l := newEchoListener()
	c := dial(t, serve(t, prepare(l)))
	s := within(t, l.opened, "OnOpen")
	go discard(c)
	raw := frame("raw")
	var pkg any = []byte("package")
	for name, f := range map[string]func() error{
		"WritePkg":   func() error { _, _, err := s.WritePkg(pkg, 0); return err },
		"WriteBytes": func() error { _, err := s.WriteBytes(raw); return err },
	} {
		require.Zero(t, fewestAllocs(300, func() {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}), name)
	}
}

// fewestAllocs is testing.AllocsPerRun, repeated: a collection in the middle empties the pools, and other
// goroutines of the process allocate too.
func fewestAllocs(runs int, f func()) float64 {
	least := testing.AllocsPerRun(runs, f)
	for range 5 {
		if least == 0 {
			break
		}
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}
