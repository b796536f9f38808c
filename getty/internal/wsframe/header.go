// SPDX-License-Identifier: Apache-2.0

package wsframe

import (
	"errors"
	"net/http"
	"strings"
)

// An extension is one element of a Sec-WebSocket-Extensions header.
type extension struct {
	name   string
	params []param
}

// A param is a parameter of an extension. present reports whether it has a value.
type param struct {
	name, value string
	present     bool
}

var errGrammar = errors.New("malformed header")

// A scanner reads the elements of a header: tokens and quoted strings of RFC 7230, section 3.2.6,
// as RFC 6455, section 9.1, uses them.
type scanner struct{ s string }

func (c *scanner) spaces() { c.s = strings.TrimLeft(c.s, " \t") }

// next skips b and the spaces around it, if b comes next.
func (c *scanner) next(b byte) bool {
	c.spaces()
	if c.s == "" || c.s[0] != b {
		return false
	}
	c.s = c.s[1:]
	c.spaces()
	return true
}

func (c *scanner) token() string {
	n := 0
	for n < len(c.s) && isTokenByte(c.s[n]) {
		n++
	}
	t := c.s[:n]
	c.s = c.s[n:]
	return t
}

// quoted reads the rest of a quoted string, behind its first quote.
func (c *scanner) quoted() (string, bool) {
	var b strings.Builder
	for i := 0; i < len(c.s); i++ {
		switch ch := c.s[i]; ch {
		case '"':
			c.s = c.s[i+1:]
			return b.String(), true
		case '\\':
			if i++; i == len(c.s) {
				return "", false
			}
			b.WriteByte(c.s[i])
		default:
			b.WriteByte(ch)
		}
	}
	return "", false
}

func isTokenByte(b byte) bool {
	switch {
	case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9':
		return true
	}
	return strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}

// parseExtensions returns the elements of all Sec-WebSocket-Extensions lines of h.
func parseExtensions(h http.Header) (list []extension, err error) {
	for _, line := range h.Values("Sec-Websocket-Extensions") {
		c := scanner{line}
		for c.spaces(); c.s != ""; {
			if c.next(',') { // a list may have empty elements
				continue
			}
			e, ok := c.extension()
			if !ok || c.s != "" && !c.next(',') {
				return nil, errGrammar
			}
			list = append(list, e)
		}
	}
	return list, nil
}

func (c *scanner) extension() (e extension, ok bool) {
	if e.name = c.token(); e.name == "" {
		return e, false
	}
	for c.next(';') {
		p := param{name: c.token()}
		if p.name == "" {
			return e, false
		}
		if c.next('=') {
			p.present = true
			if c.s != "" && c.s[0] == '"' {
				c.s = c.s[1:]
				if p.value, ok = c.quoted(); !ok {
					return e, false
				}
			} else {
				p.value = c.token()
			}
			if p.value == "" || strings.ContainsFunc(p.value,
				func(r rune) bool { return r > 0x7f || !isTokenByte(byte(r)) }) {
				return e, false // a quoted value has to be a token too
			}
		}
		e.params = append(e.params, p)
	}
	c.spaces()
	return e, true
}

// tokens returns the elements of all lines of a header that is a list of tokens.
func tokens(h http.Header, name string) (list []string, err error) {
	for _, line := range h.Values(name) {
		for part := range strings.SplitSeq(line, ",") {
			t := strings.Trim(part, " \t")
			if t == "" {
				continue
			}
			if strings.ContainsFunc(t,
				func(r rune) bool { return r > 0x7f || !isTokenByte(byte(r)) }) {
				return nil, errGrammar
			}
			list = append(list, t)
		}
	}
	return list, nil
}

// hasToken reports whether one of the elements is token, in upper or lower case. Elements need not
// be tokens: those of Upgrade may have a version, for example.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for part := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}
