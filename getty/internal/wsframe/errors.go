// SPDX-License-Identifier: Apache-2.0

package wsframe

import "errors"

// Close codes, RFC 6455, section 7.4.1, and the registry of section 11.7.
const (
	CodeNormal      = 1000
	CodeGoingAway   = 1001
	CodeProtocol    = 1002
	CodeUnsupported = 1003
	CodeNone        = 1005 // never on the wire: a close frame without a code
	CodeBadPayload  = 1007
	CodePolicy      = 1008
	CodeTooBig      = 1009
	CodeInternal    = 1011
	CodeTryLater    = 1013
	CodeBadGateway  = 1014
)

// An Error says how the peer broke the protocol, or which limit it passed.
type Error struct {
	Code int // the close code that fits
	Text string
}

// Error returns the text.
func (e *Error) Error() string { return e.Text }

func protocol(text string) error { return &Error{CodeProtocol, text} }

// errTooBig is the Error of a message beyond the limits.
var errTooBig = &Error{CodeTooBig, "message too big"}

// TooBig reports whether err says that a message is larger than the limit.
func TooBig(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == CodeTooBig
}
