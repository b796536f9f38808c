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
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// counting is an allocator that knows how many bytes are lent, and how many at most.
type counting struct{ lent, most int }

func (c *counting) Get(n int) []byte {
	c.lent += n
	c.most = max(c.most, c.lent)
	return make([]byte, n)
}

func (c *counting) Put(b []byte) { c.lent -= len(b) }

// TestLinkedMemoryIsBounded: MaxBytes bounds the chunks, not only the bytes in them, however
// little of a piece is used, and the content is what was committed.
//
// case: 10
func TestLinkedMemoryIsBounded(t *testing.T) {
	const limit, chunkSize = 64 << 10, 4096
	always := func(n int) func() int { return func() int { return n } }
	for name, step := range map[string]struct{ ask, use func() int }{
		"a byte of a chunk":       {always(chunkSize), always(1)},
		"half of a chunk":         {always(chunkSize), always(chunkSize/2 + 1)},
		"nothing and then a byte": {always(chunkSize), func() int { return rand.IntN(2) }},
		"a byte of many chunks":   {always(10 * chunkSize), always(1)},
		"most of many chunks":     {always(5 * chunkSize), always(5*chunkSize - 1)},
		"just more than the rest": {always(chunkSize/2 + 1), always(chunkSize/2 + 1)},
		"anything": {
			func() int { return 1 + rand.IntN(3*chunkSize) },
			func() int { return rand.IntN(3 * chunkSize) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			memory := new(counting)
			l, err := NewLinked(LinkedConfig{
				MaxBytes: limit, ChunkSize: chunkSize, Allocator: memory,
			})
			require.NoError(t, err)
			var want, got []byte
			for i := range 3000 {
				p, err := l.WriteSlice(step.ask())
				if err == ErrFull {
					// Room for less: a reader takes some, so that chunks are partly read, too.
					some := make([]byte, 1+rand.IntN(limit/4))
					n, err := l.TryRead(some)
					require.NoError(t, err)
					got = append(got, some[:n]...)
					continue
				}
				require.NoError(t, err)
				n := min(step.use(), len(p))
				for k := range n {
					p[k] = byte(i + k)
				}
				want = append(want, p[:n]...)
				require.NoError(t, l.Commit(n))
				require.LessOrEqual(t, memory.lent, l.Len()*9/8+3*10*chunkSize, "beside %d bytes", l.Len())
			}
			require.NoError(t, l.Close())
			rest, err := io.ReadAll(l)
			require.NoError(t, err)
			require.True(t, bytes.Equal(want, append(got, rest...)), "content")
			require.Zero(t, memory.lent, "given back")
		})
	}
}

// TestLinkedSpareIsGivenBack: the chunk of a piece that nobody committed goes back, whatever
// comes next.
//
// case: 10
func TestLinkedSpareIsGivenBack(t *testing.T) {
	for name, next := range map[string]func(l *Linked){
		"Commit(0)":  func(l *Linked) { require.NoError(t, l.Commit(0)) },
		"TryWrite":   func(l *Linked) { _, err := l.TryWrite([]byte{1}); require.NoError(t, err) },
		"WriteSlice": func(l *Linked) { _, err := l.WriteSlice(100); require.NoError(t, err) },
		"Close": func(l *Linked) {
			require.NoError(t, l.Close())
			require.ErrorIs(t, l.Commit(1), ErrClosed)
		},
		"Commit(1)": func(l *Linked) { require.NoError(t, l.Commit(1)) },
	} {
		pool := newLender(t)
		l, err := NewLinked(LinkedConfig{MaxBytes: 1000, ChunkSize: 100, Allocator: pool})
		require.NoError(t, err)
		_, err = l.TryWrite(make([]byte, 50))
		require.NoError(t, err)
		_, err = l.WriteSlice(100)
		require.NoError(t, err)
		next(l)
		require.LessOrEqual(t, pool.lent(), 2, name)
		require.NoError(t, l.Close())
		_ = l.Commit(0) // gives up what WriteSlice lent
		_, err = io.ReadAll(l)
		require.NoError(t, err)
		require.Zero(t, pool.lent(), name)
	}
}

// TestMPSCMemoryIsBounded: an MPSC has few slots more than its bound, and large items do not
// make its segments large.
//
// case: 10
func TestMPSCMemoryIsBounded(t *testing.T) {
	slots := func(q *MPSC[int]) (n int) {
		for s := q.head.Load(); s != nil; s = s.next.Load() {
			n += int(s.size())
		}
		return n
	}
	for _, bound := range []int{1, 3, 16, 17, 33, 100, 1000, 5000} {
		q := NewMPSC[int](bound)
		for range 2000 {
			_, _ = q.PushN(make([]int, 1+rand.IntN(bound)))
			require.LessOrEqual(t, slots(q), 4*bound+2*blockSize, "bound %d", bound)
			_, _ = q.PopN(make([]int, 1+rand.IntN(bound)))
		}
	}
	type large [4096]byte
	q := NewMPSC[large](Unbounded)
	for range 100 {
		require.NoError(t, q.TryPush(large{}))
	}
	for s := q.head.Load(); s != nil; s = s.next.Load() {
		require.Len(t, s.blocks, 1)
	}
}

// TestLenDoesNotWait: Len returns although the other side never stands still.
//
// case: 10
func TestLenDoesNotWait(t *testing.T) {
	head := uint64(0)
	moving := func() uint64 { head++; return head }
	n := distance(moving, func() uint64 { return head + 10 })
	require.InDelta(t, 10, n, 2)
	require.Zero(t, distance(moving, func() uint64 { return head }), "not negative")
}

// TestLenOfLongQueue: the length of a queue of many segments is read in constant time, is exact
// at rest, and is never too large while others are busy.
//
// case: 10
func TestLenOfLongQueue(t *testing.T) {
	q := NewMPSC[int](Unbounded)
	const n = 500_000
	for i := range n {
		require.NoError(t, q.TryPush(i))
		if i%10_000 == 0 {
			require.Equal(t, i+1, q.Len())
		}
	}
	var stop atomic.Bool
	var group sync.WaitGroup
	group.Go(func() { // takes one and puts one, so that there are n, or one less
		for !stop.Load() {
			v, _ := q.TryPop()
			_ = q.TryPush(v)
			runtime.Gosched()
		}
	})
	for range 2000 {
		require.LessOrEqual(t, q.Len(), n)
	}
	stop.Store(true)
	group.Wait()
	require.Equal(t, n, q.Len())
	dst := make([]int, 1000)
	for left := n; left > 0; {
		k, err := q.PopN(dst)
		require.NoError(t, err)
		left -= k
		require.Equal(t, left, q.Len())
	}
	q.Close()
	require.Zero(t, q.Len())
}

// copied is an allocator that makes the copies of Peek cost: it counts the bytes that were lent
// beyond chunks.
type copied struct {
	chunk int
	bytes int
}

func (c *copied) Get(n int) []byte {
	if n != c.chunk {
		c.bytes += n
	}
	return make([]byte, n)
}

func (c *copied) Put([]byte) {}

// TestPeekAgain: looking again and again at a package that grows, or at a window that moves,
// copies each byte a bounded number of times and finds the right bytes. The buffers that are
// asked for tell what is copied.
//
// case: 10
func TestPeekAgain(t *testing.T) {
	const chunkSize, total = 64, 64 << 10
	content := make([]byte, total)
	for i := range content {
		content[i] = byte(rand.Uint32()) | 1 // no zero byte
	}
	newLinked := func() (*Linked, *copied) {
		memory := &copied{chunk: chunkSize}
		l, err := NewLinked(LinkedConfig{
			MaxBytes: total, ChunkSize: chunkSize, Allocator: memory,
		})
		require.NoError(t, err)
		return l, memory
	}

	t.Run("a growing package", func(t *testing.T) {
		l, memory := newLinked()
		for i := 0; i < total; i += 16 {
			_, err := l.TryWrite(content[i : i+16])
			require.NoError(t, err)
			p, err := l.Peek(i + 16)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content[:i+16], p))
		}
		require.LessOrEqual(t, memory.bytes, 5*total)
	})
	t.Run("a moving window", func(t *testing.T) {
		l, memory := newLinked()
		_, err := l.TryWrite(content)
		require.NoError(t, err)
		const window = 8 << 10
		for i := 0; i < total-window; i += 3 {
			p, err := l.Peek(window)
			require.NoError(t, err)
			require.True(t, bytes.Equal(content[i:i+window], p))
			_, err = l.Discard(3)
			require.NoError(t, err)
		}
		require.LessOrEqual(t, memory.bytes, 5*window)
	})
	t.Run("what was peeked at is taken", func(t *testing.T) {
		l, err := NewLinked(LinkedConfig{
			MaxBytes: total, ChunkSize: chunkSize, Allocator: newLender(t),
		})
		require.NoError(t, err)
		for i := 0; i < total; i += 4 * chunkSize {
			_, err := l.TryWrite(content[i : i+4*chunkSize])
			require.NoError(t, err)
			for k := i; k < i+4*chunkSize; k += 2 * chunkSize {
				p, err := l.Peek(2 * chunkSize)
				require.NoError(t, err)
				require.True(t, bytes.Equal(content[k:k+2*chunkSize], p))
				_, err = l.Discard(2 * chunkSize)
				require.NoError(t, err)
			}
		}
	})
	t.Run("a line that comes slowly", func(t *testing.T) {
		l, memory := newLinked()
		for i := 0; i < total; i += 16 {
			if i == total-16 {
				content[total-1] = 0
			}
			_, err := l.TryWrite(content[i : i+16])
			require.NoError(t, err)
			p, err := l.Until(0)
			if i < total-16 {
				require.Equal(t, ErrShort, err)
				// A delim that is put under what was searched must not be found.
				l.front(l.Len())[0] = 0
				_, err = l.Until(0)
				require.Equal(t, ErrShort, err, "searched again")
				l.front(l.Len())[0] = content[0]
				require.Nil(t, l.searched.at.c.next.Load(), "the next search begins in the last chunk")
				continue
			}
			require.NoError(t, err)
			require.True(t, bytes.Equal(content, p))
		}
		require.LessOrEqual(t, memory.bytes, total)
	})
	t.Run("by chance", func(t *testing.T) {
		l, _ := newLinked()
		var want []byte
		for range 20_000 {
			switch rand.IntN(5) {
			case 0:
				n, _ := l.TryWrite(content[:rand.IntN(300)])
				want = append(want, content[:n]...)
			case 1, 2:
				n := rand.IntN(len(want) + 1)
				p, err := l.Peek(n)
				require.NoError(t, err)
				require.True(t, bytes.Equal(want[:n], p))
			case 3:
				n := min(rand.IntN(200), len(want))
				k, err := l.Discard(n)
				require.NoError(t, err)
				want = want[k:]
			case 4:
				delim := content[rand.IntN(300)]
				p, err := l.Until(delim)
				i := bytes.IndexByte(want, delim)
				if i < 0 {
					require.Error(t, err)
					continue
				}
				require.NoError(t, err)
				require.True(t, bytes.Equal(want[:i+1], p))
			}
		}
	})
}

// filler is what Bytes and Linked have for this test.
type filler interface {
	io.ReadWriteCloser
	io.ReaderFrom
	Len() int
	Cap() int
}

// TestReadFromSeesTheEnd: a source of exactly the capacity is read to its end although nobody
// makes room, and one that goes on waits for room and loses nothing.
//
// case: 10
func TestReadFromSeesTheEnd(t *testing.T) {
	const size = 4096
	makers := map[string]func() filler{
		"Bytes": func() filler { return NewBytes(size) },
		"Linked": func() filler {
			l, err := NewLinked(LinkedConfig{MaxBytes: size, ChunkSize: 100})
			require.NoError(t, err)
			return l
		},
	}
	bad := errors.New("bad")
	for name, maker := range makers {
		for _, end := range []error{io.EOF, bad} {
			t.Run(fmt.Sprintf("%s, %v", name, end), func(t *testing.T) {
				b := maker()
				source := io.MultiReader(strings.NewReader(strings.Repeat("x", b.Cap())), failing{end})
				n, err := b.ReadFrom(source)
				require.Equal(t, int64(b.Cap()), n)
				if end == io.EOF {
					require.NoError(t, err)
				} else {
					require.Equal(t, end, err)
				}
				require.Equal(t, b.Cap(), b.Len())
			})
		}
		t.Run(name+", more", func(t *testing.T) {
			b := maker()
			content := make([]byte, 5*size+77)
			for i := range content {
				content[i] = byte(rand.Uint32())
			}
			done := make(chan error, 1)
			go func() {
				_, err := b.ReadFrom(bytes.NewReader(content))
				b.Close()
				done <- err
			}()
			got, err := io.ReadAll(b)
			require.NoError(t, err)
			require.NoError(t, <-done)
			require.True(t, bytes.Equal(content, got))
		})
		t.Run(name+", closed while full", func(t *testing.T) {
			b := maker()
			done := make(chan error, 1)
			go func() {
				n, err := b.ReadFrom(strings.NewReader(strings.Repeat("x", 2*size)))
				if n != size {
					err = fmt.Errorf("%d bytes counted", n)
				}
				done <- err
			}()
			require.Eventually(t, func() bool { return b.Len() == size }, 5*time.Second, time.Millisecond)
			b.Close()
			require.Equal(t, ErrClosed, <-done)
		})
	}
	for _, b := range []io.ReaderFrom{new(Bytes), new(Linked)} {
		source := strings.NewReader("x")
		_, err := b.ReadFrom(source)
		require.Equal(t, ErrTooLarge, err, "the zero value takes nothing")
		require.Equal(t, 1, source.Len())
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestWaitReturnsTheCause: what a wait returns is why its context ended.
func TestWaitReturnsTheCause(t *testing.T) {
	cause := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	b := NewBytes(1)
	require.Equal(t, cause, b.WaitReadable(ctx, 1))
	_, err := NewMPSC[int](1).Pop(ctx)
	require.Equal(t, cause, err)
	for range NewSPSC[int](1).Receive(ctx) {
		t.Error("nothing to receive")
	}
}
