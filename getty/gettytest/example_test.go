// SPDX-License-Identifier: Apache-2.0

package gettytest_test

import (
	"bufio"
	"context"
	"fmt"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
	"github.com/gostkit/kit/getty/gettytest"
)

// A server is tested over a connection in memory. In a test, a Recorder stands beside the listener,
// or in its place.
func ExampleListen() {
	ln := gettytest.Listen()
	server := getty.NewTCPServer(getty.WithListener(ln))
	err := server.RunEventLoop(func(s getty.Session) error {
		shout := func(s getty.Session, pkg any) {
			_, _, _ = s.WritePkg(pkg.(*codec.Frame).String()+"!", 0)
		}
		if err := s.SetEventListener(getty.Funcs{Message: shout}); err != nil {
			return err
		}
		return s.SetPkgHandler(&codec.Line{})
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	conn, err := ln.Dial(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _ = fmt.Fprintln(conn, "hello")
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	fmt.Print(answer)
	_ = conn.Close()
	_, _ = server.Shutdown(ctx)
	// Output: hello!
}
