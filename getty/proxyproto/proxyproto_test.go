// SPDX-License-Identifier: Apache-2.0

package proxyproto_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/getty/proxyproto"
	"github.com/stretchr/testify/require"
)

const patience = time.Minute

var (
	client = &net.TCPAddr{IP: net.ParseIP("192.0.2.7"), Port: 4321}
	proxy  = &net.TCPAddr{IP: net.ParseIP("198.51.100.1"), Port: 443}
)

// serve runs a server that answers each line with the addresses of its session.
func serve(t testing.TB, opts ...getty.ServerOption) *getty.Server {
	t.Helper()
	srv := getty.NewTCPServer(append([]getty.ServerOption{func(o *getty.ServerOptions) {
		o.Handshake = proxyproto.Require()
		o.Logger = slog.New(slog.DiscardHandler)
	}}, opts...)...)
	require.NoError(t, srv.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(getty.Funcs{Message: func(s getty.Session, pkg any) {
			_, _, _ = s.WritePkg(fmt.Sprintf("%v %v %v", s.RemoteAddr(), s.LocalAddr(), pkg), 0)
		}})
		return s.SetPkgHandler(&codec.Line{})
	}))
	t.Cleanup(func() {
		srv.Close()
		<-srv.Done()
	})
	return srv
}

func dial(t testing.TB, srv *getty.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", srv.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

func header(t testing.TB, version int, from net.Addr) string {
	b, err := proxyproto.Header(version, from, proxy)
	require.NoError(t, err)
	return string(b)
}

// The session has the client's addresses, and bytes that came with the header, or in pieces, are there.
func TestHeaders(t *testing.T) {
	v6 := &net.TCPAddr{IP: net.ParseIP("2001:db8::7"), Port: 4321}
	to := &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 443}
	six, err := proxyproto.Header(1, v6, to)
	require.NoError(t, err)
	six2, err := proxyproto.Header(2, v6, to)
	require.NoError(t, err)
	for name, c := range map[string]struct{ head, want string }{
		"version 1":       {header(t, 1, client), "192.0.2.7:4321 198.51.100.1:443 hello\n"},
		"version 2":       {header(t, 2, client), "192.0.2.7:4321 198.51.100.1:443 hello\n"},
		"version 1, IPv6": {string(six), "[2001:db8::7]:4321 [2001:db8::1]:443 hello\n"},
		"version 2, IPv6": {string(six2), "[2001:db8::7]:4321 [2001:db8::1]:443 hello\n"},
		"unknown":         {"PROXY UNKNOWN\r\n", ""},
		"local":           {"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", ""},
	} {
		for _, step := range []int{1, 20, 1000} {
			t.Run(fmt.Sprint(name, " in steps of ", step), func(t *testing.T) {
				t.Parallel()
				srv := serve(t)
				conn := dial(t, srv)
				for b := c.head + "hello\n"; b != ""; {
					n := min(step, len(b))
					_, err := io.WriteString(conn, b[:n])
					require.NoError(t, err)
					b = b[n:]
					time.Sleep(100 * time.Microsecond)
				}
				r := bufio.NewReader(conn)
				want := c.want
				if want == "" {
					want = fmt.Sprintln(conn.LocalAddr(), conn.RemoteAddr(), "hello")
				}
				line, err := r.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, want, line)
				require.NoError(t, conn.(*net.TCPConn).CloseWrite())
				_, err = r.ReadByte()
				require.Equal(t, io.EOF, err)
			})
		}
	}
}

// A header that is wrong, missing or late costs its connection, and delays no other one.
func TestBadHeaders(t *testing.T) {
	srv := serve(t, func(o *getty.ServerOptions) { o.HandshakeTimeout = 200 * time.Millisecond })
	bad := []string{
		"hello\n", "PROXY TCP4 1.2.3.4\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n", "PROXY TCP9 1.2.3.4 5.6.7.8 1 2\r\n",
		"PROXY " + string(make([]byte, 200)), "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x02ab",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + string(make([]byte, 70_000)), "", "PROXY TCP4 1.2.", "\r\n\r\n\x00\r\nQU",
	}
	var conns []net.Conn
	for _, b := range bad {
		c := dial(t, srv)
		_, _ = io.WriteString(c, b)
		conns = append(conns, c)
	}
	good := dial(t, srv)
	_, err := io.WriteString(good, header(t, 2, client)+"hello\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(good).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, line, "192.0.2.7:4321")
	for i, c := range conns {
		_, err := io.Copy(io.Discard, c)
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "%q is not closed", bad[i])
	}
	refused(t, srv, uint64(len(bad)))
	require.EqualValues(t, 1, srv.Stats().Opened)
}

// Only trusted addresses may speak for others, and the share of each client is counted, not the proxy's.
func TestTrustAndShares(t *testing.T) {
	srv := serve(t, func(o *getty.ServerOptions) { o.Handshake = proxyproto.Require(netip.MustParsePrefix("10.0.0.0/8")) })
	c := dial(t, srv)
	_, _ = io.WriteString(c, header(t, 1, client))
	_, err := io.Copy(io.Discard, c)
	require.NoError(t, ignoreReset(err))
	refused(t, srv, 1)

	srv = serve(t, func(o *getty.ServerOptions) {
		o.Handshake = proxyproto.Require(netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"))
		o.MaxSessionsPerAddr = 2
	})
	ask := func(from net.Addr) error {
		c := dial(t, srv)
		_, err := io.WriteString(c, header(t, 2, from)+"hello\n")
		if err == nil {
			_, err = bufio.NewReader(c).ReadString('\n')
		}
		return err
	}
	other := &net.TCPAddr{IP: net.ParseIP("192.0.2.8"), Port: 1}
	require.NoError(t, ask(client))
	require.NoError(t, ask(client))
	require.Error(t, ask(client))
	require.NoError(t, ask(other))
	require.EqualValues(t, 1, srv.Stats().Refusals.PerAddr)
}

// refused waits until n handshakes are counted as refused: one that is late is closed first.
func refused(t testing.TB, srv *getty.Server, n uint64) {
	t.Helper()
	for begun := time.Now(); srv.Stats().Refusals.Handshake != n; time.Sleep(time.Millisecond) {
		require.Less(t, time.Since(begun), patience, "%d of %d are refused", srv.Stats().Refusals.Handshake, n)
	}
}

// ignoreReset returns err unless a close over unread input caused it.
func ignoreReset(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && !op.Timeout() {
		return nil
	}
	return err
}

// What is no address or version is an error of Header.
func TestHeaderErrors(t *testing.T) {
	_, err := proxyproto.Header(3, client, proxy)
	require.ErrorContains(t, err, "no version 3")
	for _, from := range []net.Addr{client, &net.UDPAddr{}, &net.UnixAddr{Name: "/x", Net: "unix"}, nil} {
		for version := 1; version <= 2; version++ {
			b, err := proxyproto.Header(version, from, proxy)
			require.True(t, len(b) > 0 || err != nil)
		}
	}
}

func Example() {
	server := getty.NewTCPServer(func(o *getty.ServerOptions) { o.Handshake = proxyproto.Require() })
	err := server.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(getty.Funcs{Open: func(s getty.Session) error {
			_, _, err := s.WritePkg("hello, "+s.RemoteAddr(), 0)
			return err
		}})
		return s.SetPkgHandler(&codec.Line{})
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	// What a proxy does that has accepted a connection from client.
	conn, err := net.Dial("tcp", server.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	head, _ := proxyproto.Header(1, client, proxy)
	_, _ = conn.Write(head)
	line, _ := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(line)
	// Output: hello, 192.0.2.7:4321
}
