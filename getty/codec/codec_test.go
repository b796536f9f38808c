// SPDX-License-Identifier: Apache-2.0

package codec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// decode feeds stream to r as a session would, the given number of bytes at a time, and returns the packages
// before the first error.
func decode(t testing.TB, r getty.Reader, stream []byte, step func() int) (pkgs []string, rest []byte, err error) {
	t.Helper()
	resumer, _ := r.(getty.ResumingReader)
	have, need, seen, begin := 0, 0, 0, 0
	for have < len(stream) {
		have = min(have+max(step(), 1), len(stream))
		for have > begin && have-begin >= need {
			b := bytes.Clone(stream[begin:have]) // a codec must not look beyond what it is given, nor keep it
			var pkg any
			var n int
			if resumer != nil {
				pkg, n, err = resumer.ReadResume(nil, b, seen)
			} else {
				pkg, n, err = r.Read(nil, b)
			}
			if err != nil {
				require.Nil(t, pkg)
				return pkgs, stream[begin:], err
			}
			if pkg == nil {
				require.True(t, n == 0 || n > len(b), "asks for %d of %d bytes", n, len(b))
				need, seen = n, len(b)
				break
			}
			require.True(t, 0 < n && n <= len(b))
			clear(b)
			f := pkg.(*codec.Frame)
			pkgs = append(pkgs, f.String())
			require.Equal(t, len(f.Bytes()), f.Len())
			f.Release()
			begin += n
			need, seen = 0, 0
		}
	}
	return pkgs, stream[begin:], nil
}

func whole(n int) func() int { return func() int { return n } }

// layouts are all that a LengthField can be told.
func layouts() (all []codec.LengthField) {
	for _, width := range []int{0, 1, 2, 3, 4, 8} {
		for _, order := range []binary.ByteOrder{nil, binary.BigEndian, binary.LittleEndian} {
			for _, offset := range []int{0, 1, 5} {
				w := max(width, 0)
				if width == 0 {
					w = 4
				}
				for _, adjust := range []int{0, -w, -(w + offset), 2} {
					all = append(all, codec.LengthField{Width: width, Order: order, Offset: offset, Adjust: adjust})
				}
			}
		}
	}
	return all
}

// reference encodes a package the slow and obvious way, ok is whether it can be.
func reference(c *codec.LengthField, p string) (wire []byte, ok bool) {
	width := c.Width
	if width == 0 {
		width = 4
	}
	if len(p) < c.Offset || c.MaxLen > 0 && len(p) > c.MaxLen {
		return nil, false
	}
	v := len(p) - c.Offset - c.Adjust
	if v < 0 || width < 4 && v >= 1<<(8*width) {
		return nil, false
	}
	field := make([]byte, 8)
	if c.Order == nil || c.Order == binary.BigEndian {
		binary.BigEndian.PutUint64(field, uint64(v))
		field = field[8-width:]
	} else {
		binary.LittleEndian.PutUint64(field, uint64(v))
		field = field[:width]
	}
	return append(append([]byte(p[:c.Offset]), field...), p[c.Offset:]...), true
}

// Every layout, however the stream is cut: what was encoded comes back, and the wire is what the description
// says.
func TestLengthFieldLayouts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, c := range layouts() {
		t.Run(fmt.Sprintf("%d-%v-%d-%d", c.Width, c.Order, c.Offset, c.Adjust), func(t *testing.T) {
			var stream []byte
			var want []string
			for _, n := range []int{0, 1, 4, 5, 6, 100, 255, 256, 257, 300} {
				p := strings.Repeat("payload", 60)[:n]
				ref, ok := reference(&c, p)
				for _, pkg := range []any{p, []byte(p)} {
					prefix := []byte("before")
					got, err := c.AppendPkg(prefix, nil, pkg)
					require.Equal(t, ok, err == nil, "%d bytes: %v", n, err)
					if ok {
						require.Equal(t, append([]byte("before"), ref...), got)
					}
				}
				if ok {
					stream = append(stream, ref...)
					want = append(want, p)
				}
			}
			require.NotEmpty(t, want)
			for _, step := range []func() int{whole(len(stream)), whole(1), whole(3), func() int { return rnd.IntN(40) }} {
				got, rest, err := decode(t, &c, stream, step)
				require.NoError(t, err)
				require.Empty(t, rest)
				require.Equal(t, want, got)
			}
		})
	}
}

// A header that cannot be true is an error at once, before the payload is there; one that can be, but is too
// long, is ErrTooLong.
//
// case: 17
func TestLengthFieldBadHeaders(t *testing.T) {
	for name, test := range map[string]struct {
		c    codec.LengthField
		wire []byte
		want error // nil: any
	}{
		"above MaxLen":          {codec.LengthField{MaxLen: 10}, []byte{0, 0, 0, 11}, getty.ErrTooLong},
		"far above MaxLen":      {codec.LengthField{MaxLen: 10}, []byte{0xff, 0xff, 0xff, 0xff}, getty.ErrTooLong},
		"offset counts":         {codec.LengthField{MaxLen: 10, Offset: 1}, []byte{0, 0, 0, 0, 10}, getty.ErrTooLong},
		"64 bits":               {codec.LengthField{Width: 8}, bytes.Repeat([]byte{0xff}, 8), getty.ErrTooLong},
		"63 bits":               {codec.LengthField{Width: 8}, append([]byte{0x7f}, bytes.Repeat([]byte{0xff}, 7)...), getty.ErrTooLong},
		"the sign bit":          {codec.LengthField{Width: 8, MaxLen: 100}, append([]byte{0x80}, make([]byte, 7)...), getty.ErrTooLong},
		"the sign, adjusted":    {codec.LengthField{Width: 8, Adjust: -8}, append([]byte{0x80}, make([]byte, 7)...), getty.ErrTooLong},
		"a limit beyond reason": {codec.LengthField{Width: 8, Adjust: 100, MaxLen: math.MaxInt}, append([]byte{0x7f}, bytes.Repeat([]byte{0xff}, 7)...), getty.ErrTooLong},
		"adjusted over the top": {codec.LengthField{Width: 8, Adjust: 100}, append([]byte{0x7f}, bytes.Repeat([]byte{0xff}, 7)...), getty.ErrTooLong},
		"less than itself":      {codec.LengthField{Adjust: -4}, []byte{0, 0, 0, 3}, nil},
		"a width of 5":          {codec.LengthField{Width: 5}, make([]byte, 20), nil},
		"a negative width":      {codec.LengthField{Width: -1}, make([]byte, 20), nil},
		"a negative offset":     {codec.LengthField{Offset: -1}, make([]byte, 20), nil},
		"an endless offset":     {codec.LengthField{Offset: math.MaxInt}, make([]byte, 20), nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := decode(t, &test.c, test.wire, whole(len(test.wire)))
			require.Error(t, err)
			require.Empty(t, got)
			if test.want != nil {
				require.ErrorIs(t, err, test.want)
			}
		})
	}
	// The limit itself passes.
	got, _, err := decode(t, &codec.LengthField{MaxLen: 3}, []byte("\x00\x00\x00\x03abc"), whole(1))
	require.NoError(t, err)
	require.Equal(t, []string{"abc"}, got)
	if math.MaxInt == math.MaxInt32 { // what does not fit an int of 32 bits
		_, _, err = decode(t, &codec.LengthField{}, []byte{0x7f, 0xff, 0xff, 0xff}, whole(4))
		require.ErrorIs(t, err, getty.ErrTooLong)
	}
}

// What does not fit is refused, and dst is not the worse for it.
//
// case: 17
func TestLengthFieldRefusesToEncode(t *testing.T) {
	for name, test := range map[string]struct {
		c   codec.LengthField
		pkg any
	}{
		"too long for the field": {codec.LengthField{Width: 1}, strings.Repeat("x", 256)},
		"too long for MaxLen":    {codec.LengthField{MaxLen: 3}, "four"},
		"too short":              {codec.LengthField{Offset: 3}, []byte("ab")},
		"negative length":        {codec.LengthField{Adjust: 5}, "four"},
		"wrong width":            {codec.LengthField{Width: 7}, "x"},
		"negative offset":        {codec.LengthField{Offset: -1}, "x"},
		"wrong type":             {codec.LengthField{}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.c.Write(nil, test.pkg)
			require.Error(t, err)
		})
	}
	p, err := (&codec.LengthField{Width: 1}).Write(nil, strings.Repeat("x", 255))
	require.NoError(t, err)
	require.Len(t, p, 256)
}

// FuzzLengthField decodes any bytes, cut anywhere, twice: whole and in pieces. Both ways agree, and what was
// decoded encodes to the bytes it came from.
func FuzzLengthField(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x03abc\x00\x00\x00\x01d"), []byte{3, 1}, uint16(0), int8(0), byte(0))
	f.Add([]byte("\x03\x00abc\x01\x00d"), []byte{1}, uint16(2|1<<4), int8(-2), byte(2))
	f.Add(bytes.Repeat([]byte{0xff}, 40), []byte{9}, uint16(8), int8(1), byte(1))
	f.Fuzz(func(t *testing.T, stream, cuts []byte, shape uint16, adjust int8, offset byte) {
		if len(stream) > 4096 || len(cuts) == 0 {
			return
		}
		c := &codec.LengthField{Width: int(shape & 15), Offset: int(offset % 8), Adjust: int(adjust)}
		if shape&16 != 0 {
			c.Order = binary.LittleEndian
		}
		if shape&32 != 0 {
			c.MaxLen = int(shape >> 6)
		}
		i := 0
		want, rest, err := decode(t, c, stream, whole(len(stream)))
		got, rest2, err2 := decode(t, c, stream, func() int { i++; return int(cuts[i%len(cuts)]) })
		require.Equal(t, want, got)
		require.Equal(t, rest, rest2)
		require.Equal(t, err == nil, err2 == nil)
		var again []byte
		for _, p := range got {
			var werr error
			again, werr = c.AppendPkg(again, nil, p)
			require.NoError(t, werr)
		}
		require.Equal(t, stream[:len(stream)-len(rest)], append([]byte{}, again...))
	})
}

// lines is the reference for Line: what is before each "\n", without one trailing "\r".
func lines(stream string, limit int) (pkgs []string, tooLong bool) {
	for {
		line, rest, ok := strings.Cut(stream, "\n")
		if !ok {
			return pkgs, limit > 0 && len(stream) > limit+1
		}
		line = strings.TrimSuffix(line, "\r")
		if limit > 0 && len(line) > limit {
			return pkgs, true
		}
		pkgs = append(pkgs, line)
		stream = rest
	}
}

// FuzzLine compares Line with the reference, however the stream is cut.
func FuzzLine(f *testing.F) {
	f.Add("one\r\ntwo\n\n\r\nthree", []byte{1}, byte(0))
	f.Add("12345\n123456\n", []byte{2, 5}, byte(5))
	f.Add("12345\r\n12345\r\r\n", []byte{6}, byte(5))
	f.Add("123456\r", []byte{9}, byte(5))
	f.Fuzz(func(t *testing.T, stream string, cuts []byte, limit byte) {
		if len(stream) > 4096 || len(cuts) == 0 {
			return
		}
		c := &codec.Line{MaxLen: int(limit)}
		want, tooLong := lines(stream, int(limit))
		i := 0
		for _, step := range []func() int{whole(len(stream)), whole(1), func() int { i++; return int(cuts[i%len(cuts)]) }} {
			got, _, err := decode(t, c, []byte(stream), step)
			require.Equal(t, want, got)
			require.Equal(t, tooLong, errors.Is(err, getty.ErrTooLong), "%v", err)
		}
	})
}

func TestLineEncodes(t *testing.T) {
	p, err := (&codec.Line{}).Write(nil, "hello")
	require.NoError(t, err)
	require.Equal(t, "hello\n", string(p))
	p, err = (&codec.Line{CRLF: true}).AppendPkg([]byte("> "), nil, []byte("hello"))
	require.NoError(t, err)
	require.Equal(t, "> hello\r\n", string(p))
	for _, bad := range []any{"two\nlines", []byte("\n"), 3} {
		_, err = (&codec.Line{}).Write(nil, bad)
		require.Error(t, err)
	}
	_, err = (&codec.Line{MaxLen: 4}).AppendPkg([]byte("> "), nil, "hello")
	require.ErrorIs(t, err, getty.ErrTooLong)
	_, err = (&codec.Line{MaxLen: 5}).AppendPkg([]byte("> "), nil, "hello")
	require.NoError(t, err)
}

// A frame lives as long as it is retained, by however many; one Release too many panics.
//
// acceptance: R12
func TestFrameReferences(t *testing.T) {
	for _, size := range []int{0, 1, 256, 257, 100_000} {
		want := strings.Repeat("f", size)
		wire, err := (&codec.LengthField{}).Write(nil, want)
		require.NoError(t, err)
		pkg, n, err := (&codec.LengthField{}).Read(nil, wire)
		require.NoError(t, err)
		require.Equal(t, len(wire), n)
		f := pkg.(*codec.Frame)
		var wg sync.WaitGroup
		for range 8 {
			f.Retain()
			wg.Go(func() {
				defer f.Release()
				for range 100 {
					if f.String() != want {
						t.Error("overwritten")
					}
					other, _, _ := (&codec.LengthField{}).Read(nil, wire)
					copy(other.(*codec.Frame).Bytes(), "garbage")
					other.(*codec.Frame).Release()
				}
			})
		}
		f.Release()
		wg.Wait()
	}
	var zero codec.Frame
	require.Zero(t, zero.Len())
	require.Panics(t, zero.Release)
	zero.Retain()
	_, err := (&codec.LengthField{}).Write(nil, &codec.Frame{})
	require.NoError(t, err)
}
