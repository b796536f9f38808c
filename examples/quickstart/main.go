// SPDX-License-Identifier: Apache-2.0

// Command quickstart starts echo servers for TCP, UDP and WebSocket on free
// loopback ports, drives each with getty's own client and with a client that is
// not getty's, compares every byte, and prints what it saw.
//
// The exit status is 0 if everything came back, 1 if a byte differed, a message
// was lost on a stream or a goroutine was left over, 2 for bad flags and for
// ports that cannot be had.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is main without the process around it. When ctx ends it stops early.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parse(args, stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "quickstart:", err)
		return 2
	}
	before := countGoroutines()
	s, err := startServers(c)
	if err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		return 2
	}
	status := 0
	if c.serve {
		s.describe(stdout)
		<-ctx.Done()
	} else if !table(stdout, driveAll(ctx, c, s, stderr)) {
		status = 1
	}
	if err := s.stop(); err != nil {
		fmt.Fprintln(stderr, "quickstart:", err)
		status = 1
	}
	if stacks := leftOver(before); stacks != "" {
		fmt.Fprintf(stderr, "quickstart: goroutines left over:\n%s\n", stacks)
		status = 1
	}
	return status
}
