// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"errors"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the peer has not taken is in the queue: all that does not fit its own buffer while it does
// not read, and nothing once it has read everything.
func TestSendQueue(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("this system cannot tell")
	}
	a, b := pair(t, "tcp")
	n, err := SendQueue(a)
	require.NoError(t, err)
	require.Zero(t, n)
	const size = 8 << 20
	written := make(chan error, 1)
	go func() {
		_, err := a.Write(make([]byte, size))
		written <- err
	}()
	eventually(t, "a full buffer", func() bool {
		n, err = SendQueue(a)
		return err != nil || n > 64<<10
	})
	require.NoError(t, err)
	require.Less(t, n, size)
	_, err = io.CopyN(io.Discard, b, size)
	require.NoError(t, err)
	require.NoError(t, <-written)
	eventually(t, "an empty queue", func() bool {
		n, err = SendQueue(a)
		return err != nil || n == 0
	})
	require.NoError(t, err)
	require.NoError(t, a.Close())
	_, err = SendQueue(a)
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestSendQueueUnsupported(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	_, err := SendQueue(a)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	c, _ := pair(t, "tcp")
	useStub(t)
	_, err = SendQueue(c)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
