// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"crypto/tls"
	"net"
	"runtime"
	"testing"

	"github.com/gostkit/kit/getty"
	"github.com/stretchr/testify/require"
)

// inUse returns the memory of heap and stacks, without what nobody uses any more.
func inUse() int64 {
	var m runtime.MemStats
	for range 3 { // pools forget in two rounds, and a stack shrinks by half in each
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// An idle session over TLS costs at most 3 KiB more than the connection of crypto/tls itself with a
// goroutine that reads it. Both have exchanged a message.
func TestIdleTLSSessionHoldsLittle(t *testing.T) {
	if instrumented {
		t.Skip("the build itself needs memory")
	}
	const n = 200
	exchange := func(addr net.Addr) {
		for range n {
			c, err := tls.Dial("tcp", addr.String(), localTLS().client)
			require.NoError(t, err)
			t.Cleanup(func() { _ = c.NetConn().Close() })
			_, err = c.Write(frame("hello"))
			require.NoError(t, err)
			require.Equal(t, "hello", readFrame(t, c))
		}
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", localTLS().server)
	require.NoError(t, err)
	defer ln.Close()
	before := inUse()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64)
				for {
					k, err := c.Read(buf)
					if err != nil {
						return
					}
					_, _ = c.Write(buf[:k])
				}
			}()
		}
	}()
	exchange(ln.Addr())
	bare := (inUse() - before) / n

	srv := getty.NewTCPServer(getty.WithServerTLS(localTLS().server), briefClose)
	run(t, srv, func(s getty.Session) error { // without the tracer's records
		if err := s.SetEventListener(getty.Funcs{Message: echoPkg}); err != nil {
			return err
		}
		return s.SetPkgHandler(frames)
	})
	before = inUse()
	exchange(srv.Addr())
	ours := (inUse() - before) / n
	t.Logf("bytes with the client's end: bare %d, session %d", bare, ours)
	require.Less(t, ours, bare+3<<10)
}
