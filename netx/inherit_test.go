// SPDX-License-Identifier: Apache-2.0

package netx

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// inheritChild makes the test binary play the activated service.
const inheritChild = "NETX_TEST_INHERIT_CHILD"

// runInheritChild prints what FromSystemd found and serves one connection on a listener.
func runInheritChild() int {
	ins, err := FromSystemd()
	if err != nil {
		fmt.Println("error:", err)
		fmt.Println("sockets left:", openSockets())
		return 0
	}
	again, err := FromSystemd()
	fmt.Println("found:", len(ins), "again:", len(again), err, "env:", os.Getenv("LISTEN_FDS"))
	for _, in := range ins {
		if in.Listener != nil {
			fmt.Printf("%s listener %T\n", in.Name, in.Listener)
			c, err := in.Listener.Accept()
			if err == nil {
				fmt.Fprint(c, "hello from the child")
				c.Close()
			}
		}
		if in.PacketConn != nil {
			fmt.Printf("%s packet %T\n", in.Name, in.PacketConn)
		}
		in.Close()
	}
	return 0
}

// openSockets counts the sockets of this process, where the system shows them.
func openSockets() int {
	n := 0
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

func inheritable() bool {
	_, err := sys.isSocket(0)
	return err == nil
}

// activate runs the test binary as a service with the given descriptors.
func activate(t *testing.T, env string, files ...*os.File) *exec.Cmd {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("no shell:", err)
	}
	self, err := os.Executable()
	require.NoError(t, err)
	// The pid is known only after the fork, so a shell sets it and becomes the service.
	cmd := exec.Command("sh", "-c", env+` exec "$0"`, self)
	cmd.Env = append(os.Environ(), inheritChild+"=1")
	cmd.ExtraFiles = files
	return cmd
}

func TestFromSystemd(t *testing.T) {
	if !inheritable() {
		t.Skip("descriptors cannot be inherited by number here")
	}
	dir := shortDir(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer tcp.Close()
	unix, err := net.Listen("unix", dir+"/s")
	require.NoError(t, err)
	defer unix.Close()
	udp, _ := listenUDP(t, "127.0.0.1")
	file := func(c interface{ File() (*os.File, error) }) *os.File {
		f, err := c.File()
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	fds := []*os.File{file(tcp.(*net.TCPListener)), file(unix.(*net.UnixListener)), file(udp)}

	cmd := activate(t, "LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=web:admin:dns", fds...)
	var out strings.Builder
	cmd.Stdout = &out
	require.NoError(t, cmd.Start())
	for _, l := range []net.Listener{tcp, unix} {
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		require.NoError(t, err)
		b := make([]byte, 64)
		n, err := c.Read(b)
		require.NoError(t, err)
		require.Equal(t, "hello from the child", string(b[:n]))
		c.Close()
	}
	require.NoError(t, cmd.Wait())
	require.Equal(t, "found: 3 again: 0 <nil> env: \nweb listener *net.TCPListener\n"+
		"admin listener *net.UnixListener\ndns packet *net.UDPConn\n", out.String())
	require.FileExists(t, dir+"/s", "the child does not own the socket file")
}

// Package net makes a listener of a connection and of a Unix datagram socket.
func TestFromFileKinds(t *testing.T) {
	_, err := FromFile(nil)
	require.ErrorIs(t, err, os.ErrInvalid)
	if sys.maxUnixPath == 0 || runtime.GOOS == "windows" {
		t.Skip("no descriptors to pass")
	}
	from := func(c interface{ File() (*os.File, error) }) (Inherited, error) {
		f, err := c.File()
		require.NoError(t, err)
		defer f.Close()
		return FromFile(f)
	}
	before := openSockets()
	near, far := pair(t, "tcp")
	_, err = from(near.(*net.TCPConn))
	require.ErrorIs(t, err, syscall.EINVAL, "a connection")
	near.Close()
	far.Close()
	path := shortDir(t) + "/s"
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	in, err := from(c)
	require.NoError(t, err)
	require.Nil(t, in.Listener)
	c.Close()
	_, err = in.PacketConn.WriteTo([]byte("to itself"), &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	require.IsType(t, &net.UnixConn{}, in.PacketConn)
	require.NoError(t, in.Close())
	require.Equal(t, before, openSockets(), "descriptors")
}

// What promises sockets must not be able to make the process close descriptors of its own.
func TestFromSystemdStub(t *testing.T) {
	useStub(t)
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("LISTEN_FDS", "2")
	t.Setenv("LISTEN_FDNAMES", "")
	_, err := FromSystemd()
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// Broken variables are not left to child processes either.
func TestFromSystemdRemovesBrokenVariables(t *testing.T) {
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("LISTEN_FDS", "many")
	t.Setenv("LISTEN_FDNAMES", "web")
	_, err := FromSystemd()
	require.ErrorContains(t, err, "LISTEN_FDS")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		require.Empty(t, os.Getenv(v), v)
	}
	ins, err := FromSystemd()
	require.NoError(t, err, "a second call")
	require.Empty(t, ins)
}

func TestFromSystemdRefuses(t *testing.T) {
	if !inheritable() {
		t.Skip("descriptors cannot be inherited by number here")
	}
	f, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer f.Close()
	for _, c := range []struct{ env, want string }{
		{"", "found: 0 again: 0 <nil> env: \n"},
		{"LISTEN_PID=1 LISTEN_FDS=1", "found: 0 again: 0 <nil> env: 1\n"},
		{"LISTEN_PID=x LISTEN_FDS=1", "error: netx: LISTEN_PID \"x\" is no number\n"},
		{"LISTEN_PID=$$ LISTEN_FDS=-1", "error: netx: LISTEN_FDS \"-1\" is no number of sockets\n"},
		{"LISTEN_PID=$$ LISTEN_FDS=1", "error: netx: inherited descriptor 3: not a socket"},
		{"LISTEN_PID=$$ LISTEN_FDS=20", "error: netx: inherited descriptor 3: not a socket"},
		{"LISTEN_PID=$$ LISTEN_FDS=99999999", "is no number of sockets"},
	} {
		out, err := activate(t, c.env, f).Output()
		require.NoError(t, err)
		require.Contains(t, string(out), c.want, "environment %q", c.env)
	}
}

// If one descriptor is no socket, the others are closed too.
func TestFromSystemdClosesAll(t *testing.T) {
	if !inheritable() {
		t.Skip("descriptors cannot be inherited by number here")
	}
	udp, _ := listenUDP(t, "127.0.0.1")
	socket, err := udp.File()
	require.NoError(t, err)
	defer socket.Close()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	out, err := activate(t, "LISTEN_PID=$$ LISTEN_FDS=2", socket, null).Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "inherited descriptor 4: not a socket")
	require.Contains(t, string(out), "sockets left: 0\n")
}

// A process that is started with a copy of a listener leaves the listener as it is: Close ends an Accept.
func TestFileDoesNotBlock(t *testing.T) {
	if !inheritable() {
		t.Skip("descriptors cannot be inherited by number here")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	f, err := File(ln)
	require.NoError(t, err)
	cmd := exec.Command("true")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Run(); err != nil {
		t.Skip("no other process can be started:", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := ln.Accept()
		done <- err
	}()
	time.Sleep(20 * time.Millisecond) // it waits, in the kernel if the socket blocks
	require.NoError(t, ln.Close())
	require.ErrorIs(t, <-done, net.ErrClosed)

	in, err := FromFile(f) // it still listens
	require.NoError(t, err)
	require.NoError(t, f.Close())
	c, err := net.Dial("tcp", in.Listener.Addr().String())
	require.NoError(t, err)
	_ = c.Close()
	_, err = in.Listener.Accept()
	require.NoError(t, err)
	require.NoError(t, in.Listener.Close())

	_, err = File(ln)
	require.ErrorIs(t, err, net.ErrClosed)
	pipe, _ := net.Pipe()
	_, err = File(pipe)
	require.ErrorIs(t, err, errors.ErrUnsupported)
}
