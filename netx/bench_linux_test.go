// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"net"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkAlive asks about an idle TCP connection. The rows "syscall" are the bare system calls
// through Go's wrapper on the bare descriptor: the floor for a query of either kind. "read" is the
// form that is common elsewhere: a one-byte read through RawConn.Read.
func BenchmarkAlive(b *testing.B) {
	near, _ := pair(b, "tcp")
	b.Run("form=alive", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if s, err := Alive(near); s != Open || err != nil {
				b.Fatal(s, err)
			}
		}
	})
	b.Run("form=checker", func(b *testing.B) {
		k, err := NewChecker(near)
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			if s, err := k.State(); s != Open || err != nil {
				b.Fatal(s, err)
			}
		}
	})
	rc, err := near.(*net.TCPConn).SyscallConn()
	require.NoError(b, err)
	b.Run("form=read", func(b *testing.B) {
		b.ReportAllocs()
		var buf [1]byte
		for b.Loop() {
			rc, _ := near.(*net.TCPConn).SyscallConn()
			var err error
			rerr := rc.Read(func(fd uintptr) bool {
				_, err = unix.Read(int(fd), buf[:])
				return true
			})
			if err != unix.EAGAIN && err != unix.EINTR || rerr != nil {
				b.Fatal(err, rerr)
			}
		}
	})
	var fd int
	require.NoError(b, rc.Control(func(p uintptr) { fd = int(p) }))
	b.Run("syscall=poll", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if events, err := pollPortable(uintptr(fd)); events != 0 || err != nil {
				b.Fatal(events, err)
			}
		}
	})
	b.Run("syscall=peek", func(b *testing.B) {
		b.ReportAllocs()
		var buf [1]byte
		for b.Loop() {
			// unix.Recvfrom would add an allocation for the address.
			_, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(fd),
				uintptr(unsafe.Pointer(&buf)), 1, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
			if errno != unix.EAGAIN && errno != unix.EINTR {
				b.Fatal(errno)
			}
		}
	})
}
