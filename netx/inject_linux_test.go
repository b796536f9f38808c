// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// injected tells the test binary that it runs under strace, and which error its first sends meet.
const injected = "NETX_TEST_INJECTED"

// A packet filter (EPERM) or a full device queue (ENOBUFS) fails one send, with its own error number;
// the next one goes through. strace makes the kernel say so.
// fault: 89
func TestSendErrorsInjected(t *testing.T) {
	if v := os.Getenv(injected); v != "" {
		n, err := strconv.Atoi(v)
		require.NoError(t, err)
		sendUnderInjection(t, syscall.Errno(n))
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace:", err)
	}
	if out, err := exec.Command(strace, "-f", "-o", os.DevNull, "-e", "trace=sendto",
		"-e", "inject=sendto:error=EPERM:when=1", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, out)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	for name, errno := range map[string]syscall.Errno{"EPERM": syscall.EPERM, "ENOBUFS": syscall.ENOBUFS} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(testContext(t), strace, "-f", "-o", os.DevNull, "-e", "trace=sendto,sendmmsg",
				"-e", "inject=sendto:error="+name+":when=1", "-e", "inject=sendmmsg:error="+name+":when=1",
				self, "-test.run", "^TestSendErrorsInjected$", "-test.v")
			cmd.Env = append(os.Environ(), injected+"="+strconv.Itoa(int(errno)))
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.True(t, strings.Contains(string(out), "--- PASS: TestSendErrorsInjected"), "%s", out)
		})
	}
}

// sendUnderInjection runs in the traced process: the first sendto and the first sendmmsg of this
// thread fail with errno.
func sendUnderInjection(t *testing.T, errno syscall.Errno) {
	runtime.LockOSThread() // strace counts the calls of each thread
	defer runtime.UnlockOSThread()
	server, addr := listenUDP(t, "127.0.0.1")
	c, _ := listenUDP(t, "127.0.0.1")
	hears := func(want string) {
		t.Helper()
		b := make([]byte, 8)
		n, err := server.Read(b)
		require.NoError(t, err)
		require.Equal(t, want, string(b[:n]))
	}

	_, err := WriteUDP(c, []byte("lost"), addr)
	require.ErrorIs(t, err, errno, "WriteUDP")
	require.True(t, IsPacketError(err), "WriteUDP: %v", err)
	_, err = WriteUDP(c, []byte("next"), addr)
	require.NoError(t, err, "the socket goes on")
	hears("next")

	b, err := NewBatch(c, 4)
	require.NoError(t, err)
	ds := []Datagram{{Buf: []byte("first"), Addr: addr}, {Buf: []byte("second"), Addr: addr}}
	n, err := b.WriteBatch(ds)
	require.ErrorIs(t, err, errno, "WriteBatch")
	require.True(t, IsPacketError(err), "WriteBatch: %v", err)
	require.Zero(t, n, "the error is about the first entry")
	n, err = b.WriteBatch(ds[1:]) // a caller that gives the failed one up
	require.NoError(t, err, "the batch goes on")
	require.Equal(t, 1, n)
	hears("second")
}
