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
		{kind: "proxy", Name: "copy", Network: "tcp", serve: servePairs(copyBoth)},
		{kind: "proxy", Name: "splice", Network: "tcp", serve: servePairs(spliceBoth)},
	}
}

// A link is the listener of two sessions that are connected.
type link struct {
	getty.Funcs
	waiting chan getty.Session
	other   chan getty.Session
	peer    getty.Session
}

// OnOpen finds the other session, or waits to be found.
func (l *link) OnOpen(s getty.Session) error {
	s.SetAttribute(linkKey{}, l)
	select {
	case first := <-l.waiting:
		l.peer = first
		first.GetAttribute(linkKey{}).(*link).other <- s
	case l.waiting <- s:
		l.peer = <-l.other
	}
	return nil
}

type linkKey struct{}

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
	server := getty.NewTCPServer()
	waiting := make(chan getty.Session)
	err := server.RunEventLoop(func(s getty.Session) error {
		err := s.SetEventListener(&link{waiting: waiting, other: make(chan getty.Session, 1)})
		if err != nil {
			return err
		}
		return s.SetPkgHandler(raw{})
	})
	if err != nil {
		return err
	}
	if err := c.Ready(server.Addr().String()); err != nil {
		return err
	}
	return c.Commands(nil)
}

func servePairs(connect func(a, b net.Conn)) func(c *proc.Child) error {
	waiting := make(chan net.Conn, 1)
	return serveLoop("tcp", nil, func(conn net.Conn) {
		select {
		case first := <-waiting:
			connect(first, conn)
		case waiting <- conn:
		}
	})
}

func copyBoth(a, b net.Conn) {
	one := func(to, from net.Conn) {
		defer to.Close()
		// Without these wrappers io.Copy would find the methods that splice.
		_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
	}
	go one(a, b)
	one(b, a)
}

func spliceBoth(a, b net.Conn) {
	one := func(to, from net.Conn) {
		defer to.Close()
		_, _ = io.Copy(to, from)
	}
	go one(a, b)
	one(b, a)
}
