// SPDX-License-Identifier: Apache-2.0

package bytespool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// check fails if the list of b breaks one of its rules.
func (b *Buffer) check(t testing.TB) {
	t.Helper()
	sum, last := 0, (*node)(nil)
	for n := b.head; n != nil; n = n.next {
		if n.r < 0 || n.r > n.w || n.w > len(n.buf) || len(n.buf) != cap(n.buf) {
			t.Fatalf("chunk [%d:%d] of %d, cap %d", n.r, n.w, len(n.buf), cap(n.buf))
		}
		if n.r == n.w && n != b.head {
			t.Fatal("empty chunk inside the list")
		}
		sum, last = sum+n.w-n.r, n
	}
	if sum != b.len {
		t.Fatalf("len %d, chunks hold %d", b.len, sum)
	}
	if last != b.tail {
		t.Fatal("tail is not the last chunk")
	}
}

// held returns how much memory b keeps.
func (b *Buffer) held() int {
	sum := 0
	for n := b.head; n != nil; n = n.next {
		sum += len(n.buf)
	}
	return sum
}

// drive interprets program as calls of Buffer and of bytes.Buffer, three bytes a call, and
// compares what both say.
func drive(t testing.TB, program []byte) {
	pool, err := New(Config{MaxSize: 8 << 10})
	require.NoError(t, err)
	got := Buffer{Pool: pool}
	defer got.Release()
	var want bytes.Buffer
	next := byte(0)
	for len(program) >= 3 {
		op, n := program[0], int(binary.LittleEndian.Uint16(program[1:]))
		program = program[3:]
		if n >= 1<<15 {
			n %= 70_000 // mostly small, now and then larger than every chunk
		} else {
			n %= 1500
		}
		data := make([]byte, n)
		for i := range data {
			next++
			data[i] = next
		}
		switch op % 16 {
		case 0, 1:
			k, err := got.Write(data)
			require.NoError(t, err)
			require.Equal(t, n, k, "Write")
			want.Write(data)
		case 2:
			k, err := got.WriteString(string(data))
			require.NoError(t, err)
			require.Equal(t, n, k, "WriteString")
			want.Write(data)
		case 3:
			require.NoError(t, got.WriteByte(byte(n)))
			want.WriteByte(byte(n))
		case 4:
			r := io.Reader(bytes.NewReader(data))
			if n%2 == 0 {
				r = iotest.DataErrReader(r)
			}
			k, err := got.ReadFrom(iotest.HalfReader(r))
			require.NoError(t, err)
			require.EqualValues(t, n, k, "ReadFrom")
			want.Write(data)
		case 5:
			k := pool.Get(n)
			copy(k, data)
			got.AddChunk(NewChunk(pool, k))
			want.Write(data)
		case 6, 7:
			a, b := make([]byte, n), make([]byte, n)
			k, err := got.Read(a)
			wantK, wantErr := want.Read(b)
			require.Equal(t, wantErr, err, "Read(%d)", n)
			equal(t, b[:wantK], a[:k], "Read(%d)", n)
		case 8:
			c, err := got.ReadByte()
			wantC, wantErr := want.ReadByte()
			require.Equal(t, wantErr, err, "ReadByte")
			require.Equal(t, wantC, c, "ReadByte")
		case 9:
			p, err := got.Peek(n)
			model := want.Bytes()
			if n <= len(model) {
				require.NoError(t, err, "Peek(%d)", n)
			} else {
				require.Equal(t, io.EOF, err, "Peek(%d)", n)
			}
			equal(t, model[:min(n, len(model))], p, "Peek(%d)", n)
		case 10:
			p := got.Next(n)
			equal(t, want.Next(n), p, "Next(%d)", n)
			require.Equal(t, len(p), cap(p), "appending to Next must not reach the chunk")
		case 11:
			wantK := len(want.Next(n))
			k, err := got.Discard(n)
			require.Equal(t, wantK, k, "Discard(%d)", n)
			require.Equal(t, k < n, err == io.EOF, "Discard(%d)", n)
		case 12:
			limit := &limitWriter{left: n}
			k, err := got.WriteTo(limit)
			require.EqualValues(t, len(limit.bytes), k, "WriteTo")
			equal(t, want.Next(n), limit.bytes, "WriteTo %d", n)
			if want.Len() > 0 {
				require.Equal(t, errFull, err, "WriteTo")
			}
		case 13:
			equal(t, want.Bytes(), bytes.Join(got.Buffers(), nil), "Buffers")
			if p, ok := got.Bytes(); ok {
				equal(t, want.Bytes(), p, "Bytes")
			} else {
				require.Greater(t, len(got.Buffers()), 1, "Bytes refused one chunk")
			}
		case 14:
			c := got.TakeChunk()
			require.Equal(t, len(c.Bytes()), cap(c.Bytes()), "appending to Bytes must not reach the chunk")
			equal(t, want.Next(len(c.Bytes())), c.Bytes(), "TakeChunk")
			require.Equal(t, want.Len() == 0, got.Len() == 0)
			if n%2 == 0 {
				c.Release()
			} else {
				want.Write(c.Bytes())
				got.AddChunk(c)
			}
		case 15:
			if n%7 == 0 {
				got.Release()
				want.Reset()
				require.Zero(t, got.held(), "after Release")
			}
		}
		require.Equal(t, want.Len(), got.Len(), "Len")
		got.check(t)
		if got.Len() == 0 {
			got.settle()
			require.LessOrEqual(t, got.held(), keepChunk, "kept by an empty Buffer")
		}
	}
}

// equal is require.Equal that does not print 70 000 bytes.
func equal(t testing.TB, want, got []byte, format string, args ...any) {
	t.Helper()
	if !bytes.Equal(want, got) {
		t.Fatalf(format+": content differs, %d and %d bytes", append(args, len(want), len(got))...)
	}
}

var errFull = errors.New("full")

// limitWriter takes some bytes and then fails.
type limitWriter struct {
	left  int
	bytes []byte
}

func (w *limitWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.bytes = append(w.bytes, p[:n]...)
	w.left -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func TestBufferAgainstModel(t *testing.T) {
	programs := uint64(100)
	if raceEnabled {
		programs = 20
	}
	for seed := range programs {
		program := make([]byte, 3*200)
		rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
		rng.Read(program)
		drive(t, program)
	}
}

func FuzzBuffer(f *testing.F) {
	f.Add([]byte{0, 255, 255, 9, 255, 128, 10, 1, 0, 6, 255, 255})
	f.Add([]byte{5, 100, 0, 5, 100, 0, 14, 1, 0, 13, 0, 0, 12, 50, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 3*200 {
			return
		}
		drive(t, program)
	})
}

func TestBufferBadSizesPanic(t *testing.T) {
	var b Buffer
	require.PanicsWithValue(t, "bytespool: Buffer.Peek of a negative size", func() { b.Peek(-1) })
	require.PanicsWithValue(t, "bytespool: Buffer.Next of a negative size", func() { b.Next(-1) })
	require.PanicsWithValue(t, "bytespool: Buffer.Discard of a negative size",
		func() { b.Discard(-1) })
}

// A writer or reader that lies about its count gets an error, not a panic, and no bytes.
func TestBufferLiars(t *testing.T) {
	for _, count := range []int{-1, 1 << 20} {
		var b Buffer
		b.WriteString("stays")
		_, err := b.ReadFrom(reader(func([]byte) (int, error) { return count, nil }))
		require.ErrorIs(t, err, errReadCount)
		_, err = b.WriteTo(writer(func([]byte) (int, error) { return count, nil }))
		require.ErrorIs(t, err, errWriteCount)
		require.Equal(t, "stays", string(b.Next(100)))
		b.check(t)
		b.Release()
	}
	var b Buffer
	_, err := b.ReadFrom(reader(func([]byte) (int, error) { return 0, nil }))
	require.Equal(t, io.ErrNoProgress, err)
	require.Zero(t, b.held(), "a chunk that nothing was read into")
	b.WriteString("short")
	n, err := b.WriteTo(writer(func(p []byte) (int, error) { return 2, nil }))
	require.Equal(t, io.ErrShortWrite, err)
	require.EqualValues(t, 2, n)
	require.Equal(t, "ort", string(b.Next(100)))
	b.Release()
}

// Bytes that come with an error are kept, and a Reader that panics costs nothing.
func TestBufferReadFromFailures(t *testing.T) {
	broken := errors.New("broken")
	var b Buffer
	n, err := b.ReadFrom(io.MultiReader(strings.NewReader("begin"), iotest.ErrReader(broken)))
	require.Equal(t, broken, err)
	require.EqualValues(t, 5, n)
	require.Panics(t, func() { b.ReadFrom(reader(func([]byte) (int, error) { panic("reader") })) })
	require.Equal(t, "begin", string(b.Next(5)))
	b.check(t)
	b.Release()
}

func TestBufferWritev(t *testing.T) {
	client, server := tcpPair(t)
	var b Buffer
	want := make([]byte, 300_000)
	for i := range want {
		want[i] = byte(i * 7)
	}
	b.Write(want)
	received := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(server)
		received <- all
	}()
	v := b.Buffers()
	require.Greater(t, len(v), 2)
	n, err := v.WriteTo(client)
	require.NoError(t, err)
	k, err := b.Discard(int(n))
	require.NoError(t, err)
	require.Equal(t, len(want), k)
	client.Close()
	equal(t, want, <-received, "received")
	b.Release()
}

func tcpPair(t *testing.T) (client, server net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// What Next returned stays as it is until the next call, also when it was all there was.
func TestBufferNextLivesUntilNextCall(t *testing.T) {
	var b Buffer
	b.Write(bytes.Repeat([]byte("x"), 10_000))
	p := b.Next(10_000)
	other := Get(cap(p))
	for i := range other {
		other[i] = 'y'
	}
	require.Equal(t, 10_000, bytes.Count(p, []byte("x")))
	Put(other)
	b.Release()
}

// The stated amount: while empty at most one chunk of at most 4 KiB, after Release nothing.
func TestBufferRetention(t *testing.T) {
	var b Buffer
	b.Write(make([]byte, 1<<20))
	_, err := b.Discard(1 << 20)
	require.NoError(t, err)
	require.Zero(t, b.held(), "a 64 KiB chunk kept")
	b.Write(make([]byte, 100))
	b.Next(100)
	b.settle()
	require.Equal(t, minChunk, b.held())
	b.Write(make([]byte, 1<<20))
	b.Peek(1 << 20)
	b.Next(1 << 20)
	require.GreaterOrEqual(t, b.held(), 1<<20, "until the next call Next's result is kept")
	b.WriteByte(1)
	require.Equal(t, minChunk, b.held())
	b.Next(1)
	b.AddChunk(NewChunk(nil, Get(1 << 20)[:1000]))
	b.Next(1000)
	b.Write([]byte("x"))
	require.Equal(t, minChunk, b.held(), "a short write after Next must not keep the large chunk")
	b.Release()
	require.Zero(t, b.held())
}

// The chunk that an empty Buffer keeps serves all of a conversation.
func TestBufferKeepsItsChunk(t *testing.T) {
	p, err := New(Config{Stats: true})
	require.NoError(t, err)
	b := Buffer{Pool: p}
	for range 1000 {
		b.Write(make([]byte, 300))
		require.Len(t, b.Next(300), 300)
	}
	require.Equal(t, []ClassStats{{Size: minChunk, Misses: 1, Outstanding: 1}}, p.Stats().Classes)
	b.Release()
}

// A chunk moves from one Buffer to another without a copy.
func TestBufferHandOver(t *testing.T) {
	var from, to Buffer
	from.WriteString("head|body")
	from.Next(5)
	first, ok := from.Bytes()
	require.True(t, ok)
	to.AddChunk(from.TakeChunk())
	require.Zero(t, from.Len())
	require.Zero(t, from.held())
	second, ok := to.Bytes()
	require.True(t, ok)
	require.Equal(t, "body", string(second))
	require.Same(t, &first[0], &second[0])
	empty := from.TakeChunk()
	require.Empty(t, empty.Bytes())
	empty.Release()
	c := to.TakeChunk()
	c.Release()
	c.Release()
	to.AddChunk(c)
	require.Zero(t, to.Len())
}

func TestBufferAllocs(t *testing.T) {
	if raceEnabled || debug {
		t.Skip("sync.Pool drops at random under -race, debug builds allocate")
	}
	message := make([]byte, 1000)
	target := make([]byte, 1000)
	var b Buffer
	require.Zero(t, int(testing.AllocsPerRun(1000, func() {
		for range 20 {
			b.Write(message)
		}
		b.Peek(3000)
		b.WriteTo(io.Discard)
		b.Write(message)
		b.Read(target)
		b.Release()
	})))
}

type reader func(p []byte) (int, error)

func (f reader) Read(p []byte) (int, error) { return f(p) }

type writer func(p []byte) (int, error)

func (f writer) Write(p []byte) (int, error) { return f(p) }
