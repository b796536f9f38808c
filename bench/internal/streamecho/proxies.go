// SPDX-License-Identifier: Apache-2.0

package streamecho

import (
	"fmt"
	"io"
	"net"

	"github.com/gostkit/kit/getty"

	"github.com/gostkit/kit/bench/internal/proc"
)

// Proxies are servers that connect every two connections with each other: the second one is what a
// proxy would have dialled for the first. "copy" is io.Copy in both directions through a buffer of
// 64 KiB, "splice" the same where package net lets the kernel move the bytes.
func Proxies() []Peer {
	return []Peer{
		{kind: "proxy", Name: "ours", Network: "tcp", serve: serveProxy},
		{kind: "proxy", Name: "copy", Network: "tcp", serve: servePairs(copyOne)},
		{kind: "proxy", Name: "splice", Network: "tcp", serve: servePairs(spliceOne)},
	}
}

// A link is the listener of a session that is connected with another one.
type link struct {
	getty.Funcs
	waiting chan *link
	self    getty.Session
	found   chan getty.Session
	peer    getty.Session
}

// OnOpen finds the other session, or waits to be found.
func (l *link) OnOpen(s getty.Session) error {
	l.self = s
	select {
	case first := <-l.waiting:
		l.peer = first.self
		first.found <- s
	case l.waiting <- l:
		l.peer = <-l.found
	}
	return nil
}

func (l *link) OnMessage(s getty.Session, pkg any) {
	if _, err := l.peer.WriteBytesContext(l.peer.Context(), pkg.([]byte)); err != nil {
		s.CloseNow()
	}
}

// raw is a codec for which all that was read is one package.
type raw struct{}

func (raw) Read(_ getty.Session, b []byte) (any, int, error) { return b, len(b), nil }

func (raw) Write(_ getty.Session, pkg any) ([]byte, error) {
	return nil, fmt.Errorf("a package %T", pkg)
}

func serveProxy(c *proc.Child) error {
	waiting := make(chan *link)
	return begin(c, getty.NewTCPServer(), func(s getty.Session) error {
		err := s.SetEventListener(&link{waiting: waiting, found: make(chan getty.Session, 1)})
		if err != nil {
			return err
		}
		return s.SetPkgHandler(raw{})
	})
}

// servePairs connects connections by one, which moves bytes in one direction until they end.
func servePairs(one func(to, from net.Conn)) func(c *proc.Child) error {
	waiting := make(chan net.Conn, 1)
	move := func(to, from net.Conn) {
		defer to.Close()
		one(to, from)
	}
	return serveLoop("tcp", nil, func(conn net.Conn) {
		select {
		case first := <-waiting:
			go move(first, conn)
			move(conn, first)
		case waiting <- conn:
		}
	})
}

func copyOne(to, from net.Conn) {
	// Without these wrappers io.Copy would find the methods that splice.
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
}

func spliceOne(to, from net.Conn) { _, _ = io.Copy(to, from) }
