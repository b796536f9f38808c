// SPDX-License-Identifier: Apache-2.0

package wsframe

import "unicode/utf8"

// A validator checks UTF-8 that comes in pieces. It fails at the first byte that makes the text
// invalid.
type validator struct {
	begun [utf8.UTFMax]byte // the first bytes of a rune whose rest has not come
	n     int
}

// write reports whether p may follow what was written before.
func (v *validator) write(p []byte) bool {
	for v.n > 0 && len(p) > 0 {
		v.begun[v.n] = p[0]
		v.n++
		p = p[1:]
		if utf8.FullRune(v.begun[:v.n]) { // true also for bytes that no others can complete
			if r, size := utf8.DecodeRune(v.begun[:v.n]); r == utf8.RuneError && size == 1 {
				return false
			}
			v.n = 0
		}
	}
	// A rune that is cut at the end of p waits for the rest. A cut rune begins in the last bytes.
	whole := len(p)
	for back := 1; back < utf8.UTFMax && back <= len(p); back++ {
		if at := len(p) - back; utf8.RuneStart(p[at]) {
			if !utf8.FullRune(p[at:]) {
				whole = at
			}
			break
		}
	}
	if !utf8.Valid(p[:whole]) {
		return false
	}
	v.n += copy(v.begun[v.n:], p[whole:])
	return true
}

// complete reports whether the text does not end inside a rune.
func (v *validator) complete() bool { return v.n == 0 }
