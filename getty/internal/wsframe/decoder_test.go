// SPDX-License-Identifier: Apache-2.0

package wsframe

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gostkit/kit/getty/internal/deflate"
	"github.com/stretchr/testify/require"
)

// An event is what a Decoder reported, copied.
type event struct {
	op      byte
	payload string
}

// decode feeds data to d in pieces of the sizes that next returns, as a connection does: what was
// not used comes again with more behind it. It returns what d reported, the error, and how much was
// not used.
func decode(d *Decoder, data []byte, limit int, next func() int) (events []event, rest int,
	err error) {
	var b []byte
	for len(data) > 0 {
		n := min(max(next(), 1), len(data))
		b = append(b, data[:n]...)
		data = data[n:]
		for {
			m, used, _, err := d.Next(b, limit)
			if err != nil {
				return events, len(b), err
			}
			if used == 0 {
				break
			}
			b = bytes.Clone(b[used:])
			if m.Op != 0 {
				events = append(events, event{m.Op, string(m.Payload)})
			}
		}
	}
	return events, len(b), nil
}

func whole() int { return math.MaxInt }

func codeOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// raw returns a frame as it is told: first byte, mask or not, payload.
func raw(first byte, masked bool, payload string) []byte {
	f := Frame{Op: first & 0x0f, Masked: masked}.Append(nil, []byte(payload))
	f[0] = first
	return f
}

// What random conversations say comes out again, whatever the pieces, in both directions.
func TestConversations(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		client, deflated := round%2 == 0, round%3 == 0
		var wire []byte
		var want []event
		for range 1 + r.IntN(8) {
			op := []byte{Text, Binary}[r.IntN(2)]
			text := strings.Repeat("aé漢😀"[:[]int{1, 3, 6, 10}[r.IntN(4)]], r.IntN(200))
			if r.IntN(10) == 0 {
				text = strings.Repeat("x", 70_000)
			}
			want = append(want, event{op, text})
			p := []byte(text)
			first := op
			if deflated && r.IntN(2) == 0 {
				p = deflate.Append(nil, p, deflate.Fastest)
				first |= bitRsv1
			}
			for parts := 1 + r.IntN(4); ; parts-- {
				n := len(p)
				if parts > 1 {
					n = r.IntN(len(p) + 1)
				} else {
					first |= bitFin
				}
				wire = append(wire, raw(first, !client, string(p[:n]))...)
				if p = p[n:]; parts == 1 {
					break
				}
				first = Continuation
				if r.IntN(2) == 0 {
					ping := strings.Repeat("p", r.IntN(126))
					wire = append(wire, raw(bitFin|Ping, !client, ping)...)
					want = append(want[:len(want)-1], event{Ping, ping}, want[len(want)-1])
				}
			}
		}
		for _, next := range []func() int{whole, func() int { return 1 + r.IntN(50) },
			func() int { return 1 + r.IntN(5000) }} {
			d := Decoder{Client: client, Deflate: deflated}
			got, rest, err := decode(&d, bytes.Clone(wire), 1<<20, next)
			require.NoError(t, err)
			require.Zero(t, rest)
			require.Equal(t, want, got)
			require.False(t, d.Open())
			d.Free()
		}
	}
}

// Random bytes, and random changes of good ones, are answered alike in one piece and byte by byte,
// and never with more than the limit.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x81\x85\x00\x00\x00\x00hello"), true, true)
	f.Add(raw(bitFin|bitRsv1|Text, true, string(deflate.Append(nil, []byte("hello"), deflate.Fastest))), false, true)
	f.Add(append(raw(Text, true, "a\xc3"), raw(bitFin, true, "\xa9")...), false, false)
	f.Add(raw(bitFin|Close, false, "\x03\xe8bye"), true, false)
	f.Fuzz(func(t *testing.T, data []byte, client, deflated bool) {
		const limit = 300
		one := Decoder{Client: client, Deflate: deflated}
		many := one
		a, _, aerr := decode(&one, bytes.Clone(data), limit, whole)
		b, _, berr := decode(&many, bytes.Clone(data), limit, func() int { return 1 })
		require.Equal(t, a, b)
		require.Equal(t, codeOf(aerr), codeOf(berr))
		for _, e := range a {
			require.LessOrEqual(t, len(e.payload), limit)
			require.True(t, e.op != Text || utf8.ValidString(e.payload))
		}
	})
}

func TestHeaders(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		for _, masked := range []bool{false, true} {
			p := bytes.Repeat([]byte("y"), n)
			f := Frame{Op: Binary, Masked: masked}
			b := f.Append([]byte("in front"), p)[8:]
			require.Len(t, b, HeaderSize(n, masked)+n)
			for room := 2; room <= MaxHeader; room++ { // sealed, whatever the room
				sealed := f.Seal(append(make([]byte, room), p...), room)
				require.Len(t, sealed, len(b))
				d := Decoder{Client: !masked}
				m, used, _, err := d.Next(sealed, n)
				require.NoError(t, err)
				require.Equal(t, len(sealed), used)
				require.Equal(t, p, m.Payload)
			}
			d := Decoder{Client: !masked}
			for have := range HeaderSize(n, masked) {
				_, used, need, err := d.Next(b[:have], n)
				require.NoError(t, err)
				require.Zero(t, used)
				require.Greater(t, need, have)
			}
			if n > 0 {
				_, _, _, err := d.Next(b[:HeaderSize(n, masked)], n-1)
				require.True(t, TooBig(err), "refused at the header")
			}
		}
	}
}

func TestLimitsNearTheLargestInt(t *testing.T) {
	for _, limit := range []int{math.MaxInt, math.MaxInt - 1, math.MaxInt - 14} {
		d := Decoder{Deflate: true}
		b := []byte{bitFin | Binary, bitMask | len64, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
			0xff, 0, 0, 0, 0, 1, 2}
		_, used, _, _ := d.Next(b, limit)
		require.Zero(t, used)
		d = Decoder{Deflate: true}
		m, _, _, err := d.Next(raw(bitFin|bitRsv1|Binary, true,
			string(deflate.Append(nil, []byte("abc"), deflate.Fastest))), limit)
		require.NoError(t, err)
		require.Equal(t, "abc", string(m.Payload))
	}
}

// A bad text is refused at the first byte that makes it bad.
func TestBadTextFailsFast(t *testing.T) {
	for _, s := range []string{"ab\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90", "\xe6\xbc!",
		"\x80", strings.Repeat("é", 50) + "\xf8"} {
		bad := 0
		for utf8.ValidString(s[:bad]) || !utf8.FullRune(trailing(s[:bad])) {
			bad++
		}
		var v validator
		for i := range len(s) {
			require.Equal(t, i+1 < bad, v.write([]byte(s[i:i+1])), "%q at %d", s, i)
			if i+1 == bad {
				break
			}
		}
		frame := raw(Text, true,
			s+strings.Repeat("x", 1000)) // neither the frame nor the message ends
		d := Decoder{}
		_, used, _, err := d.Next(bytes.Clone(frame[:8+bad-1]), 1<<20)
		require.NoError(t, err)
		require.Zero(t, used)
		d = Decoder{}
		_, _, _, err = d.Next(frame[:8+bad], 1<<20)
		require.Equal(t, CodeBadPayload, codeOf(err), "%q", s)
	}
}

// trailing returns the bytes of s behind its last whole rune.
func trailing(s string) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			break
		}
		s = s[n:]
	}
	return []byte(s)
}

func TestClosePayloads(t *testing.T) {
	for code := range 5100 {
		ok := code >= 1000 && code <= 1003 || code >= 1007 && code <= 1014 || code >= 3000 &&
			code <= 4999
		got, reason, err := ParseClose(AppendClose(nil, code, "why"))
		switch {
		case code == CodeNone:
			require.NoError(t, err)
			require.Equal(t, CodeNone, got)
		case ok:
			require.NoError(t, err)
			require.Equal(t, code, got)
			require.Equal(t, "why", reason)
		default:
			require.Equal(t, CodeProtocol, codeOf(err), "code %d", code)
		}
	}
	_, _, err := ParseClose([]byte{3})
	require.Equal(t, CodeProtocol, codeOf(err))
	_, _, err = ParseClose([]byte("\x03\xe8\xff"))
	require.Equal(t, CodeBadPayload, codeOf(err))
	long := AppendClose(nil, 1000, strings.Repeat("é", 100))
	require.LessOrEqual(t, len(long), MaxControl)
	_, _, err = ParseClose(long)
	require.NoError(t, err, "a reason is cut between runes")
}

// A message of many fragments ends, however empty they are.
//
// case: 43
func TestTooManyFragments(t *testing.T) {
	d := Decoder{}
	frame := raw(Text, true, "")
	for range MaxFragments {
		_, used, _, err := d.Next(bytes.Clone(frame), 10)
		require.NoError(t, err)
		require.Equal(t, len(frame), used)
		frame[0] = Continuation
	}
	_, _, _, err := d.Next(frame, 10)
	require.Equal(t, CodePolicy, codeOf(err))
}
