// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// Interim answers (RFC 9110, section 15.2) may precede the one to an upgrade request; they count for
// MaxHeaderBytes like it.
//
// case: 16, 32
func TestInterimAnswersToAnUpgrade(t *testing.T) {
	for name, c := range map[string]struct {
		interim string
		want    string // of the error; "": the session opens
	}{
		"a few": {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", ""},
		"endless": {strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 1000),
			"MaxHeaderBytes"},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", own()+":0")
			require.NoError(t, err)
			defer func() { _ = ln.Close() }()
			l := newTracer(t)
			got := make(chan string, 1)
			l.message = func(_ getty.Session, pkg any) { got <- pkg.(*codec.Frame).String() }
			client := getty.NewWSClient(getty.WithServerAddress("ws://"+ln.Addr().String()+"/"),
				func(o *getty.ClientOptions) { o.ReconnectInterval, o.ReconnectMax = time.Hour, time.Hour })
			run(t, client, prepare(l, codec.Message{}))
			conn, err := ln.Accept()
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			req, err := http.ReadRequest(bufio.NewReader(conn))
			require.NoError(t, err)
			answer := handshakeAnswer(req.Header.Get("Sec-WebSocket-Key")) + "\r\n"
			_, _ = conn.Write([]byte(c.interim + answer + string(message("hello").bytes(false))))
			if c.want == "" {
				require.Equal(t, "hello", within(t, got, "the package"))
				return
			}
			eventually(t, "the dial has failed", func() bool { return client.Stats().DialErrs == 1 })
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_, err = client.Ready(ctx)
			require.ErrorContains(t, err, c.want)
		})
	}
}
