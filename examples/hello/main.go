// SPDX-License-Identifier: Apache-2.0

// Command hello starts a server that greets, asks it once, and ends.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
)

// A listener gets what happens to a session. The callbacks of one session never
// run at the same time.
type listener struct {
	onLine func(s getty.Session, line string)
}

func (l listener) OnOpen(getty.Session) error         { return nil }
func (l listener) OnMessage(s getty.Session, pkg any) { l.onLine(s, pkg.(*codec.Frame).String()) }
func (l listener) OnCron(getty.Session)               {}
func (l listener) OnError(s getty.Session, err error) { log.Println(s.RemoteAddr(), err) }
func (l listener) OnClose(getty.Session)              {}

// lines prepares sessions that exchange lines of text.
func lines(onLine func(getty.Session, string)) getty.NewSessionCallback {
	return func(s getty.Session) error {
		s.SetEventListener(listener{onLine})
		return s.SetPkgHandler(&codec.Line{})
	}
}

func main() {
	ctx := context.Background()
	server := getty.NewTCPServer() // without an address: a free port on loopback
	if err := server.RunEventLoop(lines(func(s getty.Session, name string) {
		s.WritePkg("hello, "+name, 0) // 0: queue it and go on
	})); err != nil {
		log.Fatal(err)
	}
	defer server.Shutdown(ctx)

	answer := make(chan string)
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()))
	err := client.RunEventLoop(lines(func(_ getty.Session, line string) { answer <- line }))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Shutdown(ctx)

	session, err := client.Ready(ctx)
	if err != nil {
		log.Fatal(err)
	}
	session.WritePkg("gopher", -1) // -1: return when the kernel has it
	fmt.Println(<-answer)
}
