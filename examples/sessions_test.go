// SPDX-License-Identifier: Apache-2.0

package examples_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// docs/sessions.md shows what follows up to TestPacketsOverFrames; see TestSnippetsOfDocs.

// A Request is one packet: an id that its answer repeats, and a body.
type Request struct {
	ID   uint64
	Body string
}

// requests is the codec: packets over frames.
type requests struct{ frames codec.LengthField }

func (c *requests) Read(s getty.Session, b []byte) (any, int, error) {
	pkg, n, err := c.frames.Read(s, b)
	frame, ok := pkg.(*codec.Frame)
	if !ok { // no whole frame yet, or an error
		return nil, n, err
	}
	defer frame.Release()
	p := frame.Bytes()
	if len(p) < 8 {
		return nil, 0, fmt.Errorf("a request of %d bytes", len(p)) // ends the session
	}
	return Request{ID: binary.BigEndian.Uint64(p), Body: string(p[8:])}, n, nil
}

func (c *requests) Write(s getty.Session, pkg any) ([]byte, error) {
	r, ok := pkg.(Request)
	if !ok {
		return nil, fmt.Errorf("not a request: %T", pkg) // refused; the session lives
	}
	p := binary.BigEndian.AppendUint64(nil, r.ID)
	return c.frames.Write(s, append(p, r.Body...))
}

func answer(s getty.Session, pkg any) {
	r := pkg.(Request)
	_, _, _ = s.WritePkg(Request{ID: r.ID, Body: strings.ToUpper(r.Body)}, 0)
}

func TestPacketsOverFrames(t *testing.T) {
	srv, err := newServer("127.0.0.1:0", &requests{}, getty.Funcs{Message: answer})
	require.NoError(t, err)
	got := make(chan Request, 1)
	client, err := newClient(t.Context(), srv.Addr().String(), &requests{}, getty.Funcs{
		Message: func(_ getty.Session, pkg any) { got <- pkg.(Request) },
	})
	require.NoError(t, err)
	require.NoError(t, send(client, Request{7, "hello"}))
	require.Equal(t, Request{7, "HELLO"}, <-got)
	require.ErrorContains(t, send(client, "no request"), "not a request: string")
	for _, e := range []getty.EndPoint{client, srv} {
		_, err := e.Shutdown(t.Context())
		require.NoError(t, err)
	}
}
