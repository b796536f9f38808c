// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"context"
	"fmt"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
)

// Upper answers every line in capitals.
type upper struct{ getty.EventListener }

func (upper) OnOpen(getty.Session) error { return nil }
func (upper) OnMessage(s getty.Session, pkg any) {
	line := pkg.(*codec.Frame).Bytes()
	for i, c := range line {
		if 'a' <= c && c <= 'z' {
			line[i] = c - 'a' + 'A'
		}
	}
	_, _, _ = s.WritePkg(line, 0)
}
func (upper) OnCron(getty.Session)         {}
func (upper) OnError(getty.Session, error) {}
func (upper) OnClose(getty.Session)        {}

// Printer hands every line that it gets to a channel.
type printer struct {
	upper
	lines chan string
}

func (p printer) OnMessage(_ getty.Session, pkg any) { p.lines <- pkg.(*codec.Frame).String() }

// A server and a client that exchange lines.
func Example() {
	lines := &codec.Line{}
	server := getty.NewTCPServer(getty.WithLocalAddress("127.0.0.1:0"))
	err := server.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(upper{})
		return s.SetPkgHandler(lines)
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	answers := printer{lines: make(chan string)}
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()))
	err = client.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(answers)
		return s.SetPkgHandler(lines)
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	session, err := client.Ready(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _, _ = session.WritePkg("hello", 0)
	fmt.Println(<-answers.lines)

	_, _ = client.Shutdown(ctx)
	report, err := server.Shutdown(ctx)
	fmt.Println(report.Unsent, err)
	// Output:
	// HELLO
	// 0 <nil>
}

// A package that goes to many sessions is encoded once; a slow session delays nobody.
func ExampleBroadcast() {
	lines := &codec.Line{}
	server := getty.NewTCPServer()
	_ = server.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(upper{})
		return s.SetPkgHandler(lines)
	})
	news := printer{lines: make(chan string, 3)}
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()), getty.WithConnectionNumber(3))
	_ = client.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(news)
		return s.SetPkgHandler(lines)
	})
	for server.Stats().Opened < 3 || client.Stats().Opened < 3 {
		time.Sleep(time.Millisecond)
	}

	encoded, _ := lines.AppendPkg(nil, nil, "extra, extra")
	fmt.Printf("%+v\n", getty.Broadcast(server.Sessions(), encoded))
	for range 3 {
		fmt.Println(<-news.lines)
	}
	_, _ = client.Shutdown(context.Background())
	_, _ = server.Shutdown(context.Background())
	// Output:
	// {Accepted:3 Blocked:0 Closed:0 Failed:0}
	// extra, extra
	// extra, extra
	// extra, extra
}

var userName = getty.NewKey[string]("user name")

// A key of one's own stores a value of its type with a session; no other package can disturb it.
func ExampleKey() {
	named := make(chan string)
	server := getty.NewTCPServer()
	_ = server.RunEventLoop(func(s getty.Session) error {
		userName.Set(s, "alice")
		_ = s.SetEventListener(&greeter{named: named})
		return s.SetPkgHandler(&codec.Line{})
	})
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()))
	_ = client.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(upper{})
		return s.SetPkgHandler(&codec.Line{})
	})
	fmt.Println(<-named)
	_, _ = client.Shutdown(context.Background())
	_, _ = server.Shutdown(context.Background())
	// Output: alice
}

type greeter struct {
	upper
	named chan string
}

func (g *greeter) OnOpen(s getty.Session) error {
	name, ok := userName.Get(s)
	if !ok {
		name = "stranger"
	}
	go func() { g.named <- name }()
	return nil
}
