// SPDX-License-Identifier: Apache-2.0

package examples_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/stretchr/testify/require"
)

// docs/migrating.md shows what follows up to TestMigratedCallSites; see TestSnippetsOfDocs.

func newServer(addr string, rw getty.ReadWriter, l getty.EventListener) (*getty.Server, error) {
	srv := getty.NewTCPServer(getty.WithLocalAddress(addr), func(o *getty.ServerOptions) {
		o.Dispatch = getty.Unordered // a slow call holds up no other one of its connection
		o.MaxMsgLen = 1 << 20
		o.IdleTimeout = 2 * time.Minute // instead of an OnCron that compares GetActive
		o.WriteTimeout = 5 * time.Second
	})
	return srv, srv.RunEventLoop(func(s getty.Session) error {
		s.SetName("server")
		if err := s.SetEventListener(l); err != nil {
			return err
		}
		return s.SetPkgHandler(rw)
	})
}

func newClient(
	ctx context.Context, addr string, rw getty.ReadWriter, l getty.EventListener,
) (*getty.Client, error) {
	client := getty.NewTCPClient(getty.WithServerAddress(addr), getty.WithConnectionNumber(4),
		func(o *getty.ClientOptions) {
			o.CronPeriod = 30 * time.Second // OnCron writes the heartbeat
			o.IdleTimeout = 75 * time.Second
		})
	err := client.RunEventLoop(func(s getty.Session) error {
		if err := s.SetEventListener(l); err != nil {
			return err
		}
		return s.SetPkgHandler(rw)
	})
	if err != nil {
		return nil, err
	}
	_, err = client.Ready(ctx) // one session is open; the others follow
	return client, err
}

func send(client *getty.Client, request any) error {
	s, err := client.Session() // round robin over the open ones, ErrNoSession if there is none
	if err != nil {
		return err
	}
	_, _, err = s.WritePkg(request, -1) // all of it or an error, never a part
	return err
}

// A header of 16 bytes: two of magic, two of flags, eight of id, four of body length.
var dubbo = &codec.LengthField{Offset: 12, Width: 4, MaxLen: 8 << 20}

func TestMigratedCallSites(t *testing.T) {
	got := make(chan string, 1)
	srv, err := newServer("127.0.0.1:0", dubbo, getty.Funcs{
		Message: func(s getty.Session, pkg any) { _, _, _ = s.WritePkg(pkg, 0) },
	})
	require.NoError(t, err)
	client, err := newClient(t.Context(), srv.Addr().String(), dubbo, getty.Funcs{
		Message: func(_ getty.Session, pkg any) { got <- pkg.(*codec.Frame).String() },
	})
	require.NoError(t, err)
	request := fmt.Sprintf("%-12s%s", "\xda\xbb", "body")
	require.NoError(t, send(client, request))
	require.Equal(t, request, <-got)
	for _, e := range []getty.EndPoint{client, srv} {
		_, err := e.Shutdown(t.Context())
		require.NoError(t, err)
	}
}
