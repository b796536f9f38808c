// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// Errors that a caller may branch on with [errors.Is]. All other errors that end a session keep
// their identity: io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET and so on.
var (
	// ErrSessionClosed reports a write to a session that is closing or closed. The error of a
	// writer that waited when the session ended matches the cause, too. It also matches
	// [net.ErrClosed].
	ErrSessionClosed error = &sentinel{"getty: session closed", net.ErrClosed}

	// ErrWriteClosed reports a write to a session after its CloseWrite. It also matches
	// [ErrSessionClosed].
	ErrWriteClosed error = &sentinel{"getty: session closed for writing", ErrSessionClosed}

	// ErrSessionBlocked reports a package that was not accepted because the bytes queued for the
	// peer had reached the high mark; over UDP, because the send buffer of the socket is full.
	ErrSessionBlocked = errors.New(
		"getty: session blocked: queue above the high mark, or socket full")

	// ErrWriteTimeout reports a write that the kernel did not take in time. It also matches
	// [os.ErrDeadlineExceeded].
	ErrWriteTimeout error = &sentinel{"getty: write timeout", os.ErrDeadlineExceeded}

	// ErrUnacknowledged is the cause of a session whose Close ended, with its WaitTime or with a
	// reset of the peer, while the kernel still held bytes that the peer had not acknowledged. It
	// also matches [ErrWriteTimeout].
	ErrUnacknowledged error = &sentinel{"getty: closed over unacknowledged bytes", ErrWriteTimeout}

	// ErrReadTimeout reports a package that was begun, was not completed within ReadTimeout, and
	// did not keep up the pace that ReadTimeout describes. It also matches
	// [os.ErrDeadlineExceeded].
	ErrReadTimeout error = &sentinel{
		"getty: read timeout: package begun and not completed", os.ErrDeadlineExceeded}

	// ErrIdleTimeout reports a session whose peer gave no sign of life for IdleTimeout. It also
	// matches [os.ErrDeadlineExceeded].
	ErrIdleTimeout error = &sentinel{"getty: idle timeout", os.ErrDeadlineExceeded}

	// ErrTooLong reports a package larger than MaxMsgLen.
	ErrTooLong = errors.New("getty: package longer than MaxMsgLen")

	// ErrBadReader reports a Reader or Writer that broke its contract: an impossible length, a
	// package of zero bytes, a missing codec, an encoder that writes to a session.
	ErrBadReader = errors.New("getty: codec broke its contract")

	// ErrProtocol reports a WebSocket peer that broke RFC 6455 or RFC 7692.
	ErrProtocol = errors.New("getty: WebSocket protocol error")

	// ErrTooManySessions reports a connection refused because MaxSessions were open.
	ErrTooManySessions = errors.New("getty: too many sessions")

	// ErrTooManyFromAddr reports a connection refused because its address had MaxSessionsPerAddr
	// open.
	ErrTooManyFromAddr = errors.New("getty: too many sessions from one address")

	// ErrNoSession reports that a client has no live session.
	ErrNoSession = errors.New("getty: no live session")

	// ErrEndpointClosed reports an operation on a closed server or client. It also matches
	// [net.ErrClosed].
	ErrEndpointClosed error = &sentinel{"getty: endpoint closed", net.ErrClosed}

	// ErrSessionStarted reports a setter that has no effect any more because the session's
	// callbacks have begun; call it in the new-session callback.
	ErrSessionStarted = errors.New("getty: session already started")
)

// sentinel is an error value that also matches a wider class from the standard library.
type sentinel struct {
	msg string
	is  error
}

func (e *sentinel) Error() string        { return e.msg }
func (e *sentinel) Is(target error) bool { return errors.Is(e.is, target) }

// Timeout reports whether e is a timeout, as the method of net.Error does.
func (e *sentinel) Timeout() bool { return errors.Is(e.is, os.ErrDeadlineExceeded) }

// A PanicError is the cause of a session that was ended because a callback or a codec panicked or
// called [runtime.Goexit].
type PanicError struct {
	Where string // the callback, such as "OnMessage"
	Value any    // what was passed to panic, nil for Goexit
	Stack []byte // the stack at the moment of the panic
}

// Error names the callback and the value, without the stack.
func (e *PanicError) Error() string {
	if e.Value == nil {
		return "getty: " + e.Where + " called runtime.Goexit"
	}
	return fmt.Sprintf("getty: panic in %s: %v", e.Where, e.Value)
}

// Unwrap returns the value passed to panic if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
