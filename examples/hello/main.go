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

// lines prepares sessions that exchange lines of text. The callbacks of one session never run at
// the same time.
func lines(onLine func(s getty.Session, line string)) getty.NewSessionCallback {
	onMessage := func(s getty.Session, pkg any) { onLine(s, pkg.(*codec.Frame).String()) }
	onError := func(s getty.Session, err error) { log.Println(s.RemoteAddr(), err) }
	return func(s getty.Session) error {
		s.SetEventListener(getty.Funcs{Message: onMessage, Error: onError})
		return s.SetPkgHandler(&codec.Line{})
	}
}

func main() {
	ctx := context.Background()
	server := getty.NewTCPServer() // without an address: a free port on loopback
	check(server.RunEventLoop(lines(func(s getty.Session, name string) {
		s.WritePkg("hello, "+name, 0) // 0: queue it and go on
	})))
	defer server.Shutdown(ctx)

	answer := make(chan string)
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()))
	check(client.RunEventLoop(lines(func(_ getty.Session, line string) { answer <- line })))
	defer client.Shutdown(ctx)

	session, err := client.Ready(ctx)
	check(err)
	session.WritePkg("gopher", -1) // -1: return when the kernel has it
	fmt.Println(<-answer)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
