// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// A wsPeer is the other end of a WebSocket session of ours, made of raw bytes.
type wsPeer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	mask bool // it is a client
	l    *tracer
}

// A wsFrame is one frame as it is sent. Its header is what the fields say, right or wrong.
type wsFrame struct {
	first   byte
	payload string
	extend  int    // bytes of an extended length: 2 or 8, 0 for the shortest
	length  uint64 // announced, if it is not the payload's
	unmask  bool   // masked the wrong way round
}

func (f wsFrame) bytes(mask bool) []byte {
	n := f.length
	if n == 0 {
		n = uint64(len(f.payload))
	}
	extend := f.extend
	if extend == 0 && n > 65535 {
		extend = 8
	} else if extend == 0 && n > 125 {
		extend = 2
	}
	b := []byte{f.first, byte(n)}
	switch extend {
	case 2:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	case 8:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, n)
	}
	if mask == f.unmask {
		return append(b, f.payload...)
	}
	b[1] |= 0x80
	key := [4]byte{0x11, 0x22, 0x33, 0x44}
	b = append(b, key[:]...)
	for i := range len(f.payload) {
		b = append(b, f.payload[i]^key[i%4])
	}
	return b
}

const (
	wsFin, wsRsv1, wsRsv2, wsRsv3 = 0x80, 0x40, 0x20, 0x10
	wsText, wsBinary, wsCont      = 1, 2, 0
	wsClose, wsPing, wsPong       = 8, 9, 10
	finText, finBinary, finCont   = wsFin | wsText, wsFin | wsBinary, wsFin | wsCont
	finClose, finPing, finPong    = wsFin | wsClose, wsFin | wsPing, wsFin | wsPong

	noTakeover    = "permessage-deflate; server_no_context_takeover"
	deflateHeader = noTakeover + "; client_no_context_takeover"
)

func message(p string) wsFrame { return wsFrame{first: finBinary, payload: p} }

func closeFrame(code int, reason string) wsFrame {
	return wsFrame{first: finClose,
		payload: string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason}
}

func (p *wsPeer) send(frames ...wsFrame) {
	var b []byte
	for _, f := range frames {
		b = append(b, f.bytes(p.mask)...)
	}
	_, _ = p.conn.Write(b) // what becomes of it shows in the answers
}

// next reads one frame.
func (p *wsPeer) next() (first byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return 0, "", err
	}
	n := uint64(head[1] & 0x7f)
	switch n {
	case 126:
		var b [2]byte
		_, _ = io.ReadFull(p.r, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, _ = io.ReadFull(p.r, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	var key [4]byte
	if head[1]&0x80 != 0 {
		_, _ = io.ReadFull(p.r, key[:])
	}
	require.Equal(p.t, !p.mask, head[1]&0x80 != 0, "only clients mask")
	b := make([]byte, n)
	_, err = io.ReadFull(p.r, b)
	for i := range b {
		b[i] ^= key[i%4]
	}
	return head[0], string(b), err
}

// expect reads one frame and compares it.
func (p *wsPeer) expect(first byte, payload string) {
	p.t.Helper()
	f, got, err := p.next()
	require.NoError(p.t, err)
	require.Equal(p.t, fmt.Sprintf("%#x", first), fmt.Sprintf("%#x", f))
	require.Equal(p.t, payload, got)
}

// closeCode reads to the close frame and the end of the stream behind it. 0: there was no close
// frame; 1005: one without a code.
func (p *wsPeer) closeCode() (code int) {
	for {
		first, payload, err := p.next()
		switch {
		case err != nil:
			return code
		case code != 0:
			require.Fail(p.t, "a frame behind the close frame")
		case first == finClose && payload == "":
			code = 1005
		case first == finClose:
			code = int(binary.BigEndian.Uint16([]byte(payload)))
		}
		if code != 0 && !p.mask { // the client awaits the server's end of the stream
			return code
		}
	}
}

func handshakeAnswer(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n"
}

const upgradeRequest = "GET / HTTP/1.1\r\nHost: x\r\n" +
	"Upgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

// ask sends an upgrade request with more header lines and returns the answer.
func ask(t testing.TB, addr, request string) (net.Conn, *bufio.Reader, *http.Response) {
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err = c.Write([]byte(request + "\r\n"))
	require.NoError(t, err)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	require.NoError(t, err)
	return c, r, resp
}

// A wsSetup is what a test of both ends wants.
type wsSetup struct {
	dispatch getty.Dispatch
	deflate  bool
	session  func(*getty.SessionOptions)
	listener func(*tracer)
	codec    getty.ReadWriter // codec.Message if nil
}

func (c wsSetup) tracer(t testing.TB) (*tracer, getty.NewSessionCallback) {
	l := newTracer(t)
	l.unordered = c.dispatch == getty.Unordered
	l.message = echoPkg
	if c.listener != nil {
		c.listener(l)
	}
	if c.codec == nil {
		c.codec = codec.Message{}
	}
	return l, prepare(l, c.codec)
}

// ofServer returns a raw client of a server of ours.
func (c wsSetup) ofServer(t testing.TB) *wsPeer {
	l, prepare := c.tracer(t)
	srv := getty.NewWSServer(func(o *getty.ServerOptions) {
		o.Dispatch = c.dispatch
		o.WebSocket.Compression = c.deflate
		if c.session != nil {
			c.session(&o.SessionOptions)
		}
	})
	run(t, srv, prepare)
	return clientOf(t, srv, l, c.deflate)
}

func clientOf(t testing.TB, srv *getty.Server, l *tracer, deflate bool) *wsPeer {
	request := upgradeRequest
	if deflate {
		request += "Sec-WebSocket-Extensions: " + deflateHeader + "\r\n"
	}
	conn, r, resp := ask(t, srv.Addr().String(), request)
	require.Equal(t, 101, resp.StatusCode)
	return &wsPeer{t: t, conn: conn, r: r, mask: true, l: l}
}

// ofClient returns a raw server of a client of ours. The answer to the upgrade has more header
// lines, and early behind it.
func (c wsSetup) ofClient(t testing.TB) *wsPeer {
	more := ""
	if c.deflate {
		more = "Sec-WebSocket-Extensions: " + deflateHeader + "\r\n"
	}
	p, _ := c.answered(t, more, "")
	return p
}

func (c wsSetup) answered(t testing.TB, more, early string) (*wsPeer, *getty.Client) {
	ln, err := net.Listen("tcp", own()+":0")
	require.NoError(t, err)
	l, prepare := c.tracer(t)
	client := getty.NewWSClient(getty.WithServerAddress("ws://"+ln.Addr().String()+"/"),
		func(o *getty.ClientOptions) {
			o.Dispatch = c.dispatch
			o.WebSocket.Compression = c.deflate
			o.ReconnectInterval, o.ReconnectMax = time.Hour, time.Hour
			if c.session != nil {
				c.session(&o.SessionOptions)
			}
		})
	run(t, client, prepare)
	t.Cleanup(func() { _ = ln.Close() })
	conn, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	r := bufio.NewReader(conn)
	req, err := http.ReadRequest(r)
	require.NoError(t, err)
	answer := handshakeAnswer(req.Header.Get("Sec-WebSocket-Key")) + more + "\r\n"
	_, err = conn.Write([]byte(answer + early))
	require.NoError(t, err)
	return &wsPeer{t: t, conn: conn, r: r, l: l}, client
}

// eachEnd runs a test for both ends and every dispatch.
func eachEnd(t *testing.T, c wsSetup, f func(t *testing.T, p *wsPeer)) {
	for name, peer := range map[string]func(wsSetup,
		testing.TB) *wsPeer{"server": wsSetup.ofServer, "client": wsSetup.ofClient} {
		t.Run(name, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				c.dispatch = d
				f(t, peer(c, t))
			})
		})
	}
}

// packed compresses a message, RFC 7692, section 7.2.1.
func packed(p string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write([]byte(p))
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// A conformance case is what a peer sends and what it must get: the payloads of messages and pongs
// in their order, then a close frame with the code, 0 if the session goes on.
type conformance struct {
	name string
	send []wsFrame
	want []string
	code int
	err  error // of the session; nil: the peer's end
}

const wsLimit = 1000

// With and without permessage-deflate.
func plainCases() []conformance {
	long := strings.Repeat("l", wsLimit)
	cases := []conformance{
		{name: "5.2 sizes", send: []wsFrame{message(""), message("x"), message(long[:125]),
			message(long[:126]), message(long)},
			want: []string{"", "x", long[:125], long[:126], long}},
		{name: "5.2 RSV2", send: []wsFrame{{first: finText | wsRsv2}}, code: 1002},
		{name: "5.2 RSV3", send: []wsFrame{{first: finText | wsRsv3}}, code: 1002},
		{name: "5.2 RSV1 on a ping", send: []wsFrame{{first: finPing | wsRsv1}}, code: 1002},
		{name: "5.2 RSV1 on a pong", send: []wsFrame{{first: finPong | wsRsv1}}, code: 1002},
		{name: "5.2 RSV1 on a close",
			send: []wsFrame{{first: finClose | wsRsv1, payload: "\x03\xe8"}}, code: 1002},
		{name: "5.2 RSV1 on a continuation",
			send: []wsFrame{{first: wsText, payload: "a"},
				{first: finCont | wsRsv1, payload: "b"}}, code: 1002},
		{name: "5.2 length of 16 bits for 125",
			send: []wsFrame{{first: finText, payload: long[:125], extend: 2}}, code: 1002},
		{name: "5.2 length of 64 bits for 126",
			send: []wsFrame{{first: finText, payload: long[:126], extend: 8}}, code: 1002},
		{name: "5.2 length beyond 63 bits",
			send: []wsFrame{{first: finText, length: 1 << 63, extend: 8}}, code: 1002},
		{name: "5.1 the wrong mask",
			send: []wsFrame{{first: finText, payload: "x", unmask: true}}, code: 1002},
		{name: "5.4 fragments",
			send: []wsFrame{{first: wsText, payload: "one "}, {first: wsCont, payload: "two "},
				{first: finCont, payload: "three"}},
			want: []string{"one two three"}},
		{name: "5.4 empty fragments",
			send: []wsFrame{{first: wsBinary}, {first: wsCont}, {first: finCont},
				message("next")}, want: []string{"", "next"}},
		{name: "5.4 an empty last fragment",
			send: []wsFrame{{first: wsBinary, payload: "a"},
				{first: finCont}}, want: []string{"a"}},
		{name: "5.4 a ping between fragments",
			send: []wsFrame{{first: wsText, payload: "a"}, {first: finPing, payload: "p"},
				{first: finCont, payload: "b"}},
			want: []string{"p", "ab"}},
		{name: "5.4 continuation of nothing", send: []wsFrame{{first: finCont, payload: "x"}},
			code: 1002},
		{name: "5.4 continuation behind the end",
			send: []wsFrame{message("a"),
				{first: wsCont, payload: "x"}}, want: []string{"a"}, code: 1002},
		{name: "5.4 a message within another",
			send: []wsFrame{{first: wsText, payload: "a"},
				{first: finText, payload: "b"}}, code: 1002},
		{name: "5.5 long ping", send: []wsFrame{{first: finPing, payload: long[:125]}},
			want: []string{long[:125]}},
		{name: "5.5 too long ping", send: []wsFrame{{first: finPing, payload: long[:126]}},
			code: 1002},
		{name: "5.5 ping with a long length",
			send: []wsFrame{{first: finPing, payload: "x", extend: 2}}, code: 1002},
		{name: "5.5 too long close", send: []wsFrame{closeFrame(1000, long[:124])}, code: 1002},
		{name: "5.5 fragmented ping", send: []wsFrame{{first: wsPing, payload: "x"}}, code: 1002},
		{name: "5.5 fragmented close", send: []wsFrame{{first: wsClose}}, code: 1002},
		{name: "5.5.2 ten pings",
			send: []wsFrame{{first: finPing, payload: "0"}, {first: finPing, payload: "1"},
				{first: finPing, payload: "2"},
				{first: finPing, payload: "3"}, {first: finPing, payload: "4"}, {first: finPing}},
			want: []string{"0", "1", "2", "3", "4", ""}},
		{name: "5.5.3 a pong that nobody asked for",
			send: []wsFrame{{first: finPong, payload: "x"}, message("a")}, want: []string{"a"}},
		{name: "5.5.1 close without a code", send: []wsFrame{{first: finClose}}, code: 1005,
			err: io.EOF},
		{name: "5.5.1 close of one byte", send: []wsFrame{{first: finClose, payload: "\x03"}},
			code: 1002},
		{name: "5.5.1 nothing counts behind a close",
			send: []wsFrame{closeFrame(1000, ""), {first: wsFin | 15}}, code: 1000, err: io.EOF},
		{name: "7.1.6 longest reason", send: []wsFrame{closeFrame(1000, long[:123])}, code: 1000,
			err: io.EOF},
		{name: "8.1 reason that is not UTF-8", send: []wsFrame{closeFrame(1000, "\xff")},
			code: 1007},
		{name: "8.1 text", send: []wsFrame{{first: finText, payload: "κόσμε \U00010000\u0000"}},
			want: []string{"κόσμε \U00010000\u0000"}},
		{name: "8.1 a rune in two fragments",
			send: []wsFrame{{first: wsText, payload: "\xce"}, {first: wsCont},
				{first: finCont, payload: "\xba"}}, want: []string{"κ"}},
		{name: "8.1 binary need not be UTF-8", send: []wsFrame{message("\xff\xfe")},
			want: []string{"\xff\xfe"}},
		{name: "8.1 half a rune", send: []wsFrame{{first: finText, payload: "\xce"}}, code: 1007},
		{name: "8.1 a surrogate", send: []wsFrame{{first: finText, payload: "\xed\xa0\x80"}},
			code: 1007},
		{name: "8.1 overlong", send: []wsFrame{{first: finText, payload: "\xc0\xaf"}}, code: 1007},
		{name: "8.1 beyond Unicode",
			send: []wsFrame{{first: finText, payload: "\xf4\x90\x80\x80"}}, code: 1007},
		{name: "8.1 fails before the fragment ends",
			send: []wsFrame{{first: wsText, payload: "ab\xffcd", length: 500}}, code: 1007},
		{name: "8.1 fails before the message ends",
			send: []wsFrame{{first: wsText, payload: "ab"},
				{first: wsCont, payload: "\xf4\x90"}}, code: 1007},
		{name: "10.4 one frame beyond the limit",
			send: []wsFrame{{first: finText,
				length: wsLimit + 1}}, code: 1009, err: getty.ErrTooLong},
		{name: "10.4 a frame of an exabyte",
			send: []wsFrame{{first: finBinary, length: 1 << 60,
				extend: 8}}, code: 1009, err: getty.ErrTooLong},
		{name: "10.4 fragments beyond the limit",
			send: []wsFrame{{first: wsBinary, payload: long[:600]},
				{first: wsCont, payload: long[:400]}, {first: finCont, payload: "x"}},
			code: 1009, err: getty.ErrTooLong},
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		cases = append(cases, conformance{name: fmt.Sprintf("5.2 opcode %d", op),
			send: []wsFrame{message("a"), {first: wsFin | op}}, want: []string{"a"}, code: 1002})
	}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013,
		1014, 3000, 3999, 4000, 4999} {
		c := conformance{name: fmt.Sprintf("7.4 close with %d", code),
			send: []wsFrame{message("a"),
				closeFrame(code, "bye")}, want: []string{"a"}, code: code, err: io.EOF}
		if code > 1001 {
			c.err = &getty.CloseError{Code: code, Reason: "bye"}
		}
		cases = append(cases, c)
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000,
		65535} {
		cases = append(cases, conformance{name: fmt.Sprintf("7.4 close with %d", code),
			send: []wsFrame{closeFrame(code, "")}, code: 1002})
	}
	return cases
}

// Without permessage-deflate only.
func bareCases() []conformance {
	return []conformance{
		{name: "5.2 RSV1", send: []wsFrame{{first: finText | wsRsv1, payload: packed("x")}},
			code: 1002},
		{name: "5.2 RSV1 on a first fragment",
			send: []wsFrame{{first: wsText | wsRsv1, payload: "x"}}, code: 1002},
	}
}

// With permessage-deflate only, RFC 7692.
func deflateCases() []conformance {
	p := packed("Hello, hello, hello")
	flood := strings.Repeat("\x00\x00\x00\xff\xff", 1+2*wsLimit/5)
	return []conformance{
		{name: "6 compressed", send: []wsFrame{{first: finText | wsRsv1, payload: p},
			message("plain")}, want: []string{"Hello, hello, hello", "plain"}},
		{name: "6.1 fragments",
			send: []wsFrame{{first: wsText | wsRsv1, payload: p[:3]},
				{first: finPing, payload: "p"}, {first: wsCont}, {first: finCont, payload: p[3:]}},
			want: []string{"p", "Hello, hello, hello"}},
		{name: "7.2.3.2 stored",
			send: []wsFrame{{first: finText | wsRsv1,
				payload: "\x00\x05\x00\xfa\xffHello\x00"}}, want: []string{"Hello"}},
		{name: "7.2.3.4 a final block",
			send: []wsFrame{{first: finText | wsRsv1,
				payload: "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"}}, want: []string{"Hello"}},
		{name: "7.2.3.5 two blocks",
			send: []wsFrame{{first: finText | wsRsv1,
				payload: "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"}},
			want: []string{"Hello"}},
		{name: "7.2.3.6 empty", send: []wsFrame{{first: finText | wsRsv1, payload: "\x00"}},
			want: []string{""}},
		{name: "7.2.2 bytes behind the final block",
			send: []wsFrame{{first: finText | wsRsv1,
				payload: "\xf3\x48\xcd\xc9\xc9\x07\x00junk"}}, code: 1007},
		{name: "7.2.2 no deflate at all",
			send: []wsFrame{{first: finBinary | wsRsv1, payload: "\xff\xff\xff"}}, code: 1007},
		{name: "8.1 compressed text that is not UTF-8",
			send: []wsFrame{{first: finText | wsRsv1, payload: packed("ab\xff")}}, code: 1007},
		{name: "8.1 compressed binary need not be UTF-8",
			send: []wsFrame{{first: finBinary | wsRsv1,
				payload: packed("\xff")}}, want: []string{"\xff"}},
		{name: "incompressible up to the limit",
			send: []wsFrame{{first: finBinary | wsRsv1,
				payload: "\x00\xe8\x03\x17\xfc" + strings.Repeat("n", wsLimit) + "\x00"}},
			want: []string{strings.Repeat("n", wsLimit)}},
		{name: "inflated beyond the limit",
			send: []wsFrame{{first: finText | wsRsv1,
				payload: packed(strings.Repeat("b",
					wsLimit+1))}}, code: 1009, err: getty.ErrTooLong},
		{name: "a flood of empty blocks",
			send: []wsFrame{{first: finText | wsRsv1,
				payload: flood}}, code: 1009, err: getty.ErrTooLong},
		{name: "a flood of empty blocks in fragments",
			send: []wsFrame{{first: wsText | wsRsv1, payload: flood[:wsLimit]},
				{first: wsCont, length: wsLimit}},
			code: 1009, err: getty.ErrTooLong},
	}
}

// RFC 6455, sections 5 to 8, and RFC 7692, for both ends and every dispatch: the answers, the code
// of the close frame and the session's error.
//
// fault: 60, 61, 63, 64, 68
//
// case: 31, 33
func TestWebSocketConformance(t *testing.T) {
	for _, deflated := range []bool{false, true} {
		cases := append(plainCases(), bareCases()...)
		name := "plain"
		if deflated {
			cases = append(plainCases(), deflateCases()...)
			name = "deflate"
		}
		t.Run(name, func(t *testing.T) {
			for _, c := range cases {
				setup := wsSetup{deflate: deflated,
					session: func(o *getty.SessionOptions) { o.MaxMsgLen = wsLimit }}
				t.Run(c.name, func(t *testing.T) {
					eachEnd(t, setup, func(t *testing.T, p *wsPeer) { c.run(t, p, deflated) })
				})
			}
		})
	}
}

func (c conformance) run(t *testing.T, p *wsPeer, deflated bool) {
	send := c.send
	if c.code == 0 { // so that every case ends
		send = append(send[:len(send):len(send)], closeFrame(1000, ""))
		c.code, c.err = 1000, io.EOF
	}
	p.send(send...)
	got := map[string]int{}
	want := map[string]int{}
	for _, w := range c.want {
		want[w]++
		first, payload, err := p.next()
		require.NoError(t, err)
		if deflated && first&wsRsv1 != 0 {
			payload = unpacked(t, payload)
		}
		got[payload]++
	}
	// Pongs overtake messages, and unordered handlers one another.
	require.Equal(t, want, got)
	require.Equal(t, c.code, p.closeCode())
	_ = p.conn.Close()
	s := within(t, p.l.closed, "OnClose")
	switch err := c.err.(type) {
	case nil:
		require.ErrorIs(t, s.Err(), getty.ErrProtocol)
	case *getty.CloseError:
		require.Equal(t, err, s.Err())
	default:
		require.ErrorIs(t, s.Err(), err)
	}
	_, _, err := s.WritePkg("x", 0)
	require.Equal(t, getty.ErrSessionClosed, err)
}

func unpacked(t *testing.T, p string) string {
	whole := p + "\x00\x00\xff\xff\x01\x00\x00\xff\xff"
	b, err := io.ReadAll(flate.NewReader(strings.NewReader(whole)))
	require.NoError(t, err)
	return string(b)
}

// A connection whose last Read returns bytes together with the end, or with an error, as TLS does
// where close_notify follows the close frame, delivers them.
//
// case: 29
func TestWebSocketBytesThatComeWithTheEnd(t *testing.T) {
	for name, end := range map[string]error{"EOF": io.EOF, "error": fmt.Errorf("broken")} {
		t.Run(name, func(t *testing.T) {
			eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
				inner, err := net.Listen("tcp", own()+":0")
				require.NoError(t, err)
				ln := &endingListener{inner, end}
				l, prepare := wsSetup{dispatch: d}.tracer(t)
				handled := make(chan string, 3)
				l.message = func(_ getty.Session,
					pkg any) {
					handled <- pkg.(*codec.Frame).String()
				}
				srv := getty.NewWSServer(getty.WithListener(ln), getty.WithServerDispatch(d))
				run(t, srv, prepare)
				p := clientOf(t, srv, l, false)
				p.send(message("a"), message("b"), closeFrame(1000, ""), message("last"))
				s := within(t, l.closed, "OnClose")
				require.Equal(t, io.EOF, s.Err(), "the close frame was read")
				require.ElementsMatch(t, []string{"a", "b"}, []string{<-handled, <-handled})
			})
		})
	}
}

// An endingListener's connections return the bytes that end with "last", masked, together with err.
type endingListener struct {
	net.Listener
	err error
}

func (l *endingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &endingConn{c, l.err}, nil
}

type endingConn struct {
	net.Conn
	err error
}

func (c *endingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if end := message("last").bytes(true); bytes.HasSuffix(b[:n], end) {
		return n, c.err
	}
	return n, err
}

// What a server sends in one piece with its answer is the client's first message.
//
// case: 29
func TestWebSocketMessagesBehindTheAnswer(t *testing.T) {
	eachDispatch(t, func(t *testing.T, d getty.Dispatch) {
		for _, early := range []string{"one", "many"} {
			first := []wsFrame{message("early")}
			if early == "many" { // also a part of a message
				first = append(first, message("again"),
					wsFrame{first: wsText, payload: "be", length: 0})
			}
			var b []byte
			for _, f := range first {
				b = append(b, f.bytes(false)...)
			}
			p, _ := wsSetup{dispatch: d}.answered(t, "", string(b))
			got := []string{}
			want := []string{"early"}
			if early == "many" {
				p.send(wsFrame{first: finCont, payload: "gun"})
				want = append(want, "again", "begun")
			}
			for range want {
				_, payload, err := p.next()
				require.NoError(t, err)
				got = append(got, payload)
			}
			require.ElementsMatch(t, want, got)
		}
	})
}

// The latest of many pings is answered, however little room there was while they came.
//
// case: 30
func TestWebSocketAnswersTheLatestPing(t *testing.T) {
	const pings = 2000
	for name, c := range map[string]struct{ reads, short bool }{
		"read while blocked": {reads: true}, "the last one is short": {reads: true,
			short: true}, "read late": {},
	} {
		reads := c.reads
		setup := wsSetup{session: func(o *getty.SessionOptions) {
			o.HighWater, o.ReadWhileBlocked, o.WriteTimeout = 64<<10, reads, patience
		}}
		setup.listener = func(l *tracer) {
			l.open = func(s getty.Session) error {
				for {
					if _, err := s.WriteBytes(make([]byte, 60<<10)); err != nil {
						return nil // above the high mark
					}
				}
			}
		}
		t.Run(name, func(t *testing.T) {
			eachEnd(t, setup, func(t *testing.T, p *wsPeer) {
				s := within(t, p.l.opened, "OnOpen")
				before := s.Stats().BytesRead
				var all []wsFrame
				for i := range pings {
					all = append(all,
						wsFrame{first: finPing,
							payload: fmt.Sprintf("%08d", i) + strings.Repeat(".", 117)})
				}
				if c.short { // so that there is room for its answer, but not before the others
					all[pings-1].payload = all[pings-1].payload[:8]
				}
				p.send(all...)
				if reads {
					size := 0
					for _, f := range all {
						size += len(f.bytes(p.mask))
					}
					eventually(t, "all pings are read",
						func() bool { return s.Stats().BytesRead-before >= uint64(size) })
				}
				last := ""
				for last != all[pings-1].payload {
					first, payload, err := p.next()
					require.NoError(t, err)
					if first == finPong {
						require.Greater(t, payload, last, "in order, none twice")
						last = payload
					}
				}
				p.send(closeFrame(1000, ""))
				for first := byte(0); first != finClose; {
					var err error
					first, _, err = p.next()
					require.NoError(t, err)
					require.NotEqual(t, byte(finPong), first, "nothing behind the latest")
				}
			})
		})
	}
}

// Whatever ends a session, a writer is told by the session's own errors.
//
// case: 25
func TestWebSocketWritersOfASessionThatEnds(t *testing.T) {
	for name, end := range map[string]wsFrame{
		"violation": {first: wsFin | 15}, "too long": {first: finText, length: 1 << 40, extend: 8},
		"text": {first: finText, payload: "\xff"}, "close": closeFrame(1000,
			""), "close with an error": closeFrame(1011, ""),
		"reader": message("bad"),
	} {
		t.Run(name, func(t *testing.T) {
			errs := make(chan error, 100)
			setup := wsSetup{codec: readerFunc(func(b []byte) (any, int, error) {
				return nil, 0, fmt.Errorf("bad")
			})}
			setup.listener = func(l *tracer) {
				l.open = func(s getty.Session) error {
					for i := range 3 {
						go func() {
							for {
								var err error
								if i == 0 {
									_, err = s.WriteBytes([]byte("x"))
								} else {
									_, _, err = s.WritePkg("x", time.Duration(i-1)*time.Millisecond)
								}
								if err != nil && err != getty.ErrSessionBlocked &&
									err != getty.ErrWriteTimeout {
									errs <- err
									return
								}
							}
						}()
					}
					return nil
				}
			}
			setup.codec = writes{setup.codec}
			eachEnd(t, setup, func(t *testing.T, p *wsPeer) {
				_, _, err := p.next()
				require.NoError(t, err)
				p.send(end)
				require.NotZero(t, p.closeCode())
				_ = p.conn.Close()
				s := within(t, p.l.closed, "OnClose")
				for range 3 {
					require.Equal(t, getty.ErrSessionClosed, within(t, errs, "the writer's end"))
				}
				if err := s.Err(); err != nil {
					require.NotContains(t, err.Error(), "websocket:")
				}
			})
		})
	}
}

// writes gives a Reader the Writer of whole messages.
type writes struct{ getty.Reader }

func (writes) Write(s getty.Session, pkg any) ([]byte,
	error) {
	return codec.Message{}.Write(s, pkg)
}

// A session that fails tells its peer so with a close frame that fits, and the end of the stream
// behind it.
//
// case: 34
func TestWebSocketFailuresSayWhy(t *testing.T) {
	boom := func(getty.Session, any) { panic("boom") }
	fails := func(err error) wsSetup {
		return wsSetup{codec: readerFunc(func([]byte) (any, int, error) { return nil, 0, err })}
	}
	timeout := func(set func(o *getty.SessionOptions, d time.Duration)) wsSetup {
		return wsSetup{session: func(o *getty.SessionOptions) { set(o, 20*time.Millisecond) }}
	}
	reads := timeout(func(o *getty.SessionOptions, d time.Duration) { o.ReadTimeout = d })
	idles := timeout(func(o *getty.SessionOptions, d time.Duration) { o.IdleTimeout = d })
	for name, c := range map[string]struct {
		setup wsSetup
		send  []wsFrame
		code  int
		err   error
	}{
		"panic in OnMessage": {setup: wsSetup{listener: func(l *tracer) { l.message = boom }},
			send: []wsFrame{message("a"), message("b")}, code: 1011},
		"panic in OnOpen": {setup: wsSetup{listener: func(l *tracer) {
			l.open = func(getty.Session) error { panic("boom") }
		}}, code: 1011},
		"panic in OnCron": {setup: wsSetup{
			listener: func(l *tracer) { l.cron = func(getty.Session) { panic("boom") } },
			session:  func(o *getty.SessionOptions) { o.CronPeriod = time.Millisecond },
		}, code: 1011},
		"panic in the Reader": {setup: wsSetup{codec: readerFunc(func([]byte) (any, int,
			error) {
			panic("boom")
		})}, send: []wsFrame{message("a")}, code: 1011},
		"error of OnOpen": {setup: wsSetup{listener: func(l *tracer) {
			l.open = func(getty.Session) error { return fmt.Errorf("no") }
		}}, code: 1011},
		"error of the Reader": {setup: fails(fmt.Errorf("no")), send: []wsFrame{message("a")}, code: 1008},
		"IdleTimeout":         {setup: idles, code: 1001, err: getty.ErrIdleTimeout},
		"ReadTimeout": {setup: reads, send: []wsFrame{{first: wsText, payload: "and"}},
			code: 1008, err: getty.ErrReadTimeout},
		"ReadTimeout in a frame": {setup: reads,
			send: []wsFrame{{first: finText, payload: "and", length: 10}},
			code: 1008, err: getty.ErrReadTimeout},
		"too long": {send: []wsFrame{{first: finBinary, length: 1 << 40, extend: 8}},
			code: 1009, err: getty.ErrTooLong},
		"too long for the codec": {setup: fails(getty.ErrTooLong), send: []wsFrame{message("a")},
			code: 1009, err: getty.ErrTooLong},
		"too many fragments": {send: repeated(wsFrame{first: wsCont}, 20_000), code: 1008,
			err: getty.ErrProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			eachEnd(t, c.setup, func(t *testing.T, p *wsPeer) {
				p.send(c.send...)
				require.Equal(t, c.code, p.closeCode())
				_ = p.conn.Close()
				if c.err != nil {
					require.ErrorIs(t, within(t, p.l.closed, "OnClose").Err(), c.err)
				}
			})
		})
	}
}

// repeated returns a message of n fragments and no last one.
func repeated(f wsFrame, n int) []wsFrame {
	list := []wsFrame{{first: wsText}}
	for range n {
		list = append(list, f)
	}
	return list
}

// The close frame of a failed session reaches a peer that goes on sending, and the session does not
// wait for one that never ends.
//
// case: 34
func TestWebSocketFailsUnderAFlood(t *testing.T) {
	setup := wsSetup{
		listener: func(l *tracer) { l.message = func(getty.Session, any) { panic("boom") } },
		session:  func(o *getty.SessionOptions) { o.WaitTime = 50 * time.Millisecond },
	}
	eachEnd(t, setup, func(t *testing.T, p *wsPeer) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for b, err := bytes.Repeat(message("flood").bytes(p.mask),
				1000), error(nil); err == nil; {
				_, err = p.conn.Write(b)
			}
		}()
		require.Equal(t, 1011, p.closeCode())
		s := within(t, p.l.closed, "OnClose, though the peer never ends")
		var panicked *getty.PanicError
		require.ErrorAs(t, s.Err(), &panicked)
		within(t, done, "the end of the flood")
	})
}

// What a session had queued before it failed goes out in front of the close frame.
//
// case: 34
func TestWebSocketFailsBehindAQueue(t *testing.T) {
	const answers, size = 20, 512 << 10 // more than the kernel's buffers take
	if instrumented {
		t.Skip("such a session waits for half a second")
	}
	setup := wsSetup{
		session: func(o *getty.SessionOptions) { o.HighWater = 2 * answers * size },
		listener: func(l *tracer) {
			l.message = func(s getty.Session, _ any) {
				for range answers {
					if _, err := s.WriteBytes(make([]byte, size)); err != nil {
						t.Error(err)
					}
				}
				panic("boom")
			}
		},
	}
	eachEnd(t, setup, func(t *testing.T, p *wsPeer) {
		p.send(message("a"))
		for range answers {
			_, payload, err := p.next()
			require.NoError(t, err)
			require.Len(t, payload, size)
		}
		require.Equal(t, 1011, p.closeCode())
	})
}

// A session that fails does not wait for its peer as long as Close does.
//
// case: 34
func TestWebSocketFailureWithASilentPeer(t *testing.T) {
	setup := wsSetup{dispatch: getty.Inline, session: func(o *getty.SessionOptions) {
		o.WaitTime, o.IdleTimeout = 2*patience, 10*time.Millisecond
	}}
	p := setup.ofServer(t)
	require.ErrorIs(t, within(t, p.l.closed, "OnClose").Err(), getty.ErrIdleTimeout)
}

// A message that came in fragments or compressed counts with its whole size for the mailbox.
func TestWebSocketMailboxBytes(t *testing.T) {
	const size, sent = 900, 10
	text := strings.Repeat("x", size)
	parts := []wsFrame{{first: wsText, payload: text[:400]},
		{first: wsCont, payload: text[400:]}, {first: finCont}}
	for name, one := range map[string][]wsFrame{
		"fragments": parts, "compressed": {{first: finText | wsRsv1, payload: packed(text)}},
	} {
		release := make(chan struct{})
		setup := wsSetup{dispatch: getty.Ordered, deflate: true,
			session: func(o *getty.SessionOptions) { o.MailboxBytes = 1000 }}
		setup.listener = func(l *tracer) { l.message = func(getty.Session, any) { <-release } }
		p := setup.ofServer(t)
		var all []wsFrame
		for range sent {
			all = append(all, one...)
		}
		p.send(all...)
		s := within(t, p.l.opened, "OnOpen")
		eventually(t, "the mailbox is full", func() bool { return s.Stats().PkgsRead >= 2 })
		require.LessOrEqual(t, s.Stats().PkgsRead, uint64(3), name)
		close(release)
		eventually(t, "all are read", func() bool { return s.Stats().PkgsRead == sent })
		_ = p.conn.Close()
	}
}

// CloseNow, also of a session that is about to send its close frame, frees the descriptor at once.
//
// case: 34
func TestWebSocketCloseNowDuringAFailure(t *testing.T) {
	setup := wsSetup{
		listener: func(l *tracer) { l.message = func(getty.Session, any) { panic("boom") } },
		session:  func(o *getty.SessionOptions) { o.WaitTime = time.Hour },
	}
	eachEnd(t, setup, func(t *testing.T, p *wsPeer) {
		s := within(t, p.l.opened, "OnOpen")
		p.send(message("a"))
		require.Equal(t, 1011, p.closeCode())
		s.CloseNow()
		require.Same(t, s, within(t, p.l.closed, "OnClose"))
		var panicked *getty.PanicError
		require.ErrorAs(t, s.Err(), &panicked)
	})
}

// A server that ends says 1001, a session that is closed 1000, on both ends.
//
// case: 34
func TestWebSocketOwnEnds(t *testing.T) {
	eachEnd(t, wsSetup{}, func(t *testing.T, p *wsPeer) {
		within(t, p.l.opened, "OnOpen").Close()
		first, payload, err := p.next()
		require.NoError(t, err)
		require.Equal(t, closeFrame(1000, ""), wsFrame{first: first, payload: payload})
		p.send(closeFrame(1000, ""))
		_, _, err = p.next()
		require.Equal(t, io.EOF, err)
		_ = p.conn.Close()
		require.NoError(t, within(t, p.l.closed, "OnClose").Err())
	})
	p := wsSetup{}.ofServer(t)
	s := within(t, p.l.opened, "OnOpen")
	s.EndPoint().Close()
	require.Equal(t, closeFrame(1001, "").payload,
		func() string { _, payload, _ := p.next(); return payload }())
}

// A bad request gets no session and a status that says why; a good one gets what was asked for and
// is served.
//
// case: 32
func TestWebSocketUpgradeRequests(t *testing.T) {
	srv := getty.NewWSServer(func(o *getty.ServerOptions) {
		o.WebSocket.Compression = true
		o.WebSocket.Subprotocols = []string{"v2", "v1"}
	})
	l := newTracer(t)
	run(t, srv, prepare(l, codec.Message{}))
	with := func(lines ...string) string {
		return upgradeRequest + strings.Join(append(lines,
			""), "\r\n")
	}
	offered := func(param string) string {
		return with("Sec-WebSocket-Extensions: permessage-deflate; " + param)
	}
	extension := func(want string) map[string]string {
		return map[string]string{"Sec-Websocket-Extensions": want}
	}
	for name, c := range map[string]struct {
		request string
		status  int
		headers map[string]string // of the answer; "": not there
	}{
		"HTTP/1.0": {strings.Replace(upgradeRequest, "1.1", "1.0", 1), 400, nil},
		"POST":     {strings.Replace(upgradeRequest, "GET", "POST", 1), 405, nil},
		"no key":   {strings.Replace(upgradeRequest, "-Key", "-Quay", 1), 400, nil},
		"two keys": {with("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 400, nil},
		"key of 15 bytes": {strings.Replace(upgradeRequest, "dGhlIHNhbXBsZSBub25jZQ==",
			"AAAAAAAAAAAAAAAAAAAA", 1), 400, nil},
		"version 12": {strings.Replace(upgradeRequest, "Version: 13", "Version: 12",
			1), 426, map[string]string{"Sec-Websocket-Version": "13"}},
		"two versions": {with("Sec-WebSocket-Version: 13"), 426, nil},
		"no upgrade": {strings.Replace(upgradeRequest, "Upgrade: websocket", "X: y",
			1), 400, nil},
		"a body":          {with("Content-Length: 5", "", "hell") + "o", 400, nil},
		"two origins":     {with("Origin: http://x", "Origin: http://evil"), 403, nil},
		"a second origin": {with("Origin:", "Origin: http://evil"), 403, nil},
		"good": {upgradeRequest, 101,
			map[string]string{"Sec-Websocket-Protocol": "", "Sec-Websocket-Extensions": ""}},
		"two protocol lines": {with("Sec-WebSocket-Protocol: v0, v1",
			"Sec-WebSocket-Protocol: v2"), 101, map[string]string{"Sec-Websocket-Protocol": "v2"}},
		"the second line only": {with("Sec-WebSocket-Protocol: v0",
			"Sec-WebSocket-Protocol: v1"), 101, map[string]string{"Sec-Websocket-Protocol": "v1"}},
		"no common protocol": {with("Sec-WebSocket-Protocol: v0"), 101,
			map[string]string{"Sec-Websocket-Protocol": ""}},
		"deflate":           {offered("client_max_window_bits"), 101, extension(deflateHeader)},
		"unknown parameter": {offered("shiny"), 101, extension("")},
		"double parameter": {offered("client_max_window_bits; client_max_window_bits=9"),
			101, extension("")},
		"invalid parameter": {offered("client_max_window_bits=99"), 101, extension("")},
		"the second offer": {offered("server_max_window_bits=8, permessage-deflate"),
			101, extension(deflateHeader)},
		"the second line": {offered("server_max_window_bits=8") +
			"Sec-WebSocket-Extensions: permessage-deflate\r\n", 101, extension(deflateHeader)},
	} {
		conn, r, resp := ask(t, srv.Addr().String(), c.request)
		require.Equal(t, c.status, resp.StatusCode, name)
		for h, want := range c.headers {
			require.Equal(t, want, resp.Header.Get(h), "%s: %s", name, h)
		}
		if c.status == 101 {
			s := within(t, l.opened, "OnOpen")
			p := wsPeer{t: t, conn: conn, r: r, mask: true}
			p.send(message("still plain"), closeFrame(1000, ""))
			require.Equal(t, 1000, p.closeCode())
			_ = conn.Close()
			require.Same(t, s, within(t, l.closed, "OnClose"))
		}
	}
	require.Empty(t, l.opened)
}

// A client takes no answer that it did not ask for, and compresses where the server accepts that in
// any form which the RFC allows.
//
// case: 32
func TestWebSocketAnswersToTheClient(t *testing.T) {
	const ext = "Sec-WebSocket-Extensions: "
	for name, c := range map[string]struct {
		deflate    bool
		more       string
		ok         bool
		compressed bool
	}{
		"plain":    {ok: true},
		"declined": {deflate: true, ok: true},
		"accepted": {deflate: true, more: ext + deflateHeader, ok: true,
			compressed: true},
		"without the hint": {deflate: true, more: ext + noTakeover, ok: true, compressed: true},
		"the server's window": {deflate: true,
			more: ext + noTakeover + "; server_max_window_bits=12", ok: true, compressed: true},
		"takeover":          {deflate: true, more: ext + "permessage-deflate"},
		"not asked for":     {more: ext + deflateHeader},
		"another extension": {deflate: true, more: ext + "x-shiny"},
		"unknown parameter": {deflate: true, more: ext + noTakeover + "; shiny"},
		"double parameter": {deflate: true,
			more: ext + noTakeover + "; server_no_context_takeover"},
		"parameter not offered": {deflate: true,
			more: ext + noTakeover + "; client_max_window_bits=10"},
		"subprotocol not wanted": {more: "Sec-WebSocket-Protocol: v9"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.more != "" {
				c.more += "\r\n"
			}
			p, client := wsSetup{deflate: c.deflate}.answered(t, c.more, "")
			if !c.ok {
				_, _, err := p.next()
				require.Error(t, err, "the client hangs up")
				eventually(t, "the dial has failed",
					func() bool { return client.Stats().DialErrs == 1 })
				return
			}
			s := within(t, p.l.opened, "OnOpen")
			long := strings.Repeat("hello ", 100)
			_, err := s.WriteBytes([]byte(long))
			require.NoError(t, err)
			first, payload, err := p.next()
			require.NoError(t, err)
			require.Equal(t, c.compressed, first&wsRsv1 != 0)
			if c.compressed {
				payload = unpacked(t, payload)
			}
			require.Equal(t, long, payload)
		})
	}
}

// Connections count from the moment they are accepted, one too many is told 503, and who is told
// 101 gets a session.
//
// case: 35
func TestWebSocketMaxSessionsBeforeTheUpgrade(t *testing.T) {
	const limit = 3
	srv := getty.NewWSServer(getty.WithMaxSessions(limit))
	l := newTracer(t)
	run(t, srv, prepare(l, codec.Message{}))
	addr := srv.Addr().String()
	var silent []net.Conn
	for range limit {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		silent = append(silent, c)
	}
	_, _, resp := ask(t, addr, upgradeRequest) // accepted behind them
	require.Equal(t, 503, resp.StatusCode)
	require.EqualValues(t, 1, srv.Stats().Refused)
	_ = silent[0].Close()
	eventually(t, "a place is free again", func() bool {
		c, _, resp := ask(t, addr, upgradeRequest)
		defer c.Close()
		if resp.StatusCode != 101 {
			require.Equal(t, 503, resp.StatusCode)
		}
		return resp.StatusCode == 101
	})
	within(t, l.opened, "OnOpen")
	within(t, l.closed, "OnClose")
	eventually(t, "its place is free again", func() bool {
		c, _, resp := ask(t, addr, upgradeRequest)
		defer c.Close()
		return resp.StatusCode == 101
	})
}

// Many ask at once at the limit, on a server of ours and on the user's own http.Server: as many as
// there is room for are told 101 and stay.
//
// case: 35
func TestWebSocketCrowdAtTheLimit(t *testing.T) {
	const limit, crowd = 3, 30
	l := newTracer(t)
	e := getty.WSHandler(prepare(l, codec.Message{}), getty.WithMaxSessions(limit))
	mounted, err := net.Listen("tcp", own()+":0")
	require.NoError(t, err)
	hs := &http.Server{Handler: e}
	go func() { _ = hs.Serve(mounted) }()
	t.Cleanup(func() { _ = hs.Close(); e.Close(); within(t, e.Done(), "Done") })
	srv := getty.NewWSServer(getty.WithMaxSessions(limit))
	run(t, srv, prepare(l, codec.Message{}))
	for addr, stats := range map[string]func() getty.EndPointStats{
		mounted.Addr().String(): e.Stats, srv.Addr().String(): srv.Stats,
	} {
		answers := make(chan *wsPeer, crowd)
		for range crowd {
			go func() {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					answers <- nil
					return
				}
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = c.Write([]byte(upgradeRequest + "\r\n"))
				r := bufio.NewReader(c)
				resp, err := http.ReadResponse(r, nil)
				if err == nil && resp.StatusCode == 101 {
					answers <- &wsPeer{t: t, conn: c, r: r, mask: true}
					return
				}
				if err != nil || resp.StatusCode != 503 {
					t.Errorf("neither 101 nor 503: %v, %v", resp, err)
				}
				_ = c.Close()
				answers <- nil
			}()
		}
		told := 0
		for range crowd {
			if p := within(t, answers, "an answer"); p != nil {
				told++
				p.send(wsFrame{first: finPing, payload: "there?"})
				p.expect(finPong, "there?")
				defer p.conn.Close()
			}
		}
		require.Equal(t, limit, told)
		require.EqualValues(t, limit, stats().Opened)
		require.EqualValues(t, crowd-limit, stats().Refused)
	}
}

// An idle session holds no memory for reading or writing, whatever it has read.
func TestIdleWebSocketHoldsNoMemory(t *testing.T) {
	if instrumented {
		t.Skip("it looks at fields that belong to the session's goroutine")
	}
	eachEnd(t, wsSetup{}, func(t *testing.T, p *wsPeer) {
		p.send(message("a"), wsFrame{first: wsText, payload: "b"}, wsFrame{first: finPing},
			wsFrame{first: finCont, payload: "c"})
		for range 3 {
			_, _, err := p.next()
			require.NoError(t, err)
		}
		s := within(t, p.l.opened, "OnOpen")
		eventually(t, "all memory is given back", func() bool {
			buffer, batch, mails := getty.Held(s)
			return !buffer && !batch && !mails
		})
	})
}
