// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"

	"github.com/gostkit/kit/getty/internal/wire"
)

// TLSOptions turn TLS on, for TCP, Unix sockets and WebSocket. Without any of them an endpoint
// speaks plain text; with one of them it never does.
type TLSOptions struct {
	// TLS is what the handshake is configured with. The endpoint works on a clone of it. A peer's
	// certificate is verified unless InsecureSkipVerify says otherwise, and versions below TLS 1.2
	// are an error, as is Renegotiation. A client that has no ServerName expects the name in its
	// Addr. The handshake is limited by HandshakeTimeout (server) or DialTimeout (client).
	TLS *tls.Config

	// TLSFiles reads certificates and authorities from files, for every new connection as they are
	// after the latest Reload. They go into a clone of TLS, if that is set too.
	TLSFiles *TLSFiles
}

// WithServerTLS sets TLS of a server.
func WithServerTLS(c *tls.Config) ServerOption { return func(o *ServerOptions) { o.TLS = c } }

// WithClientTLS sets TLS of a client.
func WithClientTLS(c *tls.Config) ClientOption { return func(o *ClientOptions) { o.TLS = c } }

// WithServerTLSFiles sets TLSFiles of a server.
func WithServerTLSFiles(f *TLSFiles) ServerOption { return func(o *ServerOptions) { o.TLSFiles = f } }

// WithClientTLSFiles sets TLSFiles of a client.
func WithClientTLSFiles(f *TLSFiles) ClientOption { return func(o *ClientOptions) { o.TLSFiles = f } }

// on reports whether the endpoint speaks TLS.
func (o *TLSOptions) on() bool { return o.TLS != nil || o.TLSFiles != nil }

// complete makes TLS a configuration of the endpoint's own.
func (o *TLSOptions) complete(k kind) {
	if !o.on() {
		return
	}
	if o.TLS = o.TLS.Clone(); o.TLS == nil {
		o.TLS = new(tls.Config)
	}
	// crypto/tls has the same minimum, but a debug variable of the process can lower that one.
	o.TLS.MinVersion = cmp.Or(o.TLS.MinVersion, tls.VersionTLS12)
	if k == wsClient && o.TLS.NextProtos == nil {
		o.TLS.NextProtos = []string{"http/1.1"} // an upgrade is HTTP/1.1, and no other will do
	}
	if k&servers == 0 || o.TLSFiles == nil {
		return
	}
	// Through a function of one configuration, since crypto/tls keeps the keys of session tickets
	// with the configuration: tickets stay good when the files are read again.
	files, base, own := o.TLSFiles, o.TLS.Clone(), o.TLS.GetConfigForClient
	o.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if own != nil {
			if c, err := own(hello); c != nil || err != nil {
				return c, err
			}
		}
		return files.server(base), nil
	}
}

// check implements optionSet.
func (o *TLSOptions) check(k kind) error {
	if !o.on() {
		return nil
	}
	c, server := o.TLS, k&servers != 0
	switch {
	case c.MinVersion < tls.VersionTLS12:
		return errors.New("getty: TLS: MinVersion is below TLS 1.2")
	case c.MaxVersion != 0 && c.MaxVersion < c.MinVersion:
		return errors.New("getty: TLS: MaxVersion is below MinVersion, or below TLS 1.2")
	case c.Renegotiation != tls.RenegotiateNever:
		return errors.New("getty: TLS: Renegotiation is not supported")
	case o.TLSFiles != nil:
		if err := o.TLSFiles.check(server, c); err != nil {
			return fmt.Errorf("getty: TLSFiles: %w", err)
		}
	case server && len(c.Certificates) == 0 && c.GetCertificate == nil &&
		c.GetConfigForClient == nil:
		return errors.New("getty: TLS: a server needs a certificate")
	}
	return nil
}

// secured returns the server's side of TLS on an accepted connection, which still has to shake
// hands, or conn itself without TLS.
func (s *Server) secured(conn net.Conn) net.Conn {
	if !s.opts.TLSOptions.on() {
		return conn
	}
	return wire.NewTLSServer(conn, s.opts.TLS)
}

// secured returns the client's side of TLS on conn after the handshake, or conn itself without TLS.
// host is whom the client wants to talk to. After an error conn is closed.
func (o *TLSOptions) secured(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	if !o.on() {
		return conn, nil
	}
	config := o.TLS
	if o.TLSFiles != nil {
		config = o.TLSFiles.client(config)
	}
	if config.ServerName == "" && !config.InsecureSkipVerify {
		config = config.Clone()
		config.ServerName = cmp.Or(host, "localhost") // an address without a host is the loopback
	}
	c := wire.NewTLSClient(conn, config)
	if err := shakeHandsTLS(ctx, c); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("getty: TLS handshake: %w", err)
	}
	return c, nil
}

// shakeHandsTLS is HandshakeContext, which calls functions of the user's configuration.
func shakeHandsTLS(ctx context.Context, c *wire.TLSConn) (err error) {
	returned := false
	defer func() {
		if v := recover(); v != nil || !returned {
			err = &PanicError{Where: "HandshakeContext", Value: v, Stack: debug.Stack()}
		}
	}()
	err = c.HandshakeContext(ctx)
	returned = true
	return err
}

// errPlainText is the error of a handshake.
var errPlainText = errors.New("getty: plain text came to a TLS port")

// tellPlainText names the usual reason for a handshake that failed with err at its first bytes.
func tellPlainText(err error) error {
	if e := (tls.RecordHeaderError{}); errors.As(err, &e) {
		return fmt.Errorf("%w: %w", errPlainText, err)
	}
	return err
}

// ConnectionState implements [Session].
func (s *session) ConnectionState() (state tls.ConnectionState, ok bool) {
	c, ok := s.proto.netConn().(interface{ ConnectionState() tls.ConnectionState })
	if ok {
		state = c.ConnectionState()
	}
	return state, ok
}
