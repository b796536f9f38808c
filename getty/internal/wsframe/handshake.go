// SPDX-License-Identifier: Apache-2.0

package wsframe

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	guid        = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	version     = "13"
	deflateName = "permessage-deflate"
)

// deflateOffer is the offer of a client, and the answer of a server: no context takeover in either
// direction.
const deflateOffer = deflateName + "; server_no_context_takeover; client_no_context_takeover"

// A Request is an upgrade request that keeps to RFC 6455, section 4.2.1.
type Request struct {
	key       string
	protocols []string
	offers    []extension
}

// A Refusal is the reason why a request is refused, and the HTTP status to answer.
type Refusal struct {
	Status int
	Text   string
}

// Error returns the text.
func (r *Refusal) Error() string { return r.Text }

func bad(text string) error { return &Refusal{http.StatusBadRequest, text} }

// ParseRequest checks r. The error is a *Refusal.
func ParseRequest(r *http.Request) (q Request, err error) {
	versions := r.Header.Values("Sec-Websocket-Version")
	keys := r.Header.Values("Sec-Websocket-Key")
	switch {
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return q, bad("a WebSocket upgrade needs HTTP/1.1")
	case r.Method != http.MethodGet:
		return q, &Refusal{http.StatusMethodNotAllowed, "a WebSocket upgrade is a GET request"}
	case !hasToken(r.Header, "Upgrade", "websocket") || !hasToken(r.Header, "Connection",
		"upgrade"):
		return q, bad("not a WebSocket upgrade")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return q, bad("an upgrade request has no body")
	case len(versions) != 1 || versions[0] != version:
		return q, &Refusal{http.StatusUpgradeRequired, "only WebSocket version 13 is served"}
	case len(keys) != 1:
		return q, bad("want one Sec-WebSocket-Key")
	}
	// Only the form of the key is checked: the answer is made from its text.
	q.key = keys[0]
	if b, err := base64.StdEncoding.Strict().DecodeString(q.key); err != nil || len(b) != 16 {
		return q, bad("Sec-WebSocket-Key is not 16 bytes in base64")
	}
	if q.protocols, err = tokens(r.Header, "Sec-Websocket-Protocol"); err != nil {
		return q, bad("malformed Sec-WebSocket-Protocol")
	}
	for i, p := range q.protocols {
		if slices.Contains(q.protocols[:i], p) {
			return q, bad("a subprotocol is named twice")
		}
	}
	if q.offers, err = parseExtensions(r.Header); err != nil {
		return q, bad("malformed Sec-WebSocket-Extensions")
	}
	return q, nil
}

// An Agreement is what both sides of a handshake have agreed on.
type Agreement struct {
	Protocol string // the subprotocol, "" if there is none
	Deflate  bool   // compression
}

// Choose returns the first of protocols, the server's in the order of preference, that the client
// speaks too; "" if there is none.
func (q Request) Choose(protocols []string) string {
	for _, p := range protocols {
		if slices.Contains(q.protocols, p) {
			return p
		}
	}
	return ""
}

// Accept returns the answer to q: the status line and the headers. protocols are the server's
// subprotocols, in the order of preference; extra are header lines of the user's.
func (q Request) Accept(protocols []string, compress bool, extra []byte) ([]byte, Agreement) {
	agreed := Agreement{Protocol: q.Choose(protocols)}
	answer := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n" +
		"Connection: Upgrade\r\nSec-WebSocket-Accept: " + acceptKey(q.key) + "\r\n")
	if agreed.Protocol != "" {
		answer = append(answer, "Sec-WebSocket-Protocol: "+agreed.Protocol+"\r\n"...)
	}
	if compress {
		for _, offer := range q.offers {
			if response, ok := acceptOffer(offer); ok {
				answer = append(answer, "Sec-WebSocket-Extensions: "+response+"\r\n"...)
				agreed.Deflate = true
				break
			}
		}
	}
	answer = append(answer, extra...)
	return append(answer, "\r\n"...), agreed
}

// deflateParams are the parameters of permessage-deflate, RFC 7692, section 7.1.
type deflateParams struct {
	serverNoTakeover, clientNoTakeover bool
	serverBits, clientBits             int // 0: absent; -1: present without a value
}

// parseDeflate returns the parameters of e. ok is false if one is unknown, is there twice, or has a
// value that the RFC does not allow.
func parseDeflate(e extension) (p deflateParams, ok bool) {
	for i, a := range e.params {
		if slices.ContainsFunc(e.params[:i], func(b param) bool { return a.name == b.name }) {
			return p, false
		}
		switch a.name {
		case "server_no_context_takeover":
			p.serverNoTakeover, ok = true, !a.present
		case "client_no_context_takeover":
			p.clientNoTakeover, ok = true, !a.present
		case "server_max_window_bits":
			p.serverBits, ok = windowBits(a)
		case "client_max_window_bits":
			// In an offer it may stand without a value: the client can keep to any window.
			if p.clientBits, ok = windowBits(a); !a.present {
				p.clientBits, ok = -1, true
			}
		default:
			ok = false
		}
		if !ok {
			return p, false
		}
	}
	return p, true
}

// windowBits returns a value between 8 and 15, without leading zeros.
func windowBits(a param) (int, bool) {
	n, err := strconv.Atoi(a.value)
	return n, err == nil && n >= 8 && n <= 15 && strconv.Itoa(n) == a.value
}

// acceptOffer returns the response to an offer, if it can be accepted.
func acceptOffer(e extension) (response string, ok bool) {
	if e.name != deflateName {
		return "", false
	}
	p, ok := parseDeflate(e)
	switch {
	case !ok || p.serverBits != 0 && p.serverBits != 15:
		// compress/flate has only the largest window, and could not keep to a smaller one. A window
		// of the client is only a hint.
		return "", false
	case p.serverBits == 15:
		return deflateOffer + "; server_max_window_bits=15", true
	}
	return deflateOffer, true
}

func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + guid))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// An Offer is a client's half of the handshake.
type Offer struct {
	Protocols []string
	Deflate   bool

	key string
}

// reserved are the headers that the handshake itself sets.
var reserved = []string{
	"Upgrade", "Connection", "Sec-Websocket-Key", "Sec-Websocket-Version",
	"Sec-Websocket-Extensions",
	"Sec-Websocket-Protocol",
}

// Reserved reports whether a header, in any spelling, belongs to the handshake.
func Reserved(name string) bool {
	return slices.Contains(reserved, http.CanonicalHeaderKey(name))
}

// Request makes r, a GET request for the server's URL, an upgrade request. Headers that the
// handshake sets must not be there, in upper or lower case. Subprotocols may come as a header if o
// names none.
func (o *Offer) Request(r *http.Request) error {
	for name := range r.Header {
		if Reserved(name) && (len(o.Protocols) > 0 ||
			http.CanonicalHeaderKey(name) != "Sec-Websocket-Protocol") {
			return fmt.Errorf("the handshake sets the header %s itself", name)
		}
	}
	if len(o.Protocols) == 0 {
		var err error
		if o.Protocols, err = tokens(r.Header, "Sec-Websocket-Protocol"); err != nil {
			return errors.New("a subprotocol is not a token")
		}
	}
	for _, p := range o.Protocols {
		if p == "" || strings.ContainsFunc(p,
			func(c rune) bool { return c > 0x7f || !isTokenByte(byte(c)) }) {
			return fmt.Errorf("subprotocol %q is not a token", p)
		}
	}
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	o.key = base64.StdEncoding.EncodeToString(nonce[:])
	r.Header["Upgrade"] = []string{"websocket"}
	r.Header["Connection"] = []string{"Upgrade"}
	r.Header["Sec-WebSocket-Key"] = []string{o.key}
	r.Header["Sec-WebSocket-Version"] = []string{version}
	if len(o.Protocols) > 0 {
		r.Header["Sec-WebSocket-Protocol"] = []string{strings.Join(o.Protocols, ", ")}
		delete(r.Header, "Sec-Websocket-Protocol")
	}
	if o.Deflate {
		r.Header["Sec-WebSocket-Extensions"] = []string{deflateOffer}
	}
	return nil
}

// CheckResponse checks an answer that switches protocols against RFC 6455, section 4.1, and against
// the offer.
func (o *Offer) CheckResponse(r *http.Response) (agreed Agreement, err error) {
	accepts := r.Header.Values("Sec-Websocket-Accept")
	chosen := r.Header.Values("Sec-Websocket-Protocol")
	switch {
	case r.StatusCode != http.StatusSwitchingProtocols:
		return agreed, errors.New("the server answered " + r.Status)
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return agreed, errors.New("the server answered with " + r.Proto)
	case !hasToken(r.Header, "Upgrade", "websocket") || !hasToken(r.Header, "Connection",
		"upgrade"):
		return agreed, errors.New("the server switched to another protocol")
	case len(accepts) != 1 || accepts[0] != acceptKey(o.key):
		return agreed, errors.New("wrong Sec-WebSocket-Accept")
	case len(chosen) > 1 || len(chosen) == 1 && !slices.Contains(o.Protocols, chosen[0]):
		return agreed, fmt.Errorf("the server chose a subprotocol that was not asked for: %q",
			chosen)
	case len(chosen) == 1:
		agreed.Protocol = chosen[0]
	}
	list, err := parseExtensions(r.Header)
	switch {
	case err != nil:
		return agreed, errors.New("malformed Sec-WebSocket-Extensions")
	case len(list) == 0:
		return agreed, nil
	case len(list) > 1 || list[0].name != deflateName || !o.Deflate:
		return agreed, errors.New("the server chose an extension that was not asked for")
	}
	// client_no_context_takeover is a hint that may be left out. Any window of the server will do.
	if p, ok := parseDeflate(list[0]); !ok || !p.serverNoTakeover || p.clientBits != 0 {
		return agreed, errors.New("the server chose compression parameters that were not asked for")
	}
	agreed.Deflate = true
	return agreed, nil
}
