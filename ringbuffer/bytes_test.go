// SPDX-License-Identifier: Apache-2.0

package ringbuffer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// byteBuffer is what the two byte buffers have in common.
type byteBuffer interface {
	io.ReadWriteCloser
	io.ReaderFrom
	io.WriterTo
	TryWrite(p []byte) (int, error)
	TryRead(p []byte) (int, error)
	WriteContext(ctx context.Context, p []byte) (int, error)
	ReadContext(ctx context.Context, p []byte) (int, error)
	WaitReadable(ctx context.Context, n int) error
	WaitWritable(ctx context.Context, n int) error
	CloseWithError(err error) error
	Len() int
	Cap() int
}

// buffers are the constructors that the common tests run with.
var buffers = map[string]func(t testing.TB, size int) byteBuffer{
	"Bytes": func(_ testing.TB, size int) byteBuffer { return NewBytes(size) },
	"Linked": func(t testing.TB, size int) byteBuffer {
		l, err := NewLinked(LinkedConfig{MaxBytes: size, ChunkSize: 1 + size/3, Allocator: newLender(t)})
		require.NoError(t, err)
		return l
	},
}

func eachBuffer(t *testing.T, test func(t *testing.T, make func(size int) byteBuffer)) {
	for name, fresh := range buffers {
		t.Run(name, func(t *testing.T) {
			test(t, func(size int) byteBuffer { return fresh(t, size) })
		})
	}
}

var errReason = errors.New("reason")

// source yields an endless pattern in which every position shows where it is.
type source struct{ at uint64 }

func (s *source) next(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(s.at ^ s.at>>8*7)
		s.at++
	}
	return p
}

// runBytesModel interprets script as operations on a Bytes and on a bytes.Buffer.
func runBytesModel(t *testing.T, script []byte) {
	next := func() int {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return int(b)
	}
	b := NewBytes(1 + next())
	var model bytes.Buffer
	var src source
	var closed error // what a writer gets
	readEnd := func() error {
		switch {
		case closed == ErrClosed:
			return io.EOF
		case closed != nil:
			return closed
		}
		return nil
	}
	for step := 0; len(script) > 0; step++ {
		op := next()
		what := fmt.Sprintf("cap %d step %d op %d", b.Cap(), step, op%8)
		switch op % 8 {
		case 0:
			before := src.at
			p := src.next(next())
			want, wantErr := min(len(p), b.Cap()-model.Len()), closed
			if closed != nil {
				want = 0
			} else if want < len(p) {
				wantErr = ErrFull
			}
			n, err := b.TryWrite(p)
			require.Equal(t, wantErr, err, what)
			require.Equal(t, want, n, what)
			model.Write(p[:n])
			src.at = before + uint64(n)
		case 1:
			p := make([]byte, next())
			n, err := b.TryRead(p)
			var wantErr error
			if len(p) > 0 && model.Len() == 0 {
				if wantErr = readEnd(); wantErr == nil {
					wantErr = ErrEmpty
				}
			}
			require.Equal(t, wantErr, err, what)
			require.Equal(t, string(model.Next(len(p))), string(p[:n]), what)
		case 2:
			first, second, err := b.WriteSlices()
			require.Equal(t, closed, err, what)
			if err != nil {
				require.Empty(t, first)
				break
			}
			require.Equal(t, b.Cap()-model.Len(), len(first)+len(second), what)
			n := min(next(), len(first)+len(second))
			p := src.next(n)
			copy(second, p[copy(first, p):])
			require.NoError(t, b.Commit(n), what)
			model.Write(p)
		case 3:
			first, second, err := b.ReadSlices()
			if model.Len() == 0 {
				require.Equal(t, readEnd(), err, what)
			} else {
				require.NoError(t, err)
			}
			require.Equal(t, model.String(), string(first)+string(second), what)
			n := min(next(), model.Len())
			b.Advance(n)
			model.Next(n)
		case 4:
			var want error
			n := 1 + next()
			err := b.WaitReadable(canceled, n)
			switch {
			case n > b.Cap():
				want = ErrTooLarge
			case model.Len() >= n:
				want = nil
			case closed == nil:
				want = context.Canceled
			default:
				want = readEnd()
			}
			require.Equal(t, want, err, what)
		case 5:
			n := 1 + next()
			want := closed
			switch {
			case n > b.Cap():
				want = ErrTooLarge
			case closed == nil && b.Cap()-model.Len() < n:
				want = context.Canceled
			}
			require.Equal(t, want, b.WaitWritable(canceled, n), what)
		case 6:
			switch {
			case op > 250:
				require.NoError(t, b.CloseWithError(errReason))
				if closed == nil {
					closed = errReason
				}
			case op > 240:
				require.NoError(t, b.Close())
				if closed == nil {
					closed = ErrClosed
				}
			}
		case 7:
			if op > 245 {
				b.Reset()
				model.Reset()
				closed = nil
			}
		}
		require.Equal(t, model.Len(), b.Len(), what)
	}
}

// canceled is a context that has ended.
var canceled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func randomScripts(n, size int, run func(script []byte)) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range n {
		script := make([]byte, 2+rnd.IntN(size))
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		run(script)
	}
}

func TestBytesModel(t *testing.T) {
	randomScripts(scaled(2000), 400, func(script []byte) { runBytesModel(t, script) })
}

func FuzzBytes(f *testing.F) {
	f.Add([]byte{15, 0, 10, 1, 7, 0, 12, 3, 4, 2, 9, 1, 30, 246, 1, 5})
	f.Add([]byte{0, 0, 1, 2, 3, 1, 1, 254, 0, 1, 255, 0, 1})
	f.Fuzz(func(t *testing.T, script []byte) { runBytesModel(t, script) })
}

func TestBytesBadInput(t *testing.T) {
	for _, size := range []int{0, -1, maxCapacity + 1} {
		require.Panics(t, func() { NewBytes(size) }, "size %d", size)
	}
	b := NewBytes(8)
	for _, n := range []int{-1, 1} {
		require.Panics(t, func() { b.Advance(n) }, "Advance(%d) of an empty ring", n)
	}
	for _, n := range []int{-1, 1, 9} {
		require.Panics(t, func() { _ = b.Commit(n) }, "Commit(%d) of what was not lent", n)
	}
	lend := func() {
		_, _, err := b.WriteSlices()
		require.NoError(t, err)
	}
	lend()
	require.Panics(t, func() { _ = b.Commit(-1) })
	require.Panics(t, func() { _ = b.Commit(9) })
	require.NoError(t, b.Commit(8))
	require.Panics(t, func() { _ = b.Commit(1) }, "committed twice")
	b.Reset()
	lend()
	_, err := b.TryWrite([]byte("x"))
	require.NoError(t, err)
	require.Panics(t, func() { _ = b.Commit(1) }, "the slices are no longer lent")
	lend()
	b.Reset()
	require.Panics(t, func() { _ = b.Commit(1) }, "Reset takes the slices back")
	var zero Bytes
	_, err = zero.Write([]byte{1})
	require.Equal(t, ErrTooLarge, err)
	_, err = zero.TryRead(make([]byte, 1))
	require.Equal(t, ErrEmpty, err)
	require.NoError(t, zero.Close())
	_, err = zero.TryWrite(nil)
	require.Equal(t, ErrClosed, err)
}

// TestBufferStream sends a stream through small buffers by all blocking forms.
func TestBufferStream(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		eachBuffer(t, func(t *testing.T, fresh func(int) byteBuffer) {
			for _, size := range []int{1, 16, 1000, 1 << 15} {
				watch(t, func() { stream(t, fresh(size), scaled(1<<17)) })
			}
		})
	})
}

func stream(t *testing.T, b byteBuffer, total int) {
	var wg sync.WaitGroup
	wg.Go(func() {
		defer b.Close()
		rnd := rand.New(rand.NewPCG(1, uint64(total)))
		var src source
		for src.at < uint64(total) {
			p := src.next(1 + rnd.IntN(min(2*b.Cap(), total)))
			var n int64
			var err error
			switch rnd.IntN(3) {
			case 0:
				var m int
				m, err = b.Write(p)
				n = int64(m)
			case 1:
				n, err = b.ReadFrom(iotest.HalfReader(bytes.NewReader(p)))
			case 2:
				var m int
				m, err = b.TryWrite(p)
				n = int64(m)
				if err == ErrFull {
					src.at -= uint64(len(p) - m)
					p, err = p[:m], nil
				}
			}
			if err != nil || int(n) != len(p) {
				t.Errorf("wrote %d of %d: %v", n, len(p), err)
				return
			}
		}
	})
	rnd := rand.New(rand.NewPCG(2, uint64(total)))
	var src source
	check := func(p []byte) {
		if !bytes.Equal(src.next(len(p)), p) {
			t.Fatalf("wrong bytes before %d", src.at)
		}
	}
	for int(src.at) < total/2 {
		p := make([]byte, 1+rnd.IntN(2*b.Cap()))
		switch rnd.IntN(3) {
		case 0:
			n, err := b.Read(p)
			require.NoError(t, err)
			check(p[:n])
		case 1:
			n := 1 + rnd.IntN(b.Cap())
			if err := b.WaitReadable(t.Context(), n); err != nil {
				require.Equal(t, io.EOF, err)
				continue
			}
			require.GreaterOrEqual(t, b.Len(), n)
			_, err := io.ReadFull(b, p[:min(n, len(p))])
			require.NoError(t, err)
			check(p[:min(n, len(p))])
		case 2:
			if n, err := b.TryRead(p); err == nil {
				check(p[:n])
			}
		}
	}
	n, err := b.WriteTo(checker(check))
	require.NoError(t, err)
	require.GreaterOrEqual(t, src.at, uint64(n))
	require.GreaterOrEqual(t, int(src.at), total)
	_, err = b.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	wg.Wait()
}

// checker is a writer that looks at what it gets.
type checker func(p []byte)

func (c checker) Write(p []byte) (int, error) { c(p); return len(p), nil }

// TestBufferClose closes and cancels at every moment of reads and writes: the reader gets a
// prefix of what the writer was told is written, and all of it if it drains.
func TestBufferClose(t *testing.T) {
	eachProcs(t, func(t *testing.T) {
		eachBuffer(t, func(t *testing.T, fresh func(int) byteBuffer) {
			watch(t, func() {
				rnd := rand.New(rand.NewPCG(9, 9))
				for range scaled(200) {
					b := fresh(1 + rnd.IntN(64))
					var wrote, got uint64
					var wg sync.WaitGroup
					seed := rnd.Uint64()
					wg.Go(func() {
						rnd := rand.New(rand.NewPCG(seed, 1))
						var src source
						for {
							ctx, stop := brief(rnd)
							n, err := b.WriteContext(ctx, src.next(1+rnd.IntN(100)))
							stop()
							wrote += uint64(n)
							src.at = wrote
							if err == errReason {
								return
							}
						}
					})
					wg.Go(func() {
						rnd := rand.New(rand.NewPCG(seed, 2))
						var src source
						p := make([]byte, 100)
						for {
							ctx, stop := brief(rnd)
							n, err := b.ReadContext(ctx, p[:1+rnd.IntN(100)])
							stop()
							if !bytes.Equal(src.next(n), p[:n]) {
								t.Error("wrong bytes")
							}
							got += uint64(n)
							if err == errReason {
								return
							}
						}
					})
					for range rnd.IntN(200) {
						runtime.Gosched()
					}
					_ = b.CloseWithError(errReason)
					wg.Wait()
					if wrote != got {
						t.Fatalf("%d written, %d read", wrote, got)
					}
				}
			})
		})
	})
}

func TestBufferWaitersPark(t *testing.T) {
	eachBuffer(t, func(t *testing.T, fresh func(int) byteBuffer) {
		synctest.Test(t, func(t *testing.T) {
			b := fresh(8)
			hour := func() context.Context {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				t.Cleanup(cancel)
				return ctx
			}
			start := time.Now()
			_, err := b.ReadContext(hour(), make([]byte, 4))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			n, err := b.WriteContext(hour(), make([]byte, 10))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 8, n, "what fitted stays written")
			require.Equal(t, 2*time.Hour, time.Since(start))
			require.Equal(t, ErrTooLarge, b.WaitReadable(hour(), 9))
			require.Equal(t, ErrTooLarge, b.WaitWritable(hour(), 9))

			done := make(chan error)
			go func() { _, err := b.Write([]byte("abcd")); done <- err }()
			synctest.Wait()
			p := make([]byte, 20)
			n, err = io.ReadFull(b, p[:12])
			require.NoError(t, err)
			require.Equal(t, "abcd", string(p[8:n]))
			require.NoError(t, <-done)

			go func() { done <- b.WaitReadable(t.Context(), 5) }()
			synctest.Wait()
			_, err = b.Write([]byte("abcd"))
			require.NoError(t, err)
			synctest.Wait() // four are not enough
			_, err = b.Write([]byte("e"))
			require.NoError(t, err)
			require.NoError(t, <-done)

			go func() { done <- b.WaitReadable(t.Context(), 6) }()
			synctest.Wait()
			require.NoError(t, b.CloseWithError(errReason))
			require.Equal(t, errReason, <-done)
			require.NoError(t, b.Close(), "the first close wins")
			n, err = b.Read(p)
			require.NoError(t, err)
			require.Equal(t, "abcde", string(p[:n]))
			_, err = b.Read(p)
			require.Equal(t, errReason, err)
			_, err = b.Write(p)
			require.Equal(t, errReason, err)
		})
	})
}

// TestBufferEveryFormWakes: each form that publishes bytes or makes room wakes one who sleeps.
func TestBufferEveryFormWakes(t *testing.T) {
	eachBuffer(t, func(t *testing.T, fresh func(int) byteBuffer) {
		synctest.Test(t, func(t *testing.T) {
			b := fresh(8)
			var publish, take []func()
			publish = append(publish,
				func() { _, _ = b.TryWrite([]byte("x")) },
				func() { _, _ = b.ReadFrom(strings.NewReader("x")) })
			take = append(take, func() { _, _ = b.TryRead(make([]byte, 1)) })
			switch b := b.(type) {
			case *Bytes:
				publish = append(publish, func() { _, _, _ = b.WriteSlices(); _ = b.Commit(1) })
				take = append(take, func() { _, _, _ = b.ReadSlices(); b.Advance(1) })
			case *Linked:
				publish = append(publish, func() { _, _ = b.WriteSlice(1); _ = b.Commit(1) })
				take = append(take,
					func() { _, _ = b.Discard(1) },
					func() { v, _ := b.Slice(1); v.Release() })
			}
			done := make(chan error)
			for _, f := range publish {
				go func() { _, err := b.Read(make([]byte, 8)); done <- err }()
				synctest.Wait()
				f()
				require.NoError(t, <-done) // a deadlock of the bubble if nobody woke it
			}
			for _, f := range take {
				_, _ = b.TryWrite(make([]byte, 8))
				go func() { _, err := b.Write([]byte("y")); done <- err }()
				synctest.Wait()
				f()
				require.NoError(t, <-done)
			}
			go func() { _, err := b.Write([]byte("y")); done <- err }()
			synctest.Wait()
			require.NoError(t, b.Close())
			require.Equal(t, ErrClosed, <-done)
			_, err := io.ReadAll(b) // gives the chunks back
			require.NoError(t, err)
		})
	})
}

// badWriter takes n bytes and fails.
type badWriter struct {
	n   int
	err error
}

func (w badWriter) Write([]byte) (int, error) { return w.n, w.err }

// noReader never delivers anything.
type noReader struct{}

func (noReader) Read([]byte) (int, error) { return 0, nil }

// liar claims to have delivered more than it was given room for.
type liar struct{}

func (liar) Read(p []byte) (int, error) { return len(p) + 1, nil }

func TestBufferCopyErrors(t *testing.T) {
	eachBuffer(t, func(t *testing.T, fresh func(int) byteBuffer) {
		b := fresh(8)
		require.Equal(t, context.Canceled, b.WaitReadable(canceled, 0), "0 means 1")
		require.Panics(t, func() { _, _ = b.ReadFrom(liar{}) })
		require.Zero(t, b.Len())
		n, err := b.ReadFrom(noReader{})
		require.Zero(t, n)
		require.Equal(t, io.ErrNoProgress, err)
		n, err = b.ReadFrom(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errReason)))
		require.EqualValues(t, 3, n)
		require.Equal(t, errReason, err)
		n, err = b.WriteTo(badWriter{1, nil})
		require.EqualValues(t, 1, n)
		require.Equal(t, io.ErrShortWrite, err)
		n, err = b.WriteTo(badWriter{1, errReason})
		require.EqualValues(t, 1, n)
		require.Equal(t, errReason, err)
		require.Equal(t, 1, b.Len(), "what the writer did not take is still there")
		require.Panics(t, func() { _, _ = b.WriteTo(badWriter{9, nil}) })
		require.NoError(t, b.Close())
		_, err = b.ReadFrom(strings.NewReader("x"))
		require.Equal(t, ErrClosed, err)
		var out strings.Builder
		n, err = b.WriteTo(&out)
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		require.Equal(t, "c", out.String())
	})
}

// TestBufferLen is TestQueueLen for bytes.
func TestBufferLen(t *testing.T) {
	eachBuffer(t, func(t *testing.T, fresh func(int) byteBuffer) {
		b := fresh(64)
		p := make([]byte, 1)
		longest := watchLen(b.Len, func() { _, _ = b.TryWrite(p); _, _ = b.TryRead(p) })
		require.LessOrEqual(t, longest, 1)
	})
}

// TestBufferCloseWithOwnErrors closes with the errors that mean something to the waiting forms
// themselves, as happens when the error of one buffer becomes the reason of the next.
func TestBufferCloseWithOwnErrors(t *testing.T) {
	for _, reason := range []error{ErrShort, ErrEmpty, ErrFull, ErrTooLarge, ErrClosed} {
		eachBuffer(t, func(t *testing.T, fresh func(int) byteBuffer) {
			synctest.Test(t, func(t *testing.T) {
				b := fresh(8)
				results := make(chan error, 2)
				go func() { _, err := b.Read(make([]byte, 1)); results <- err }()
				synctest.Wait() // the reader sleeps
				require.NoError(t, b.CloseWithError(reason))
				require.Equal(t, reason, <-results)
				require.Equal(t, reason, b.WaitReadable(t.Context(), 1))
				_, err := b.Write([]byte{1})
				require.Equal(t, reason, err)
			})
		})
	}
}
