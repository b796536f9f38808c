// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/gorilla/websocket"
)

// The clients in this file know nothing of getty: what they can talk to is a
// server that anybody's client can talk to.

// resendAfter is how long a datagram may be on its way before it counts as lost.
const resendAfter = 200 * time.Millisecond

// foreignTCP frames by hand: four bytes of length, big endian, then the message.
func foreignTCP(ctx context.Context, addr string, l *lane) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	out := bufio.NewWriterSize(conn, 64<<10)
	in := bufio.NewReaderSize(conn, 64<<10)
	frame := func(b []byte) error {
		var head [4]byte
		binary.BigEndian.PutUint32(head[:], uint32(len(b)))
		out.Write(head[:]) // a bufio.Writer keeps its first error
		_, err := out.Write(b)
		return err
	}
	l.start(frame)
	b := make([]byte, l.size)
	for !l.ended() {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		var head [4]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		if n := binary.BigEndian.Uint32(head[:]); n != uint32(l.size) {
			return fmt.Errorf("a frame of %d bytes came back, want %d", n, l.size)
		}
		if _, err := io.ReadFull(in, b); err != nil {
			return err
		}
		if l.echo(b) {
			l.send(frame)
		}
	}
	return nil
}

// foreignUDP sends one message per datagram from a connected socket and sends
// again what stays without an echo: datagrams may be lost, on loopback too.
func foreignUDP(ctx context.Context, addr string, l *lane) error {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	datagram := func(b []byte) error {
		_, err := conn.Write(b)
		return err
	}
	l.start(datagram)
	b := make([]byte, 64<<10)
	for !l.ended() {
		conn.SetReadDeadline(time.Now().Add(resendAfter))
		n, err := conn.Read(b)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			l.resend(resendAfter, datagram)
		case err != nil:
			return err
		case l.echo(b[:n]):
			l.send(datagram)
		}
	}
	return nil
}

// foreignWS uses gorilla's client: one message of the lane is one message of the
// protocol. At the end it closes as the protocol wants it.
func foreignWS(ctx context.Context, url string, l *lane) error {
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	message := func(b []byte) error { return conn.WriteMessage(websocket.BinaryMessage, b) }
	l.start(message)
	for !l.ended() {
		_, b, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		if l.echo(b) {
			l.send(message)
		}
	}
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	return conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
}
