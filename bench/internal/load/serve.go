// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"time"

	"github.com/gostkit/kit/bench/internal/proc"
)

// Serve is the body of the load's process. Its configuration is an [Echo]; the commands are
// "burst" and "dial", and after the latter "run DURATION", "once WIDTH", "open RATE,DURATION",
// "drip FRAMES", "slow", "writers FRAMES" and "pass MIB". Each is answered with what the method of that name
// returns.
func Serve(c *proc.Child) error {
	var e Echo
	if err := c.Config(&e); err != nil {
		return err
	}
	if err := c.Ready(""); err != nil {
		return err
	}
	var client *Client
	return c.Commands(func(command string) (any, error) {
		var d time.Duration
		var n int
		var rate float64
		switch {
		case command == "dial":
			var err error
			client, err = e.Dial()
			return nil, err
		case command == "burst":
			return e.Burst(), nil
		case client == nil:
			return nil, fmt.Errorf("not connected")
		case scan(command, "run %d", &d):
			return client.Run(d)
		case scan(command, "once %d", &n):
			return client.Once(n)
		case scan(command, "open %g,%d", &rate, &d):
			return client.Open(rate, d)
		case scan(command, "drip %d", &n):
			return client.Drip(n)
		case command == "slow":
			return client.Slow()
		case scan(command, "writers %d", &n):
			return client.Writers(n)
		case scan(command, "pass %d", &n):
			return client.Pass(n)
		}
		return nil, fmt.Errorf("unknown command %q", command)
	})
}

// scan reports whether s has this form and reads its numbers.
func scan(s, format string, v ...any) bool {
	n, err := fmt.Sscanf(s, format, v...)
	return n == len(v) && err == nil
}
