// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A WebSocket client by hand (RFC 6455): the load must cost less than any of the servers, and what
// it sends must be the same for all. Messages are binary, unfragmented and shorter than 126 bytes.

const (
	wsServerHeader = 2
	wsClientHeader = 6 // with the mask
	wsBinary       = 0x82
	wsMasked       = 0x80
)

// wsMask masks every message. It should be unpredictable where proxies could be confused; here it
// only has to make the server unmask.
var wsMask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

const (
	wsKey  = "dGhlIHNhbXBsZSBub25jZQ==" // 16 bytes in base64, as section 1.3 has them
	wsGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// upgrade makes the opening handshake on a new connection.
func upgrade(conn net.Conn, host string) error {
	if err := conn.SetDeadline(time.Now().Add(lossAfter)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n", host, wsKey)
	if err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	sum := sha1.Sum([]byte(wsKey + wsGUID))
	switch {
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return fmt.Errorf("upgrade: %s", resp.Status)
	case resp.Header.Get("Sec-WebSocket-Accept") != base64.StdEncoding.EncodeToString(sum[:]):
		return errors.New("upgrade: wrong Sec-WebSocket-Accept")
	case r.Buffered() > 0:
		return errors.New("upgrade: the server spoke first")
	}
	return nil
}

func clientHeader(b []byte, payload int) {
	b[0], b[1] = wsBinary, wsMasked|byte(payload)
	copy(b[2:], wsMask[:])
}

func serverHeader(b []byte, payload int) { b[0], b[1] = wsBinary, byte(payload) }

// mask writes the masked payload to dst.
func mask(dst, payload []byte) {
	for i, b := range payload {
		dst[i] = b ^ wsMask[i&3]
	}
}
