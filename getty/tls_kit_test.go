// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// An authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serials atomic.Int64

func newAuthority() *authority {
	a := new(authority)
	a.key = newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	must(err)
	a.cert, err = x509.ParseCertificate(der)
	must(err)
	return a
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return key
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// issue returns a certificate for localhost and loopback, or for other names.
func (a *authority) issue(names ...string) tls.Certificate {
	key := newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), DNSNames: append([]string{"localhost"}, names...),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 9, 8, 6)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if len(names) > 0 {
		template.DNSNames, template.IPAddresses = names, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	must(err)
	leaf, err := x509.ParseCertificate(der)
	must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// localTLS is an authority of all tests, with a server on loopback and its client.
var localTLS = sync.OnceValue(func() (l struct{ server, client *tls.Config }) {
	a := newAuthority()
	l.server = &tls.Config{Certificates: []tls.Certificate{a.issue()}}
	l.client = &tls.Config{RootCAs: a.pool(), ServerName: "localhost"}
	return l
})

// A tlsPeer is the peer of a TLS session, with the methods of its socket.
type tlsPeer struct {
	*tls.Conn
	socket *net.TCPConn
	reset  bool
}

func (p *tlsPeer) SetReadBuffer(n int) error { return p.socket.SetReadBuffer(n) }

func (p *tlsPeer) SetLinger(sec int) error {
	p.reset = sec == 0
	return p.socket.SetLinger(sec)
}

// CloseWrite ends the streams of TLS and of TCP.
func (p *tlsPeer) CloseWrite() error {
	if err := p.Conn.CloseWrite(); err != nil {
		return err
	}
	return p.socket.CloseWrite()
}

func (p *tlsPeer) Close() error {
	if p.reset {
		return p.socket.Close() // without a goodbye
	}
	return p.Conn.Close()
}

func dialTLS(t testing.TB, srv *getty.Server) wirePeer {
	socket := dial(t, srv)
	c := tls.Client(socket, localTLS().client)
	require.NoError(t, c.HandshakeContext(t.Context()))
	return wirePeer{conn: &tlsPeer{Conn: c, socket: socket}}
}

func dialWSS(t testing.TB, srv *getty.Server) wirePeer {
	d := websocket.Dialer{TLSClientConfig: localTLS().client}
	ws, _, err := d.Dial("wss://"+srv.Addr().String()+"/", nil)
	require.NoError(t, err)
	c := ws.NetConn().(*tls.Conn)
	t.Cleanup(func() { _ = c.NetConn().Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return wirePeer{&tlsPeer{Conn: c, socket: c.NetConn().(*net.TCPConn)}, ws}
}

// writePEM writes a certificate and its key, or an authority, to dir.
func writePEM(t testing.TB, dir, name string, c tls.Certificate, a *authority) {
	t.Helper()
	write := func(file, kind string, der []byte) {
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), text, 0o600))
	}
	if a != nil {
		write(name+".ca", "CERTIFICATE", a.cert.Raw)
		return
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	require.NoError(t, err)
	write(name+".crt", "CERTIFICATE", c.Certificate[0])
	write(name+".key", "PRIVATE KEY", key)
}
