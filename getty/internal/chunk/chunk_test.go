// SPDX-License-Identifier: Apache-2.0

package chunk

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/gostkit/kit/bytespool"
	"github.com/gostkit/kit/getty/internal/deflate"
	"github.com/stretchr/testify/require"
)

var codes = []Code{Snappy, deflate.Huffman, deflate.Zip, 1, 5, 9}

// stream returns p as a whole stream in pieces of at most size bytes.
func stream(code Code, p []byte, size int) []byte {
	b := []byte(code.Identifier())
	for len(p) > 0 {
		n := min(size, len(p))
		one := code.Encode(p[:n])
		b = append(b, one...)
		bytespool.Put(one)
		p = p[n:]
	}
	return b
}

// decode gives b to a decoder in pieces of step bytes and returns what it makes of it, and how many bytes it
// could not use.
func decode(code Code, b []byte, step int) (out []byte, rest int, err error) {
	d := Decoder{Code: code}
	var held []byte
	for len(b) > 0 {
		n := min(step, len(b))
		held = append(held, b[:n]...)
		b = b[n:]
		for len(held) > 0 {
			data, used, need, err := d.Next(held)
			if err != nil {
				return out, len(held), err
			}
			out = append(out, data...)
			if data != nil {
				bytespool.Put(data)
			}
			if used == 0 {
				if need != 0 && need <= len(held) {
					panic("it needs what it has")
				}
				break
			}
			held = held[used:]
		}
	}
	return out, len(held), nil
}

func samples() [][]byte {
	r := rand.NewChaCha8([32]byte{})
	noise := make([]byte, 200_000)
	_, _ = r.Read(noise)
	return [][]byte{
		nil, []byte("x"), noise, noise[:MaxPlain], bytes.Repeat([]byte(`{"name":"value","number":12345},`), 10_000),
		make([]byte, 3*MaxPlain+1), noise[:minCompressed-1], bytes.Repeat([]byte("a"), minCompressed),
	}
}

// Every stream comes out as it was, for every code and in whatever pieces it comes.
func TestRoundTrip(t *testing.T) {
	for _, code := range codes {
		for _, p := range samples() {
			for _, size := range []int{100, 5000, MaxPlain} {
				b := stream(code, p, size)
				for _, step := range []int{1 + len(b)/100, 7000, len(b)} {
					got, rest, err := decode(code, b, step)
					require.NoError(t, err)
					require.Zero(t, rest)
					require.True(t, bytes.Equal(p, got))
				}
			}
		}
		big := stream(code, make([]byte, 10*MaxPlain), MaxPlain)
		require.Less(t, len(big), 10*MaxPlain/2, "%v", code) // Huffman codes alone halve zeros at most
	}
}

// The form is that of golang/snappy, in both directions.
func TestSnappyInterop(t *testing.T) {
	for _, p := range samples() {
		got, err := io.ReadAll(snappy.NewReader(bytes.NewReader(stream(Snappy, p, 10_000))))
		require.NoError(t, err)
		require.True(t, bytes.Equal(p, got))

		var b bytes.Buffer
		w := snappy.NewBufferedWriter(&b)
		for rest := p; len(rest) > 0; {
			n := min(len(rest), 7777)
			_, err := w.Write(rest[:n])
			require.NoError(t, err)
			require.NoError(t, w.Flush())
			rest = rest[n:]
		}
		require.NoError(t, w.Close())
		got, rest, err := decode(Snappy, b.Bytes(), 1000)
		require.NoError(t, err)
		require.Zero(t, rest)
		require.True(t, bytes.Equal(p, got))
	}
}

// head returns a chunk's header and body.
func head(kind byte, size int, body string) string {
	var b [header]byte
	binary.LittleEndian.PutUint32(b[:], uint32(size)<<8|uint32(kind))
	return string(b[:]) + body
}

// Bad input is ErrCorrupt, before it costs memory.
//
// fault: 40, 41, 46
func TestCorrupt(t *testing.T) {
	const s, d = snappyIdentifier, deflateIdentifier
	whole := func(code Code) string { return string(stream(code, []byte(strings.Repeat("hello", 100)), 1000)) }
	flip := func(b string, at int) string { return b[:at] + string(b[at]^0x40) + b[at+1:] }
	for name, c := range map[string]struct {
		code Code
		b    string
		want error
	}{
		"plain text":              {Snappy, "GET / HTTP/1.1\r\n\r\n", ErrNotCompressed},
		"plain text, DEFLATE":     {1, "GET / HTTP/1.1\r\n\r\n", ErrNotCompressed},
		"one wrong byte":          {Snappy, "\x00", ErrNotCompressed},
		"the other method":        {Snappy, d, ErrNotCompressed},
		"the other, DEFLATE":      {1, s, ErrNotCompressed},
		"the other, later":        {Snappy, s + d, ErrNotCompressed},
		"identifier with a size":  {Snappy, s + head(0xff, 5, "sNaPp"), ErrCorrupt},
		"unknown type":            {Snappy, s + head(2, 4, "abcd"), ErrCorrupt},
		"unknown type, at once":   {Snappy, s + head(0x7f, 1<<24-1, ""), ErrCorrupt},
		"no checksum":             {Snappy, s + head(0, 3, "abc"), ErrCorrupt},
		"too large, at once":      {Snappy, s + head(0, 1<<20, ""), ErrCorrupt},
		"too large plain":         {Snappy, s + head(1, MaxPlain+5, ""), ErrCorrupt},
		"wrong checksum":          {Snappy, flip(whole(Snappy), len(s)+5), ErrCorrupt},
		"wrong checksum, DEFLATE": {1, flip(whole(1), len(d)+5), ErrCorrupt},
		"flipped bit":             {Snappy, flip(whole(Snappy), len(s)+12), ErrCorrupt},
		"flipped bit, DEFLATE":    {1, flip(whole(1), len(d)+10), ErrCorrupt},
		"reserved block type":     {1, d + head(0, 5, "\x00\x00\x00\x00\x07"), ErrCorrupt},
		"wrong size inside":       {Snappy, s + head(0, 9, "\x00\x00\x00\x00\xff\xff\xff\xff\x0f"), ErrCorrupt},
		"nothing, for ever":       {Snappy, s + strings.Repeat(head(0xfe, 1000, strings.Repeat(" ", 1000)), 1100), ErrCorrupt},
		"nothing at once":         {Snappy, s + head(0x80, 1<<24-1, ""), ErrCorrupt},
	} {
		for _, step := range []int{1, len(c.b)} {
			_, _, err := decode(c.code, []byte(c.b), step)
			require.ErrorIs(t, err, c.want, "%s", name)
			require.ErrorIs(t, err, ErrCorrupt, "%s", name)
		}
	}
	// What may be skipped is, and the count begins anew with each byte of data.
	pad := head(0xfe, 100_000, strings.Repeat(" ", 100_000))
	one := stream(Snappy, []byte("x"), 1)[len(s):]
	var b []byte
	for range 30 {
		b = append(append(b, s+pad...), one...)
	}
	got, rest, err := decode(Snappy, b, 999)
	require.NoError(t, err)
	require.Zero(t, rest)
	require.Equal(t, strings.Repeat("x", 30), string(got))
}

// A chunk that holds more than it may is refused, however few bytes it has itself.
//
// fault: 44
func TestBomb(t *testing.T) {
	zeros := make([]byte, 1<<20)
	for _, code := range []Code{Snappy, 9} {
		var body []byte
		if code == Snappy {
			body = snappy.Encode(nil, zeros)
		} else {
			body = deflate.Append(nil, zeros, 9)
		}
		// All of it is right, but for the size.
		b := []byte(code.Identifier() + head(typeCompressed, checksum+len(body), ""))
		b = append(binary.LittleEndian.AppendUint32(b, sum(zeros)), body...)
		_, _, err := decode(code, b, len(b))
		require.ErrorIs(t, err, ErrCorrupt, "%v", code)
	}
}

// Whatever comes, the decoder neither panics nor keeps more than it was given, and what it accepts from golang/snappy's
// writer it reads as golang/snappy's reader does.
func FuzzDecoder(f *testing.F) {
	for _, code := range codes {
		f.Add(int(code), stream(code, []byte(strings.Repeat("hello", 100)), 100), 7)
	}
	f.Add(int(Snappy), []byte(snappyIdentifier+head(0xfe, 3, "abc")+head(1, 5, "\x00\x00\x00\x00x")), 1)
	f.Fuzz(func(t *testing.T, code int, b []byte, step int) {
		if code < int(deflate.Huffman) || code > int(Snappy) || code == 0 || step <= 0 {
			return
		}
		got, rest, err := decode(Code(code), b, step)
		again, rest2, err2 := decode(Code(code), b, len(b)+1)
		require.True(t, bytes.Equal(got, again) || err != nil)
		require.Equal(t, err == nil, err2 == nil)
		if err == nil {
			require.Equal(t, rest, rest2)
		}
		if Code(code) == Snappy && err == nil && rest == 0 && len(b) > 0 {
			theirs, err := io.ReadAll(snappy.NewReader(bytes.NewReader(b)))
			if err == nil {
				require.True(t, bytes.Equal(theirs, got))
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	p := bytes.Repeat([]byte(`{"name":"value","number":12345},`), 29)[:915]
	for _, code := range []Code{Snappy, deflate.Fastest, deflate.Zip} {
		b.Run(code.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bytespool.Put(code.Encode(p))
			}
		})
	}
}
