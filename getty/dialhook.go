// SPDX-License-Identifier: Apache-2.0

package getty

import (
	"context"
	"errors"
	"net"
	"runtime/debug"
)

var errNoConn = errors.New("getty: Dial returned neither a connection nor an error")

// containDial returns the user's dial function such that its panic, its Goexit, and an answer of
// nothing are errors of that attempt, and the methods of its connections are contained too.
func (e *endpoint) containDial(
	dial func(ctx context.Context, network, addr string) (net.Conn, error),
) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := callDial(ctx, dial, network, addr)
		switch {
		case err != nil:
			return nil, err
		case conn == nil:
			return nil, errNoConn
		}
		conn = e.contain(conn)
		// Not every function looks at its context, and nobody waits for this connection any more.
		if ctx.Err() != nil {
			_ = conn.Close()
			return nil, context.Cause(ctx)
		}
		return conn, nil
	}
}

// callDial calls dial on a goroutine of its own, so that a Goexit in it ends that goroutine and not
// the attempt, which has a slot to give back.
func callDial(
	ctx context.Context, dial func(context.Context, string, string) (net.Conn, error),
	network, addr string,
) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = &PanicError{Where: "Dial"} // stays if dial calls Goexit
		defer func() {
			if v := recover(); v != nil {
				err = &PanicError{Where: "Dial", Value: v, Stack: debug.Stack()}
			}
		}()
		conn, err = dial(ctx, network, addr)
	}()
	<-done
	return conn, err
}
