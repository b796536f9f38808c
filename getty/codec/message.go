// SPDX-License-Identifier: Apache-2.0

package codec

import "github.com/gostkit/kit/getty"

// A Message is a codec for transports that keep the bounds of messages, UDP and WebSocket: each
// datagram or message is one package. On a byte stream it makes sense only if bounds do not matter:
// there a package is the bytes of one read. The zero value is ready for use.
type Message struct{}

var (
	_ getty.ReadWriter   = Message{}
	_ getty.AppendWriter = Message{}
)

// Read implements [getty.Reader]: it returns a *Frame of all bytes.
func (Message) Read(s getty.Session, b []byte) (any, int, error) {
	return copied(b), len(b), nil
}

// Write implements [getty.Writer]. The engine calls AppendPkg instead.
func (c Message) Write(s getty.Session, pkg any) ([]byte, error) { return c.AppendPkg(nil, s, pkg) }

// AppendPkg implements [getty.AppendWriter] for a *Frame, a []byte or a string.
func (Message) AppendPkg(dst []byte, s getty.Session, pkg any) ([]byte, error) {
	return appendPayload(dst, pkg)
}
