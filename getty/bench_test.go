// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// BenchmarkEcho: one op is one 64-byte package that went to the server and came back; inflight of them are
// written at once and awaited together. dispatch=net is a hand-written loop over net.Conn.
func BenchmarkEcho(b *testing.B) {
	for _, inflight := range []int{1, 16} {
		for _, d := range []getty.Dispatch{getty.Inline, getty.Ordered} {
			b.Run(fmt.Sprintf("tcp/inflight=%d/dispatch=%v", inflight, d), func(b *testing.B) {
				srv := getty.NewTCPServer(getty.WithServerDispatch(d))
				require.NoError(b, srv.RunEventLoop(func(s getty.Session) error {
					require.NoError(b, s.SetEventListener(benchEcho{}))
					return s.SetPkgHandler(&codec.LengthField{})
				}))
				defer func() { srv.Close(); <-srv.Done() }()
				benchEchoClient(b, srv.Addr().String(), inflight)
			})
		}
		b.Run(fmt.Sprintf("tcp/inflight=%d/dispatch=net", inflight), func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			defer ln.Close()
			go func() {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				in, out := make([]byte, 64<<10), []byte(nil)
				have := 0
				for {
					n, err := c.Read(in[have:])
					if err != nil {
						return
					}
					have += n
					at := 0
					out = out[:0]
					for have-at >= 4 {
						size := 4 + int(binary.BigEndian.Uint32(in[at:]))
						if have-at < size {
							break
						}
						out = append(out, in[at:at+size]...)
						at += size
					}
					have = copy(in, in[at:have])
					if _, err := c.Write(out); err != nil {
						return
					}
				}
			}()
			benchEchoClient(b, ln.Addr().String(), inflight)
		})
	}
}

func benchEchoClient(b *testing.B, addr string, inflight int) {
	c, err := net.Dial("tcp", addr)
	require.NoError(b, err)
	defer c.Close()
	var out []byte
	for range inflight {
		out = binary.BigEndian.AppendUint32(out, 64)
		out = append(out, bytes.Repeat([]byte{'x'}, 64)...)
	}
	in := make([]byte, len(out))
	b.ReportAllocs()
	for left := 0; b.Loop(); left-- {
		if left > 0 {
			continue
		}
		left = inflight
		if _, err := c.Write(out); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, in); err != nil {
			b.Fatal(err)
		}
	}
	if !bytes.Equal(in, out) {
		b.Fatal("the echo differs")
	}
}

type benchEcho struct{}

func (benchEcho) OnOpen(getty.Session) error         { return nil }
func (benchEcho) OnMessage(s getty.Session, pkg any) { _, _, _ = s.WritePkg(pkg, 0) }
func (benchEcho) OnCron(getty.Session)               {}
func (benchEcho) OnError(getty.Session, error)       {}
func (benchEcho) OnClose(getty.Session)              {}
