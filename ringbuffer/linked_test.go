// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// lender is an allocator that knows what it lent, overwrites what comes back, and lends it again
// as soon as possible, so that a use after Put shows.
type lender struct {
	mu   sync.Mutex
	out  map[*byte]int
	idle map[int][][]byte
	errs []string
}

func newLender(t testing.TB) *lender {
	l := &lender{out: map[*byte]int{}, idle: map[int][][]byte{}}
	t.Cleanup(func() {
		for _, e := range l.errs {
			t.Error(e)
		}
	})
	return l
}

func (l *lender) Get(n int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := make([]byte, n)
	if s := l.idle[n]; len(s) > 0 {
		b, l.idle[n] = s[len(s)-1], s[:len(s)-1]
		for _, c := range b {
			if c != 0xDB {
				l.errs = append(l.errs, "a chunk was written to after it was given back")
				break
			}
		}
	}
	l.out[&b[0]] = n
	return b
}

func (l *lender) Put(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, ok := l.out[&b[0]]; !ok || n != len(b) {
		l.errs = append(l.errs, "something was put that was not lent, or put twice")
		return
	}
	delete(l.out, &b[0])
	for i := range b {
		b[i] = 0xDB
	}
	l.idle[len(b)] = append(l.idle[len(b)], b)
}

func (l *lender) lent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.out)
}

// runLinkedModel interprets script as operations on a Linked and on a bytes.Buffer.
func runLinkedModel(t *testing.T, script []byte) {
	next := func() int {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return int(b)
	}
	pool := newLender(t)
	limit := 1 + 3*next()
	l, err := NewLinked(LinkedConfig{MaxBytes: limit, ChunkSize: 1 + next()/4, Allocator: pool})
	require.NoError(t, err)
	var model bytes.Buffer
	var src source
	type held struct {
		v    *View
		want string
	}
	var views []held
	closed := false
	short := func(n int) error {
		switch {
		case n > limit:
			return ErrTooLarge
		case model.Len() >= n || n == 0:
			return nil
		case closed:
			return io.EOF
		}
		return ErrShort
	}
	for step := 0; len(script) > 0; step++ {
		op := next()
		what := fmt.Sprintf("limit %d chunk %d step %d op %d", limit, l.size, step, op%10)
		switch op % 10 {
		case 0, 1:
			before := src.at
			p := src.next(next())
			want, wantErr := min(len(p), limit-model.Len()), error(nil)
			if closed {
				want, wantErr = 0, ErrClosed
			} else if want < len(p) {
				wantErr = ErrFull
			}
			n, err := l.TryWrite(p)
			require.Equal(t, wantErr, err, what)
			require.Equal(t, want, n, what)
			model.Write(p[:n])
			src.at = before + uint64(n)
		case 2:
			want := 1 + next()
			p, err := l.WriteSlice(want)
			switch {
			case closed:
				require.Equal(t, ErrClosed, err, what)
			case want > limit:
				require.Equal(t, ErrTooLarge, err, what)
			case want > limit-model.Len():
				require.Equal(t, ErrFull, err, what)
			default:
				require.NoError(t, err, what)
				require.GreaterOrEqual(t, len(p), want, what)
				n := next() % (len(p) + 1)
				q := src.next(n)
				copy(p, q)
				require.NoError(t, l.Commit(n), what)
				model.Write(q)
			}
		case 3:
			p := make([]byte, next())
			n, err := l.TryRead(p)
			var wantErr error
			if len(p) > 0 && model.Len() == 0 {
				if wantErr = ErrEmpty; closed {
					wantErr = io.EOF
				}
			}
			require.Equal(t, wantErr, err, what)
			require.Equal(t, string(model.Next(len(p))), string(p[:n]), what)
		case 4:
			n := 2 * next()
			p, err := l.Peek(n)
			require.Equal(t, short(n), err, what)
			if err == nil {
				require.Equal(t, string(model.Bytes()[:n]), string(p), what)
			}
		case 5:
			n := next()
			want := min(n, model.Len())
			k, err := l.Discard(n)
			wantErr := short(n)
			if wantErr == ErrTooLarge {
				if wantErr = ErrShort; closed {
					wantErr = io.EOF
				}
			}
			require.Equal(t, want, k, what)
			require.Equal(t, wantErr, err, what)
			model.Next(k)
		case 6:
			delim := byte(next())
			p, err := l.Until(delim)
			i := bytes.IndexByte(model.Bytes(), delim)
			switch {
			case i >= 0:
				require.NoError(t, err, what)
				require.Equal(t, string(model.Bytes()[:i+1]), string(p), what)
			case closed:
				require.Equal(t, io.EOF, err, what)
			case model.Len() == limit:
				require.Equal(t, ErrTooLarge, err, what)
			default:
				require.Equal(t, ErrShort, err, what)
			}
		case 7:
			n := next()
			v, err := l.Slice(n)
			require.Equal(t, short(n), err, what)
			if err == nil {
				require.Equal(t, n, v.Len())
				views = append(views, held{v, string(model.Next(n))})
			}
		case 8:
			if len(views) > 0 {
				i := next() % len(views)
				require.Equal(t, views[i].want, string(views[i].v.AppendTo(nil)), what)
				views[i].v.Release()
				views[i].v.Release()
				require.Empty(t, views[i].v.Parts())
				views = append(views[:i], views[i+1:]...)
			}
		case 9:
			if op > 248 {
				require.NoError(t, l.Close())
				closed = true
			}
		}
		require.Equal(t, model.Len(), l.Len(), what)
	}
	_ = l.Close()
	rest, err := io.ReadAll(l)
	require.NoError(t, err)
	require.Equal(t, model.String(), string(rest))
	for _, h := range views {
		var out bytes.Buffer
		_, err := h.v.WriteTo(&out)
		require.NoError(t, err)
		require.Equal(t, h.want, out.String(), "a view outlives the end of its buffer")
		h.v.Release()
	}
	require.Zero(t, pool.lent(), "chunks were not given back")
}

func TestLinkedModel(t *testing.T) {
	randomScripts(scaled(1500), 300, func(script []byte) { runLinkedModel(t, script) })
}

func FuzzLinked(f *testing.F) {
	f.Add([]byte{40, 20, 0, 50, 4, 30, 7, 25, 8, 0, 6, 9, 2, 10, 5, 3, 99, 259 % 256, 249, 3, 9})
	f.Add([]byte{200, 3, 0, 255, 6, 200, 0, 255, 6, 200, 5, 100, 7, 60, 249, 3, 255, 3, 255})
	f.Fuzz(func(t *testing.T, script []byte) { runLinkedModel(t, script) })
}

func TestLinkedBadInput(t *testing.T) {
	for _, c := range []LinkedConfig{
		{}, {MaxBytes: -1}, {MaxBytes: 1, ChunkSize: -1}, {MaxBytes: 1, ChunkSize: Unbounded},
	} {
		_, err := NewLinked(c)
		require.Error(t, err, "%+v", c)
	}
	l, err := NewLinked(LinkedConfig{MaxBytes: Unbounded})
	require.NoError(t, err)
	require.Equal(t, Unbounded, l.Cap())
	require.Panics(t, func() { _, _ = l.Peek(-1) })
	require.Panics(t, func() { _, _ = l.Discard(-1) })
	require.Panics(t, func() { _, _ = l.Slice(-1) })
	require.Panics(t, func() { _ = l.Commit(1) }, "nothing was lent")
	_, err = l.WriteSlice(10)
	require.NoError(t, err)
	require.Panics(t, func() { _ = l.Commit(-1) })
	_, err = l.TryWrite([]byte("x"))
	require.NoError(t, err)
	require.Panics(t, func() { _ = l.Commit(1) }, "the piece is no longer lent")
	_, err = l.TryWrite(make([]byte, DefaultChunkSize))
	require.NoError(t, err)
	require.Equal(t, DefaultChunkSize+1, l.Len())

	var zero Linked
	_, err = zero.Write([]byte{1})
	require.Equal(t, ErrTooLarge, err)
	_, err = zero.TryWrite([]byte{1})
	require.Equal(t, ErrFull, err)
	_, err = zero.WriteSlice(1)
	require.Equal(t, ErrTooLarge, err)
	_, err = zero.TryRead(make([]byte, 1))
	require.Equal(t, ErrEmpty, err)
	require.NoError(t, zero.Close())
	_, err = zero.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
}

// TestLinkedAfterClose calls everything after Close, and after the drain.
func TestLinkedAfterClose(t *testing.T) {
	pool := newLender(t)
	l, err := NewLinked(LinkedConfig{MaxBytes: 100, ChunkSize: 4, Allocator: pool})
	require.NoError(t, err)
	_, err = l.Write([]byte("hello\nworld"))
	require.NoError(t, err)
	_, err = l.WriteSlice(20) // a piece that Close takes away
	require.NoError(t, err)
	require.NoError(t, l.Close())
	for range 2 {
		_, err = l.Write([]byte("x"))
		require.Equal(t, ErrClosed, err)
		_, err = l.WriteSlice(1)
		require.Equal(t, ErrClosed, err)
		require.Equal(t, ErrClosed, l.Commit(1))
		require.Equal(t, ErrClosed, l.WaitWritable(t.Context(), 1))
		if l.Len() == 0 {
			break
		}
		line, err := l.Until('\n')
		require.NoError(t, err)
		require.Equal(t, "hello\n", string(line))
		_, err = l.Discard(len(line))
		require.NoError(t, err)
		_, err = l.Until('\n')
		require.Equal(t, io.EOF, err)
		rest, err := l.Peek(l.Len())
		require.NoError(t, err)
		require.Equal(t, "world", string(rest))
		k, err := l.Discard(9)
		require.Equal(t, 5, k)
		require.Equal(t, io.EOF, err)
	}
	require.Zero(t, pool.lent())
	_, err = l.Peek(1)
	require.Equal(t, io.EOF, err)
	_, err = l.Slice(1)
	require.Equal(t, io.EOF, err)
	_, err = l.Until(0)
	require.Equal(t, io.EOF, err)
	require.Equal(t, io.EOF, l.WaitReadable(t.Context(), 1))
	require.NoError(t, l.Close())
}

// panicking is a reader that panics.
type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("reader") }

// TestLinkedReaderPanics: whoever recovers from a panic in ReadFrom has left the chunk, so that
// Close and the drain give it back.
func TestLinkedReaderPanics(t *testing.T) {
	pool := newLender(t)
	l, err := NewLinked(LinkedConfig{MaxBytes: 100, Allocator: pool})
	require.NoError(t, err)
	require.PanicsWithValue(t, "reader", func() { _, _ = l.ReadFrom(panicking{}) })
	require.NoError(t, l.Close())
	require.Equal(t, io.EOF, l.WaitReadable(t.Context(), 1))
	require.Zero(t, pool.lent())
}

// TestLinkedStressClose closes while the writer is in the middle of a chunk and the reader
// drains, with an allocator that lends a chunk again at once: nobody may write to a chunk that
// was given back, and none may be lost.
func TestLinkedStressClose(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		watch(t, func() {
			pool := newLender(t)
			rnd := rand.New(rand.NewPCG(11, 12))
			for range scaled(600) {
				l, err := NewLinked(LinkedConfig{
					MaxBytes: 1 + rnd.IntN(300), ChunkSize: 1 + rnd.IntN(64), Allocator: pool,
				})
				require.NoError(t, err)
				var wrote, got uint64
				var wg sync.WaitGroup
				seed := rnd.Uint64()
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, 1))
					var src source
					for {
						n, err := 0, error(nil)
						if rnd.IntN(2) == 0 {
							n, err = l.Write(src.next(1 + rnd.IntN(200)))
						} else if p, werr := l.WriteSlice(1); werr == nil {
							n = len(p)
							for copy(p, src.next(n)); rnd.IntN(3) == 0; {
								runtime.Gosched() // Close finds the piece lent
							}
							if err = l.Commit(n); err != nil {
								n = 0
							}
						} else if werr == ErrFull {
							err = l.WaitWritable(context.Background(), 1)
						} else {
							err = werr
						}
						wrote += uint64(n)
						src.at = wrote
						if err == ErrClosed {
							return
						}
					}
				})
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, 2))
					var src source
					var views []*View
					for {
						n := 1 + rnd.IntN(20)
						if err := l.WaitReadable(context.Background(), min(n, l.Cap())); err != nil && l.Len() == 0 {
							break
						}
						n = min(n, l.Len())
						var p []byte
						var err error
						if rnd.IntN(2) == 0 {
							if p, err = l.Peek(n); err == nil {
								p = bytes.Clone(p)
								_, err = l.Discard(n)
							}
						} else {
							var v *View
							if v, err = l.Slice(n); err == nil {
								p = v.AppendTo(nil)
								views = append(views, v)
							}
						}
						if err != nil || !bytes.Equal(src.next(n), p) {
							t.Errorf("wrong bytes before %d: %v", src.at, err)
							return
						}
						got = src.at
					}
					for _, v := range views {
						v.Release()
					}
				})
				for range rnd.IntN(100) {
					runtime.Gosched()
				}
				_ = l.Close()
				wg.Wait()
				if wrote != got {
					t.Fatalf("%d written, %d read", wrote, got)
				}
				if n := pool.lent(); n != 0 {
					t.Fatalf("%d chunks were not given back", n)
				}
			}
		})
	})
}
