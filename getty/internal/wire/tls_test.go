// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"sync"
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

// A batch of small packages leaves as one record, in one system call.
func TestOneRecordForABatch(t *testing.T) {
	a, b := tlsPair(t, "tcp")
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
	total, left := a.out.counts()
	require.Zero(t, left)
	require.Less(t, total, len(want)+64, "the bytes around one record")
	got := make([]byte, len(want))
	n, err := b.Read(got) // hands out one record at a time
	require.NoError(t, err)
	require.Equal(t, want, got[:n])
}

// What crypto/tls says in answer to a record leaves with the read, though nobody writes; and where
// the peer reads none of it, it is bounded.
func TestAnswersOfTLS(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			a, b := tlsPair(t, network)
			link := New(a)
			t.Cleanup(func() { link.Close() })
			answer := bytes.Repeat([]byte("answer"), 1000)
			var in Input
			ended := make(chan error, 1)
			go func() {
				ended <- link.Run(&in, handler{received: func(int) bool {
					in.Consume(in.Len())
					a.out.append(answer) // as crypto/tls does for new keys
					return true
				}})
			}()
			_, err := b.Write([]byte("x"))
			require.NoError(t, err)
			got := make([]byte, len(answer))
			for !bytes.Equal(got, answer) { // tickets come first
				_, err := io.ReadFull(b.NetConn(), got[:1])
				require.NoError(t, err)
				if got[0] == answer[0] {
					_, err = io.ReadFull(b.NetConn(), got[1:])
					require.NoError(t, err)
				}
			}
			go func() {
				for err := error(nil); err == nil; {
					_, err = b.Write([]byte("x"))
				}
			}()
			require.Equal(t, errManyAnswers, <-ended)
		})
	}
}

// Records that came and were not decrypted when the Handler stopped Run are there in the next one,
// though nothing more comes.
func TestRecordsThatWereLeft(t *testing.T) {
	a, b := tlsPair(t, "tcp")
	link := New(a)
	t.Cleanup(func() { link.Close() })
	_, err := b.Write([]byte("hello"))
	require.NoError(t, err)
	var in Input
	asked := 0
	for asked < 2 { // the first time for what came with the handshake, then before the read
		require.NoError(t, link.Run(&in, handler{mayRead: func() bool {
			asked++
			return a.in.Len() == 0
		}}))
		if in.Len() > 0 {
			break
		}
	}
	require.NoError(t, link.Run(&in, handler{received: func(int) bool { return false }}))
	require.Equal(t, "hello", string(in.Bytes()))
	in.Drop()
}

// Bytes are reported as taken only when the whole record that they lie in is gone.
func TestTakenMeansGone(t *testing.T) {
	a, b := tlsPair(t, "tcp")
	link := New(a)
	q := &queue{runs: [][]byte{make([]byte, 64<<20)}}
	require.Equal(t, ErrWouldBlock, link.Write(q, Try))
	taken := 64<<20 - len(q.runs[0])
	require.LessOrEqual(t, taken, link.(*layer).sent)
	require.Positive(t, taken)
	_, left := a.out.counts()
	require.Less(t, left, encodeSize+1024)
	go func() { _, _ = io.Copy(io.Discard, b) }()
	require.NoError(t, link.Write(q, Wait))
	require.Empty(t, q.runs)
	require.NoError(t, link.Close())
}
