// SPDX-License-Identifier: Apache-2.0

package getty_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/gostkit/kit/getty"
	"github.com/gostkit/kit/getty/codec"
)

// upper answers every line in capitals.
func upper(s getty.Session, pkg any) {
	_, _, _ = s.WritePkg(bytes.ToUpper(pkg.(*codec.Frame).Bytes()), 0)
}

// handTo returns a callback that hands every line to a channel.
func handTo(lines chan string) func(getty.Session, any) {
	return func(_ getty.Session, pkg any) { lines <- pkg.(*codec.Frame).String() }
}

// A server and a client that exchange lines.
func Example() {
	lines := &codec.Line{}
	server := getty.NewTCPServer(getty.WithLocalAddress("127.0.0.1:0"))
	err := server.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(getty.Funcs{Message: upper})
		return s.SetPkgHandler(lines)
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	answers := make(chan string)
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()))
	err = client.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(getty.Funcs{Message: handTo(answers)})
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
	fmt.Println(<-answers)

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
		_ = s.SetEventListener(getty.Funcs{Message: upper})
		return s.SetPkgHandler(lines)
	})
	news := make(chan string, 3)
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()), getty.WithConnectionNumber(3))
	_ = client.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(getty.Funcs{Message: handTo(news)})
		return s.SetPkgHandler(lines)
	})
	for server.Stats().Opened < 3 || client.Stats().Opened < 3 {
		time.Sleep(time.Millisecond)
	}

	encoded, _ := lines.AppendPkg(nil, nil, "extra, extra")
	fmt.Printf("%+v\n", getty.Broadcast(server.Sessions(), encoded))
	for range 3 {
		fmt.Println(<-news)
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
	named := make(chan string, 1)
	server := getty.NewTCPServer()
	_ = server.RunEventLoop(func(s getty.Session) error {
		userName.Set(s, "alice")
		_ = s.SetEventListener(getty.Funcs{Open: func(s getty.Session) error {
			name, ok := userName.Get(s)
			if !ok {
				name = "stranger"
			}
			named <- name
			return nil
		}})
		return s.SetPkgHandler(&codec.Line{})
	})
	client := getty.NewTCPClient(getty.WithServerAddress(server.Addr().String()))
	_ = client.RunEventLoop(func(s getty.Session) error {
		_ = s.SetEventListener(getty.Funcs{})
		return s.SetPkgHandler(&codec.Line{})
	})
	fmt.Println(<-named)
	_, _ = client.Shutdown(context.Background())
	_, _ = server.Shutdown(context.Background())
	// Output: alice
}

// A WebSocket server that lets in who has a token, and keeps who it is.
func ExampleWSRequest() {
	type user struct{}
	server := getty.NewWSServer(func(o *getty.ServerOptions) {
		o.WebSocket.OnUpgrade = func(r *http.Request) (http.Header, error) {
			if r.URL.Query().Get("token") != "secret" {
				return nil, &getty.UpgradeError{Status: http.StatusUnauthorized, Body: "who are you?\n"}
			}
			return nil, nil
		}
	})
	err := server.RunEventLoop(func(s getty.Session) error {
		s.SetAttribute(user{}, getty.WSRequest(s).URL.Query().Get("user"))
		s.SetEventListener(getty.Funcs{Message: func(s getty.Session, pkg any) {
			s.WritePkg(fmt.Sprintf("%v said %v", s.GetAttribute(user{}), pkg), 0)
		}})
		return s.SetPkgHandler(codec.Message{})
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	answer := make(chan string)
	client := getty.NewWSClient(
		getty.WithServerAddress("ws://" + server.Addr().String() + "/?user=ann&token=secret"))
	err = client.RunEventLoop(func(s getty.Session) error {
		s.SetEventListener(getty.Funcs{
			Open:    func(s getty.Session) error { _, _, err := s.WritePkg("hello", 0); return err },
			Message: func(_ getty.Session, pkg any) { answer <- pkg.(*codec.Frame).String() },
		})
		return s.SetPkgHandler(codec.Message{})
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	fmt.Println(<-answer)
	// Output: ann said hello
}
