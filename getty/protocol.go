// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"net"
	"time"

	"github.com/gostkit/kit/getty/internal/sendq"
	"github.com/gostkit/kit/getty/internal/wire"
)

// A protocol turns the bytes of a connection into packages, and packages into bytes: a stream of
// bytes (stream.go), WebSocket messages (websocket.go), datagrams (udp.go). Only its session calls
// it. The first two read and write through a wire.Link, and do not depend on what moves the bytes.
type protocol interface {
	// attach tells the protocol its session, before anything else.
	attach(s *session)

	// serve reads until the input ends and passes it to the session. It returns io.EOF if the peer
	// ended its stream between two packages, else the cause.
	serve() error
	// discard reads and forgets until the peer ends its stream, and returns io.EOF then. serve has
	// returned.
	discard() error

	// encode encodes pkg and queues it (stream) or sends it (datagram). encMu is held.
	encode(pkg any, w *sendq.Waiter) (int, error)
	// encodeRaw is encode for packages that are encoded already: one, for which w waits, or those of
	// more.
	encodeRaw(one []byte, more [][]byte, w *sendq.Waiter) (int, error)
	// queues reports whether encode queues bytes for write.
	queues() bool
	// write gives b to the kernel. Only the holder of the flush token calls it. See wire.Link.
	write(b *sendq.Batch, how wire.Mode) error

	// farewell returns the last bytes to queue when the session begins to end; they follow all that
	// was accepted.
	farewell() []byte
	// closeWrite tells the peer that nothing more comes. The flush token is held, the queue empty.
	closeWrite() error
	// close frees the descriptor and wakes serve and write. It may be called again; see wire.Link.
	close() error

	// netConn returns the connection, nil if the session has none of its own.
	netConn() net.Conn
	localAddr() net.Addr
	remoteAddr() net.Addr
}

// A pinger is a protocol that can ask its peer for a sign of life.
type pinger interface {
	pingEvery() time.Duration
	ping()
}

// A failer is a protocol that can tell its peer why a session fails.
type failer interface {
	// failing ends the session gracefully, with a farewell that fits err, and reports whether it
	// could; else the descriptor is closed at once. It does not wait.
	failing(err error) bool
	// dismiss is failing for a session that did not open. It is called on the session's goroutine
	// and returns when the peer has ended too, or after a short time.
	dismiss(err error)
}

// A lastGiver is a protocol that can still do something for the peer when WaitTime is over, just
// before the descriptor is closed.
type lastGiver interface{ giveLast() }
