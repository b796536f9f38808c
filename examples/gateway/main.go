// SPDX-License-Identifier: Apache-2.0

// Command gateway shows a gateway that ends TLS: clients speak TLS to it, it passes their bytes on
// over plain TCP, and tells the backend by a PROXY header who they are. The backend answers each
// line with the address of the client.
package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/getty/proxyproto"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	backend, err := newBackend()
	if err != nil {
		return err
	}
	defer backend.Shutdown(ctx)
	certificate, roots, err := selfSigned()
	if err != nil {
		return err
	}
	g, err := start(config{
		Backend: backend.Addr().String(),
		Proxy:   2,
		Front: func(o *getty.ServerOptions) {
			o.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
		},
	})
	if err != nil {
		return err
	}
	defer g.shutdown(ctx)

	conn, err := tls.Dial("tcp", g.front.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "localhost"})
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, line := range []string{"hello", "good bye"} {
		if _, err := fmt.Fprintln(conn, line); err != nil {
			return err
		}
	}
	if err := conn.CloseWrite(); err != nil { // the answers come all the same
		return err
	}
	answers := bufio.NewScanner(conn)
	for answers.Scan() {
		me := conn.LocalAddr().String()
		fmt.Fprintln(out, strings.ReplaceAll(answers.Text(), me, "the client's address"))
	}
	return answers.Err()
}

// newBackend returns a server that only proxies may reach.
func newBackend() (*getty.Server, error) {
	s := getty.NewTCPServer(func(o *getty.ServerOptions) { o.Handshake = proxyproto.Require() })
	return s, s.RunEventLoop(func(s getty.Session) error {
		err := s.SetEventListener(getty.Funcs{Message: func(s getty.Session, pkg any) {
			_, _, _ = s.WritePkg(fmt.Sprintf("%s, %s", pkg, s.RemoteAddr()), 0)
		}})
		if err != nil {
			return err
		}
		return s.SetPkgHandler(&codec.Line{})
	})
}

// selfSigned returns a certificate for localhost, and those who trust it.
func selfSigned() (tls.Certificate, *x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1")}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots, nil
}
