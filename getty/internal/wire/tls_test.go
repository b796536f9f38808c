// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var testCertificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// tlsPair returns a TLSConn that has shaken hands, and its peer of crypto/tls.
func tlsPair(t testing.TB, network string, versions ...uint16) (a *TLSConn, b *tls.Conn) {
	t.Helper()
	raw, peer := pair(t, network)
	server := &tls.Config{Certificates: []tls.Certificate{testCertificate()}}
	if len(versions) > 0 {
		server.MaxVersion = versions[0]
	}
	a = NewTLSServer(raw, server)
	b = tls.Client(peer, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test of links
	done := make(chan error)
	go func() { done <- b.HandshakeContext(t.Context()) }()
	require.NoError(t, a.HandshakeContext(t.Context()))
	require.NoError(t, <-done)
	return a, b
}

// A batch of small packages leaves as one record, and a turn costs the system calls of a plain
// connection.
func TestOneRecordForABatch(t *testing.T) {
	raw, peer := pair(t, "tcp")
	var records atomic.Int64
	a := NewTLSServer(raw, &tls.Config{Certificates: []tls.Certificate{testCertificate()}})
	b := tls.Client(recordCounter{peer, &records}, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec
	done := make(chan error)
	go func() { done <- b.HandshakeContext(t.Context()) }()
	require.NoError(t, a.HandshakeContext(t.Context()))
	require.NoError(t, <-done)
	link := New(a)
	t.Cleanup(func() { link.Close() })
	q := new(queue)
	var want []byte
	for i := range 40 {
		q.runs = append(q.runs, bytes.Repeat([]byte{byte(i)}, 20))
		want = append(want, q.runs[i]...)
	}
	require.NoError(t, link.Write(q, Try))
	require.Empty(t, q.runs)
	got := make([]byte, len(want))
	_, err := io.ReadFull(b, got[:1]) // the tickets of TLS 1.3 come first
	require.NoError(t, err)
	_, err = io.ReadFull(b, got[1:])
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Zero(t, link.(*tlsLink).out.left)
}

// recordCounter is reserved for counting what a peer reads.
type recordCounter struct {
	net.Conn
	reads *atomic.Int64
}

func (c recordCounter) Read(p []byte) (int, error) {
	c.reads.Add(1)
	return c.Conn.Read(p)
}

var _ = errors.New
