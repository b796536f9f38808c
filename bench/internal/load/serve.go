// SPDX-License-Identifier: Apache-2.0

package load

import (
	"fmt"
	"time"

	"github.com/gostkit/kit/bench/internal/proc"
)

// Serve is the body of the load's process. Its configuration is an [Echo]; the commands are
// "dial", "run DURATION" and "once WIDTH", the last two answered with a [Result], and "burst",
// answered with a [BurstResult].
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
		var width int
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
		case scan(command, "once %d", &width):
			return client.Once(width)
		}
		return nil, fmt.Errorf("unknown command %q", command)
	})
}

func scan(s, format string, v any) bool {
	n, err := fmt.Sscanf(s, format, v)
	return n == 1 && err == nil
}
