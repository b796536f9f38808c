// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
)

// TLSFiles are the certificate, the key and the authorities of an endpoint, in PEM files. Several
// endpoints may share one. The paths must not be changed after its first use.
//
// They are read when an endpoint is made, and again by Reload, without a restart: connections that
// shake hands afterwards get what was read last. Open sessions stay as they are.
type TLSFiles struct {
	// Certificate and Key are the files of the endpoint's own certificate, with the chain behind
	// it, and of its private key. A server needs them; a client has them for servers that ask for a
	// certificate. The key must not be encrypted.
	Certificate, Key string

	// CA is a file of authorities. A server that has one wants a certificate of each client, issued
	// by one of them (mutual TLS), and does not ask for certificates without. A client that has one
	// trusts these authorities only, else those of the system.
	CA string

	mu   sync.Mutex
	have *tlsFiles // guarded by mu: what was read, nil before
}

// tlsFiles is what was read from TLSFiles.
type tlsFiles struct {
	certificates []tls.Certificate
	authorities  *x509.CertPool // nil: no file was named
}

// Reload reads the files again. If anything is wrong with one of them, the error says so and what
// was read before stays in force. It may be called at any time, by any goroutine.
func (f *TLSFiles) Reload() error {
	have, err := f.read()
	if err != nil {
		return fmt.Errorf("getty: TLSFiles: %w", err)
	}
	f.mu.Lock()
	f.have = have
	f.mu.Unlock()
	return nil
}

// read reads the files.
func (f *TLSFiles) read() (*tlsFiles, error) {
	have := new(tlsFiles)
	switch {
	case (f.Certificate == "") != (f.Key == ""):
		return nil, errors.New("a Certificate needs its Key, and a Key its Certificate")
	case f.Certificate != "":
		c, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", f.Certificate, f.Key, err)
		}
		have.certificates = []tls.Certificate{c}
	}
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, err
		}
		have.authorities = x509.NewCertPool()
		if !have.authorities.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: no certificate in PEM form", f.CA)
		}
	}
	return have, nil
}

// check reads the files if that was not done yet, and looks whether they fit base.
func (f *TLSFiles) check(server bool, base *tls.Config) error {
	switch {
	case server && f.Certificate == "":
		return errors.New("a server needs a Certificate")
	case f.CA != "" && base.InsecureSkipVerify:
		return errors.New("InsecureSkipVerify makes the CA useless")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.have != nil {
		return nil
	}
	have, err := f.read()
	if err == nil {
		f.have = have
	}
	return err
}

// latest returns what was read last. check has succeeded.
func (f *TLSFiles) latest() *tlsFiles {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.have
}

// server returns a configuration for one handshake.
func (f *TLSFiles) server(base *tls.Config) *tls.Config {
	have, c := f.latest(), base.Clone()
	c.Certificates, c.GetCertificate = have.certificates, nil
	if have.authorities != nil {
		// Nothing weaker will do: a certificate that is merely asked for is not verified.
		c.ClientCAs, c.ClientAuth = have.authorities, tls.RequireAndVerifyClientCert
	}
	return c
}

// client returns a configuration for one handshake.
func (f *TLSFiles) client(base *tls.Config) *tls.Config {
	have, c := f.latest(), base.Clone()
	if have.certificates != nil {
		c.Certificates, c.GetClientCertificate = have.certificates, nil
	}
	if have.authorities != nil {
		c.RootCAs = have.authorities
	}
	return c
}
