// SPDX-License-Identifier: Apache-2.0

// Command tls runs a server that knows its clients by their certificates (mutual TLS), and three
// clients: one with a certificate, one without, and one that comes after the server's certificate
// was replaced. All certificates are made at run time, in a directory that is removed at the end.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "tls:", err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	dir, err := os.MkdirTemp("", "getty-tls-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ca, err := newAuthority(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return err
	}
	for _, name := range []string{"server", "alice"} {
		if err := ca.issue(dir, name); err != nil {
			return err
		}
	}
	// The file of authorities makes the server want a certificate of every client.
	serverFiles := files(dir, "server")
	server := getty.NewTCPServer(getty.WithServerTLSFiles(serverFiles), quietServer)
	if err := server.RunEventLoop(greet); err != nil {
		return err
	}
	defer shutdown(server)
	addr := server.Addr().String()

	answer, err := ask(addr, files(dir, "alice"))
	fmt.Fprintln(out, "alice:", answer, err)

	// Without a certificate the handshake of TLS 1.3 ends for the client before the server refuses.
	_, err = ask(addr, &getty.TLSFiles{CA: filepath.Join(dir, "ca.pem")})
	fmt.Fprintln(out, "nobody was refused:", err != nil)

	// A new certificate, without a restart.
	if err := ca.issue(dir, "server"); err != nil {
		return err
	}
	if err := serverFiles.Reload(); err != nil {
		return err
	}
	answer, err = ask(addr, files(dir, "alice"))
	fmt.Fprintln(out, "alice:", answer, err)
	return nil
}

// files are the certificate, the key and the authority of name.
func files(dir, name string) *getty.TLSFiles {
	return &getty.TLSFiles{
		Certificate: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key"),
		CA: filepath.Join(dir, "ca.pem"),
	}
}

// greet prepares the server's sessions, which answer with the name in the client's certificate.
func greet(s getty.Session) error {
	err := s.SetEventListener(getty.Funcs{Message: func(s getty.Session, pkg any) {
		st, _ := s.ConnectionState()
		who := st.PeerCertificates[0].Subject.CommonName
		_, _, _ = s.WritePkg(fmt.Sprintf("%s, %s", pkg, who), 0)
	}})
	if err != nil {
		return err
	}
	return s.SetPkgHandler(&codec.Line{})
}

// ask sends a line to the server and returns its answer, and the number of its certificate.
func ask(addr string, f *getty.TLSFiles) (string, error) {
	answers := make(chan string, 1)
	ended := make(chan error, 1)
	client := getty.NewTCPClient(getty.WithServerAddress(addr), getty.WithClientTLSFiles(f),
		quietClient)
	defer shutdown(client)
	err := client.RunEventLoop(func(s getty.Session) error {
		err := s.SetEventListener(getty.Funcs{
			Open: func(s getty.Session) error { _, _, err := s.WritePkg("hello", 0); return err },
			Message: func(s getty.Session, pkg any) {
				st, _ := s.ConnectionState()
				answers <- fmt.Sprintf("%s (certificate %v)", pkg, st.PeerCertificates[0].SerialNumber)
			},
			Close: func(s getty.Session) {
				select {
				case ended <- s.Err():
				default: // the client has dialled again
				}
			},
		})
		if err != nil {
			return err
		}
		return s.SetPkgHandler(&codec.Line{})
	})
	if err != nil {
		return "", err
	}
	select {
	case a := <-answers:
		return a, nil
	case err := <-ended:
		return "", fmt.Errorf("closed: %w", err)
	case <-time.After(10 * time.Second):
		return "", context.DeadlineExceeded
	}
}

func shutdown(e getty.EndPoint) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, _ = e.Shutdown(ctx)
}

// Refusals are expected here, and not worth a line.
var silent = slog.New(slog.DiscardHandler)

func quietServer(o *getty.ServerOptions) { o.Logger = silent }
func quietClient(o *getty.ClientOptions) { o.Logger = silent }
