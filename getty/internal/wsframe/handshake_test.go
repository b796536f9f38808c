// SPDX-License-Identifier: Apache-2.0

package wsframe

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const goodRequest = "GET / HTTP/1.1\r\nHost: x\r\n" +
	"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

func parse(t *testing.T, request string) (Request, error) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request + "\r\n")))
	require.NoError(t, err)
	return ParseRequest(r)
}

// RFC 6455, section 4.2.1.
func TestRequests(t *testing.T) {
	q, err := parse(t, goodRequest)
	require.NoError(t, err)
	answer, _ := q.Accept(nil, true, nil)
	require.Contains(t, string(answer), "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
	without := func(line string) string {
		require.Contains(t, goodRequest, line)
		return strings.Replace(goodRequest, line, "", 1)
	}
	replaced := func(old, by string) string {
		require.Contains(t, goodRequest, old)
		return strings.Replace(goodRequest, old, by, 1)
	}
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"HTTP/1.0":         {replaced("HTTP/1.1", "HTTP/1.0"), 400},
		"POST":             {replaced("GET", "POST"), 405},
		"no upgrade":       {without("Upgrade: websocket\r\n"), 400},
		"another protocol": {replaced("websocket", "h2c"), 400},
		"no connection":    {without("Connection: keep-alive, Upgrade\r\n"), 400},
		"no key":           {without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400},
		"two keys": {goodRequest + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
			400},
		"short key": {replaced("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400},
		"key not base64": {replaced("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ!!"),
			400},
		"no version":          {without("Sec-WebSocket-Version: 13\r\n"), 426},
		"version 8":           {replaced("Version: 13", "Version: 8"), 426},
		"a body":              {goodRequest + "Content-Length: 3\r\n", 400},
		"bad subprotocol":     {goodRequest + "Sec-WebSocket-Protocol: a b\r\n", 400},
		"subprotocol twice":   {goodRequest + "Sec-WebSocket-Protocol: a, a\r\n", 400},
		"malformed extension": {goodRequest + "Sec-WebSocket-Extensions: deflate; =5\r\n", 400},
	} {
		_, err := parse(t, c.request)
		var refusal *Refusal
		require.True(t, errors.As(err, &refusal), name)
		require.Equal(t, c.status, refusal.Status, name)
	}
}

// All lines of Sec-WebSocket-Protocol count, and the server's preference decides.
func TestSubprotocols(t *testing.T) {
	q, err := parse(t, goodRequest+"Sec-WebSocket-Protocol: one\r\n"+
		"Sec-WebSocket-Protocol: two, three\r\n")
	require.NoError(t, err)
	for mine, want := range map[string]string{"three one": "three", "four two": "two",
		"four": "", "one": "one"} {
		answer, _ := q.Accept(strings.Fields(mine), false, nil)
		if want == "" {
			require.NotContains(t, string(answer), "Sec-WebSocket-Protocol")
		} else {
			require.Contains(t, string(answer), "Sec-WebSocket-Protocol: "+want+"\r\n")
		}
	}
}

// RFC 7692, section 7.1: an offer with a parameter that is unknown, double or has a bad value is
// declined, and the next one considered.
func TestDeflateOffers(t *testing.T) {
	for offer, want := range map[string]bool{
		"permessage-deflate":                                                        true,
		"permessage-deflate; client_max_window_bits":                                true,
		"permessage-deflate; client_max_window_bits=9":                              true,
		"permessage-deflate; client_max_window_bits=\"15\"":                         true,
		"permessage-deflate; server_no_context_takeover":                            true,
		"permessage-deflate; client_no_context_takeover;server_no_context_takeover": true,
		"permessage-deflate; server_max_window_bits=15":                             true,
		"foo, permessage-deflate":                                                   true,
		"permessage-deflate; foo, permessage-deflate":                               true,
		"permessage-deflate; server_max_window_bits=10, permessage-deflate":         true,
		"": false, "foo": false, "x-webkit-deflate-frame": false,
		"permessage-deflate; foo":                                                      false,
		"permessage-deflate; foo=1":                                                    false,
		"permessage-deflate; server_max_window_bits=10":                                false,
		"permessage-deflate; server_max_window_bits":                                   false,
		"permessage-deflate; server_max_window_bits=7":                                 false,
		"permessage-deflate; server_max_window_bits=16":                                false,
		"permessage-deflate; server_max_window_bits=015":                               false,
		"permessage-deflate; client_max_window_bits=16":                                false,
		"permessage-deflate; client_max_window_bits=08":                                false,
		"permessage-deflate; client_max_window_bits=x":                                 false,
		"permessage-deflate; server_no_context_takeover=1":                             false,
		"permessage-deflate; client_no_context_takeover=true":                          false,
		"permessage-deflate; client_max_window_bits; client_max_window_bits":           false,
		"permessage-deflate; server_no_context_takeover; server_no_context_takeover":   false,
		"permessage-deflate; server_max_window_bits=15; server_max_window_bits=15":     false,
		"permessage-deflate; client_max_window_bits=15; client_max_window_bits=\"15\"": false,
	} {
		q, err := parse(t, goodRequest+"Sec-WebSocket-Extensions: "+offer+"\r\n")
		require.NoError(t, err, offer)
		answer, agreed := q.Accept(nil, true, nil)
		require.Equal(t, want, agreed.Deflate, offer)
		require.Equal(t, want, bytes.Contains(answer,
			[]byte("Sec-WebSocket-Extensions: permessage-deflate;")), offer)
		_, agreed = q.Accept(nil, false, nil)
		require.False(t, agreed.Deflate)
	}
}

// A client takes what it asked for and nothing else.
func TestResponses(t *testing.T) {
	const noTakeover = "permessage-deflate; server_no_context_takeover"
	for name, c := range map[string]struct {
		offer   Offer
		more    string // header lines
		status  string
		ok      bool
		deflate bool
	}{
		"plain":                  {ok: true},
		"not asked: extension":   {more: "Sec-WebSocket-Extensions: " + noTakeover},
		"not asked: subprotocol": {more: "Sec-WebSocket-Protocol: a"},
		"another subprotocol": {offer: Offer{Protocols: []string{"b"}},
			more: "Sec-WebSocket-Protocol: a"},
		"subprotocol": {offer: Offer{Protocols: []string{"b", "a"}},
			more: "Sec-WebSocket-Protocol: a", ok: true},
		"no subprotocol": {offer: Offer{Protocols: []string{"b"}}, ok: true},
		"two subprotocols": {offer: Offer{Protocols: []string{"b", "a"}},
			more: "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b"},
		"declined": {offer: Offer{Deflate: true}, ok: true},
		"without the client's hint": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: " + noTakeover, ok: true, deflate: true},
		"with it": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: " + deflateOffer, ok: true, deflate: true},
		"the server's window": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: " + noTakeover + "; server_max_window_bits=9",
			ok:   true, deflate: true},
		"takeover": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: permessage-deflate"},
		"the client's window": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: " + noTakeover + "; client_max_window_bits=15"},
		"unknown parameter": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: " + noTakeover + "; foo"},
		"double parameter": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: " + noTakeover + "; server_no_context_takeover"},
		"bad window": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: " + noTakeover + "; server_max_window_bits=7"},
		"twice": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: " + noTakeover + ", " + noTakeover},
		"another extension": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: foo"},
		"malformed extension": {offer: Offer{Deflate: true},
			more: "Sec-WebSocket-Extensions: ;"},
		"200":         {status: "HTTP/1.1 200 OK"},
		"HTTP/1.0":    {status: "HTTP/1.0 101 Switching Protocols"},
		"two accepts": {more: "Sec-WebSocket-Accept: x"},
	} {
		r, err := http.NewRequest(http.MethodGet, "http://x/", nil)
		require.NoError(t, err)
		require.NoError(t, c.offer.Request(r))
		status := c.status
		if status == "" {
			status = "HTTP/1.1 101 Switching Protocols"
		}
		text := status + "\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n" +
			"Sec-WebSocket-Accept: " + acceptKey(c.offer.key) + "\r\n"
		if c.more != "" {
			text += c.more + "\r\n"
		}
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text+"\r\n")), r)
		require.NoError(t, err)
		agreed, err := c.offer.CheckResponse(resp)
		require.Equal(t, c.ok, err == nil, "%s: %v", name, err)
		require.Equal(t, c.deflate, agreed.Deflate, name)
	}
	for _, lines := range []string{
		"Connection: upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n",
		"Upgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n",
		"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: wrong\r\n",
		"Upgrade: websocket\r\nConnection: upgrade\r\n",
	} {
		var o Offer
		r, _ := http.NewRequest(http.MethodGet, "http://x/", nil)
		require.NoError(t, o.Request(r))
		lines = strings.Replace(lines, "ACCEPT", acceptKey(o.key), 1)
		text := "HTTP/1.1 101 X\r\n" + lines + "\r\n"
		resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), r)
		require.NoError(t, err)
		_, err = o.CheckResponse(resp)
		require.Error(t, err, lines)
	}
}

// A client's request carries what was asked for, and never a header of the handshake twice.
func TestOfferedRequest(t *testing.T) {
	for _, name := range []string{"Upgrade", "sec-websocket-key", "Sec-WebSocket-Extensions",
		"Sec-Websocket-Version", "connection"} {
		r, _ := http.NewRequest(http.MethodGet, "http://x/", nil)
		r.Header[name] = []string{"x"}
		require.Error(t, (&Offer{}).Request(r), name)
	}
	r, _ := http.NewRequest(http.MethodGet, "http://x/", nil)
	require.Error(t, (&Offer{Protocols: []string{"a b"}}).Request(r))
	r.Header.Set("Sec-WebSocket-Protocol", "mine")
	require.Error(t, (&Offer{Protocols: []string{"a"}}).Request(r))
	o := &Offer{Deflate: true}
	require.NoError(t, o.Request(r))
	require.Equal(t, []string{"mine"}, o.Protocols)
	var b bytes.Buffer
	require.NoError(t, r.Write(&b))
	back, err := http.ReadRequest(bufio.NewReader(&b))
	require.NoError(t, err)
	q, err := ParseRequest(back)
	require.NoError(t, err)
	answer, agreed := q.Accept([]string{"mine"}, true, []byte("X-Extra: 1\r\n"))
	require.Equal(t, Agreement{"mine", true}, agreed)
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), r)
	require.NoError(t, err)
	agreed, err = o.CheckResponse(resp)
	require.NoError(t, err)
	require.Equal(t, Agreement{"mine", true}, agreed)
	require.Equal(t, "1", resp.Header.Get("X-Extra"))
}
